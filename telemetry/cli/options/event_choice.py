"""Which events are meant on a command line: ``--event PATTERN`` and ``--where KEY=VALUE``."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from math import isnan
from typing import Any, Final, TypeAlias

import click
from click.shell_completion import CompletionItem

from telemetry.cli.output.printable import printable
from telemetry.events import CATALOGUE
from telemetry.names import ONE, REST, check_pattern, matches
from telemetry.records import EventName, Pattern
from telemetry.viewer.logs.entries import RECORD

Command: TypeAlias = Callable[..., None]

REMEMBERED: Final = 4096
"""Names of events of which it is known whether they are meant."""
_AS_IT_IS: Final = re.compile(r"[ !#-\[\]-~]+")  # what JSON writes without an escape


def complete_event(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The names of the catalogue that begin with what is written, and what they begin with."""
    names = [spec.name for spec in CATALOGUE]
    dotted = {".".join(name[:depth]) for name in names for depth in range(1, len(name) + 1)}
    return [CompletionItem(name) for name in sorted(dotted) if name.startswith(incomplete)]


def event_options(example: str) -> Callable[[Command], Command]:
    """The options ``--event`` and ``--where``.

    Args:
        example: What the help gives as an example of the latter.
    """
    event = click.option(
        "--event",
        "events",
        multiple=True,
        metavar="PATTERN",
        shell_complete=complete_event,
        help="Only events whose name is PATTERN or begins with it, such as training or "
        "alert.raised; with * and ** it is a pattern of whole names. Several times for several.",
    )
    where = click.option(
        "--where",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"Only events whose metadata say so, such as {example}. Several times for several, "
        "all of which must hold.",
    )
    return lambda command: event(where(command))


def parse_pattern(text: str, hint: str) -> Pattern:
    """A pattern of event names as it is written on a command line; ``()`` for an empty text.

    Args:
        text: Dotted, or with slashes.
        hint: What it was given as.

    Raises:
        click.BadParameter: It is none.

    Example:
        >>> parse_pattern("training/*", "--event")
        ('training', '*')
    """
    if not text:
        return ()
    try:
        return check_pattern(tuple(text.replace("/", ".").strip(".").split(".")))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=hint) from error


def parse_condition(text: str) -> tuple[str, str]:
    """A ``--where`` as its key and its value.

    Args:
        text: ``KEY=VALUE``.

    Raises:
        click.BadParameter: It is none.

    Example:
        >>> parse_condition("severity=critical")
        ('severity', 'critical')
    """
    key, found, value = text.partition("=")
    if not found or not key:
        raise click.BadParameter(
            f"It must be KEY=VALUE, such as severity=critical, got {text!r}.",
            param_hint="--where",
        )
    return key, value


class Chosen:
    """Tells which events are meant.

    Args:
        events: Each ``--event``; none means all.
        where: Each ``--where``, as ``KEY=VALUE``; all of them must hold.

    Raises:
        click.BadParameter: One of them is none.

    Example:
        >>> chosen = Chosen(["alert"], ["severity=critical"])
        >>> chosen(("alert", "raised"), {"severity": "critical"})
        True
        >>> chosen(("training", "step"), {"severity": "critical"})
        False
    """

    def __init__(self, events: Sequence[str] = (), where: Iterable[str] = ()) -> None:
        self.events = tuple(events)
        self._patterns = [_pattern(text) for text in events]
        self._where = [parse_condition(text) for text in where]
        self._known: dict[EventName, bool] = {}
        self._beginnings = [_beginning(pattern) for pattern in self._patterns]
        self._can_be_anywhere = not all(self._beginnings) or self.hears(RECORD)

    def __call__(self, event: EventName, metadata: Mapping[str, Any]) -> bool:
        """Whether an event is meant."""
        return self.hears(event) and all(
            key in metadata and is_said(metadata[key], value) for key, value in self._where
        )

    def hears(self, event: EventName) -> bool:
        """Whether events of a name can be meant."""
        known = self._known.get(event)
        if known is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            known = not self._patterns or any(matches(one, event) for one in self._patterns)
            self._known[event] = known
        return known

    def may_be_in(self, line: bytes) -> bool:
        r"""Whether a line of JSON can have such an event; much quicker than to read it.

        Example:
            >>> Chosen(["alert"]).may_be_in(b'{"event":"training.step"}')
            False
        """
        if self._can_be_anywhere or b"\\u" in line:  # a name can be written with escapes
            return True
        return any(one.search(line) for one in self._beginnings if one)

    @property
    def is_everything(self) -> bool:
        """Whether all events are meant."""
        return not self._patterns and not self._where

    def hint(self, names: Iterable[str]) -> str:
        """Names near to those that are given, of some events and of the catalogue."""
        known = [name.split(".") for name in (*names, *(spec.dotted for spec in CATALOGUE))]
        near: list[str] = []
        for text in self.events:
            pattern = parse_pattern(text, "--event")
            beginnings = dict.fromkeys(printable(".".join(name[: len(pattern)])) for name in known)
            asked = ".".join(pattern)
            if asked not in beginnings:
                near += difflib.get_close_matches(asked, beginnings, cutoff=0.6)
        return f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else ""


def _pattern(text: str) -> Pattern:
    """A name without wildcards means what begins with it as well."""
    pattern = parse_pattern(text, "--event")
    if not pattern:
        raise click.BadParameter("It must not be empty.", param_hint="--event")
    return pattern if "*" in text else (*pattern, "**")


def _beginning(pattern: Pattern) -> re.Pattern[bytes] | None:
    """What a line has in it that has an event of a pattern; None if it can have anything.

    Other programs write slashes for dots, and some of them a backslash before each.
    """
    plain = list(takewhile(lambda segment: segment not in (ONE, REST), pattern))
    if not plain or not all(_AS_IT_IS.fullmatch(segment) for segment in plain):
        return None
    return re.compile(b'"' + rb"(?:\.|\\?/)".join(re.escape(one.encode()) for one in plain))


def is_said(value: object, text: str) -> bool:
    """Whether metadata have a value that ``--where KEY=VALUE`` means.

    Args:
        value: The metadata's.
        text: As it is written on the command line: a number in any spelling, the parts of a list
            with dots between them.

    Example:
        >>> is_said(7, "7.0"), is_said("7", "7.0"), is_said(["param", "0"], "param.0")
        (True, False, True)
    """
    if value is None:
        return text.lower() in ("none", "null")
    if isinstance(value, bool):
        return str(value).lower() == text.lower()
    if isinstance(value, int | float):
        said = _number(text)
        return value == said or (_is_nan(value) and _is_nan(said))
    if isinstance(value, list):
        return ".".join(map(str, value)) == text
    return str(value) == text


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and isnan(value)


def _number(text: str) -> float | None:
    """A number in any spelling, whole ones exactly; None if it is none."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None
