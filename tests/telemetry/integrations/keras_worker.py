"""Does the checks of the keras_check modules for one backend; started by test_keras.py.

The backend is that of ``KERAS_BACKEND``. What failed is printed as JSON, in the last line.
"""

import importlib
import json
import sys
import time
import traceback
import warnings
from pathlib import Path

import keras
from keras_checking import CHECKS

NUMPY_2 = "__array__ implementation doesn't accept a copy keyword"
OUT_OF_DATA = "Your input ran out of data"  # of a generator, at the end of its first epoch


def failure(act):
    """The traceback of a check; None if it holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", NUMPY_2, DeprecationWarning, r"keras\.")
            warnings.filterwarnings("ignore", OUT_OF_DATA, UserWarning)
            act()
    except Exception:
        return traceback.format_exc()


def two_devices():
    """Let TensorFlow have two CPUs, which it must be told before anything else."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def main():
    if keras.backend.backend() == "tensorflow":
        two_devices()
    for path in sorted(Path(__file__).parent.glob("keras_check_*.py")):
        importlib.import_module(path.stem)
    found = {}
    for act, backends in CHECKS.items():
        if backends and keras.backend.backend() not in backends:
            continue
        start = time.process_time()
        found[act.__name__] = failure(act)
        print(f"{time.process_time() - start:6.2f} s of CPU {act.__name__}", file=sys.stderr)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
