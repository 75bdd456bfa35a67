"""Which event and measurement the metric of a rule names."""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from telemetry.events import CATALOGUE, EventSpec
from telemetry.metrics.naming import CLOCKS, LIKE, YOURS
from telemetry.names import REST, check_pattern, matches
from telemetry.records import Pattern

ALERT: Final = "alert"
"""What the names of alerts begin with; no rule hears them."""
SPLITS: Final = ("val", "valid", "validation", "test")
"""What the reported names of ``training.eval`` begin with; a name of any other kind is an event."""
NEARLY: Final = 0.75
"""From which ratio on a part of a measurement may be a slip, as `difflib` measures."""
SAME: Final = 0.9
"""From which ratio on a whole one may be, whose parts are divided otherwise."""


class Subject(NamedTuple):
    """What a rule watches."""

    event: Pattern
    measurement: str
    """"" for the event alone."""
    where: Mapping[str, Any] = {}
    """Metadata that a reported name has in it."""
    doubt: str = ""
    """What else may have been meant, in words."""
    in_ms: bool = False
    """Whether it was named as what is reported in milliseconds, and measured in nanoseconds."""


@lru_cache(maxsize=1024)  # asked again and again while a rule is checked, made and copied
def resolve(metric: str, *, stalled: bool = False) -> Subject:
    """The event and the measurement of a metric.

    Args:
        metric: The event and the measurement, or a name as it is reported. A slash is a dot.
        stalled: Whether it may be the event alone.

    Raises:
        ValueError: It names no measurement, or probably another one was meant.

    Example:
        >>> resolve("training.*.loss")[:2], resolve("val/loss")[:3]
        ((('training', '*'), 'loss'), (('training', 'eval'), 'loss', {'split': 'val'}))
        >>> resolve("trainig.step.loss")
        Traceback (most recent call last):
        ValueError: metric 'trainig.step.loss' is unknown. Nearest: 'training.step.loss'.
    """
    whole = _segments(metric)
    found = _silent(metric, whole) if stalled else _measured(metric, whole)
    check_pattern(found.event)
    if found.event[0] == ALERT:
        raise ValueError(f"metric {metric!r} is an alert itself, which no rule can watch.")
    return found


def _segments(metric: str) -> tuple[str, ...]:
    """The parts of a name, in which ``train`` is ``training``."""
    first, *rest = metric.replace("/", ".").split(".")
    whole = ("training" if first == "train" else first, *rest)
    if not all(whole):
        raise ValueError(
            f"metric {metric!r} has an empty part. "
            "Write the event, then the measurement: 'training.step.loss'."
        )
    return whole


def _measured(metric: str, whole: tuple[str, ...]) -> Subject:
    """A measurement of an event."""
    *event, measurement = whole
    pattern = tuple(event)
    if not event:
        near = [name for name in _names() if name.split(".")[1:][-1:] == [measurement]]
        example = near[0] if near else f"training.step.{measurement}"
        raise ValueError(f"metric {metric!r} names no event. Write for example {example!r}.")
    if "*" in measurement:
        raise ValueError(f"metric {metric!r} ends in {measurement!r}. Name one measurement.")
    check_pattern(pattern)
    if _is_known(pattern):
        return Subject(pattern, measurement, {}, _doubt(pattern, measurement))
    if _is_known(whole):
        raise ValueError(
            f"metric {metric!r} names no measurement. Write the event, then the measurement: "
            f"'{metric}.{_example(whole)}'."
        )
    found = _reported(metric, whole)
    if found is None:
        _refuse_slip(metric, whole)
    return found or Subject(pattern, measurement)


def _silent(metric: str, whole: tuple[str, ...]) -> Subject:
    """An event, or events, by themselves; a measurement after it adds nothing."""
    *event, measurement = whole
    if "*" in measurement or _is_known(whole):
        return Subject(whole, "")
    if _is_known(tuple(event)):
        return Subject(tuple(event), "", {}, _doubt(tuple(event), measurement))
    found = _reported(metric, whole, listed=True)
    if found is not None:
        return found._replace(measurement="")
    if any(spec.name[: len(whole)] == whole for spec in CATALOGUE):
        raise ValueError(f"metric {metric!r} begins several events. Write '{metric}.**' for any.")
    _refuse_slip(metric, whole)
    return Subject(whole, "")


def _refuse_slip(metric: str, whole: tuple[str, ...]) -> None:
    """Raise for a name that the catalogue has not, if it nearly has it."""
    names = list(_names())
    near = [name for name in names if _is_like(whole, tuple(name.split(".")))]
    closed = {spec.name[0] for spec in CATALOGUE if spec.emitter != YOURS}
    if not near and whole[0] in closed:
        near = [name for name in names if name.startswith(f"{whole[0]}.")]
    if near:
        raise ValueError(
            f"metric {metric!r} is unknown. Nearest: {_nearest('.'.join(whole), near)}."
        )


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return ", ".join(map(repr, near or difflib.get_close_matches(name, names, n=1, cutoff=0.0)))


