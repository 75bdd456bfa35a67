"""What is refused at the call, and what is refused of a function's result."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from numbers import Real
from types import FunctionType
from typing import Any, Final

from regularizers.backends import find_backend
from regularizers.waiting import is_coroutine_function

ARGUMENTS: Final = 2
"""Of a loss function and of a gradient function: the data and the logprobs."""

A_NUMBER: Final = "a number, such as 0.01"
A_NUMBER_OR_FUNCTION: Final = f"{A_NUMBER}, or a function of the step that returns one"
NEGATIVE: Final = "; to reward a value instead, return its negative from the function"


def check_name(name: object) -> None:
    """Raise for a name that no output could be found under, or that no line of text can show."""
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
    if not name.isprintable():
        raise ValueError(
            f"The name of a regularizer must be printable, got {name!r}. It stands in lines of "
            "logs and in names of metrics: leave out line breaks and control characters."
        )


def check_weight(
    place: str, weight: object, allowed: str = A_NUMBER, *, remedy: str = NEGATIVE
) -> float:
    """Return a weight that is finite and not negative as a float, or raise.

    Args:
        place: Whose it is, as the beginning of a message that the weight is written behind.
        weight: Anything.
        allowed: What it can be, for the message.
        remedy: What to do instead, for the message; nothing where there is no function.
    """
    if isinstance(weight, bool) or not isinstance(weight, Real):
        raise TypeError(f"{place}{describe(weight)}. A weight is {allowed}.")
    number = as_float(weight)
    if not (math.isfinite(number) and number >= 0):
        raise ValueError(f"{place}{weight!r}. A weight is finite and at least 0{remedy}.")
    return number


def check_weight_function(label: str, function: Callable[..., object]) -> None:
    """Raise TypeError for what cannot be called as ``function(step)`` for a number."""
    if isinstance(function, type):
        raise TypeError(
            f"{label} has the weight {function!r}, a class. A weight is {A_NUMBER_OR_FUNCTION}: "
            "give an instance."
        )
    if is_coroutine_function(function):
        raise TypeError(
            f"{label} has the weight {function!r}, a coroutine function, which returns no number "
            f"when it is called. A weight is {A_NUMBER_OR_FUNCTION}."
        )
    _check_arity(f"{label} has the weight {function!r}", function, "the one argument (step)", 1)


def check_function(
    label: str, argument: str, function: object, *, may_be_awaited: bool = False
) -> None:
    """Raise TypeError for what cannot be called as ``function(data, logprobs)``."""
    if not callable(function):
        raise TypeError(
            f"{label} got {argument}={function!r} ({type(function).__name__}), which cannot be "
            f"called. {argument} is a function of (data, logprobs)."
        )
    if _is_plain(function):
        return
    if is_coroutine_function(function) and not may_be_awaited:
        raise TypeError(
            f"{label} got the coroutine function {argument}={function!r}, which returns no value "
            f"when it is called. {argument} is a plain function of (data, logprobs)."
        )
    place = f"{label} got {argument}={function!r}"
    _check_arity(place, function, "the two arguments (data, logprobs)", ARGUMENTS)


def _check_arity(place: str, function: Callable[..., object], arguments: str, number: int) -> None:
    try:
        signature = inspect.signature(function, follow_wrapped=False)
    except (TypeError, ValueError) as error:
        if isinstance(function, partial) and isinstance(error.__cause__, TypeError):
            raise TypeError(
                f"{place}, of a function with signature {inspect.signature(function.func)}, which "
                f"does not take these arguments: {error.__cause__}."
            ) from error
        return  # some builtins do not tell their signature
    try:
        signature.bind(*[None] * number)
    except TypeError as mismatch:
        raise TypeError(
            f"{place} with signature {signature}, which cannot take {arguments}: {mismatch}."
        ) from mismatch


def _is_plain(function: object) -> bool:
    # Told at a glance, because the base loss function is checked at each step.
    if not isinstance(function, FunctionType):
        return False
    code = function.__code__
    later = code.co_flags & inspect.CO_COROUTINE
    return code.co_argcount == ARGUMENTS and not code.co_kwonlyargcount and not later


def check_timeout(timeout: object) -> float | None:
    """Return the timeout as a float, or raise for what is no positive number and not None."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, Real):
        raise TypeError(
            f"custom_loss got timeout={timeout!r} ({type(timeout).__name__}). "
            "It takes seconds, such as 30.0, or None for no limit."
        )
    seconds = as_float(timeout)
    if not seconds > 0:
        raise ValueError(
            f"custom_loss got timeout={timeout!r}. "
            "It takes seconds above 0, such as 30.0, or None for no limit."
        )
    return seconds


def check_model_id(model_id: object) -> None:
    """Raise TypeError for what is no string and not None."""
    if model_id is not None and not isinstance(model_id, str):
        raise TypeError(
            f"custom_loss got model_id={model_id!r} ({type(model_id).__name__}). "
            "It takes a string, such as 'm', or None."
        )


def check_step(step: object) -> None:
    """Raise TypeError for what is no number, no 0-d array or tensor, and not None."""
    if step is None or type(step) is int:
        return
    if isinstance(step, bool) or find_backend(step) is None or getattr(step, "shape", ()) != ():
        raise TypeError(
            f"custom_loss got step={describe(step)}. It takes a number, such as that of the "
            "optimizer step, or an array or tensor of shape ()."
        )


def check_flag(argument: str, flag: object) -> None:
    """Raise TypeError for what is neither True nor False, such as the string ``"false"``."""
    if not isinstance(flag, bool):
        raise TypeError(
            f"custom_loss got {argument}={describe(flag)}. It takes True or False; "
            f"of something else, write {argument}=bool(...)."
        )


def is_real(value: object) -> bool:
    """Whether a number, array or tensor is of floats or integers: not of bools, complex, text."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, Real) and not isinstance(value, bool)
    # Frameworks spell it differently; what is common is the name of the type in it.
    return any(kind in str(dtype) for kind in ("float", "int"))


def is_real_or_bool(value: object) -> bool:
    """The same, or of bools."""
    return is_real(value) or "bool" in str(getattr(value, "dtype", type(value)))


def as_float(number: Any) -> float:
    """A real number as a float; an integer or fraction beyond its range is infinite."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def describe(value: Any) -> str:
    """A value for a message, without reading it from its device."""
    if not hasattr(value, "shape"):
        return f"{value!r} ({type(value).__name__})"
    try:
        shape = str(tuple(value.shape))
    except ValueError:
        shape = "unknown"  # TensorFlow's symbolic tensors may not even know their rank
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    return f"{kind} of shape {shape} and dtype {getattr(value, 'dtype', None)}"
