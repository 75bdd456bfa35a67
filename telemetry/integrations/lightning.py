"""Reporting the loops of ``lightning.pytorch``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from telemetry.emit import emit_epoch, emit_eval
from telemetry.extras import import_extra
from telemetry.integrations.fit import Fit
from telemetry.integrations.lightning_metrics import Metrics
from telemetry.integrations.lightning_saves import Saves
from telemetry.integrations.lightning_steps import Steps, steps_of

if TYPE_CHECKING:
    from lightning.pytorch import Callback, LightningModule, Trainer
else:
    _FEATURE = {"extra": "lightning", "feature": "telemetry.integrations.lightning"}
    Callback = import_extra("lightning.pytorch", **_FEATURE).Callback

__all__ = ["TelemetryCallback"]


class TelemetryCallback(Callback):
    """Report what a ``Trainer`` does.

    ``fit``, ``validate``, ``test`` and ``predict`` are each a run with a stage of that name; inside
    a `telemetry.workflow_run` of yours they are stages of it. A validation inside a fit is a stage
    of the fit, and so is the ``sanity_check``, which is no evaluation.

    ==========================  ===============================================================
    ``training.step``           once per optimizer step: ``loss`` (the mean of its batches), ``lr``
                                (of the first parameter group), and the other scalars of the
                                dictionary that ``training_step`` returned last
    ``training.timing``         likewise; in manual optimization once per batch that has stepped
    ``training.epoch``          ``epoch_loss`` (the mean of its batches) and what was logged with
                                ``self.log(..., on_epoch=True)``, as ``epoch_<name>``
    ``training.eval``           what was logged, under ``split`` "val" or "test", without that
                                prefix and without ``_epoch``
    ``training.checkpoint``     when the file is there; from rank zero
    ==========================  ===============================================================

    All events carry ``run_id``, ``attempt``, ``epoch`` and ``step``, both counted from 1. ``step``
    is ``trainer.global_step`` once the step is made; what happens on the way to it has the same
    number. Device tensors are handed over unread. A ``training_step`` that returns None is no step,
    in automatic optimization.

    A fit that goes on from a checkpoint is a new attempt at its run, and so is a further fit of the
    same trainer, if it goes on. Evaluations belong to the attempt that has trained. A failing hook,
    an interrupt included, ends the stage and the run with the exception event.

    Args:
        workflow: The name of the runs; by default the class of the ``LightningModule``.
        run_id: Which run; by default that of the checkpoint or the `telemetry.context` around, or
            a new one.
        attempt: Which attempt at it; by default one more than that of the checkpoint, or what the
            launcher tells, see `telemetry.workflow_run`.
        without: What the start of the run shall not tell, such as ``["user", "command"]``.

    Raises:
        TypeError: A name is no string, or the attempt no number.
        ValueError: A name is empty, the attempt is less than 1, or ``without`` has an unknown name.

    Example:
        >>> callback = TelemetryCallback("digits")  # for Trainer(callbacks=[callback])
        >>> callback.state_dict()  # of the run, once there is one
        {}
    """

    def __init__(
        self,
        workflow: str | None = None,
        *,
        run_id: str | None = None,
        attempt: int | None = None,
        without: Iterable[str] = (),
    ) -> None:
        self._fit = Fit(workflow, run_id=run_id, attempt=attempt, without=without)
        self._steps = Steps(self._fit)
        self._metrics = Metrics()
        self._saves = Saves(self._fit)
        self._restored: dict[str, int] = {}
        self._trainer: Trainer | None = None  # whose run it is in
        self._ended: Any = None
        self._since = 0

    def state_dict(self) -> dict[str, Any]:
        """Which run it is, for Lightning's checkpoint."""
        return self._fit.state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the run of a checkpoint."""
        self._fit.load_state_dict(state_dict)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note of which step the weights are: Lightning restores its counts for a fit only."""
        step = checkpoint.get("global_step")
        self._restored = {} if step is None else {"step": step}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch out for checkpoints, from now on.

        Raises:
            ValueError: Another trainer uses this callback at this moment.
        """
        if self._trainer is not None:
            _check_is_over(self._trainer, trainer)
            self._finish(self._trainer, _unexplained())
        self._saves.look_again(last=stage == "fit")
        self._saves.watch(trainer)
        self._restored = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the run and its stage."""
        if not trainer.strategy.restore_checkpoint_after_setup:  # else the state is yet to come
            self._begin(trainer, pl_module)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin its stage."""
        self._begin(trainer, pl_module)
        self._fit.begin("sanity_check", module=type(pl_module).__module__)

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End its stage."""
        self._fit.leave()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the counts, which may be those of a checkpoint."""
        self._begin(trainer, pl_module)
        self._steps = steps_of(pl_module, self._fit)
        self._steps.start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the epoch before, of which all is known now."""
        self._end_epoch(trainer)
        self._steps.start_epoch(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Say which step is next."""
        self._steps.start_batch(batch)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Any
    ) -> None:
        """Note the learning rate: when the batch ends, a scheduler may have changed it."""
        self._steps.before(optimizer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Report the step, if the batch has made one."""
        self._steps.end_batch(trainer, outputs)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Have the epoch's metrics computed."""
        self._steps.end_epoch()
        self._saves.look_again()
        self._metrics.end_epoch(trainer, self._steps.losses.of_epoch())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report the last epoch."""
        self._end_epoch(trainer)
        self._steps.stop(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin its stage."""
        if not trainer.sanity_checking:
            self._begin_evaluation(trainer, pl_module, "validate")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was measured."""
        if not trainer.sanity_checking:
            self._end_evaluation(trainer, "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin its stage."""
        self._begin_evaluation(trainer, pl_module, "test")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report what was measured."""
        self._end_evaluation(trainer, "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin its stage."""
        self._begin_evaluation(trainer, pl_module, "predict")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End its stage."""
        self._fit.leave()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the run; the trainer's tuner leaves a fit without any other hook."""
        if trainer is self._trainer:
            self._finish(trainer, None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the run with the exception, even one that came before it had begun."""
        if self._trainer is None and not self._has_ended():
            self._open(trainer, pl_module, share=False)
        if trainer is self._trainer:
            self._finish(trainer, exception)

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        if self._trainer is None:
            self._open(trainer, module, share=trainer.world_size > 1)

    def _open(self, trainer: Trainer, module: LightningModule, *, share: bool) -> None:
        function = trainer.state.fn
        name = "fit" if function is None else function.value
        self._trainer = trainer
        self._fit.begin(
            name,
            module=type(module).__module__,
            workflow=type(module).__name__,
            trains=name == "fit",
            resumes=trainer.global_step > 0,
            share=trainer.strategy.broadcast if share else None,
        )

    def _begin_evaluation(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if self._trainer is not None:
            self._steps.start_evaluation(trainer)
            self._fit.begin(stage, module=type(module).__module__, trains=False)
        else:
            self._begin(trainer, module)
            self._fit.at(**self._place_of_weights(trainer))
        self._metrics.start_evaluation(trainer)
        self._since = time.monotonic_ns()

    def _end_evaluation(self, trainer: Trainer, split: str) -> None:
        measured = self._metrics.end_evaluation(trainer, split)
        if measured:
            emit_eval(measured, split=split)
        self._fit.leave()
        self._saves.look_again()
        self._fit.timer.leave_out(time.monotonic_ns() - self._since)
        self._fit.timer.wait()

    def _place_of_weights(self, trainer: Trainer) -> dict[str, int]:
        if self._restored or trainer.ckpt_path is not None:
            return self._restored  # nothing, if the checkpoint has the weights only
        made = trainer.global_step
        return {"step": made} if made else {}

    def _end_epoch(self, trainer: Trainer, *, failed: bool = False) -> None:
        measured = self._metrics.of_epoch(trainer, failed=failed)
        if measured is not None:
            last = trainer.max_epochs
            total = None if last is None or last < 1 else last
            emit_epoch(measured, epoch=self._steps.epoch, total_epochs=total)

    def _finish(self, trainer: Trainer, error: BaseException | None) -> None:
        self._end_epoch(trainer, failed=error is not None)
        self._steps.stop(trainer)
        self._saves.look_again(last=True)
        self._fit.end(error)
        self._trainer = None
        self._ended = vars(self).get("log")

    def _has_ended(self) -> bool:
        # A failing teardown comes after the end, a failing prepare_data before any hook of the next
        # run. But first of all Lightning gives each callback the module's `log` anew.
        return self._ended is not None and self._ended is vars(self).get("log")


def _check_is_over(known: Trainer, trainer: Trainer) -> None:
    if known is not trainer and known.state.status == "running":
        raise ValueError(
            "This TelemetryCallback reports another trainer, which is running. Give each trainer "
            "its own: Trainer(callbacks=[TelemetryCallback()])."
        )


def _unexplained() -> RuntimeError:
    return RuntimeError(
        "The fit before has ended without telling why: another callback's on_exception has "
        "failed before TelemetryCallback was asked."
    )
