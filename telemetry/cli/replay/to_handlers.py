"""What ``telemetry replay --to`` does: recorded events to handlers."""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import orjson

from telemetry.cli.endings import INTERRUPTED, reader_is_gone
from telemetry.cli.options.event_choice import Chosen
from telemetry.cli.options.targets import Target, attached, options_of
from telemetry.cli.output.log import log_lines
from telemetry.cli.output.printable import printable, printable_lines, shell_word
from telemetry.cli.output.progress import Progress
from telemetry.cli.stopping import stopping
from telemetry.registry import Registry
from telemetry.viewer.logs.bad_lines import BadLines
from telemetry.viewer.logs.entries import Entry, read_entries
from telemetry.viewer.logs.sources import at_home

if TYPE_CHECKING:
    from handlers import SinkAttachment
    from handlers.replay import Replay, Replayed
    from handlers.stopping import Stop

NAMED: Final = 1000
"""Names of events left out that are remembered, to offer those that are near."""


class Recording:
    """The recorded events that are meant.

    Args:
        files: Where they are.
        chosen: Which are meant.
        from_line: Where to begin in the first file.

    Attributes:
        bad: The lines of each file that are no records.
        left_out: How many events are not meant.
        passed: The last of those.
        from_line: As given.
    """

    def __init__(self, files: Sequence[Path], chosen: Chosen, *, from_line: int) -> None:
        self.files = tuple(files)
        self.chosen = chosen
        self.bad = [BadLines(path) for path in files]
        self.left_out = 0
        self.passed: Entry | None = None
        self.from_line = from_line
        self._size = sum(path.stat().st_size for path in files)
        self._read = 0
        self._names: set[str] = set()

    def events(self, go_on: Callable[[], bool] = lambda: True) -> Iterator[Entry]:
        """The events, those of each file in their order.

        Args:
            go_on: Asked before each record, meant or not.
        """
        for path, bad in zip(self.files, self.bad, strict=True):
            first = self.from_line if path == self.files[0] else 1
            for entry in read_entries(path, on_bad=bad, progress=self._advance):
                if not go_on():
                    return
                if entry.line < first:
                    continue
                if self.chosen(entry.event, entry.metadata):
                    yield entry
                    continue
                self.left_out += 1
                self.passed = entry
                if len(self._names) < NAMED:
                    self._names.add(".".join(entry.event))

    def check_not_empty(self, events: int) -> None:
        """Refuse a recording that has given nothing.

        Raises:
            click.ClickException: It has; names are offered that are near to those asked for.
        """
        if events:
            return
        where = ", ".join(map(str, self.files))
        where += f" from line {self.from_line} on" if self.from_line > 1 else ""
        if self.left_out:
            near = self.chosen.hint(self._names)
            raise click.ClickException(f"No record in {where} is such an event.{near}")
        raise click.ClickException(f"There is no record in {where}.")

    def place(self) -> str:
        """How much of the files was read."""
        share = min(self._read / self._size, 1.0) if self._size else 1.0
        return f"{share:.0%} of {self._size / 1e6:,.1f} MB"

    def _advance(self, size: int) -> None:
        self._read += size


def run(recording: Recording, targets: Sequence[Target], *, speed: float, as_json: bool) -> None:
    """Send the events, and say how that went.

    Args:
        recording: The events.
        targets: The handlers.
        speed: How many times as fast as it was; 0 is as fast as the handlers take it.
        as_json: Whether the summary is JSON, on standard output.

    Raises:
        click.ClickException: A handler cannot be attached, or failed.
    """
    from handlers.replay import Replay, Replayed  # noqa: PLC0415 -- after check_process

    _check_options(recording, targets)
    registry = Registry()
    places = [target.handler for target in targets]
    progress = Progress(shown=sys.stderr.isatty() and "console" not in places)
    summary = _Summary(recording, Replayed(), time.monotonic())
    only_shown = set(places) == {"console"}

    def log(text: str, is_error: bool) -> None:
        if not (only_shown and reader_is_gone()):
            progress.log(text, is_error)

    with stopping(summary.last_words) as stop, log_lines(log), ExitStack() as last:
        attachments = last.enter_context(attached(registry, targets))
        _check_no_circle(recording, attachments)
        replay = Replay(registry, attachments, stop=stop, speed=speed)
        summary.totals = replay.totals
        try:
            _replay(replay, recording, progress, stop)
        except click.ClickException as error:
            if only_shown and reader_is_gone():
                raise BrokenPipeError from error  # who reads has enough
            if not stop.asked:
                raise
            progress.say(error.message)
        finally:
            last.close()
            replay.count_losses()  # those of the handlers' end as well
            if not (only_shown and reader_is_gone()):
                summary.say(progress, stopped=stop.asked)
        if as_json:
            click.echo(orjson.dumps(summary.as_dict()))
    if stop.asked:
        sys.exit(INTERRUPTED)
    if replay.totals.lost:
        sys.exit(1)
    recording.check_not_empty(replay.totals.events)


