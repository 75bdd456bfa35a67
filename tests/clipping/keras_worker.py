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


def failure(act):
    """The traceback of a check; None if it holds."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", NUMPY_2, DeprecationWarning, r"keras\.")
            act()
    except Exception:
        return traceback.format_exc()


def main():
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
