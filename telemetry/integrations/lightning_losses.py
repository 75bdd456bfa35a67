"""Mean losses of steps and epochs, in the tensors of the device: nothing is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from telemetry.extras import import_extra
from telemetry.integrations.scalars import scalar_of

torch = import_extra("torch", extra="lightning", feature="telemetry.integrations.lightning")

_MANY: Final = 64


class Losses:
    """Means of what ``training_step`` returns, over the batches of a step and of an epoch.

    Example:
        >>> import torch
        >>> losses = Losses()
        >>> for value in (1.0, 3.0):
        ...     losses.add({"loss": torch.tensor(value) / 2}, parts=2)
        >>> losses.take()
        {'loss': tensor(2.)}
    """

    def __init__(self) -> None:
        self._parts = 1
        self._sum: Any = None
        self._batches = 0
        self._scalars: dict[str, Any] = {}
        self._epoch_sum: Any = None
        self._epoch_batches = 0
        self._unsummed: list[Any] = []

    def start_epoch(self) -> None:
        """Forget what was added."""
        self._sum = self._epoch_sum = None
        self._batches = self._epoch_batches = 0
        self._unsummed = []

    def add(self, outputs: Mapping[str, Any] | None, parts: int, *, copy: bool = False) -> None:
        """Take in a batch.

        Args:
            outputs: What Lightning hands to ``on_train_batch_end``: a mapping with the ``loss``,
                and empty for a batch without one.
            parts: By what Lightning has divided that loss.
            copy: Whether the loss is the module's own tensor, which it may write to.
        """
        if not outputs or "loss" not in outputs:
            return
        loss = outputs["loss"]
        if loss.ndim:
            loss = _mean(loss)  # manual optimization may return any shape
        elif copy:
            loss = loss.clone()
        self._sum = loss if self._batches == 0 else _wide(self._sum) + loss
        self._batches += 1
        self._parts = parts
        if len(outputs) > 1:
            self._scalars = _scalars(outputs)

    def take(self) -> dict[str, Any]:
        """The mean loss of the batches since the last step, and scalars of the last batch.

        Empty if no batch had a loss.
        """
        if self._batches == 0:
            return {}
        total = self._sum
        # The last step of an epoch can have fewer batches than the loss was divided by.
        mean = total if self._parts == self._batches else total * (self._parts / self._batches)
        self._unsummed.append(total)
        if len(self._unsummed) == _MANY:
            self._sum_up()
        self._epoch_batches += self._batches
        self._batches = 0
        if not self._scalars:
            return {"loss": mean}
        scalars, self._scalars = self._scalars, {}
        return {"loss": mean, **scalars}

    def of_epoch(self) -> Any:
        """The mean loss of the batches of all steps of the epoch; None if there was none."""
        if self._epoch_batches == 0:
            return None
        self._sum_up()
        return self._epoch_sum * (self._parts / self._epoch_batches)

    def _sum_up(self) -> None:
        """Add many at once: every operation costs, on a device too."""
        losses, self._unsummed = self._unsummed, []
        if losses:
            if len({(loss.device, loss.dtype) for loss in losses}) > 1:
                losses = _alike(losses)
            total = _wide(torch.stack(losses)).sum()
            self._epoch_sum = total if self._epoch_sum is None else self._epoch_sum + total


def _alike(losses: list[Any]) -> list[Any]:
    # To skip a batch, modules return a zero that was made on the host.
    devices = [loss.device for loss in losses]
    device = next((each for each in devices if each.type != "cpu"), devices[0])
    return [_wide(loss).to(device) for loss in losses]


def _mean(loss: Any) -> Any:
    exact = loss.is_floating_point() or loss.is_complex()
    return (loss if exact else loss.float()).mean()  # torch has no mean of integers


def _wide(loss: Any) -> Any:
    return loss.float() if loss.dtype.itemsize < 4 else loss  # noqa: PLR2004 -- bytes of a float32


def _scalars(outputs: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        name: scalar_of(value)
        for name, value in outputs.items()
        if name != "loss" and isinstance(name, str)
    }
    return {name: value for name, value in found.items() if value is not None}