def dry_run(recording: Recording, targets: Sequence[Target], *, as_json: bool) -> None:
    """Print what would be sent.

    Args:
        recording: The events.
        targets: The handlers, whose options are checked.
        as_json: Whether to print it as JSON.

    Raises:
        click.ClickException: An option is wrong.
    """
    _check_options(recording, targets)
    counts: Counter[str] = Counter()
    first = last = None
    for entry in recording.events():
        counts[".".join(entry.event)] += 1
        if entry.time_ns is not None:
            first = entry.time_ns if first is None else min(first, entry.time_ns)
            last = entry.time_ns if last is None else max(last, entry.time_ns)
    for bad in recording.bad:
        if bad.count:
            click.echo(printable_lines(bad.text()), err=True)
    recording.check_not_empty(counts.total())
    names = [target.handler for target in targets]
    since, until = _moment(first), _moment(last)
    if as_json:
        total = counts.total()
        told = {"to": names, "events": counts, "total": total, "from": since, "until": until}
        click.echo(orjson.dumps(told))
        return
    for name, count in sorted(counts.items()):
        click.echo(f"{count:>12,}  {printable(name)}")
    when = f", from {since} to {until}" if since else ""
    click.echo(f"{counts.total():>12,}  events would be sent to {', '.join(names)}{when}.")


@dataclass
class _Summary:
    """What a replay has done, in words.

    Attributes:
        recording: Where the events came from.
        totals: What was counted.
        began: When, by the monotonic clock.
    """

    recording: Recording
    totals: Replayed
    began: float

    def say(self, progress: Progress, *, stopped: bool) -> None:
        """Say it all."""
        for bad in self.recording.bad:
            if bad.count:
                progress.say(bad.text())
        progress.say(self.text())
        if stopped:
            progress.say(self.how_to_go_on())

    def last_words(self) -> str:
        """What is said by who waits for nothing any more."""
        return f"\n{self.text()}\n{self.how_to_go_on()}\n"

    def text(self) -> str:
        """What was sent, and what was not."""
        text = f"Replayed {self.totals.events:,} events in {self._seconds():.1f} s"
        if self.recording.left_out:
            text += f"; left out: {self.recording.left_out:,}"
        if self.totals.undated:
            text += f"; without a time, so sent with that of now: {self.totals.undated:,}"
        lost = [f"{count:,} ({policy})" for policy, count in self.totals.lost.items()]
        return f"{text}; lost: {', '.join(lost)}." if lost else f"{text}."

    def as_dict(self) -> dict[str, Any]:
        """The same for a script."""
        last = self.totals.delivered
        return {
            "events": self.totals.events,
            "left_out": self.recording.left_out,
            "undated": self.totals.undated,
            "bad_lines": sum(bad.count for bad in self.recording.bad),
            "lost": self.totals.lost,
            "seconds": round(self._seconds(), 3),
            "delivered": last and {"file": _utf8(last.source), "line": last.line},
        }

    def how_to_go_on(self) -> str:
        """What to write to send the rest."""
        files = self.recording.files
        last = self.totals.delivered if self.totals.events else self.recording.passed
        if last is None and not self.totals.events:
            return "Stopped before the first event."
        source, line = files[0], self.recording.from_line - 1
        if last is not None:
            source, line = last.source, last.line
        rest = " ".join(shell_word(str(file)) for file in files[files.index(source) + 1 :])
        done = (
            f"after line {line:,} of {printable(str(source))}"
            if last
            else "before any event is known to have arrived"
        )
        begin = f"{shell_word(str(source))} --from-line {line + 1}"
        return f"Stopped {done}. To go on: {begin}{f', then {rest}' if rest else ''}"

    def _seconds(self) -> float:
        return time.monotonic() - self.began


def _replay(replay: Replay, recording: Recording, progress: Progress, stop: Stop) -> None:
    from handlers import DeliveryError  # noqa: PLC0415 -- after check_process

    def go_on() -> bool:
        progress(replay.totals.events, recording.place)
        return not stop.asked

    try:
        replay.run(recording.events(go_on))
    except DeliveryError as error:
        raise click.ClickException(str(error)) from error


def _check_options(recording: Recording, targets: Sequence[Target]) -> None:
    """Refuse a circle before there is one: a handler mends the end of its file when it opens it.

    Two handlers that write one file would break each other's lines.
    """
    written: set[Path] = set()
    for target in targets:
        options = options_of(target)
        name = options.get("path")
        if not isinstance(name, str):
            continue
        path = at_home(name)
        _refuse_circle(recording, options.get("id", target.handler), path)
        if path.resolve() in written and not path.is_char_device():
            raise click.ClickException(
                f"Two handlers would write to {path}. Give each its own: --option path=FILE."
            )
        written.add(path.resolve())


def _check_no_circle(recording: Recording, attachments: Sequence[SinkAttachment]) -> None:
    for attachment in attachments:
        path = getattr(attachment.handler, "path", None)
        if isinstance(path, Path):
            _refuse_circle(recording, attachment.id, path)


def _refuse_circle(recording: Recording, handler_id: object, path: Path) -> None:
    """Refuse a handler that writes to a file which is read: that would never end."""
    if path.exists() and any(path.samefile(file) for file in recording.files):
        raise click.ClickException(
            f"Handler {str(handler_id)!r} would write to the file that is read, {path.absolute()}. "
            "Give it another: --option path=FILE."
        )


def _utf8(path: Path) -> str:
    """A name for JSON, which has no form for other bytes."""
    return os.fsencode(path).decode(errors="replace")


def _moment(time_ns: int | None) -> str | None:
    return None if time_ns is None else datetime.fromtimestamp(time_ns // 10**9, tz=UTC).isoformat()
