"""Events as lines of JSON in a file."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from handlers.clock import event_time_ns
from handlers.device import needs_device
from handlers.encoding import WouldWaitError, all_finite, encode, host_only
from handlers.gzip_line_file import GzipLineFile
from handlers.line_file import LineFile
from handlers.losses import Losses, is_announcement
from handlers.records import Defer, Site
from handlers.timestamps import timestamp
from telemetry import EventName
from telemetry.ranks import rank

RANK: Final = "{rank}"

# orjson leaves out a dataclass's private fields; `jsonable` does not, and both must agree.
_FAST: Final = (
    orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_PASSTHROUGH_DATACLASS
)
_now = time.time_ns
_dumps = orjson.dumps
_write = os.write


class Jsonl:
    """A sink that writes each event as one line.

    When the disk is full, or the file cannot be written for another reason, it goes on: it counts
    the events that are missing in the file, announces them as ``telemetry.handler.overflow`` with
    the policy ``disk_full``, and writes again as soon as that works.
    """

    delivery = "eager"

    def __init__(self, file: LineFile | GzipLineFile, losses: Losses) -> None:
        self._file = file
        self._losses = losses
        self.defer: Defer = self._write_here

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Write an event of this moment, unless that has to wait for a device."""
        # The caller waits for this: two functions in between would cost it a tenth of a line.
        time_ns = _now()
        record = {
            "timestamp": timestamp(time_ns),
            "event": ".".join(event),
            "measurements": measurements,
            "metadata": metadata,
        }
        try:
            line = _dumps(record, host_only, _FAST)
        except Exception as error:  # surrogates, big integers, strange keys, cycles, hostile ones
            # orjson stops at the first of these; a value on a device may come after it.
            if isinstance(error.__cause__, WouldWaitError) or needs_device(measurements, metadata):
                self.defer(event, measurements, metadata)
                return
            line = encode(time_ns, event, measurements, metadata)
        # A null is a None, or a NaN that orjson could not write; no other search is as fast.
        if line.rpartition(b"null")[1] and not all_finite(measurements, metadata):
            line = encode(time_ns, event, measurements, metadata)
        try:
            file = self._file.descriptor
            if file is None or file.torn:
                self._file.write(line)
            elif (written := _write(file.number, line)) != len(line):
                file.append(line[written:])
        except OSError as error:
            self._file.suspect()
            self._losses.add(0 if is_announcement(event) else 1, error)

    def deliver(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Write an event that was emitted at any time, whatever it takes to read its values."""
        try:
            self._file.write(encode(event_time_ns(), event, measurements, metadata))
        except OSError as error:
            self._file.suspect()
            self._losses.add(0 if is_announcement(event) else 1, error)

    def close(self) -> None:
        """Close the file."""
        self._losses.announce_rest()
        self._file.close()

    def where_to_look(self) -> str:
        """The file."""
        return str(self.path)

    def _write_here(
        self, event: EventName, measurements: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        self.deliver(event, measurements, metadata, None)


def create(site: Site, *, path: str | os.PathLike[str]) -> Jsonl:
    """Make the handler ``jsonl``.

    Args:
        site: Where it is attached.
        path: The file, whose directories are made. It is appended to, never overwritten; one that
            is moved away is written to wherever it is. ``~`` is your home. With the suffix ``.gz``
            it is compressed. ``{rank}`` in it stands for the process's rank as it is known now:
            attach after the process group was made, or under a launcher. With ``ranks="all"``
            and no ``{rank}``, the rank comes before the suffix.

    Raises:
        TypeError: The path is no string and no ``os.PathLike``.
        ValueError: It is empty.
        OSError: The file cannot be opened for writing.
    """
    target = _ranked(_check_path(site, path), site)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        compressed = target.suffix.lower() == ".gz"
        file = GzipLineFile(target) if compressed else LineFile(target)
    except OSError as error:
        raise OSError(
            error.errno,
            f"Handler {site.handler_id!r} cannot write {str(target)!r}: {error.strerror or error}. "
            "Give a file that can be written: path='runs/metrics.jsonl'.",
        ) from error
    return Jsonl(file, Losses(site, "disk_full"))


def _check_path(site: Site, path: object) -> str:
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise TypeError(
            f"Handler {site.handler_id!r}: path must be a string or an os.PathLike, got {path!r} "
            f"({type(path).__name__}). Write path='runs/metrics.jsonl'."
        )
    if Path(text).name in ("", "..") or "\0" in text or not _can_be_encoded(text):
        raise ValueError(
            f"Handler {site.handler_id!r}: path must name a file, got {path!r}. "
            "Write path='runs/metrics.jsonl'."
        )
    return text


def _can_be_encoded(path: str) -> bool:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    return True


def _ranked(path: str, site: Site) -> Path:
    """The path of this process: no two ranks share a compressed file, or need to share any."""
    number = str(rank() or 0)
    # Absolute, because a late event or a forked child opens it again wherever it is by then.
    whole = Path(os.path.expanduser(path)).absolute()  # noqa: PTH111 -- Path's raises for a "~name" without a home
    if RANK in path or site.ranks == "zero":
        return Path(str(whole).replace(RANK, number))
    suffix = "".join(whole.suffixes[-2:]) if whole.suffix.lower() == ".gz" else whole.suffix
    return whole.with_name(f"{whole.name.removesuffix(suffix)}.{number}{suffix}")
