"""The checkpoints that a Lightning trainer saves."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from telemetry.ambient import ambient_metadata
from telemetry.emit import emit_checkpoint
from telemetry.integrations.fit import Fit
from telemetry.integrations.saved import Fingerprint, fingerprint
from telemetry.spans import NOTHING

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_METHOD: Final = "save_checkpoint"
_MOST: Final = 8
_Pending: TypeAlias = tuple[Fingerprint | None, dict[str, Any]]


class Saves:
    """Reports a checkpoint when its file is there.

    Lightning tells no callback of a file, so the method of the trainer with which everything saves
    is stood in for, on that trainer only. What an ``AsyncCheckpointIO`` writes appears later and
    is looked for now and then. What a ``CheckpointIO`` puts elsewhere never does: it has no size.
    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._pending: dict[str, _Pending] = {}

    def watch(self, trainer: Trainer) -> None:
        """Stand in for the trainer's method; it may be done already."""
        there = vars(trainer).get(_METHOD)
        if not (isinstance(there, _WatchedSave) and there.saves is self):
            setattr(trainer, _METHOD, _WatchedSave(trainer, self, there))

    def look_again(self, *, last: bool = False) -> None:
        """Report what has appeared; the last time, all that was saved."""
        for path, (before, metadata) in list(self._pending.items()):
            if self._report(path, before, metadata):
                del self._pending[path]
            elif last or len(self._pending) > _MOST:
                del self._pending[path]
                emit_checkpoint({}, metadata)

    def saved(self, trainer: Trainer, path: str, before: Fingerprint | None) -> None:
        """The trainer has saved, or will soon."""
        name = Path(path).name.removesuffix(".ckpt")
        if name.startswith(".") or not trainer.is_global_zero:
            return  # the tuner's, which removes it again; another rank's
        # Another run may have begun when the file is there.
        metadata = {**(ambient_metadata() or NOTHING)}
        if not self._fit.active:
            metadata |= self._fit.state_dict()  # the run is over, and its context with it
        metadata |= {"checkpoint_name": name, "path": path, "step": trainer.global_step}
        self.look_again()
        if not self._report(path, before, metadata):
            self._pending[path] = (before, metadata)

    def _report(self, path: str, before: Fingerprint | None, metadata: dict[str, Any]) -> bool:
        if "://" in path:
            emit_checkpoint({}, metadata)
            return True
        now = fingerprint(path)
        if now is None or now == before:
            return False
        emit_checkpoint({"size_bytes": now.size}, metadata)
        return True


class _WatchedSave:
    """A trainer's ``save_checkpoint``, watched."""

    def __init__(self, trainer: Trainer, saves: Saves, inner: Callable[..., None] | None) -> None:
        self.saves = saves
        self._trainer = trainer
        self._inner = inner

    def __call__(self, filepath: Any, *args: Any, **kwargs: Any) -> None:
        path = os.fspath(filepath)
        before = fingerprint(path)
        if self._inner is None:
            type(self._trainer).save_checkpoint(self._trainer, filepath, *args, **kwargs)
        else:
            self._inner(filepath, *args, **kwargs)
        self.saves.saved(self._trainer, path, before)
