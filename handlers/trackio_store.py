"""Where the handler ``trackio`` writes: trackio's own database of a project.

trackio's ``Run`` is not used: it has a thread of its own, swallows what goes wrong, gives each row
the time at which it was logged, and looks up who is logged in to Hugging Face.

Source: https://huggingface.co/docs/trackio
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from handlers.alerts import Alert
from handlers.records import Site
from handlers.rows import Row, placed
from telemetry.extras import import_extra

VARIABLE: Final = "TRACKIO_DIR"
STEP: Final = "step"
LEVELS: Final = {"error": "error", "warning": "warn", "info": "info"}
BUSY: Final = 0.5
"""Seconds to wait for a database that somebody has locked."""


class Vendor(NamedTuple):
    """What is used of trackio."""

    storage: ModuleType
    utils: ModuleType


class Run:
    """A run in a project's database, each write a transaction.

    What is written again after an error is not there twice: each row has an id.

    Args:
        vendor: What is used of trackio.
        project: Its name.
        name: Of the run.
        run_id: Its id, by which runs of the same name are told apart.
        config: Hyperparameters.
    """

    def __init__(
        self,
        vendor: Vendor,
        *,
        project: str,
        name: str,
        run_id: str,
        config: Mapping[str, Any],
    ) -> None:
        self.project = project
        self.name = name
        self.id = run_id
        self._storage = vendor.storage.SQLiteStorage
        self._reserved = frozenset(vendor.utils.RESERVED_KEYS)
        self._config: dict[str, Any] | None = vendor.utils.to_json_safe(dict(config))
        self._numbers = itertools.count(1)
        # Not the run's: one that is resumed has rows already.
        self._source = uuid.uuid4().hex

    def new_id(self) -> str:
        """An id for a row or an alert."""
        return f"{self._source}-{next(self._numbers)}"

    def write(self, rows: Sequence[tuple[str, Row]]) -> None:
        """Add rows with their ids."""
        self._see_that_it_is_free()
        self._storage.bulk_log(
            project=self.project,
            run=self.name,
            metrics_list=[self._values(row) for _, row in rows],
            steps=[_step(row) for _, row in rows],
            timestamps=[timestamp(row.time_ns) for _, row in rows],
            log_ids=[row_id for row_id, _ in rows],
            config=self._config,
            run_id=self.id,
        )
        self._config = None  # it is there now

    def alert(self, alert_id: str, alert: Alert, row: Row) -> None:
        """Add an alert, at the place and time of a row."""
        self._see_that_it_is_free()
        self._storage.bulk_alert(
            project=self.project,
            run=self.name,
            titles=[alert.title],
            texts=[alert.text],
            levels=[LEVELS[alert.severity]],
            steps=[_step(row)],
            timestamps=[timestamp(row.time_ns)],
            alert_ids=[alert_id],
            run_id=self.id,
        )

    def _see_that_it_is_free(self) -> None:
        """Do not wait for half a minute, as trackio does for who has locked the database."""
        path = self._storage.get_project_db_path(self.project)
        if path.exists():
            with closing(sqlite3.connect(path, timeout=BUSY, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")

    def _values(self, row: Row) -> dict[str, float]:
        """The values of a row, with what is counted where that is not the step."""
        stepped = row.place is None or row.place.axis == STEP
        values = row.values if stepped else placed(row)
        return {
            f"__{key}" if key in self._reserved else key: float(value)
            for key, value in values.items()
        }


def passes(error: Exception) -> float | None:
    """How long to wait after an error at least; None for one that does not pass.

    A database that is locked and a disk that is full pass.
    """
    return 0.0 if isinstance(error, OSError | sqlite3.OperationalError) else None


def import_vendor(site: Site, wanted: Path | None) -> Vendor:
    """Import trackio, which keeps its databases in one directory from then on.

    Args:
        site: Where the sink is attached.
        wanted: The directory, which is absolute; None for trackio's own choice.

    Raises:
        MissingExtraError: The package ``trackio`` is not installed.
        ValueError: It uses another directory already, or one on a network's file system.
    """
    about = f"Handler {site.handler_id!r}"
    with _directory(None if "trackio" in sys.modules else wanted):
        vendor = Vendor(
            *(
                import_extra(module, extra="trackio", feature="The handler 'trackio'")
                for module in ("trackio.sqlite_storage", "trackio.utils")
            )
        )
    used = Path(vendor.storage.TRACKIO_DIR).absolute()
    if wanted not in (None, used):
        raise ValueError(
            f"{about}: dir is {str(wanted)!r}, but trackio writes to {str(used)!r} since it was "
            f"imported. Leave dir out, or set {VARIABLE} before."
        )
    if vendor.utils.get_storage_mode() != "sqlite":
        raise ValueError(
            f"{about}: {str(used)!r} is no place for a database: it is on a network's file system, "
            f"or TRACKIO_STORAGE_MODE says so. Set {VARIABLE} to a directory of this machine."
        )
    return vendor


@contextmanager
def _directory(wanted: Path | None) -> Iterator[None]:
    """Tell trackio where, which it looks up once, when it is imported."""
    before = os.environ.get(VARIABLE)
    if wanted is not None:
        os.environ[VARIABLE] = str(wanted)
    try:
        yield
    except BaseException:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before
        raise


def prepare(site: Site, vendor: Vendor, project: str) -> None:
    """Make the project's database, if it is not there.

    Raises:
        ValueError: trackio does not allow the name.
        OSError: The directory cannot be written.
    """
    try:
        vendor.storage.SQLiteStorage.validate_project_name(project)
        vendor.storage.SQLiteStorage.init_db(project)
    except ValueError as error:
        raise ValueError(f"Handler {site.handler_id!r}: {error}") from error
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise OSError(
            getattr(error, "errno", None),
            f"Handler {site.handler_id!r} cannot write in {str(vendor.storage.TRACKIO_DIR)!r}: "
            f"{reason}. Give a directory that can be written: dir='runs', or {VARIABLE}.",
        ) from error


def timestamp(time_ns: int) -> str:
    """A time as trackio writes it.

    Example:
        >>> timestamp(1_700_000_000_250_000_000)
        '2023-11-14T22:13:20.250000+00:00'
    """
    seconds, rest = divmod(time_ns, 10**9)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000).isoformat()


def _step(row: Row) -> int | None:
    """The step of a row; trackio itself finds one for a row that has none."""
    return None if row.place is None else row.place.number
