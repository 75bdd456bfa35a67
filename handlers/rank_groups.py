"""The ranks of a distributed run, as far as a measurement is reduced over them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Any, Final, Literal, NamedTuple, Protocol, TypeAlias

from telemetry.values import to_python

WIDTH: Final = 32
"""So many values go into one collective. All have the same length: a backend that is given
different ones by different ranks can end the process."""

Operation: TypeAlias = Literal["sum", "max"]


class Column(NamedTuple):
    """One measurement that is reduced.

    Attributes:
        measurement: Its name.
        sign: -1 for a minimum, which is the maximum of the negated values.
    """

    measurement: str
    sign: Literal[1, -1] = 1


class Found(NamedTuple):
    """A measurement over all ranks.

    Attributes:
        value: A number, or a scalar that is still on a device. NaN if any rank's value is.
        mean: The value divided by how many ranks had one; likewise.
        count: How many had one, or for a maximum whether any had; likewise.
    """

    value: Any
    mean: Any
    count: Any


class RankGroup(Protocol):
    """All ranks of a run, for one handler."""

    size: int
    nobody_asks: bool
    """Whether no rank had a use for what was reduced last; False where that is not known."""

    def is_current(self) -> bool:
        """Whether the run that it was made for is still on."""

    def reduce(
        self, operation: Operation, tag: int, columns: Sequence[tuple[Any, int]], *, asks: bool
    ) -> list[Found]:
        """Reduce single values over the ranks, all of which must call this with the same tag.

        Args:
            operation: How.
            tag: Of what is reduced: 32 bits.
            columns: This rank's value, or None, and the sign it is multiplied by.
            asks: Whether this rank has a use for the result.

        Raises:
            DeliveryError: The ranks reduce different things.
            RuntimeError: The other ranks cannot be reached.
        """


class Part(NamedTuple):
    """This rank's part of one collective, `WIDTH` values wide.

    Attributes:
        numbers: The values that are on the host, with their sign; 0 elsewhere.
        present: 1 where there is a value.
        signs: By which the values are multiplied, before and after.
        scalars: Values that are tensors, by their place.
    """

    numbers: list[float]
    present: list[float]
    signs: list[int]
    scalars: dict[int, Any]


def parts(
    columns: Sequence[tuple[Any, int]], kind: type, scalar: Callable[[Any], Any]
) -> Iterator[Part]:
    """What this rank has to say, in parts.

    Args:
        columns: Values, or None, and their signs.
        kind: The framework's tensors, of which none is read here.
        scalar: What a tensor is as a real scalar; None for one that is none.
    """
    for start in range(0, len(columns), WIDTH):
        mine = columns[start : start + WIDTH]
        part = Part([0.0] * WIDTH, [0.0] * WIDTH, [sign for _, sign in mine], {})
        for index, (value, sign) in enumerate(mine):
            found = scalar(value) if isinstance(value, kind) else _number(value)
            if found is None:
                continue
            part.present[index] = 1.0
            if isinstance(value, kind):
                part.scalars[index] = found
            else:
                part.numbers[index] = found * sign
        yield part


def group_of_run(known: RankGroup | None) -> RankGroup | None:
    """The ranks of the run that this process is part of now; None if it is alone.

    Asks ``torch.distributed`` and then JAX, if they are imported and were initialised. Making a
    group is a collective operation.

    Args:
        known: What was found last.
    """
    if known is not None and known.is_current():
        return known
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        from handlers.torch_ranks import TorchRanks  # noqa: PLC0415 -- of use with torch only

        return TorchRanks() if distributed.get_world_size() > 1 else None
    state = jax_run()
    if state is not None and state.num_processes > 1:
        from handlers.jax_ranks import JaxRanks  # noqa: PLC0415 -- of use with JAX only

        return JaxRanks()
    return None


def jax_run() -> Any:
    """What JAX knows of the run that this process is part of; None if it is of none."""
    distributed = sys.modules.get("jax._src.distributed")
    state = getattr(distributed, "global_state", None)
    return None if state is None or state.client is None else state


def found_on_host(part: Part, values: Sequence[float], counts: Sequence[float]) -> list[Found]:
    """What came of a part, in numbers.

    Example:
        >>> part = Part([1.0], [1.0], [-1], {})
        >>> found_on_host(part, [6.0], [3.0])
        [Found(value=-6.0, mean=-2.0, count=3.0)]
    """
    pairs = zip(part.signs, values, counts, strict=False)  # the rest of a part is padding
    return [Found(s * value, s * value / max(count, 1.0), count) for s, value, count in pairs]


def found_on_device(part: Part, values: Any, counts: Any) -> list[Found]:
    """What came of a part, in arrays that are on a device."""
    columns = zip(part.signs, values, values / counts, counts, strict=False)
    return [Found(-value if s < 0 else value, mean, count) for s, value, mean, count in columns]


def _number(value: object) -> float | None:
    """A measurement on the host as a number; None for what is no single one."""
    plain = to_python(value)
    if not isinstance(plain, int | float):
        return None
    try:
        return float(plain)
    except OverflowError:
        return inf if plain > 0 else -inf
