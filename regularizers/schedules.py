"""Weights over time: functions of the step, for ``RegularizerSpec(weight=...)``.

Each is called with the step: a number gives a float, and so does numpy's array of shape ``()``;
another array or tensor gives one of the same framework, on its device and unread, in compiled code
too.

A weight that grows from 0 lets the base loss shape the model before a regularizer pulls at it.
For the KL term of a variational autoencoder this is known as KL annealing: Bowman et al. (2016),
"Generating Sentences from a Continuous Space", arXiv:1511.06349.

Example:
    >>> from regularizers import schedules
    >>> beta = schedules.linear_warmup(0.1, steps=4)
    >>> [beta(step) for step in range(6)]
    [0.0, 0.025, 0.05, 0.07500000000000001, 0.1, 0.1]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from operator import index
from typing import Any, Final, Literal, TypeAlias

from regularizers.backends import find_backend
from regularizers.checks import as_float, check_weight, describe
from regularizers.protocols import Scalar

__all__ = ["constant", "cosine_warmup", "linear_warmup"]

Curve: TypeAlias = Literal["linear", "cosine"]


def constant(weight: float) -> Constant:
    """The same weight at every step, a float whatever the step is.

    Args:
        weight: Finite and at least 0.

    Returns:
        A function of the step, for ``RegularizerSpec(weight=...)``; two of the same are equal.

    Raises:
        TypeError: The weight is no number.
        ValueError: It is negative, infinite or NaN.

    Example:
        >>> constant(0.1)(1000)
        0.1
    """
    return Constant(weight)


def linear_warmup(weight: float, steps: int, start: float = 0.0) -> Warmup:
    """From ``start`` to ``weight`` in a straight line, then constant.

    ``(1 - p) * start + p * weight``, where ``p = step / steps``, at least 0 and at most 1.

    Args:
        weight: From step ``steps`` on, exactly. Finite and at least 0.
        steps: How many it takes; at least 1.
        start: Up to step 0, exactly. Finite and at least 0; above ``weight`` it falls.

    Returns:
        A function of the step, for ``RegularizerSpec(weight=...)``: a float of a number, and of a
        tensor one of the same framework. Two of the same are equal.

    Raises:
        TypeError: A weight is no number, or ``steps`` no integer.
        ValueError: A weight is negative, infinite or NaN, or ``steps`` is below 1.

    Example:
        >>> linear_warmup(0.4, steps=100, start=0.2)(50)
        0.30000000000000004
    """
    return Warmup("linear", weight, steps, start)


def cosine_warmup(weight: float, steps: int, start: float = 0.0) -> Warmup:
    """From ``start`` to ``weight`` along half a cosine, slow at both ends, then constant.

    ``(1 - c) * start + c * weight``, where ``c = (1 - cos(pi * p)) / 2`` and ``p = step / steps``,
    at least 0 and at most 1. The curve is that of Loshchilov & Hutter (2017), "SGDR: Stochastic
    Gradient Descent with Warm Restarts", arXiv:1608.03983, run upwards.

    Args:
        weight: From step ``steps`` on, exactly. Finite and at least 0.
        steps: How many it takes; at least 1.
        start: Up to step 0, exactly. Finite and at least 0; above ``weight`` it falls.

    Returns:
        A function of the step, for ``RegularizerSpec(weight=...)``: a float of a number, and of a
        tensor one of the same framework. Two of the same are equal.

    Raises:
        TypeError: A weight is no number, or ``steps`` no integer.
        ValueError: A weight is negative, infinite or NaN, or ``steps`` is below 1.

    Example:
        >>> beta = cosine_warmup(0.1, steps=4)
        >>> [round(beta(step), 4) for step in range(6)]
        [0.0, 0.0146, 0.05, 0.0854, 0.1, 0.1]
    """
    return Warmup("cosine", weight, steps, start)


@dataclass(frozen=True, repr=False)
class Constant:
    """See `constant`."""

    weight: float

    def __post_init__(self) -> None:
        _keep(self, weight=_check_weight("constant got weight=", self.weight))

    def __call__(self, step: Scalar) -> float:
        """The weight at a step."""
        return self.weight

    def __repr__(self) -> str:
        return f"constant({self.weight})"


@dataclass(frozen=True, repr=False)
class Warmup:
    """See `linear_warmup` and `cosine_warmup`."""

    curve: Curve
    weight: float
    steps: int
    start: float

    def __post_init__(self) -> None:
        _keep(
            self,
            weight=_check_weight(f"{self._name} got weight=", self.weight),
            steps=_check_steps(self._name, self.steps),
            start=_check_weight(f"{self._name} got start=", self.start),
        )

    def __call__(self, step: Scalar) -> Scalar:
        """The weight at a step.

        Args:
            step: A number, or an array or tensor, of which each element is a step. NaN gives NaN.

        Raises:
            TypeError: The step is none of them.
        """
        backend = find_backend(step)
        if backend is None:
            raise TypeError(
                f"{self} was called with the step {describe(step)}. A step is a number, "
                "or an array or tensor."
            )
        xp = backend.xp
        now = as_float(step) if isinstance(step, Real) else backend.as_float(step)
        progress = xp.clip(now / as_float(self.steps), 0.0, 1.0)
        share = _SHARES[self.curve](progress, xp)
        # So, and not start + share * (weight - start), which does not quite end at the weight.
        weight = (1.0 - share) * self.start + share * self.weight
        return float(weight) if backend.name == "numpy" and weight.shape == () else weight

    def __repr__(self) -> str:
        return f"{self._name}({self.weight}, steps={self.steps}, start={self.start})"

    @property
    def _name(self) -> str:
        return f"{self.curve}_warmup"


def _linear(progress: Any, xp: Any) -> Any:
    return progress


def _cosine(progress: Any, xp: Any) -> Any:
    return (1.0 - xp.cos(math.pi * progress)) / 2.0


# How much of the way is done when this much of the time has passed.
_SHARES: Final = {"linear": _linear, "cosine": _cosine}


def _check_weight(place: str, weight: float) -> float:
    return check_weight(place, weight, remedy="")


def _check_steps(name: str, steps: object) -> int:
    if isinstance(steps, bool) or not hasattr(steps, "__index__"):
        raise TypeError(
            f"{name} got steps={steps!r} ({type(steps).__name__}). "
            "It takes a number of steps, such as 1000."
        )
    number = index(steps)
    if number < 1:
        raise ValueError(f"{name} got steps={steps!r}. It takes at least 1 step.")
    return number


def _keep(schedule: object, **checked: float) -> None:
    for name, value in checked.items():
        object.__setattr__(schedule, name, value)
