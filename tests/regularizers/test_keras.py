"""Losses in Keras's fit. Keras fixes its backend when it is imported, so each has a process.

What is checked, for every backend, is in keras_worker.py.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "keras_worker.py"
BACKENDS = ("tensorflow", "jax", "torch")
SECONDS = 300  # a backend takes half a minute; this is for one that hangs


@pytest.fixture(scope="module")
def failures():
    """What failed on each backend."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    started = {
        backend: subprocess.Popen(
            [sys.executable, WORKER],
            env={**os.environ, **quiet, "KERAS_BACKEND": backend},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for backend in BACKENDS
    }
    found = {}
    try:
        for backend, process in started.items():
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 0, err
            found[backend] = json.loads(out.splitlines()[-1])
    finally:
        for process in started.values():
            process.kill()  # one that has ended is left alone
            process.communicate()
    return found


def checks():
    """The names of the checks, read from the source: importing it imports Keras."""
    for node in ast.parse(WORKER.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "CHECKS":
            return [name.id for name in node.value.elts]
    raise LookupError(WORKER)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", checks())
def test_fit(failures, name, backend):
    assert failures[backend][name] is None, failures[backend][name]
