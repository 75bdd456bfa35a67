"""The checkpoints of a Keras ``fit``, and the run that ``BackupAndRestore`` goes on with."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import keras  # type: ignore[import-untyped] # it ships no types

from telemetry.emit import emit_checkpoint
from telemetry.integrations.saved import fingerprint
from telemetry.log import log_error

RUN_FILE: Final = "telemetry_run.json"
"""Beside a backup: which run it is of. Keras removes the folder when the fit has ended."""
_METHODS: Final = ("save", "save_weights")


class Saves:
    """Reports what is saved of a model while it trains, by whomever.

    Args:
        model: Its ``save`` and ``save_weights`` are stood in for.
        saved: Called with the path of each file.
    """

    def __init__(self, model: Any, saved: Callable[[str], None]) -> None:
        self._model, self._saved = model, saved
        self._own = {name: vars(model)[name] for name in _METHODS if name in vars(model)}
        self._telling = {name: self._stand_in(getattr(model, name)) for name in _METHODS}
        vars(model).update(self._telling)

    def close(self) -> None:
        """Give the model its own methods back."""
        there = vars(self._model)
        for name, telling in self._telling.items():
            if there.get(name) is telling:
                del there[name]
                there.update({name: self._own[name]} if name in self._own else {})

    def _stand_in(self, original: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def save(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            try:
                self._tell(_path_in(original, args, kwargs))
            except Exception as error:
                log_error(error, "TelemetryCallback cannot tell what was saved. It is saved.")
            return result

        return save

    def _tell(self, given: object) -> None:
        if not isinstance(given, str | os.PathLike):
            return
        path = os.fspath(given)
        there = fingerprint(path)
        name = os.path.basename(path.rstrip("/"))  # noqa: PTH119 -- may be a URL
        size = None if there is None else there.size
        emit_checkpoint(size_bytes=size, checkpoint_name=name, path=path)
        self._saved(path)


class Backup:
    """Which run a ``BackupAndRestore`` goes on with.

    Args:
        callbacks: Of the fit.

    Attributes:
        run: ``run_id`` and ``attempt`` of the run that was interrupted; empty if there is none.
    """

    def __init__(self, callbacks: Iterable[Any]) -> None:
        kind = keras.callbacks.BackupAndRestore
        folder = next((str(each.backup_dir) for each in callbacks if isinstance(each, kind)), "")
        self._folder = None if not folder or "://" in folder else Path(folder)
        self.run: Mapping[str, Any] = self._read()

    def covers(self, path: str) -> bool:
        """Whether a file that was saved is a backup."""
        return self._folder is not None and Path(path).parent == self._folder

    def write(self, run: Mapping[str, Any]) -> None:
        """Note, beside the backup, which run it is of."""
        if self._folder is None:
            return
        fresh = self._folder / f"{RUN_FILE}.new"
        try:
            fresh.write_text(json.dumps(run))
            fresh.replace(self._folder / RUN_FILE)
        except (OSError, TypeError) as error:
            log_error(error, "Cannot note in %s which run the backup is of.", self._folder)

    def _read(self) -> Mapping[str, Any]:
        if self._folder is None:
            return {}
        try:
            found = json.loads((self._folder / RUN_FILE).read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            log_error(error, "Cannot read in %s which run the backup is of.", self._folder)
            return {}
        return found if isinstance(found, dict) else {}


def _path_in(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The path that a ``save`` was called with, which an override may call what it likes."""
    if args:
        return args[0]
    first = next(iter(inspect.signature(method).parameters), "filepath")
    return kwargs.get(first, kwargs.get("filepath"))
