"""Measurements as metrics of an MLflow run."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from handlers.clock import event_time_ns
from handlers.curves import Curves, step_of
from handlers.each import take_each
from handlers.errors import CredentialsError
from handlers.forks import renew_in_children
from handlers.losses import Losses, countable
from handlers.mlflow_names import Names, metric_name
from handlers.mlflow_run import Run
from handlers.mlflow_store import import_mlflow, open_file, open_server, wait_after
from handlers.patience import given_up
from handlers.ranked import ranked
from handlers.records import Site, TimedEvent
from handlers.retrying import Retrying
from handlers.secrets import Secrets, check_url, parts_of_url, redact_urls
from telemetry import EventName
from telemetry.metrics import Metric
from telemetry.ranks import rank

BATCH: Final = 1000
"""Metrics that MLflow takes in one request."""

_RUN_ID: Final = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}")
_ENDS: Final = {
    ("workflow", "run", "stop"): "FINISHED",
    ("workflow", "run", "exception"): "FAILED",
}


class Mlflow:
    """A sink that writes metrics to a run.

    The run ends when the handler is detached or the program ends: as FAILED if the last
    ``workflow.run`` that was heard failed, as KILLED if it was interrupted, else as FINISHED. A run
    that was given with ``run_id`` is left as it is.
    """

    delivery = "background"

    def __init__(
        self,
        curves: Curves,
        run: Run,
        retrying: Retrying,
        losses: Losses,
        secrets: Secrets,
        place: str,
    ) -> None:
        self._losses = losses
        self._place = place
        self._curves = curves
        self._names = Names()
        self._run = run
        self._retrying = retrying
        self._secrets = secrets
        self._status = "FINISHED"
        self._closed = False
        self._refused = False  # for a reason that does not pass
        self._lock = threading.RLock()
        renew_in_children(self)

    @property
    def run_id(self) -> str | None:
        """The run's id; None until it is made, which a server's is with the first metric."""
        return self._run.run_id

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
        """Whether events of a name have points, or end the run."""
        return event in _ENDS or self._curves.reports(event)

    def deliver_many(self, batch: Sequence[TimedEvent]) -> None:
        """Write what came.

        Raises:
            CredentialsError: The server does not accept who is sending.
            DeliveryError: It refuses what is sent.
        """
        lost = 0
        with self._lock:
            points: list[tuple[str, float, int, int]] = []
            error = take_each(batch, lambda entry: points.extend(self._points(entry)))
            for start in range(0, len(points), BATCH):
                some = points[start : start + BATCH]
                if not self._try(partial(self._run.log, some)):
                    lost = 0 if given_up() else countable(batch)
                    break
            if self._closed and points:
                self._end()
        self._losses.add(lost, "no connection")
        if error is not None:
            raise error

    def where_to_look(self) -> str:
        """The run, and where it is."""
        return f"{self._place}, run {self.run_id or '(not made yet)'}"

    def close(self) -> None:
        """End the run, if it was made here."""
        with self._lock:
            self._closed = True
            self._end()
        self._losses.announce_rest()

    def after_fork(self) -> None:
        """In a forked child: a lock and connections of its own, to the same run."""
        self._lock = threading.RLock()
        self._run.after_fork()

    def start(self) -> None:
        """Make the run now, where nothing has to be waited for."""
        self._try(self._run.start)

    def _points(self, entry: TimedEvent) -> list[tuple[str, float, int, int]]:
        if entry.event in _ENDS:
            interrupted = entry.metadata.get("kind") == "exit"
            self._status = "KILLED" if interrupted else _ENDS[entry.event]
        time_ms, step = entry.time_ns // 1_000_000, step_of(entry)
        return [
            (self._names(point.name), point.value, time_ms, step)
            for point in self._curves.points(entry)
        ]

    def _end(self) -> None:
        if self._run.ours and not self._refused:
            self._try(lambda: self._run.end(self._status))

    def _try(self, attempt: Callable[[], object]) -> bool:
        try:
            return self._retrying(attempt, size=0)
        except Exception as error:
            self._refused = True
            if isinstance(error, CredentialsError):
                raise
            raise self._secrets.error(error, "MLflow refuses what is sent") from None


def create(
    site: Site,
    *,
    tracking_uri: str | os.PathLike[str] | None = None,
    experiment: str | None = None,
    run_name: str | None = None,
    run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    metrics: Iterable[Metric] | None = None,
) -> Mlflow:
    """Make the handler ``mlflow``.

    It has a run of its own, and leaves MLflow's global state alone: what is active there, and
    where that is. To write to the active run, give its id.

    Args:
        site: Where it is attached.
        tracking_uri: A server, ``http://host:5000``, or a file, ``sqlite:///mlflow.db``. By default
            where MLflow itself would write: ``MLFLOW_TRACKING_URI``, else that file.
        experiment: Its name; it is made if there is none. By default ``MLFLOW_EXPERIMENT_NAME`` or
            ``MLFLOW_EXPERIMENT_ID``, else MLflow's "Default".
        run_name: By default MLflow thinks of one. ``{rank}`` in it stands for the process's rank;
            with ``ranks="all"`` and no ``{rank}``, the rank comes after it.
        run_id: A run to continue; it is not ended when the handler is detached.
        tags: Of the run. MLflow's own (user, source) and the version of trainbus are added.
        metrics: What to report, by default `telemetry.metrics.tracking`: a curve for each
            measurement.

    Raises:
        MissingExtraError: A package of the extra ``mlflow`` is not installed.
        TypeError: An option is of a wrong type.
        ValueError: An option is of a wrong value, or two contradict each other.
        OSError: The file cannot be written.
        DeliveryError: The file is of another version of MLflow, or has no such run.

    Example:
        >>> import handlers, telemetry
        >>> uri = "sqlite:///mlflow.db"
        >>> with handlers.attach("mlflow", tracking_uri=uri, experiment="digits") as mlflow:
        ...     telemetry.execute(("training", "step"), {"loss": 2.5}, {"step": 1})
        >>> len(mlflow.handler.run_id)
        32

    References:
        https://mlflow.org/docs/latest/ml/tracking
    """
    _check_texts(site, experiment=experiment, run_name=run_name, run_id=run_id)
    _check_run_id(site, run_id, experiment=experiment, run_name=run_name, tags=tags)
    given = _tags(site, tags)
    curves = Curves(metrics)
    uri = import_mlflow().get_tracking_uri() if tracking_uri is None else tracking_uri
    file = _file(site, uri)
    secrets = _secrets(str(uri))
    store = open_server(site, str(uri)) if file is None else _open(site, file, secrets)
    run = Run(
        store,
        run_id=run_id,
        experiment=experiment,
        name=None if run_name is None else ranked(site, run_name),
        tags=given if run_id else _with_context(site, given),
    )
    place = f"MLflow at {redact_urls(str(uri)) if file is None else str(file)!r}"
    losses = Losses(site, "retries_exhausted")
    retrying = Retrying(site, place, passes=wait_after, losses=losses, secrets=secrets)
    sink = Mlflow(curves, run, retrying, losses, secrets, place)
    if file is not None:
        sink.start()
    return sink


def _open(site: Site, file: Path, secrets: Secrets) -> Any:
    try:
        return open_file(site, file)
    except import_mlflow("mlflow.exceptions").MlflowException as error:
        raise secrets.error(
            error, f"Handler {site.handler_id!r} cannot use {str(file)!r}"
        ) from None


def _file(site: Site, uri: object) -> Path | None:
    """The file that is meant; None for a server."""
    text = os.fspath(uri) if isinstance(uri, os.PathLike) else uri
    if isinstance(text, str) and text.startswith("sqlite:///"):
        database = text.removeprefix("sqlite:///")
        if not database or database == ":memory:":
            raise ValueError(
                f"Handler {site.handler_id!r}: tracking_uri {text!r} names no file, so the run "
                "would be gone with the process. Write tracking_uri='sqlite:///mlflow.db'."
            )
        if "?" in database:
            raise ValueError(
                f"Handler {site.handler_id!r}: tracking_uri {text!r} has options behind '?', which "
                f"are not used. Write {text.partition('?')[0]!r}."
            )
        # Absolute, because MLflow keeps what it has opened under the name as it was given.
        return Path(database).absolute()
    if isinstance(text, str) and not text.startswith(("http://", "https://")):
        raise ValueError(
            f"Handler {site.handler_id!r}: tracking_uri {redact_urls(text)!r} is neither a server "
            "nor an SQLite file. Allowed: 'http://host:5000', 'https://...', "
            "'sqlite:///mlflow.db'; for another database, start `mlflow server "
            "--backend-store-uri ...` in front of it."
        )
    split = check_url(
        site.handler_id,
        text,
        schemes=("http", "https"),
        example="http://host:5000",
        option="tracking_uri",
    )
    if split.query or split.fragment:
        raise ValueError(
            f"Handler {site.handler_id!r}: tracking_uri {redact_urls(str(text))!r} has a query, "
            "which MLflow does not expect. Give credentials by MLFLOW_TRACKING_TOKEN."
        )
    return None


def _secrets(uri: str) -> Secrets:
    credentials = import_mlflow("mlflow.utils.credentials").get_default_host_creds(uri)
    secrets = Secrets(
        credentials.token, credentials.username, credentials.password, *parts_of_url(uri)
    )
    secrets.hide_in_logs(["mlflow.utils.rest_utils", "urllib3.connectionpool"])
    return secrets


def _check_texts(site: Site, **options: object) -> None:
    for option, value in options.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(
                f"Handler {site.handler_id!r}: {option} must be a string, got {value!r} "
                f"({type(value).__name__})."
            )
        if value == "":
            raise ValueError(
                f"Handler {site.handler_id!r}: {option} must not be empty. Leave it out instead."
            )


def _check_run_id(site: Site, run_id: str | None, **others: object) -> None:
    if run_id is None:
        return
    if not _RUN_ID.fullmatch(run_id):
        raise ValueError(
            f"Handler {site.handler_id!r}: run_id {run_id!r} is no id of a run. Take it from "
            "run.info.run_id, or from the page of the run."
        )
    for option, value in others.items():
        if value is not None:
            raise ValueError(
                f"Handler {site.handler_id!r}: run_id names a run that exists, so {option} cannot "
                f"be given with it, got {value!r}. Leave one of them out."
            )


def _tags(site: Site, tags: object) -> dict[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, Mapping) or not all(isinstance(key, str) for key in tags):
        raise TypeError(
            f"Handler {site.handler_id!r}: tags must be a mapping with strings as keys, got "
            f"{tags!r} ({type(tags).__name__}). Write tags={{'stage': 'pretraining'}}."
        )
    for key in tags:
        if metric_name(key) != key.replace(":", "_"):
            raise ValueError(
                f"Handler {site.handler_id!r}: MLflow refuses the tag {key!r}. Allowed: letters, "
                "digits, spaces and _-.:/, at most 250 of them."
            )
    return {key: str(value) for key, value in tags.items()}


def _with_context(site: Site, tags: Mapping[str, str]) -> dict[str, str]:
    """The tags, with what MLflow itself knows of this program."""
    registry = import_mlflow("mlflow.tracking.context.registry")
    ours = {"trainbus.version": version("trainbus")}
    if site.ranks == "all":
        ours["trainbus.rank"] = str(rank() or 0)
    return {**registry.resolve_tags(), **ours, **tags}
