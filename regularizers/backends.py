"""Which framework a value belongs to.

Found from the value's type through ``sys.modules`` (the way of einops), so that a framework that
nobody uses is never imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, cast

from regularizers.records import Backend

# numpy is last: a tree of another framework's tensors may have numpy's arrays and plain numbers
# among its leaves, and then the other framework does the work.
_MODULES: Final = {
    "torch": "regularizers.torch_backend",
    "numpy": "regularizers.numpy_backend",
}


def find_backend(value: Any) -> Backend | None:
    """The backend whose tensors are of this value's type; numpy's for Python numbers."""
    return _backend_of_type(type(value))  # type: ignore[arg-type]  # it misreads a type as unhashable


def backend_for(values: Iterable[Any]) -> Backend:
    """The one backend for a number of values, such as the leaves of a tree; numpy for none.

    Raises:
        TypeError: A value belongs to none.
    """
    found = {_require_backend(value).name: _require_backend(value) for value in values}
    return next((found[name] for name in _MODULES if name in found), load("numpy"))


def snapshot(value: Any) -> Any:
    """The value as it is now, on its device, without its graph."""
    backend = find_backend(value)
    return value if backend is None else backend.snapshot(value)


def load(name: str) -> Backend:
    """The backend of this name, imported on first use."""
    return cast("Backend", import_module(_MODULES[name]).BACKEND)


def _require_backend(value: object) -> Backend:
    backend = find_backend(value)
    if backend is None:
        raise TypeError(
            f"Found {value!r} ({type(value).__name__}) among the tensors. Allowed: tensors of "
            f"{', '.join(_MODULES)}, numbers, and dicts, lists and tuples of them."
        )
    return backend


@lru_cache(maxsize=256)
def _backend_of_type(kind: type) -> Backend | None:
    backends = (load(name) for name in _MODULES if name in sys.modules)
    return next((backend for backend in backends if backend.owns(kind)), None)
