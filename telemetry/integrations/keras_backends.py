"""What differs between Keras's backends: how a ``train_function`` is called, and what it leaves.

In each, ``feed`` is given the arguments of a ``train_function`` and returns what it will take in
and the arguments to call it with; ``logs`` and ``batches_seen`` are given what it returned. A
constant learning rate, ``rate``, is unread where reading it would wait.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any, Final, Protocol

import keras  # type: ignore[import-untyped] # it ships no types

from telemetry.extras import import_extra
from telemetry.integrations.keras_feeds import CountingIterator, Feed
from telemetry.values import on_device, to_python

Arguments = tuple[Any, ...]
_OUT_OF_SIGHT: Final = Feed()
_OPTIMIZER: Final = 2
"""Where the optimizer's variables are in the state of a step on JAX."""


class Backend(Protocol):
    """One backend, in one ``fit``.

    Attributes:
        fetches_first: Whether Keras waits for a batch before it tells callbacks that one begins.
    """

    fetches_first: bool

    def start_epoch(self) -> None:
        """The variables are the model's own now, and nothing is being computed."""
        ...

    def feed(self, arguments: Arguments) -> tuple[Feed, Arguments]:
        """What a call will take in, and the arguments to make it with."""
        ...

    def logs(self, result: Any) -> Any:
        """What the call gives for logs."""
        ...

    def batches_seen(self, result: Any) -> int | None:
        """How many batches the optimizer has taken in by now; this waits for the device.

        None where that is out of sight.
        """
        ...

    def rate(self) -> Any:
        """The learning rate of that call, if it is a variable of the optimizer."""
        ...

    def close(self) -> None:
        """Leave everything as it was."""
        ...


def number(variable: Any) -> int:
    """The value of a variable, read."""
    value = variable.value
    read = getattr(value, "read_value", None)  # of TensorFlow's variables
    return int(to_python(value if read is None else read()))


class Torch:
    """Batches come ready; variables are written in place."""

    fetches_first = True

    def __init__(self, model: Any, iterations: Any, rate: Any) -> None:
        self._iterations, self._rate = iterations, rate
        self._seen: Any = None
        self._version = -1
        self._now: Any = None

    def start_epoch(self) -> None:
        """Nothing to be done."""

    def feed(self, arguments: Arguments) -> tuple[Feed, Arguments]:
        """The argument is a list of the batches."""
        return Feed.of(arguments[0]), arguments

    def logs(self, result: Any) -> Any:
        """It is what is returned."""
        return result

    def batches_seen(self, result: Any) -> int:
        """Read from the variable."""
        return number(self._iterations)

    def rate(self) -> Any:
        """A copy, made anew when the variable was written to."""
        tensor = self._rate._value  # noqa: SLF001 -- the property takes five microseconds
        if tensor is not self._seen or tensor._version != self._version:  # noqa: SLF001 -- documented
            self._seen, self._version = tensor, tensor._version  # noqa: SLF001 -- as above
            self._now = tensor.detach().clone() if on_device(tensor) else float(tensor)
        return self._now

    def close(self) -> None:
        """Nothing to be done."""


class Jax:
    """Batches are drawn inside the call; variables are arrays that the next call deletes."""

    fetches_first = False

    def __init__(self, model: Any, iterations: Any, rate: Any) -> None:
        self._model, self._variables = model, (iterations, rate)
        self._jax = import_extra("jax", extra="jax", feature="Keras on JAX")
        self._places: dict[int, int] = {}
        self._seen: Any = None
        self._now: Any = None

    def start_epoch(self) -> None:
        """Find the variables."""
        variables = self._model.optimizer.variables
        self._places = {id(variable): place for place, variable in enumerate(variables)}

    def feed(self, arguments: Arguments) -> tuple[Feed, Arguments]:
        """The arguments are the state, and an iterator, of which each batch is a step."""
        state, given = arguments
        self._look(self._of(state, 1))
        self.fetches_first = isinstance(given, list)  # of the batches, in older versions of Keras
        if self.fetches_first:
            return Feed.of(given), arguments
        feed = CountingIterator(given)
        return feed, (state, feed)

    def logs(self, result: Any) -> Any:
        """They are returned with the new state."""
        logs, state = result
        self._seen = self._of(state, 1)
        return logs

    def batches_seen(self, result: Any) -> int | None:
        """Read from the new state."""
        seen = self._of(result[1], 0)
        return None if seen is None else int(seen)

    def rate(self) -> Any:
        """What it was when the call was made."""
        return self._now

    def close(self) -> None:
        """Nothing to be done."""

    def _of(self, state: Any, which: int) -> Any:
        place = self._places.get(id(self._variables[which]))
        return None if place is None else state[_OPTIMIZER][place]

    def _look(self, array: Any) -> None:
        # A step hands the same array on, so another one was put there by somebody.
        if array is None or array is self._seen:
            return
        self._now = self._jax.numpy.copy(array) if on_device(array) else float(array)


class TensorFlow:
    """Batches are drawn inside a compiled graph; reading a variable costs more than a step may."""

    fetches_first = False

    def __init__(self, model: Any, iterations: Any, rate: Any) -> None:
        self._iterations, self._rate = iterations, rate
        self._is_old = True
        self._now: Any = None
        if rate is not None:
            # A method, so that a copy of the variable has one of its own.
            vars(rate)["assign"] = MethodType(self._assigning(type(rate).assign), rate)

    def start_epoch(self) -> None:
        """Read the learning rate again, whoever has written to it."""
        self._is_old = True

    def feed(self, arguments: Arguments) -> tuple[Feed, Arguments]:
        """The argument is an iterator for the graph."""
        return _OUT_OF_SIGHT, arguments

    def logs(self, result: Any) -> Any:
        """It is what is returned."""
        return result

    def batches_seen(self, result: Any) -> int:
        """Read from the variable."""
        return number(self._iterations)

    def rate(self) -> Any:
        """Read anew after it was assigned."""
        if self._is_old:
            self._is_old = False
            tensor = self._rate.value.read_value()
            self._now = tensor if on_device(tensor) else float(tensor)
        return self._now

    def close(self) -> None:
        """Give the variable its own method back."""
        if self._rate is not None:
            vars(self._rate).pop("assign", None)

    def _assigning(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def assign(variable: Any, value: Any) -> Any:
            self._is_old = True
            return original(variable, value)

        return assign


def backend_of(model: Any, iterations: Any, rate: Any) -> Backend:
    """The backend that Keras uses.

    Args:
        model: The model in ``fit``.
        iterations: The variable in which its optimizer counts batches; None without an optimizer.
        rate: The variable of a constant learning rate; None if there is none.
    """
    return KINDS[keras.backend.backend()](model, iterations, rate)


KINDS: Final[dict[str, Callable[..., Backend]]] = {
    "torch": Torch,
    "jax": Jax,
    "tensorflow": TensorFlow,
}
"""The backends on which Keras can train."""
