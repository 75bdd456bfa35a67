"""What `telemetry.integrations.keras.TelemetryCallback` adds to an optimizer step.

Keras fixes its backend when it is imported, so each is measured in a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def run(rounds: int) -> None:
    for backend in BACKENDS:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.keras_fits", str(rounds)],
            check=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **QUIET, "KERAS_BACKEND": backend},
        )
