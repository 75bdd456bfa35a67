"""An output as nested tuples of numbers and what is not a number, the way compilers want it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from regularizers.records import BaseLossOutput, CustomLossOutput, RegularizerOutput

REPORTED: Final = ("loss_total", "regularizer_total", "total_grad_norm")
TOTALS: Final = ("loss", "grad", *REPORTED)
MEASURED: Final = ("value", "grad_norm")
WEIGHTED: Final = ("value", "weight", "contribution", "grad_norm", "grad_norm_weighted")

Numbers = tuple[Any, ...]
"""Nested tuples of them. None is not among them: AutoGraph has to choose between what the two
branches of an ``if`` give, and can choose between tensors, but not between None and None."""


class Skeleton(NamedTuple):
    """What is fixed when the code is compiled; can be hashed and compared."""

    metadata: tuple[tuple[str, Any], ...]
    reported: bool
    totals: tuple[str, ...]
    """Which of them there are."""
    base: tuple[str, ...]
    """Which measurements of the base loss there are."""
    base_metrics: tuple[str, ...]
    regularizers: tuple[RegularizerSkeleton, ...]


class RegularizerSkeleton(NamedTuple):
    """The same of one regularizer."""

    name: str
    weight: float | None
    """None if it is one of the numbers."""
    asynchronous: bool
    scheduled: bool
    measured: tuple[str, ...]
    """Which measurements of it there are."""
    metrics: tuple[str, ...]


def pack(output: CustomLossOutput, totals: Iterable[str] = TOTALS) -> tuple[Numbers, Skeleton]:
    """The numbers, as they are and unread, and the rest; of the totals these."""
    base, regularizers = output.base_loss, output.regularizers.values()
    skeleton = Skeleton(
        metadata=tuple(output.metadata.items()),
        reported=output.reported,
        totals=_known(output, totals),
        base=_known(base, MEASURED),
        base_metrics=tuple(vars(base)["custom"]),
        regularizers=tuple(map(_skeleton, regularizers)),
    )
    parts = zip(regularizers, skeleton.regularizers, strict=True)
    numbers = (
        _held(output, skeleton.totals),
        (_held(base, skeleton.base), _custom(base)),
        tuple((_held(one, rest.measured), _custom(one)) for one, rest in parts),
    )
    return numbers, skeleton


def unpack(numbers: Numbers, skeleton: Skeleton) -> CustomLossOutput:
    """The output that `pack` was given, with other numbers."""
    totals, (base, base_custom), parts = numbers
    regularizers = map(_unpack_regularizer, parts, skeleton.regularizers)
    return CustomLossOutput(
        **_named(TOTALS, skeleton.totals, totals),
        base_loss=BaseLossOutput(
            **_named(MEASURED, skeleton.base, base),
            custom=dict(zip(skeleton.base_metrics, base_custom, strict=True)),
        ),
        regularizers={one.name: one for one in regularizers},
        metadata=dict(skeleton.metadata),
        reported=skeleton.reported,
    )


def _skeleton(output: RegularizerOutput) -> RegularizerSkeleton:
    weight = vars(output)["weight"]
    # A schedule's is always one of the numbers, so that its steps differ in nothing else.
    fixed = isinstance(weight, float) and not output.scheduled
    known = _known(output, WEIGHTED)
    return RegularizerSkeleton(
        name=output.name,
        weight=weight if fixed else None,
        asynchronous=output.asynchronous,
        scheduled=output.scheduled,
        measured=tuple(name for name in known if not (fixed and name == "weight")),
        metrics=tuple(vars(output)["custom"]),
    )


def _unpack_regularizer(numbers: Numbers, skeleton: RegularizerSkeleton) -> RegularizerOutput:
    measured, custom = numbers
    named = _named(WEIGHTED, skeleton.measured, measured)
    if skeleton.weight is not None:
        named["weight"] = skeleton.weight
    return RegularizerOutput(
        **named,
        name=skeleton.name,
        asynchronous=skeleton.asynchronous,
        scheduled=skeleton.scheduled,
        custom=dict(zip(skeleton.metrics, custom, strict=True)),
    )


def _known(record: object, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if vars(record)[name] is not None)


def _held(record: object, names: Iterable[str]) -> Numbers:
    return tuple(vars(record)[name] for name in names)


def _custom(record: BaseLossOutput | RegularizerOutput) -> Numbers:
    return tuple(vars(record)["custom"].values())


def _named(names: Iterable[str], known: Iterable[str], numbers: Numbers) -> dict[str, Any]:
    return dict.fromkeys(names) | dict(zip(known, numbers, strict=True))
