"""The numbers among what a framework logs."""

from __future__ import annotations

from numbers import Real
from typing import Any, Final

_NUMERIC: Final = frozenset("biufV")
"""Kinds of numpy's dtypes: truths, integers, floats, and floats that others have added."""


def scalar_of(value: Any) -> Any:
    """A number, or a scalar of a device that nobody writes to again, unread; None if it is neither.

    Neither are truth values, texts, dates, complex numbers and whatever has dimensions.

    Example:
        >>> import numpy as np
        >>> scalar_of(2.5), scalar_of(np.array(3)), scalar_of(True), scalar_of(np.str_("x"))
        (2.5, array(3), None, None)
    """
    if isinstance(value, bool):
        return None
    dtype, shape = getattr(value, "dtype", None), getattr(value, "shape", None)
    if dtype is None:
        return value if isinstance(value, Real) else None
    if shape is None or len(shape):
        return None
    kind = getattr(dtype, "kind", None)
    if kind is not None and (kind not in _NUMERIC or getattr(dtype, "fields", None)):
        return None
    if hasattr(value, "detach"):
        return value.detach().clone()
    return value.copy() if hasattr(value, "setflags") else value  # numpy's
