"""What a ``Trainer`` of Hugging Face transformers does, as events."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from telemetry.extras import import_extra
from telemetry.integrations.fit import CHECKPOINT, EPOCH, EVAL, STEP, Fit
from telemetry.integrations.saved import fingerprint
from telemetry.integrations.transformers_ranks import share, withdraw
from telemetry.integrations.transformers_step import StepLosses
from telemetry.integrations.transformers_values import evaluated, is_of_a_step, logged
from telemetry.integrations.transformers_watch import CURRENT_WATCH, Watch, watch_trainers
from telemetry.records import EventName
from telemetry.registry import default_registry
from telemetry.runs.meta import check_without
from telemetry.timing import TIMING, batch_size_of

if TYPE_CHECKING:
    from transformers import (
        Trainer,
        TrainerCallback,
        TrainerControl,
        TrainerState,
        TrainingArguments,
    )
    from transformers.trainer_callback import ExportableState
else:
    _FEATURE = {"extra": "transformers", "feature": "telemetry.integrations.transformers"}
    _CALLBACKS = import_extra("transformers.trainer_callback", **_FEATURE)
    TrainerCallback, ExportableState = _CALLBACKS.TrainerCallback, _CALLBACKS.ExportableState

__all__ = ["TelemetryCallback"]

execute, enabled = default_registry.execute, default_registry.enabled
_TRAIN: Final = "train"
_AGAIN: Final = (
    "The Trainer began to train again before the training under way had ended. With "
    "auto_find_batch_size it does so, with smaller batches, when memory has run out."
)


class TelemetryCallback(TrainerCallback, ExportableState):
    """Report what a ``Trainer`` does.

    - ``workflow.run.*`` and ``stage.run.*``, whose stage is ``train``, or ``evaluate`` or
      ``predict`` outside of training. A failure of any kind, ``KeyboardInterrupt`` too, ends them
      with their exception events.
    - ``training.step``, once per optimizer step, with the ``step`` under which the ``Trainer`` logs
      it (the first is 1) and ``total_steps``: ``loss`` of this step on this rank, its micro-batches
      summed as the ``Trainer`` does, and ``lr``, with which the step was made. A step that the
      ``Trainer`` logs also has what it logs: ``grad_norm``, ``mean_loss`` (its ``loss``: the mean
      since the last log, over all ranks, without NaN) and any other number. What is logged while a
      step is made, as by a ``compute_loss``, is on the event of this step, and what is logged
      before the first step or between two on that of the next.
    - ``training.timing``, once per optimizer step.
    - ``training.epoch`` with ``epoch_loss``, the mean of the steps of this epoch, and what is
      logged after the last of them.
    - ``training.eval``, after every evaluation and prediction, with its metrics. Its ``split`` is
      ``eval``, the name of one of several ``eval_dataset``, or the ``metric_key_prefix``.
    - ``training.checkpoint``.

    All carry ``run_id`` and ``attempt``, and in training ``epoch`` (counted from 1) and ``step``,
    as do the events of whatever else runs inside, such as a ``ClipCallback``. A ``loss`` is a
    scalar of its device, which is not waited for.

    ``trainer.train(resume_from_checkpoint=...)`` goes on with the ``run_id`` in the checkpoint, as
    a new attempt. So does each try of ``auto_find_batch_size``.

    The ``Trainer`` tells callbacks neither its batches and losses nor that it has failed. So the
    first callback that is made wraps ``Trainer.train``, ``evaluate`` and ``predict``, for all
    trainers; those without this callback only pass through. A subclass that trains without
    ``super().train()`` is reported without ``loss`` and exceptions.

    Args:
        workflow: The name of the run; by default ``run_name`` of the ``TrainingArguments``, else
            the model's class.
        run_id: Which run it is. By default that in the checkpoint, else see
            `telemetry.workflow_run`, inside of which no further run is begun.
        attempt: Which attempt at it. By default one more than that in the checkpoint, else see
            `telemetry.workflow_run`.
        without: What the start of the run shall not tell, such as ``["user", "command"]``.

    Raises:
        TypeError: A name is no string, or the attempt no number.
        ValueError: A name is empty, the attempt is less than 1, or ``without`` has an unknown name.
            At the start of training: there are two of these callbacks.
        MissingExtraError: What a ``Trainer`` needs is not installed.

    Example:
        >>> callback = TelemetryCallback("digits", run_id="r1")  # Trainer(callbacks=[callback])
        >>> callback.run
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
        skipped = check_without(without)
        self._fit = Fit(workflow, run_id=run_id, attempt=attempt, without=skipped)
        self._options = {"workflow": workflow, "without": sorted(skipped)}
        self._is_named = run_id is not None
        self._losses = StepLosses()
        self._training = self._stepping = False
        self._epoch: int | None = None
        self._step: dict[str, Any] = {}
        self._between: dict[str, Any] = {}
        self._pending: tuple[EventName, dict[str, Any], dict[str, Any]] | None = None
        self.watch: Watch | None = None
        watch_trainers(TelemetryCallback)

    @property
    def run(self) -> Mapping[str, Any]:
        """``run_id`` and ``attempt`` of the last run; empty before the first.

        Set to those of another run, the next training goes on with that one.
        """
        return self._fit.state_dict()

    @run.setter
    def run(self, run: Mapping[str, Any]) -> None:
        self._fit.load_state_dict(run)

    @property
    def reporting(self) -> bool:
        """Whether something has begun and not ended."""
        return self._fit.active

    def state(self) -> dict[str, Any]:
        """Which run and attempt this is, for ``trainer_state.json``."""
        return {"args": self._options, "attributes": {"run": self.run}}

    def begin(self, stage: str, trainer: Trainer) -> None:
        """Begin a stage, and the run that it is in."""
        self._begin(stage, type(trainer).__module__, trainer.args, trainer.model)

    def end(self, error: BaseException | None = None) -> None:
        """End whatever has begun: as it should, or with an exception."""
        self._flush()
        self._training = self._stepping = False
        self._fit.end(error)
        withdraw()

    def batch_begins(self, inputs: Any) -> None:
        """A batch is there: the waiting is over."""
        self._fit.timer.work(batch_size_of(inputs))

    def batch_ends(self, loss: Any) -> None:
        """Keep the loss, unread, if anybody wants it."""
        if enabled(STEP) or enabled(EPOCH):
            self._losses.add(loss)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the run, or go on with that of the checkpoint."""
        watch = CURRENT_WATCH.get()
        if watch is not None and watch.trainer.state is state:  # else it is that of a loop around
            watch.take(self)
        again = self._training
        if again:
            self.end(self._failure())
        resumes = self._find_run(state)
        module = (
            "transformers.trainer" if self.watch is None else type(self.watch.trainer).__module__
        )
        self._begin(_TRAIN, module, args, kwargs["model"], resumes=again or resumes)
        self._losses = StepLosses()
        self._training, self._epoch, self._between = True, None, {}

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say which epoch it is; the loop waits for data."""
        if not (self._training or self._joins(args, state, control, **kwargs)):
            return
        if self._pending is not None:
            self._flush()
        self._epoch = 1 + (int(state.epoch or 0) if self._epoch is None else self._epoch)
        place = {"step": state.global_step} if state.global_step else {}
        self._fit.at(**place, epoch=self._epoch)
        self._fit.timer.wait()

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say which step is being made."""
        if not (self._training or self._joins(args, state, control, **kwargs)):
            return
        if self._pending is not None:
            self._flush()
        if self._epoch is None:  # nobody has said that an epoch begins
            self._epoch = 1 + int(state.epoch or 0)
        self._stepping, self._step, self._between = True, self._between, {}
        self._fit.at(step=state.global_step + 1, epoch=self._epoch)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note the learning rate, before the scheduler sets the next one."""
        lr = kwargs["optimizer"].param_groups[0].get("lr")
        if type(lr) is float:
            self._step["lr"] = lr
        elif lr is not None:
            self._step["lr"] = lr.clone() if hasattr(lr, "clone") else lr  # it may be written to

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the step, at once or with what is about to be logged."""
        if not self._stepping:
            return
        place = {"step": state.global_step, "total_steps": state.max_steps}
        timer = self._fit.timer
        execute(TIMING, timer.step(), place)
        self._stepping = False
        loss = self._losses.step()
        if loss is not None:
            self._step["loss"] = loss
        if control.should_log:
            self._pending = STEP, self._step, place
        else:
            execute(STEP, self._step, place)
        timer.wait()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the epoch, with what is logged until the next thing happens."""
        if not self._training:
            return
        self._flush()
        loss = self._losses.epoch()
        place: dict[str, Any] = {} if self._epoch is None else {"epoch": self._epoch}
        if state.num_train_epochs < sys.maxsize:  # which stands for a data set without a length
            place["total_epochs"] = state.num_train_epochs
        measured, self._between = self._between, {}
        if loss is not None:
            measured["epoch_loss"] = loss
        self._pending = EPOCH, measured, place

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Let the event of this step, or epoch, or the next one, carry what is logged."""
        logs = kwargs["logs"]
        if not self._training or not is_of_a_step(logs):
            return
        if self._stepping:
            self._step |= logged(logs)
        elif self._pending is None:
            self._between |= logged(logs)
        else:
            event, measured, place = self._pending
            self._pending = event, {**measured, **logged(logs)}, place
            if "loss" in logs:
                self._flush()
        self._wait()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report what was evaluated."""
        self._flush()
        split, numbers = evaluated(kwargs["metrics"])
        execute(EVAL, numbers, {"split": split, "step": state.global_step})
        self._wait()

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        """Report what was predicted."""
        self.on_evaluate(args, state, control, metrics=metrics)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Report the checkpoint."""
        self._flush()
        if enabled(CHECKPOINT):
            name = f"checkpoint-{state.global_step}"
            place: dict[str, Any] = {"checkpoint_name": name, "step": state.global_step}
            folder = str(args.output_dir) if self.watch is None else self.watch.output_dir
            path = Path(folder, name)
            found = fingerprint(path)
            if found is None:  # another rank has saved it, elsewhere
                execute(CHECKPOINT, {}, place)
            else:
                place["path"] = str(path)
                execute(CHECKPOINT, {"size_bytes": found.size}, place)
        self._wait()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End the run, if nobody else does once the last callback was asked."""
        self._flush()
        if self.watch is None:
            self.end()

    def _joins(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> bool:
        """Whether this was added in the middle of a training, which it reports from now on."""
        watch = CURRENT_WATCH.get()
        if watch is not None and watch.trainer.state is state:
            self.on_train_begin(args, state, control, **kwargs)
        return self._training

    def _wait(self) -> None:
        if self._training and not self._stepping:
            self._fit.timer.wait()

    def _failure(self) -> RuntimeError:
        why = self.watch.failure if self.watch is not None else ""
        return RuntimeError(f"{_AGAIN} The last batch failed: {why}" if why else _AGAIN)

    def _flush(self) -> None:
        if self._pending is not None:
            event, measured, place = self._pending
            self._pending = None
            execute(event, measured, place)

    def _begin(
        self, stage: str, module: str, args: TrainingArguments, model: object, **options: Any
    ) -> None:
        self._fit.begin(
            stage,
            module=module,
            workflow=args.run_name or type(model).__name__,
            trains=stage == _TRAIN,
            share=functools.partial(share, is_named=self._is_named),
            **options,
        )

    def _find_run(self, state: TrainerState) -> bool:
        """Take over the run of a checkpoint; return whether there is a checkpoint."""
        # Without an entry of its own, the Trainer could not save the state of a callback that was
        # added after the checkpoint was written.
        entries: Any = state.stateful_callbacks
        saved = entries.setdefault(type(self).__name__, self.state())
        if not isinstance(saved, Mapping):
            entries[type(self).__name__] = self.state()
        if state.global_step == 0:
            return False
        try:
            found = saved["attributes"]["run"]
        except (TypeError, LookupError):
            found = saved  # which the Fit refuses, and says so
        if not isinstance(found, Mapping) or found.get("run_id", "") != self.run.get("run_id"):
            self._fit.load_state_dict(found)
        return True
