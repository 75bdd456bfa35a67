"""What a LightningModule has logged with ``self.log``: which metric belongs to what."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

_PREFIXES: Final = {
    "train": re.compile(r"(?:train|training)[_/.-]"),
    "val": re.compile(r"(?:val|valid|validation)[_/.-]"),
    "test": re.compile(r"test[_/.-]"),
}
_FORK: Final = re.compile(r"_(?:step|epoch)(?=$|/dataloader_idx_\d+$)")


class Metrics:
    """Metrics of an evaluation or an epoch, told from the others in ``callback_metrics``.

    Lightning keeps one dictionary for all of them, and replaces the value of each that it computes.
    So what is another object than before has been computed since.
    """

    def __init__(self) -> None:
        self._before: dict[str, Any] = {}
        self._epoch: dict[str, Any] | None = None
        self._epoch_loss: Any = None

    def start_evaluation(self, trainer: Trainer) -> None:
        """An evaluation starts."""
        self._before = dict(trainer.callback_metrics)

    def end_evaluation(self, trainer: Trainer, split: str) -> dict[str, Any]:
        """What it measured."""
        before, self._before = self._before, {}
        return short_names(_changed(before, trainer.callback_metrics), split)

    def end_epoch(self, trainer: Trainer, loss: Any) -> None:
        """A training epoch ends; the hooks of others may still log something for it."""
        # On all ranks, listeners or not: computing a metric can take all of them.
        self._epoch = dict(trainer.callback_metrics)
        self._epoch_loss = loss

    def of_epoch(self, trainer: Trainer, *, failed: bool) -> dict[str, Any] | None:
        """What the epoch measured that has ended since it was asked last; None if none has.

        After a failure Lightning is not asked: to compute a metric can take ranks that never come.
        """
        before, self._epoch = self._epoch, None
        if before is None:
            return None
        loss, self._epoch_loss = self._epoch_loss, None
        mean = {} if loss is None else {"loss": loss}
        logged = {} if failed else _changed(before, trainer.callback_metrics)
        if mean and "loss" in logged:
            logged["logged_loss"] = logged.pop("loss")
        measured = short_names(logged, "train", taken=mean) | mean
        return {f"epoch_{name}": value for name, value in measured.items()}


def short_names(
    metrics: Mapping[str, Any], split: str, *, taken: Iterable[str] = ()
) -> dict[str, Any]:
    """Metrics by the names that they have without a split's prefix and Lightning's suffixes.

    Of a metric that is logged by step and by epoch, Lightning has two names for the one value. A
    name whose short form is taken, or another metric's own, stays as it is.

    Example:
        >>> short_names({"val_loss": 0.4, "val/acc": 0.9, "val/acc_epoch": 0.9}, "val")
        {'loss': 0.4, 'acc': 0.9}
    """
    found: dict[str, Any] = {}
    unavailable = {"", *taken, *metrics}
    for name in _without_forks(metrics):
        prefix = _PREFIXES[split].match(name)
        short = name[prefix.end() :] if prefix else name
        found[name if short in unavailable or short in found else short] = metrics[name]
    return found


def _without_forks(names: Iterable[str]) -> list[str]:
    known = set(names)
    return [name for name in names if not (_FORK.search(name) and _FORK.sub("", name) in known)]


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if before.get(name) is not value}
