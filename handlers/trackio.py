"""Measurements and alerts in a local database, which the dashboard of trackio shows.

Source: https://huggingface.co/docs/trackio
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal

from handlers.alerts import RAISED, Alert, alert_of
from handlers.axes import place_of
from handlers.clock import event_time_ns
from handlers.curves import Curves
from handlers.directories import directory_of
from handlers.errors import DeliveryError
from handlers.forks import renew_in_children
from handlers.losses import Losses, countable
from handlers.options import check_seconds
from handlers.patience import given_up
from handlers.ranked import ranked
from handlers.records import Site, TimedEvent
from handlers.retrying import Retrying
from handlers.rows import Row, Rows
from handlers.trackio_store import Run, Vendor, import_vendor, passes, prepare
from telemetry import EventName
from telemetry.metrics import Metric

RESUMES: Final = ("never", "allow", "must")
MOST: Final = 10_000
"""Rows and alerts that are kept while the database cannot be written."""


class Trackio:
    """A sink that writes rows to trackio's database of a project.

    A write is a transaction of some 10 ms, so rows are written together. While the database cannot
    be written they are kept, up to 10,000 of them; then the oldest go, whose events are counted and
    announced as ``telemetry.handler.overflow`` with the policy ``trackio_unwritable``. What is
    given up after an error that does not pass has the policy ``refused``. Only the process that
    attached it writes: what a forked child emits is announced with ``forked``.

    Args:
        site: Where it is attached.
        run: Where it writes.
        rows: Merges events.
        alerts: Whether ``alert.raised`` becomes an alert of trackio.
        interval: Seconds from one write to the next.
    """

    delivery = "background"

    def __init__(self, site: Site, run: Run, rows: Rows, *, alerts: bool, interval: float) -> None:
        self.idle_after = interval / 2
        self._site = site
        self._run = run
        self._rows = rows
        self._alerts = alerts
        self._interval = interval
        self._waiting: list[tuple[str, Row]] = []
        self._raised: list[Callable[[], None]] = []
        self._kept = 0  # events of earlier deliveries
        self._not_before = 0.0
        self._lock = threading.RLock()
        self._closed = False
        self._is_child = False
        self._in_child = Losses(site, "forked")
        self._refused = Losses(site, "refused")
        self._losses = Losses(site, "trackio_unwritable")
        self._retrying = Retrying(
            site, f"trackio's database of {run.project!r}", passes=passes, losses=self._losses
        )
        renew_in_children(self)

    @property
    def run(self) -> Run:
        """Where it writes: ``.project``, ``.name`` and ``.id``."""
        return self._run

    def after_fork(self) -> None:
        """In a forked child: a thread that is not here may hold the locks of the database."""
        self._lock = threading.RLock()
        self._is_child = True

    def kept(self) -> int:
        """How many events of earlier deliveries wait; without the lock, which a write holds."""
        return self._kept

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Take one event."""
        self.deliver_many([TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))])

    def hears(self, event: EventName) -> bool:
        """Whether events of a name are in rows, or are alerts."""
        return self._rows.hears(event) or (self._alerts and event == RAISED)

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Take what came, and write if it is time to.

        Raises:
            DeliveryError: The database cannot be written for a reason that does not pass.
        """
        if self._is_child:
            self._in_child.add(countable(batch), "the run is that of the parent process")
            return
        with self._writing():
            for entry in batch:
                self._keep(self._rows.add(entry))
                alert = alert_of(entry) if self._alerts else None
                if alert is not None:
                    self._raise(alert, entry)
            if self._closed:  # nobody would ask for the rest
                self._write_last()
            elif time.monotonic() >= self._not_before:
                self._keep(self._rows.due())
                self._write(self._retrying.once)

    def idle(self) -> bool:
        """Write what is there; whether that is to be tried again."""
        return not self.flush()

    def flush(self) -> bool:
        """Write what was kept back; False says that it has to wait."""
        if self._is_child:
            return True
        with self._writing():
            self._keep(self._rows.rest())
            self._write(self._retrying.once)
            return not (self._waiting or self._raised)

    def close(self) -> None:
        """Write what was kept back, for as long as the end may take."""
        self._closed = True
        try:
            if not self._is_child:
                with self._writing():
                    self._write_last()
        finally:
            for losses in (self._in_child, self._refused, self._losses):
                losses.announce_rest()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Announce losses outside of the lock, for which who hears of them may wait."""
        try:
            with self._lock:
                yield
                self._kept = self._events()
        finally:
            self._losses.announce_if_due()
            self._refused.announce_if_due()

    def _write_last(self) -> None:
        self._keep(self._rows.rest())
        self._write(lambda attempt: self._retrying(attempt, size=0))
        if not given_up():  # otherwise who waited for the worker has counted them
            self._losses.note(self._events(), "it cannot be written, and this is the end")
        self._forget()

    def _events(self) -> int:
        """How many events are kept; an alert is one besides its row."""
        return self._rows.events + sum(row.events for _, row in self._waiting) + len(self._raised)

    def _forget(self) -> None:
        self._rows.rest()
        self._waiting.clear()
        self._raised.clear()
        self._kept = 0

    def _keep(self, rows: Iterable[Row]) -> None:
        self._waiting.extend((self._run.new_id(), row) for row in rows)
        oldest = self._waiting[: max(0, len(self._waiting) - MOST)]
        del self._waiting[: len(oldest)]
        self._drop(sum(row.events for _, row in oldest))

    def _drop(self, count: int) -> None:
        self._kept = max(0, self._kept - count)
        self._losses.note(count, "it cannot be written, and no more can wait")

    def _raise(self, alert: Alert, entry: TimedEvent) -> None:
        row = Row(place_of(entry.metadata), entry.time_ns)
        alert_id = self._run.new_id()
        if len(self._raised) >= MOST:
            self._drop(1)
            return
        self._raised.append(lambda: self._run.alert(alert_id, alert, row))

    def _write(self, trying: Callable[[Callable[[], object]], bool]) -> None:
        if not (self._waiting or self._raised):
            return
        self._not_before = time.monotonic() + self._interval
        try:
            trying(self._attempt)
        except Exception as error:
            # The events of this delivery are counted by who made it.
            self._refused.note(self._kept, "they came before one that failed")
            self._forget()
            raise DeliveryError(
                f"Handler {self._site.handler_id!r} cannot write the run {self._run.name!r} of "
                f"trackio's project {self._run.project!r}: {type(error).__name__}: {error}"
            ) from error

    def _attempt(self) -> None:
        if self._waiting:
            self._run.write(self._waiting)
            self._waiting.clear()
            self._kept = min(self._kept, self._events())
        while self._raised:
            self._raised[0]()
            self._raised.pop(0)
            self._kept = min(self._kept, self._events())


