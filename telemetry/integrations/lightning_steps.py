"""The optimizer steps of a Lightning fit: their numbers, losses and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from telemetry.extras import import_extra
from telemetry.integrations.fit import STEP, Fit
from telemetry.integrations.lightning_losses import Losses
from telemetry.registry import default_registry
from telemetry.timing import TIMING, batch_size_of

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import GradientAccumulationScheduler
else:
    GradientAccumulationScheduler = import_extra(
        "lightning.pytorch.callbacks", extra="lightning", feature="telemetry.integrations.lightning"
    ).GradientAccumulationScheduler

torch = import_extra("torch", extra="lightning", feature="telemetry.integrations.lightning")

execute = default_registry.execute


class Steps:
    """Tells each optimizer step to a `Fit`, and where the training is.

    A batch makes one step or none; Lightning's count says which.

    Attributes:
        epoch: Counted from 1.
        losses: Their means.
    """

    def __init__(self, fit: Fit) -> None:
        self.epoch = 1
        self.losses = Losses()
        self._fit = fit
        self._total: dict[str, int] = {}
        self._made = 0
        self._placed = -1
        self._lr: Any = None
        self._is_stepping = False  # from the optimizer's turn to the end of the batch

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """A training starts, or goes on in the middle of an epoch."""
        self.start_epoch(trainer)

    def start_epoch(self, trainer: Trainer) -> None:
        """An epoch starts."""
        self._is_stepping = False
        self.epoch = trainer.current_epoch + 1
        self._made = trainer.global_step
        total = total_steps(trainer)
        self._total = {} if total is None else {"total_steps": total}
        self.losses.start_epoch()
        self._at(self._made + 1)
        self._fit.timer.step()  # of the epoch before: batches that have made none
        self._fit.timer.wait()

    def end_epoch(self) -> None:
        """An epoch is over: what follows is of its last step, none is in progress."""
        if self._placed != self._made:
            self._at(self._made)

    def start_batch(self, batch: object) -> None:
        """The next step is on its way."""
        self._fit.timer.work(batch_size_of(batch))
        coming = self._made + 1
        if self._placed != coming:
            self._placed = coming
            self._fit.at(epoch=self.epoch, step=coming)

    def before(self, optimizer: Any) -> None:
        """An optimizer is about to step."""
        lr = optimizer.param_groups[0].get("lr")
        self._lr = lr if type(lr) is float else _copy(lr)
        self._is_stepping = True

    def end_batch(self, trainer: Trainer, outputs: Any) -> None:
        """A batch has ended, and the wait for the next one begins."""
        parts = trainer.accumulate_grad_batches
        self.losses.add(outputs, parts)
        made = trainer.global_step
        self._is_stepping = False
        if made > self._made:
            self._made = made
            measured = self.losses.take()
            if measured:
                self._tell(measured, self._lr, timed=True)
            else:
                self._fit.timer.step()  # training_step returned None: Lightning counts it, no more
        self._fit.timer.wait()

    def _tell(self, measured: dict[str, Any], lr: Any, *, timed: bool) -> None:
        if lr is not None:
            measured["lr"] = lr
        about = {"step": self._made, **self._total}
        execute(STEP, measured, about)
        if timed:
            execute(TIMING, self._fit.timer.step(), about)

    def start_evaluation(self, trainer: Trainer) -> None:
        """An evaluation starts: it measures the steps that are made, not the one in progress."""
        self._at(trainer.global_step)

    def stop(self, trainer: Trainer) -> None:
        """The training is over. A step whose batch failed after it is told without a loss."""
        if self._is_stepping and trainer.global_step > self._made:
            self._made = trainer.global_step
            self._tell({}, self._lr, timed=False)
        self._is_stepping = False

    def _at(self, step: int) -> None:
        self._placed = step
        self._fit.at(epoch=self.epoch, step=step)


class ManualSteps(Steps):
    """The same in manual optimization, where a batch can make several steps.

    The optimizers themselves tell of each, so that what comes between two steps has the number of
    the second. Only the last step of a batch has a loss: what ``training_step`` returned.
    """

    def __init__(self, fit: Fit) -> None:
        super().__init__(fit)
        self._asked: dict[int, Any] = {}
        self._held: tuple[Any] | None = None
        self._undo: list[Callable[[], None]] = []

    def start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen to the optimizers."""
        optimizers: list[Any] = trainer.optimizers
        hooks = [
            each.register_step_post_hook(self._stepped)
            for each in optimizers
            if isinstance(each, torch.optim.Optimizer)  # Lightning takes others, too
        ]
        self._undo = [hook.remove for hook in hooks]
        super().start(trainer, module)

    def before(self, optimizer: Any) -> None:
        """An optimizer is about to step, and Lightning counts it."""
        super().before(optimizer)
        self._asked[id(optimizer)] = self._lr

    def end_batch(self, trainer: Trainer, outputs: Any) -> None:
        """A batch has ended: its last step is told with the loss."""
        self.losses.add(outputs, 1, copy=True)
        self._catch_up(trainer)
        self._is_stepping = False
        if self._held is not None:
            (lr,), self._held = self._held, None
            self._tell(self.losses.take(), lr, timed=True)
            self._at(self._made)
        self._fit.timer.wait()

    def stop(self, trainer: Trainer) -> None:
        """Leave the optimizers alone, and tell the steps of a batch that has failed after them."""
        while self._undo:
            self._undo.pop()()
        if self._is_stepping:
            self._catch_up(trainer)
        self._is_stepping = False
        held, self._held = self._held, None
        if held is not None:
            self._tell({}, *held, timed=False)

    def _stepped(self, optimizer: Any, *_: object) -> None:
        if id(optimizer) in self._asked:
            self._count(self._asked.pop(id(optimizer)))
            self._at(self._made + 1)

    def _catch_up(self, trainer: Trainer) -> None:
        """Count what no optimizer told: a GradScaler left it out, or it is none of torch's."""
        rates, self._asked = list(self._asked.values()), {}
        for index in range(trainer.global_step - self._made):
            self._count(rates[index] if index < len(rates) else self._lr)

    def _count(self, lr: Any) -> None:
        if self._held is not None:
            self._tell({}, *self._held, timed=False)
        self._made += 1
        self._held = (lr,)


def steps_of(module: LightningModule, fit: Fit) -> Steps:
    """What tells the steps of a module's training."""
    return Steps(fit) if module.automatic_optimization else ManualSteps(fit)


def total_steps(trainer: Trainer) -> int | None:
    """How many optimizer steps the trainer will have made; None if it cannot tell.

    Asked only once the dataloaders are there, which it would set up otherwise.
    """
    module = trainer.lightning_module
    if any(isinstance(each, GradientAccumulationScheduler) for each in trainer.callbacks):  # type: ignore[attr-defined] # set in its constructor
        return None
    if not module.automatic_optimization:  # only a limit of steps counts what it will step
        total: float = trainer.max_steps if trainer.max_epochs == -1 else -1
    else:
        total = trainer.estimated_stepping_batches
    return int(total) if 0 < total < math.inf else None


def _copy(lr: Any) -> Any:
    # A tensor is what a scheduler writes to.
    return lr.detach().clone() if hasattr(lr, "detach") else lr
