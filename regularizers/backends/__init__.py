"""Which framework a value belongs to.

Found from the value's type through ``sys.modules`` (the way of einops), so that a framework that
nobody uses is never imported.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from numbers import Real
from typing import Any, Final

from regularizers.protocols import Backend

# Modules of this package, named after the framework that they serve. numpy is last: a tree of
# another framework's tensors may have numpy's arrays and plain numbers among its leaves, and then
# the other framework does the work.
FRAMEWORKS: Final = ("torch", "jax", "tensorflow", "numpy")

# Dictionaries, because of functions with functools.cache on them torch.compile warns.
_LOADED: Final[dict[str, Backend]] = {}
_BY_TYPE: Final[dict[type, Backend]] = {}


def find_backend(value: Any) -> Backend | None:
    """The backend whose tensors are of this value's type; numpy's for Python numbers."""
    kind = type(value)
    return _BY_TYPE[kind] if kind in _BY_TYPE else _look_for(kind)


def backend_for(values: Iterable[Any]) -> Backend:
    """The one backend for a number of values, such as the leaves of a tree; numpy for none.

    Raises:
        TypeError: A value belongs to none.
    """
    found = {backend.name: backend for backend in map(_require_backend, values)}
    return next((found[name] for name in FRAMEWORKS if name in found), load("numpy"))


def loaded() -> list[Backend]:
    """Those of the frameworks that somebody has imported."""
    return [load(name) for name in FRAMEWORKS if name in sys.modules]


def snapshot(value: Any) -> Any:
    """The value as it is now, on its device, without its graph."""
    if type(value) is float:  # as most weights are
        return value
    backend = find_backend(value)
    return value if backend is None else backend.snapshot(value)


def add(left: Any, right: Any) -> Any:
    """The sum, also where a framework does not add tensors of two dtypes by itself."""
    left, right = _promoted(left, right)
    return left + right


def multiply(left: Any, right: Any) -> Any:
    """The product, in the same manner."""
    left, right = _promoted(left, right)
    return left * right


def add_weighted(total: Any, weight: Any, value: Any) -> Any:
    """``total + weight * value``, in the same manner."""
    backend = find_backend(total)
    if backend is not None and backend is find_backend(value):
        return backend.add_weighted(total, weight, value)
    return add(total, multiply(weight, value))


def load(name: str) -> Backend:
    """The backend of this name, imported on first use."""
    if name not in _LOADED:
        _LOADED[name] = import_module(f"{__name__}.{name}").BACKEND
    return _LOADED[name]


def _promoted(left: Any, right: Any) -> tuple[Any, Any]:
    for value in (left, right):
        # A float goes with any tensor.
        backend = None if type(value) is float else find_backend(value)
        if backend is not None:
            left, right = backend.promote(left, right)
    return left, right


def _require_backend(value: object) -> Backend:
    backend = find_backend(value)
    if backend is None:
        raise TypeError(
            f"Found {value!r} ({type(value).__name__}) among the tensors. Allowed: tensors of "
            f"{', '.join(FRAMEWORKS)}, numbers, and dicts, lists and tuples of them."
        )
    return backend


def _look_for(kind: type) -> Backend | None:
    if issubclass(kind, Real):
        found: Backend | None = load("numpy")  # which need not be imported, for Python's numbers
    else:
        found = next((backend for backend in loaded() if backend.owns(kind)), None)
    if found is not None:
        _BY_TYPE[kind] = found
    return found
