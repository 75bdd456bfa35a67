"""One run in an MLflow store."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from handlers.forks import hold_while_forking
from handlers.mlflow_store import import_mlflow, one_call

RUN_ID_TAG: Final = "trainbus.id"

FORK_WAIT: Final = 2.0
"""Seconds for which a fork waits at most for what is being written to a file."""


class Run:
    """A run that is continued, or made at first use.

    Args:
        store: Where.
        run_id: Of a run that exists; None makes one.
        experiment: Name of the experiment, which is made; None for the one that the environment
            names, or else MLflow's "Default".
        name: Of the run; None lets MLflow think of one.
        tags: Of the run.

    Attributes:
        run_id: None until it is made.
        ours: Whether this process made it, so that it is to end it.
    """

    def __init__(
        self,
        store: Any,
        *,
        run_id: str | None,
        experiment: str | None,
        name: str | None,
        tags: Mapping[str, str],
    ) -> None:
        self._store = store
        self._given = run_id
        self._experiment = experiment
        self._name = name
        self._entities = import_mlflow("mlflow.entities")
        self._tags = {**tags, RUN_ID_TAG: uuid.uuid4().hex}
        self._start_time = _now()
        self._attempted = False
        self.run_id: str | None = None
        self.ours = False
        self._engine = getattr(store, "engine", None)  # a file's
        self._writing = threading.Lock()
        self._held: list[bool] = []
        if self._engine is not None:
            hold_while_forking(self)

    def start(self) -> None:
        """Make the run, or see that it exists."""
        if self.run_id is not None:
            return
        with self._one_call():
            if self._given is not None:
                self._store.get_run(self._given)
                self.run_id = self._given
                return
            experiment = self._experiment_id()
            # An attempt that failed here may have succeeded there.
            self.run_id = self._made(experiment) if self._attempted else None
            self._attempted = True
            self.run_id = self.run_id or self._make(experiment)
            self.ours = True

    def log(self, points: Sequence[tuple[str, float, int, int]]) -> None:
        """Add points: name, value, time in milliseconds, step; at most 1000 of them."""
        self.start()
        metrics = [self._entities.Metric(*point) for point in points]
        with self._one_call():
            self._store.log_batch(self.run_id, metrics, [], [])

    def end(self, status: str) -> None:
        """Set the status of a run that was made here: "FINISHED", "FAILED" or "KILLED"."""
        number = self._entities.RunStatus.from_string(status)
        with self._one_call():
            self._store.update_run_info(self.run_id, number, _now(), None)

    def before_fork(self) -> None:
        """End a transaction: a child would take it for its own, and wait for its end for ever."""
        self._held.append(self._writing.acquire(timeout=FORK_WAIT))

    def after_fork_in_parent(self) -> None:
        """Let the next transaction begin."""
        if self._held.pop():
            self._writing.release()

    def after_fork(self) -> None:
        """In a forked child, which continues a run that its parent made, and does not end it."""
        self._writing = threading.Lock()
        self._held = []
        self.ours = False
        self._attempted = False
        self._tags[RUN_ID_TAG] = uuid.uuid4().hex
        if self._engine is not None:
            self._engine.dispose(close=False)  # the parent's connections are for the parent

    @contextmanager
    def _one_call(self) -> Iterator[None]:
        with self._writing, one_call():
            yield

    def _experiment_id(self) -> str:
        name = self._experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        if not name:
            return os.environ.get("MLFLOW_EXPERIMENT_ID") or "0"
        found = self._store.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._store.create_experiment(name))
            except import_mlflow("mlflow.exceptions").MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = self._store.get_experiment_by_name(name)  # another process was faster
        return str(found.experiment_id)

    def _made(self, experiment: str) -> str | None:
        wanted = f"tags.`{RUN_ID_TAG}` = '{self._tags[RUN_ID_TAG]}'"
        active = self._entities.ViewType.ACTIVE_ONLY
        found = self._store.search_runs([experiment], wanted, active, 1)
        return str(found[0].info.run_id) if found else None

    def _make(self, experiment: str) -> str:
        tags = [self._entities.RunTag(key, value) for key, value in self._tags.items()]
        user = self._tags.get("mlflow.user", "unknown")
        run = self._store.create_run(experiment, user, self._start_time, tags, self._name)
        return str(run.info.run_id)


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000
