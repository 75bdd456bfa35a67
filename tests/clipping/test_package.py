import subprocess
import sys

import pytest

import clipping


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_exported_names():
    assert sorted(clipping.__all__) == [
        "AGC",
        "AutoClip",
        "Clipper",
        "MetricsRecord",
        "NumpyModel",
        "NumpyOptimizer",
        "ParamLike",
        "ZScoreClip",
        "apply",
        "clip_context",
        "step",
    ]


def test_importing_it_imports_no_framework():
    heavy = ("torch", "jax", "tensorflow", "keras", "lightning", "transformers", "optax")
    program = f"import sys, clipping; print(*(m for m in {heavy} if m in sys.modules))"
    assert run(program) == []


def test_numpy_models_need_no_framework():
    program = (
        "import sys, clipping, numpy as np\n"
        "from types import SimpleNamespace as N\n"
        "p = N(data=np.zeros(1), grad=np.ones(1))\n"
        "clipping.apply(N(parameters=lambda: [p]), clipping.AutoClip())\n"
        "print('torch' in sys.modules)"
    )
    assert run(program) == ["False"]


def test_submodules_are_attributes():
    assert run("import clipping; print(clipping.numpy.apply_grads.__module__)") == [
        "clipping.numpy"
    ]
    with pytest.raises(AttributeError, match="module 'clipping' has no attribute 'mxnet'"):
        clipping.mxnet  # noqa: B018 -- looking it up is the test


def test_submodules_are_listed_before_they_are_imported():
    assert {"integrations", "jax", "numpy", "tensorflow", "torch"} <= set(dir(clipping))