def _names() -> Iterator[str]:
    """All names in the catalogue: events, their measurements, and as these are reported."""
    for spec in CATALOGUE:
        if spec.name[0] == ALERT:
            continue
        yield spec.dotted
        for field in spec.measurements:
            yield f"{spec.dotted}.{field.name}"
            if spec.reported == f"{spec.name[0]}.{{measurement}}":
                yield f"{spec.name[0]}.{field.name}"


def _is_like(given: tuple[str, ...], known: tuple[str, ...]) -> bool:
    return len(given) == len(known) and all(
        _ratio(*pair) >= LIKE for pair in zip(given, known, strict=True)
    )


def _is_known(event: Pattern) -> bool:
    """Whether it is an event of the catalogue, or a pattern that one of them matches."""
    try:
        return any(matches(check_pattern(event), spec.name) for spec in CATALOGUE)
    except ValueError:
        return False


def _doubt(event: Pattern, measurement: str) -> str:
    """What is probably a slip in the name of a measurement of the catalogue's event."""
    specs = [spec for spec in CATALOGUE if matches(event, spec.name)]
    names = sorted({field.name for spec in specs for field in spec.measurements})
    if measurement in names or event[-1] == REST:
        return ""
    about = f"{'.'.join(event)} has no measurement {measurement!r} in the event catalogue."
    if all(spec.emitter != YOURS for spec in specs):
        raise ValueError(f"{about} Nearest: {_nearest(measurement, names)}.")
    near = [name for name in names if _may_be_meant(measurement, name)]
    if not near or measurement.rstrip("_0123456789") in names:
        return ""
    return f"{about} Nearest: {_nearest(measurement, near)}."


def _may_be_meant(given: str, name: str) -> bool:
    """Whether a measurement is another one in short, or with a slip.

    Example:
        >>> [_may_be_meant(slip, "grad_norm") for slip in ("GradNorm", "grad_nrom", "grad", "norm")]
        [True, True, True, False]
    """
    given = given.lower()
    if name.startswith(f"{given}_"):
        return True
    parts, named = given.split("_"), name.split("_")
    if len(parts) == len(named):
        return all(_ratio(*pair) >= NEARLY for pair in zip(parts, named, strict=True))
    return _ratio("".join(parts), "".join(named)) >= SAME


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _reported(metric: str, whole: tuple[str, ...], *, listed: bool = False) -> Subject | None:
    """What is reported under a name; None if the catalogue reports nothing like it.

    Args:
        metric: As it was given.
        whole: Its parts.
        listed: Whether only the measurements of the catalogue will do.

    Raises:
        ValueError: It can be several, or in another unit than it is measured in.
    """
    read = [one for spec in CATALOGUE if (one := _read(spec, ".".join(whole))) is not None]
    known = [one for one in read if one.measurement in _measurements(one.event)]
    ended = [one for one in known if one.event[-1] not in ("start", "exception")]
    # A split names an evaluation, whatever it measures; other names may be events of your own.
    others = [one for one in read if _is_open(one.event) and (one.where or not listed)]
    in_ms = [one for one in ended if one.in_ms]
    candidates = [*others, *in_ms] if in_ms else ended or known or others
    if not candidates:
        return None
    if len(candidates) > 1 or in_ms:
        if not known:
            _refuse_slip(metric, whole)
        names = " or ".join(dict.fromkeys(map(_in_full, candidates)))
        raise ValueError(f"metric {metric!r} can be several. Write what is meant: {names}.")
    (found,) = candidates
    return found._replace(doubt=_doubt(found.event, found.measurement))


def _read(spec: EventSpec, name: str) -> Subject | None:
    """What a reported name says, if it is one of the event's."""
    parts = string.Formatter().parse(spec.reported)
    pattern = "".join(
        re.escape(literal) + (rf"(?P<{key}>[^.\[\]]+)" if key else "") for literal, key, *_ in parts
    )
    match = re.fullmatch(pattern, name)
    if match is None:
        return None
    values = match.groupdict()
    measurement = values.pop("measurement")
    is_a_name = measurement not in CLOCKS and values.get("split", SPLITS[0]) in SPLITS
    in_ms = spec.reported.endswith("_ms")
    return Subject(spec.name, measurement, values, "", in_ms) if is_a_name else None


def _in_full(found: Subject) -> str:
    name = repr(".".join((*found.event, found.measurement)))
    name += " in ns" if found.in_ms else ""
    return f"{name} where={found.where!r}" if found.where else name


def _measurements(event: Pattern) -> frozenset[str]:
    specs = [spec for spec in CATALOGUE if matches(event, spec.name)]
    return frozenset(field.name for spec in specs for field in spec.measurements)


def _is_open(event: Pattern) -> bool:
    """Whether an event may have other measurements than the catalogue's, and be meant by these."""
    is_yours = any(spec.name == event and spec.emitter == YOURS for spec in CATALOGUE)
    return is_yours and event[-1] not in ("start", "stop", "exception")


def _example(event: Pattern) -> str:
    fields = [
        field for spec in CATALOGUE if matches(event, spec.name) for field in spec.measurements
    ]
    return next((field.name for field in fields if field.name not in CLOCKS), "loss")
