"""The learning rate that an optimizer step of Keras was made with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

import keras  # type: ignore[import-untyped] # it ships no types

from telemetry.extras import import_extra
from telemetry.integrations.keras_backends import Backend
from telemetry.log import log_error
from telemetry.values import to_python

BLOCK: Final = 256
"""Steps whose learning rates are computed at once."""
_FEATURE: Final = {"feature": "the learning rate of Keras"}


class Rate(Protocol):
    """Where the learning rate comes from."""

    def of(self, batch: int | None) -> Any:
        """The learning rate of the step that was just made; None if it is not known.

        Args:
            batch: Of that step, as the optimizer counts them from 0; None if that is not known.
        """
        ...

    def close(self) -> None:
        """Leave everything as it was."""
        ...


class Unknown:
    """A model without an optimizer, or with several, or a function that only a step may call."""

    def of(self, batch: int | None) -> Any:
        """Not known."""
        return None

    def close(self) -> None:
        """Nothing to be done."""


class Constant:
    """A variable of the optimizer, which callbacks may assign to."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def of(self, batch: int | None) -> Any:
        """The variable's value."""
        return self._backend.rate()

    def close(self) -> None:
        """Nothing to be done."""


class Recorded:
    """What a step that runs in Python has computed anyway."""

    def __init__(self, optimizer: Any) -> None:
        self._optimizer = optimizer
        self._last: Any = None
        original = optimizer._get_current_learning_rate  # noqa: SLF001 -- the property calls it

        def record() -> Any:
            self._last = original()
            return self._last

        vars(optimizer)["_get_current_learning_rate"] = record

    def of(self, batch: int | None) -> Any:
        """What the step asked for last."""
        return self._last

    def close(self) -> None:
        """Give the optimizer its own method back."""
        vars(self._optimizer).pop("_get_current_learning_rate", None)


class Scheduled:
    """A schedule that compiled steps evaluate out of sight: evaluated again, in blocks, on the CPU.

    One by one would cost hundreds of microseconds a step, and wait for the device.
    """

    def __init__(self, schedule: Callable[[Any], Any]) -> None:
        self._schedule = schedule
        self._compiled: Callable[[Any], Any] | None = None
        self._first, self._values = 0, list[float]()
        self._failed = False

    def of(self, batch: int | None) -> Any:
        """The schedule at this batch; None if it does not bear being evaluated."""
        if batch is None:
            return None
        place = batch - self._first
        if not 0 <= place < len(self._values):
            if self._failed:
                return None
            self._fill(batch)
            place = 0
        return None if self._failed else self._values[place]

    def close(self) -> None:
        """Nothing to be done."""

    def _fill(self, first: int) -> None:
        try:
            with keras.device("cpu"):
                if self._compiled is None:
                    self._compiled = _over_blocks(self._schedule)
                values = self._compiled(keras.ops.arange(first, first + BLOCK, dtype="int32"))
                self._values = to_python(values)
        except Exception as error:
            self._failed = True
            log_error(
                error,
                "The learning rate cannot be reported: the schedule %r failed when it was "
                "evaluated outside of the training step. The training goes on.",
                self._schedule,
            )
        self._first = first


def rate_of(optimizer: Any, backend: Backend) -> Rate:
    """Where the learning rate of an optimizer comes from.

    Args:
        optimizer: The one that steps; None if there is none.
        backend: In this fit.
    """
    source = source_of(optimizer)
    if source is None:
        return Unknown()
    if isinstance(source, keras.Variable):
        return Constant(backend)
    if keras.backend.backend() == "torch":
        return Recorded(optimizer)
    is_schedule = isinstance(source, keras.optimizers.schedules.LearningRateSchedule)
    return Scheduled(source) if is_schedule else Unknown()


def source_of(optimizer: Any) -> Any:
    """The variable, schedule or function of the learning rate; None if there is not just one."""
    if optimizer is None or hasattr(optimizer, "optimizers"):
        return None
    return getattr(optimizer, "_learning_rate", None)


def _over_blocks(schedule: Callable[[Any], Any]) -> Callable[[Any], Any]:
    if keras.backend.backend() == "jax":
        jax = import_extra("jax", extra="jax", **_FEATURE)
        mapped: Callable[[Any], Any] = jax.jit(jax.vmap(schedule))
        return mapped
    tensorflow = import_extra("tensorflow", extra="tensorflow", **_FEATURE)

    def evaluate(steps: Any) -> Any:
        return tensorflow.map_fn(schedule, steps, fn_output_signature=tensorflow.float32)

    # A concrete function does not count as traced again, of which TensorFlow warns.
    spec = tensorflow.TensorSpec([BLOCK], tensorflow.int32)
    function = tensorflow.function(evaluate, autograph=False)
    concrete: Callable[[Any], Any] = function.get_concrete_function(spec)
    return concrete