def create(
    site: Site,
    *,
    project: str,
    name: str | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 -- as the handler "wandb" has it
    group: str | None = None,
    config: Mapping[str, Any] | None = None,
    resume: Literal["never", "allow", "must"] = "never",
    alerts: bool = True,
    metrics: Iterable[Metric] | None = None,
    flush_interval: float = 1.0,
) -> Trackio:
    """Make the handler ``trackio``.

    It writes to this machine only. ``trackio sync --project P --space-id USER/SPACE`` copies a
    project to a Space of Hugging Face.

    Args:
        site: Where it is attached.
        project: The project, which is made if it is not there.
        name: Of the run; None for one that trackio makes up. ``{rank}`` in it stands for the
            process's rank; with ``ranks="all"`` and no ``{rank}``, the rank comes after it.
        dir: Where trackio keeps its databases, which it can be told once in a process. None: as
            ``TRACKIO_DIR`` says, or in its cache.
        group: Of the run.
        config: Hyperparameters; names that begin with ``_`` are trackio's own.
        resume: Whether to go on with the latest run of this name: ``"never"``, ``"allow"``, or
            ``"must"``, which refuses to begin one.
        alerts: Whether ``alert.raised`` becomes an alert of trackio as well.
        metrics: What to report, by default `telemetry.metrics.tracking`: a curve for each
            measurement.
        flush_interval: Seconds from one write to the next.

    Raises:
        MissingExtraError: The package ``trackio`` is not installed.
        TypeError: An option is of a wrong type.
        ValueError: One has a value that is not allowed.
        OSError: The directory cannot be written.

    Example:
        >>> import handlers, telemetry
        >>> with handlers.attach("trackio", project="demo", name="first") as trackio:
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        >>> trackio.handler.run.name
        'first'
    """
    _check_texts(site, project=project, name=name, group=group)
    _check_config(site, config)
    _check_rest(site, name, resume, alerts, flush_interval)
    directory = None if dir is None else directory_of(site, "dir", dir)
    curves = Curves(metrics)
    vendor = import_vendor(site, directory)
    prepare(site, vendor, project)
    name = None if name is None else ranked(site, name)
    run = _begin(site, vendor, project, name, resume, group=group, config=config or {})
    # A row is open for half of the interval, so that what waits for a write is complete.
    rows = Rows(curves, patience=flush_interval / 2)
    return Trackio(site, run, rows, alerts=alerts, interval=flush_interval)


