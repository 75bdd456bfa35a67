"""What is refused at the call, and what is refused of a function's result."""

from __future__ import annotations

import inspect
import math
from numbers import Real
from types import FunctionType
from typing import Any, Final

ARGUMENTS: Final = 2
"""Of a loss function and of a gradient function: the data and the logprobs."""


def check_name(name: object) -> None:
    """Raise for a name that no output could be found under."""
    if not isinstance(name, str):
        raise TypeError(
            f"The name of a regularizer must be a string, got {name!r} ({type(name).__name__}). "
            "Write RegularizerSpec(..., name='sparsity')."
        )
    if not name.strip():
        raise ValueError(
            f"The name of a regularizer must not be empty, got {name!r}. "
            "Write RegularizerSpec(..., name='sparsity')."
        )


def check_weight(label: str, weight: object) -> float:
    """Return the weight as a float, or raise."""
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeError(
            f"{label} has the weight {weight!r} ({type(weight).__name__}). "
            "A weight is a number, such as 0.01."
        )
    number = float(weight)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(
            f"{label} has the weight {weight!r}. A weight is finite and at least 0; "
            "to reward a value instead, return its negative from the function."
        )
    return number


def check_function(label: str, argument: str, function: object) -> None:
    """Raise TypeError for what cannot be called as ``function(data, logprobs)``."""
    if not callable(function):
        raise TypeError(
            f"{label} got {argument}={function!r} ({type(function).__name__}), which cannot be "
            f"called. {argument} is a function of (data, logprobs)."
        )
    if _is_plain(function):
        return
    if inspect.iscoroutinefunction(function):
        raise TypeError(
            f"{label} got the coroutine function {argument}={function!r}, which returns no value "
            f"when it is called. {argument} is a plain function of (data, logprobs)."
        )
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError):
        return  # some builtins do not tell their signature
    try:
        signature.bind(None, None)
    except TypeError as mismatch:
        raise TypeError(
            f"{label} got {argument}={function!r} with signature {signature}, which cannot take "
            f"the two arguments (data, logprobs): {mismatch}."
        ) from mismatch


def _is_plain(function: object) -> bool:
    # Told at a glance, because the base loss function is checked at each step.
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    later = code.co_flags & inspect.CO_COROUTINE
    return code.co_argcount == ARGUMENTS and not code.co_kwonlyargcount and not later


def describe(value: Any) -> str:
    """A value for a message, without reading it from its device."""
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if hasattr(value, "shape"):
        return f"{kind} of shape {tuple(value.shape)} and dtype {getattr(value, 'dtype', None)}"
    return f"{value!r} ({type(value).__name__})"
