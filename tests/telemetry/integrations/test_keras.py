"""The Keras callback. Keras fixes its backend when it is imported, so each has a process.

What is checked is in the keras_check modules; keras_worker.py runs all of it for one backend. A
check that does not depend on the backend is done on torch alone, where nothing has to be compiled.
"""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BACKENDS = ("tensorflow", "jax", "torch")
HERE = Path(__file__).parent
TIMEOUT = 900


@pytest.fixture(scope="module")
def failures():
    """What failed on each backend."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    started = {
        backend: subprocess.Popen(
            [sys.executable, HERE / "keras_worker.py"],
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
            out, err = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, err
            found[backend] = json.loads(out.splitlines()[-1])
    finally:
        for process in started.values():
            process.kill()
            process.wait()
    return found


def checks():
    """The name and backend of every check, read from the source: importing it imports Keras."""
    for path in sorted(HERE.glob("keras_check_*.py")):
        for node in ast.parse(path.read_text()).body:
            for mark in getattr(node, "decorator_list", ()):
                backends = [ast.literal_eval(argument) for argument in mark.args] or BACKENDS
                yield from ((node.name, backend) for backend in backends)


@pytest.mark.parametrize(("name", "backend"), list(checks()))
def test_callback(failures, name, backend):
    assert failures[backend][name] is None, failures[backend][name]
