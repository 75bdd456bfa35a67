import subprocess
import sys

import regularizers
from regularizers import penalties


def test_exported_names():
    assert regularizers.__all__ == [
        "BaseLossOutput",
        "CustomLossOutput",
        "RegularizerError",
        "RegularizerOutput",
        "RegularizerSpec",
        "custom_loss",
        "penalties",
    ]
    assert penalties.__all__ == ["Penalty", "entropy", "l1", "l2"]
    assert all(hasattr(regularizers, name) for name in regularizers.__all__)


def test_importing_and_using_it_imports_no_framework():
    program = (
        "import sys, numpy, regularizers\n"
        "regularizers.custom_loss([], numpy.ones(2), regularizers.penalties.l1)\n"
        "heavy = {'torch', 'jax', 'tensorflow', 'pandas', 'matplotlib', 'handlers', 'clipping'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