def _begin(
    site: Site,
    vendor: Vendor,
    project: str,
    name: str | None,
    resume: str,
    *,
    group: str | None,
    config: Mapping[str, Any],
) -> Run:
    """The run: a new one, or the latest of its name."""
    storage = vendor.storage.SQLiteStorage
    earlier = storage.get_latest_run_record_by_name(project, name) if name else None
    if resume == "must" and earlier is None:
        raise ValueError(
            f"Handler {site.handler_id!r}: there is no run {name!r} to resume in the project "
            f"{project!r}. Begin one with resume='allow'."
        )
    name = name or str(vendor.utils.generate_readable_name(storage.get_runs(project)))
    if earlier is not None and resume != "never":
        return Run(vendor, project=project, name=name, run_id=str(earlier["id"]), config=config)
    new = {"_Username": None, "_Created": datetime.now(UTC).isoformat(), "_Group": group}
    run_id = uuid.uuid4().hex
    return Run(vendor, project=project, name=name, run_id=run_id, config={**new, **config})


def _check_texts(site: Site, *, project: object, **others: object) -> None:
    for option, given in {"project": project, **others}.items():
        if not (isinstance(given, str) or (given is None and option != "project")):
            raise TypeError(
                f"Handler {site.handler_id!r}: {option} must be a string, got {given!r} "
                f"({type(given).__name__})."
            )
        if given == "":
            hint = "Write project='demo'." if option == "project" else "Leave it out instead."
            raise ValueError(f"Handler {site.handler_id!r}: {option} must not be empty. {hint}")


def _check_config(site: Site, config: object) -> None:
    if config is None:
        return
    if not isinstance(config, Mapping) or not all(isinstance(key, str) for key in config):
        raise TypeError(
            f"Handler {site.handler_id!r}: config must be a mapping with strings as keys, got "
            f"{type(config).__name__}. Write config={{...}}."
        )
    for key in config:
        if key.startswith("_"):
            raise ValueError(
                f"Handler {site.handler_id!r}: config has {key!r}, but names that begin with '_' "
                f"are trackio's own. Write {key.lstrip('_')!r}."
            )


def _check_rest(
    site: Site, name: str | None, resume: object, alerts: object, flush_interval: object
) -> None:
    about = f"Handler {site.handler_id!r}"
    if resume not in RESUMES:
        raise ValueError(f"{about}: resume must be one of {RESUMES!r}, got {resume!r}.")
    if resume != "never" and name is None:
        raise ValueError(
            f"{about}: resume={resume!r} goes on with a run of a name, and name was left out. "
            "Write name='first'."
        )
    if not isinstance(alerts, bool):
        raise TypeError(
            f"{about}: alerts must be True or False, got {alerts!r} ({type(alerts).__name__})."
        )
    check_seconds(f"{about}: flush_interval", flush_interval)
