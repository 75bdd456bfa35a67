import inspect
import subprocess
import sys

import regularizers
from regularizers import CustomLoss, custom_loss, penalties, schedules


def test_exported_names():
    assert regularizers.__all__ == [
        "BaseLossOutput",
        "CustomLoss",
        "CustomLossOutput",
        "RegularizerError",
        "RegularizerOutput",
        "RegularizerSpec",
        "attach_logger",
        "custom_loss",
        "emit",
        "penalties",
        "schedules",
    ]
    assert schedules.__all__ == ["constant", "cosine_warmup", "linear_warmup"]
    for module in (regularizers, penalties, schedules):
        assert all(hasattr(module, name) for name in module.__all__)


def test_importing_and_using_it_imports_no_framework():
    program = (
        "import sys, numpy, regularizers\n"
        "regularizers.custom_loss([], numpy.ones(2), regularizers.penalties.l1)\n"
        "heavy = {'torch', 'jax', 'tensorflow', 'keras', 'pandas', 'matplotlib', 'asyncio'}\n"
        "print(sorted((heavy | {'handlers', 'clipping'}) & sys.modules.keys()))\n"
    )
    assert printed_by(program) == "[]\n"


def test_importing_it_imports_neither_numpy_nor_asyncio():
    program = (
        "import sys, regularizers\n"
        "print(sorted({'numpy', 'asyncio', 'torch', 'jax', 'tensorflow'} & sys.modules.keys()))\n"
    )
    assert printed_by(program) == "[]\n"


def test_it_works_before_anybody_has_imported_numpy():
    program = (
        "from regularizers import RegularizerSpec, custom_loss, penalties\n"
        "specs = [RegularizerSpec(penalties.l1, 0.5, 'l1')]\n"
        "print(custom_loss([], [1.0, -2.0], lambda d, x: 2.5, regularizers=specs).loss_total)\n"
    )
    assert printed_by(program) == "4.0\n"


def test_custom_loss_and_the_object_for_loops_take_the_same_options():
    """What the object is made of and called with is together what the function is called with."""
    function = inspect.signature(custom_loss).parameters
    made = inspect.signature(CustomLoss).parameters
    called = inspect.signature(CustomLoss.__call__).parameters
    once = inspect.signature(CustomLoss.once).parameters
    together = {**made, **{name: one for name, one in called.items() if name != "self"}}
    assert together.keys() == function.keys()
    assert {name: one.default for name, one in together.items()} == {
        name: one.default for name, one in function.items()
    }
    assert {name: one.annotation for name, one in together.items()} == {
        name: one.annotation for name, one in function.items()
    }
    assert once == called


def printed_by(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout
