"""Measurements and alerts in a run of Weights & Biases.

Source: https://docs.wandb.ai/models/ref/python
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from handlers.alerts import RAISED, Alert, alert_of
from handlers.clock import event_time_ns
from handlers.curves import Curves
from handlers.forks import renew_in_children
from handlers.losses import Losses, countable
from handlers.records import Site, TimedEvent
from handlers.rows import Row, Rows
from handlers.secrets import Secrets
from handlers.wandb_axes import Axes
from handlers.wandb_finish import finish
from handlers.wandb_run import NewRun, running
from telemetry import EventName
from telemetry.extras import import_extra
from telemetry.metrics import Metric

LEVELS: Final = {"error": "ERROR", "warning": "WARN", "info": "INFO"}
ENDS: Final = {
    "forked": "the run is that of the parent process",
    "finished": "the run has ended",
    "refused": "W&B takes no more",
}
"""Why nothing is logged any more, and how the log says it."""
TITLE: Final = 63
"""Characters that W&B allows in the title of an alert."""


class Wandb:
    """A sink that logs rows to a run.

    The events of one step are one row, whatever their order; a step that goes backwards is a row
    like any other. Only the process that attached it logs: what a forked child emits is counted
    and announced as ``telemetry.handler.overflow`` with the policy ``forked``, what comes after
    the end of the run with the policy ``finished``, and what W&B no longer takes with ``refused``.

    Args:
        site: Where it is attached.
        run: The ``wandb.Run``.
        rows: Merges events.
        is_own: Whether the run ends with the handler.
        alerts: Whether ``alert.raised`` becomes an alert of W&B.
        idle_after: Seconds without an event after which the open rows are logged.
        secrets: What errors must not show.
    """

    delivery = "background"

    def __init__(
        self,
        site: Site,
        run: Any,
        rows: Rows,
        *,
        is_own: bool,
        alerts: bool,
        idle_after: float,
        secrets: Secrets,
    ) -> None:
        self.idle_after = idle_after
        self._site = site
        self._run = run
        self._rows = rows
        self._axes = Axes(site, run)
        self._is_own = is_own  # and not finished yet
        self._alerts = alerts
        self._secrets = secrets
        self._lock = threading.RLock()
        self._closed = False
        self._kept = 0  # events of earlier deliveries
        self._losses = {policy: Losses(site, policy) for policy in ENDS}
        self._end = ""  # why nothing is logged any more
        renew_in_children(self)

    @property
    def run(self) -> Any:
        """The ``wandb.Run`` that it logs to."""
        return self._run

    def after_fork(self) -> None:
        """In a forked child: W&B would log to the run of the parent, who still does."""
        self._lock = threading.RLock()
        self._end = "forked"
        self._is_own = False

    def kept(self) -> int:
        """How many events of earlier deliveries wait in open rows."""
        return self._kept

    def __call__(
        self,
        event: EventName,
        measurements: Mapping[str, Any],
        metadata: Mapping[str, Any],
        config: Any,
    ) -> None:
        """Log one event."""
        self.deliver_many([TimedEvent(event_time_ns(), event, dict(measurements), dict(metadata))])

    def hears(self, event: EventName) -> bool:
        """Whether events of a name are in rows, or are alerts."""
        return self._rows.hears(event) or (self._alerts and event == RAISED)

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Log the rows that are complete with what came.

        Raises:
            DeliveryError: The run takes no more: it was finished by somebody else, or W&B's own
                process is gone.
        """
        if self._end:
            self._losses[self._end].add(countable(batch), ENDS[self._end])
            if self._closed:  # nobody would ask for the rest
                self._announce_rest()
            return
        with self._logging():
            for entry in batch:
                self._log(self._rows.add(entry))
                alert = alert_of(entry) if self._alerts else None
                if alert is not None:
                    self._alert(alert)
            # A late event has nobody who would ask for the rest.
            self._log(self._rows.rest() if self._closed else self._rows.due())

    def idle(self) -> None:
        """Log what is there: the loop takes its time for the next."""
        self.flush()

    def flush(self) -> None:
        """Log what was kept back."""
        if self._end:
            self._announce_rest()
            return
        with self._logging():
            self._log(self._rows.rest())

    def where_to_look(self) -> str:
        """The run's page, or how to send it there when it is offline."""
        if self._run.offline:
            return f"wandb sync {Path(self._run.dir).parent.absolute()}"
        return self._run.url or ""

    def why_silent(self) -> str:
        """That the run is switched off, if it is."""
        return "the run's mode is 'disabled'" if self._run.disabled else ""

    def close(self) -> None:
        """Log what was kept back, and finish the run if it is the handler's own."""
        self._closed = True
        try:
            self.flush()
        finally:
            if self._is_own:
                self._is_own = False
                exit_code = 1 if self._end else 0
                # Before it: who emits meanwhile must not wait for an upload.
                self._end = self._end or "finished"
                finish(self._site, self._run, exit_code, self._secrets)

    @contextmanager
    def _logging(self) -> Iterator[None]:
        """Announce losses outside of the lock, for which who hears of them may wait."""
        try:
            with self._lock:
                yield
                self._kept = self._rows.events
        finally:
            self._losses["refused"].announce_if_due()

    def _announce_rest(self) -> None:
        for losses in self._losses.values():
            losses.announce_rest()

    def _log(self, rows: Iterable[Row]) -> None:
        left = list(rows)
        while left:
            row = left[0]
            self._try(
                lambda: self._run.log({**self._axes.placed(row), "_timestamp": row.time_ns / 1e9})  # noqa: B023 -- called at once
            )
            del left[0]
            self._kept = min(self._kept, self._rows.events + sum(row.events for row in left))

    def _alert(self, alert: Alert) -> None:
        # How often is for the rule to say: W&B's own pause of a minute would hide alerts.
        self._try(
            lambda: self._run.alert(
                alert.title[:TITLE], alert.text, LEVELS[alert.severity], wait_duration=1
            )
        )

    def _try(self, attempt: Callable[[], object]) -> None:
        """Do it; after an error nothing more is tried."""
        try:
            attempt()
        except Exception as error:
            self._end = "refused"
            # The events of this delivery are counted by who made it.
            self._losses["refused"].note(self._kept, ENDS["refused"])
            self._rows.rest()
            self._kept = 0
            about = (
                f"Handler {self._site.handler_id!r} cannot log to the run {self._run.id!r}. "
                "If your program finishes it, detach the handler first"
            )
            raise self._secrets.error(error, about) from None


def create(
    site: Site,
    *,
    project: str | None = None,
    name: str | None = None,
    run: Any = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 -- W&B's own name for it
    entity: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: Sequence[str] = (),
    notes: str | None = None,
    config: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    resume: bool | Literal["allow", "never", "must", "auto"] | None = None,
    api_key: str | None = None,
    alerts: bool = True,
    metrics: Iterable[Metric] | None = None,
    flush_interval: float = 0.5,
    init_timeout: float = 20.0,
    finish_timeout: float = 4.0,
    settings: Mapping[str, Any] | None = None,
) -> Wandb:
    """Make the handler ``wandb``.

    It logs to the run given as ``run``, or to the one that is active (``wandb.run``), and leaves
    its end to whoever began it. Where there is none, it begins one of its own, which ends when
    the handler is detached.

    Args:
        site: Where it is attached.
        project: Of a run of its own, as ``wandb.init`` has it; so are the options down to
            ``resume``.
        name: Of the run. ``{rank}`` in it stands for the process's rank; with ``ranks="all"`` and
            no ``{rank}``, the rank comes after it.
        run: The ``wandb.Run`` to log to; then no option for a run of its own is allowed.
        mode: ``"offline"`` writes to disk only, for ``wandb sync``. None: as ``WANDB_MODE`` says,
            or online.
        dir: Where the directory ``wandb`` is made. None: as ``WANDB_DIR`` says, or where the
            program runs.
        entity: User or team.
        group: Of the run.
        job_type: Of the run.
        tags: Of the run.
        notes: Of the run.
        config: Hyperparameters.
        run_id: To go on with a run later, together with ``resume``. With ``ranks="all"`` it must
            have ``{rank}`` in it.
        resume: What to do about an earlier run of this id.
        api_key: Of the user. Rather set ``WANDB_API_KEY``, or use ``wandb login``.
        alerts: Whether ``alert.raised`` becomes an alert of W&B as well.
        metrics: What to report, by default `telemetry.metrics.tracking`: a curve for each
            measurement.
        flush_interval: Seconds within which what was emitted is in the file of a run of its own,
            where it survives the end of the process by SIGKILL.
        init_timeout: Seconds to wait for W&B; when it is not reached, a run of its own is begun
            offline.
        finish_timeout: Seconds for which the end of a run of its own waits for the upload, if
            ``flush_timeout`` is longer. What is left is on disk, for ``wandb sync``.
        settings: Further ones of ``wandb.Settings``, for a run of its own.

    Raises:
        MissingExtraError: The package ``wandb`` is not installed.
        TypeError: An option is of a wrong type.
        ValueError: One has a value that is not allowed.
        OSError: The directory cannot be written.
        CredentialsError: Nobody is logged in, or W&B refuses who is.
        DeliveryError: W&B cannot begin the run for another reason.

    Example:
        >>> import handlers, telemetry
        >>> with handlers.attach("wandb", project="demo", mode="disabled") as wandb:
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        >>> wandb.active
        False
    """
    new = NewRun(
        site=site,
        project=project,
        name=name,
        mode=mode,
        dir=dir,
        entity=entity,
        group=group,
        job_type=job_type,
        tags=tags,
        notes=notes,
        config=config,
        run_id=run_id,
        resume=resume,
        api_key=api_key,
        settings=settings,
        flush_interval=flush_interval,
        init_timeout=init_timeout,
        finish_timeout=finish_timeout,
    )
    new.check()
    new = new.ranked()
    if not isinstance(alerts, bool):
        raise TypeError(
            f"Handler {site.handler_id!r}: alerts must be True or False, got {alerts!r} "
            f"({type(alerts).__name__})."
        )
    curves = Curves(metrics)
    vendor = import_extra("wandb", extra="wandb", feature="The handler 'wandb'")
    other = running(vendor, new, run)
    return Wandb(
        site,
        new.begin(vendor) if other is None else other,
        # Half of the interval passes in W&B's own buffer.
        Rows(curves, patience=flush_interval / 4),
        is_own=other is None,
        alerts=alerts,
        idle_after=flush_interval / 4,
        secrets=new.secrets,
    )
