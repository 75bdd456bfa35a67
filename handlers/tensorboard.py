"""Measurements as scalars in a directory that TensorBoard shows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from handlers.clock import event_time_ns
from handlers.curves import Curves, key_of, step_of
from handlers.directories import directory_of
from handlers.each import take_each
from handlers.event_file import EventFile, NotWrittenError
from handlers.forks import renew_in_children
from handlers.losses import Losses, countable
from handlers.ranked import ranked
from handlers.records import Site, TimedEvent
from handlers.tfrecord import Framing
from telemetry import EventName
from telemetry.extras import import_extra
from telemetry.metrics import Metric

VERSION: Final = "brain.Event:2"
"""With it, TensorBoard keeps the points of a step that goes backwards, as after a resumed run."""


class Vendor(NamedTuple):
    """What is used of TensorBoard: its messages.

    Its writers are not, because they import TensorFlow wherever it is installed, which takes
    seconds, and each starts a thread of its own.
    """

    event_pb2: ModuleType
    summary_pb2: ModuleType

    def header(self) -> bytes:
        """The message that an event file begins with."""
        source = self.event_pb2.SourceMetadata(writer=__name__)
        header = self.event_pb2.Event(
            wall_time=event_time_ns() / 1e9, file_version=VERSION, source_metadata=source
        )
        return bytes(header.SerializeToString())


class TensorBoard:
    """A sink that writes an event file.

    What a batch brings is with the kernel when the batch is done. When the disk is full, the sink
    goes on: it counts the events that are missing, announces them as
    ``telemetry.handler.overflow`` with the policy ``disk_full``, and writes again as soon as that
    works. A forked child writes a file of its own beside its parent's.
    """

    delivery = "background"

    def __init__(
        self, curves: Curves, vendor: Vendor, new_file: Callable[[], EventFile], losses: Losses
    ) -> None:
        self._curves = curves
        self._vendor = vendor
        self._new_file = new_file
        self._losses = losses
        self._lock = threading.RLock()
        self._file = new_file()
        self._file.write([])
        renew_in_children(self)

    @property
    def path(self) -> Path:
        """The event file of this process."""
        return self._file.path

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Write one event."""
        self.deliver_many([TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))])

    def hears(self, event: EventName) -> bool:
        """Whether events of a name have points."""
        return self._curves.reports(event)

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Write what came."""
        messages: list[tuple[TimedEvent, bytes]] = []
        with self._lock:
            error = take_each(batch, lambda entry: messages.append((entry, self._message(entry))))
            written = [(entry, message) for entry, message in messages if message]
            try:
                self._file.write([message for _, message in written])
            except NotWrittenError as failure:
                lost = written[len(written) - failure.lost :]
                self._losses.note(countable(entry for entry, _ in lost), failure)
        self._losses.announce_if_due()
        if error is not None:
            raise error

    def where_to_look(self) -> str:
        """The event file."""
        return str(self.path)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._losses.note(self._file.close(), "closed in the middle of a record")
        self._losses.announce_rest()

    def after_fork(self) -> None:
        """In a forked child: a lock and a file of its own, which is made when something comes."""
        self._lock = threading.RLock()
        self._file.forget()
        self._file = self._new_file()

    def _message(self, entry: TimedEvent) -> bytes:
        """The scalars of one event; empty if it has none."""
        value = self._vendor.summary_pb2.Summary.Value
        scalars = [
            value(tag=key_of(point.name), simple_value=point.value)
            for point in self._curves.points(entry)
        ]
        if not scalars:
            return b""
        message = self._vendor.event_pb2.Event(
            wall_time=entry.time_ns / 1e9,
            step=step_of(entry),
            summary=self._vendor.summary_pb2.Summary(value=scalars),
        )
        return bytes(message.SerializeToString())


def create(
    site: Site,
    *,
    log_dir: str | os.PathLike[str],
    metrics: Iterable[Metric] | None = None,
) -> TensorBoard:
    """Make the handler ``tensorboard``.

    Args:
        site: Where it is attached.
        log_dir: The directory of this run, which is made, together with a new event file in it.
            Give each run its own: TensorBoard shows one directory as one run. ``~`` is your home.
            ``{rank}`` in it stands for the process's rank; with ``ranks="all"`` and no ``{rank}``,
            each rank has a sub-directory ``rank0``, ``rank1``, ...
        metrics: What to report, by default `telemetry.metrics.tracking`: a curve for each
            measurement.

    Raises:
        MissingExtraError: The package ``tensorboard`` is not installed.
        TypeError: An option is of a wrong type.
        ValueError: The directory is empty, or is none of this machine.
        OSError: It cannot be written.

    Example:
        >>> import handlers, telemetry
        >>> with handlers.attach("tensorboard", log_dir="runs/a") as board:
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        >>> board.handler.path.name.startswith("events.out.tfevents.")
        True

    References:
        https://www.tensorflow.org/tensorboard
    """
    directory = Path(ranked(site, str(directory_of(site, "log_dir", log_dir)), "/"))
    curves = Curves(metrics)
    feature = "The handler 'tensorboard'"
    vendor = Vendor(
        *(
            import_extra(f"tensorboard.compat.proto.{module}", extra="tensorboard", feature=feature)
            for module in ("event_pb2", "summary_pb2")
        )
    )
    # TensorBoard needs it as well.
    framing = Framing(import_extra("numpy", extra="tensorboard", feature=feature))
    try:
        directory.mkdir(parents=True, exist_ok=True)
        return TensorBoard(
            curves,
            vendor,
            lambda: EventFile(directory, framing.records, vendor.header()),
            Losses(site, "disk_full"),
        )
    except OSError as error:
        raise OSError(
            error.errno,
            f"Handler {site.handler_id!r} cannot write in {str(directory)!r}: "
            f"{error.strerror or error}. Give a directory that can be written: log_dir='runs/a'.",
        ) from error
