"""The weight that is in force at a step."""

from __future__ import annotations

from typing import Any

from regularizers.backends import find_backend
from regularizers.checks import A_NUMBER, check_weight, describe, is_real
from regularizers.protocols import Scalar
from regularizers.spec import RegularizerSpec
from telemetry.values import to_python


def weight_at(spec: RegularizerSpec, step: Scalar | None) -> Scalar:
    """A number as it is, and of a function what it says of the step.

    A tensor is not read, so that no device is waited for and compiled code can compute it. That it
    is finite and not negative is then up to the function.

    Raises:
        TypeError: The function gave no number.
        ValueError: No step was given to a function of it, it raised, or it gave a negative,
            infinite or NaN number.
    """
    if not callable(spec.weight):
        return spec.weight
    label = f"Regularizer {spec.name!r}"
    if step is None:
        raise ValueError(
            f"{label} has the weight {spec.weight!r}, a function of the step, but no step was "
            "given. Call with step=..., such as the number of the optimizer step."
        )
    place = f"{label} at step {describe(step) if hasattr(step, 'shape') else step} has the weight "
    try:
        weight = spec.weight(step)
    except Exception as error:
        raise ValueError(
            f"{place}{spec.weight!r}, which failed: {error!r}. "
            f"It is called with the step, and returns {A_NUMBER}."
        ) from error
    return _check_result(place, weight)


def transfer(weight: Scalar, value: Scalar) -> Scalar:
    """The weight as a number, or as a tensor of the value's framework.

    Another framework's tensor is read, which waits for its device.

    Raises:
        TypeError: It cannot be read, because it is being compiled.
        ValueError: It is negative, infinite or NaN.
    """
    if isinstance(weight, float):
        return weight
    backend = find_backend(value)
    if backend is None or backend.name == "numpy" or backend.owns(type(weight)):
        return weight
    return check_weight(f"Beside {describe(value)} it has the weight ", to_python(weight))


def _check_result(place: str, weight: Any) -> Scalar:
    backend = find_backend(weight)
    if backend is not None and backend.name == "numpy":
        weight = backend.snapshot(weight)
    if backend is None or backend.name == "numpy":
        return check_weight(place, weight)
    if weight.shape != () or not is_real(weight):
        raise TypeError(f"{place}{describe(weight)}. A weight is {A_NUMBER}.")
    return weight
