"""Reporting Keras's ``fit``, ``evaluate`` and ``predict``, on TensorFlow, JAX and torch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from telemetry.arguments import check_name
from telemetry.emit import emit_epoch, emit_eval
from telemetry.extras import import_extra
from telemetry.integrations.fit import Fit
from telemetry.integrations.keras_watch import FEATURE, callbacks_in, watch_models
from telemetry.log import log_error

if TYPE_CHECKING:
    import keras  # type: ignore[import-untyped] # it ships no types

    from telemetry.integrations.keras_backends import number
    from telemetry.integrations.keras_saves import Backup, Saves
    from telemetry.integrations.keras_steps import Steps, stepping
    from telemetry.integrations.keras_training import Training
else:
    keras = import_extra("keras", **FEATURE)
    from telemetry.integrations.keras_backends import number
    from telemetry.integrations.keras_saves import Backup, Saves
    from telemetry.integrations.keras_steps import Steps, stepping
    from telemetry.integrations.keras_training import Training

__all__ = ["TelemetryCallback"]

_VALIDATION = "val_"


class TelemetryCallback(keras.callbacks.Callback):  # type: ignore[misc] # keras has no types
    """Report what a Keras model does.

    ``fit``, ``evaluate`` and ``predict`` with this callback are each a run with a stage of that
    name; inside a `telemetry.workflow_run` of yours they are stages of it. The validation of a fit
    is a stage ``validate`` of the fit. Whatever fails in them, an interrupt included, ends stage
    and run with the exception event.

    ========================  =================================================================
    ``training.step``         once per optimizer step: ``loss`` and the compiled metrics, as Keras
                              logs them (its means since the epoch began), and the ``lr`` of the
                              step; with ``total_steps``
    ``training.timing``       likewise
    ``training.epoch``        ``epoch_loss`` and the metrics
    ``training.eval``         under ``split`` "val" those of the validation; under ``split`` those
                              of ``evaluate``
    ``training.checkpoint``   whatever saves the model while it trains with ``model.save`` or
                              ``model.save_weights``, as ``ModelCheckpoint`` and
                              ``BackupAndRestore`` do
    ========================  =================================================================

    All events, those of clippers and losses too, carry ``run_id``, ``attempt``, ``epoch`` and
    ``step``, both counted from 1; ``step`` counts as ``optimizer.iterations`` does, on the host, or
    batch by batch where the model's steps are not those of its optimizer, as in a GAN.
    With ``gradient_accumulation_steps`` several batches make a step. With
    ``steps_per_execution=n`` Keras tells of every n-th batch: the events are of the last step of
    the n, and ``training.timing`` is the mean of them. Under a ``LossScaleOptimizer`` the device
    decides whether a batch is a step: one small number is read after each, if there is a handler.
    Otherwise it is read after the first batch of a fit alone, and then no device is waited for:
    measurements are scalars of the device.

    A fit with ``BackupAndRestore`` that goes on from a backup is a new attempt at the run that was
    interrupted, and so is a further fit of this object with an ``initial_epoch``.

    Keras tells no callback of a failure, and reads the logs before callbacks get them. So importing
    this module wraps ``keras.Model.fit``, ``evaluate`` and ``predict``, for all models; those
    without this callback only pass through. In a loop of your own that calls the hooks of a
    ``CallbackList``, the callback reports what they tell it.

    Args:
        workflow: The name of the runs; by default that of the model.
        run_id: Which run; by default that of the backup or the `telemetry.context` around, or a
            new one.
        attempt: Which attempt at it; by default one more than that of the backup, or what the
            launcher tells, see `telemetry.workflow_run`.
        without: What the start of the run shall not tell, such as ``["user", "command"]``.
        split: What an ``evaluate`` outside of a fit is of.

    Raises:
        TypeError: A name is no string, or the attempt no number.
        ValueError: A name is empty, the attempt is less than 1, or ``without`` has an unknown name.

    Two of them in one ``callbacks`` are refused with ValueError when the fit begins, and one that
    is in a fit already, or in use by another thread, with RuntimeError.

    Example:
        >>> import keras, numpy as np
        >>> from telemetry.integrations.keras import TelemetryCallback
        >>> from telemetry.testing import capture
        >>> model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        >>> model.compile(keras.optimizers.SGD(0.5), loss="mse")
        >>> with capture(("training", "step")) as events:
        ...     history = model.fit(np.ones((8, 1)), np.ones((8, 1)), batch_size=4, verbose=0,
        ...                         callbacks=[TelemetryCallback("ones")])
        >>> [(e.metadata["epoch"], e.metadata["step"], e.measurements["lr"]) for e in events]
        [(1, 1, 0.5), (1, 2, 0.5)]
    """

    def __init__(
        self,
        workflow: str | None = None,
        *,
        run_id: str | None = None,
        attempt: int | None = None,
        without: Iterable[str] = (),
        split: str = "test",
    ) -> None:
        super().__init__()
        self._fit = Fit(workflow, run_id=run_id, attempt=attempt, without=without)
        self._split = check_name("split", split)
        self._stages: list[str] = []
        self._thread: threading.Thread | None = None
        self._fitting = ""
        self._training: Training | None = None
        self._saves: Saves | None = None
        self._backup: Backup | None = None
        self._arguments: Mapping[str, Any] | None = None
        self._validating_since = 0
        self._is_loop = False

    def __getstate__(self) -> dict[str, Any]:
        """A copy is in no fit."""
        left_out = dict.fromkeys(("_training", "_saves", "_backup", "_arguments", "_thread"))
        return {**vars(self), **left_out, "_stages": [], "_is_loop": False}

    @property
    def run(self) -> Mapping[str, Any]:
        """``run_id`` and ``attempt`` of the last run; empty before the first.

        Set to those of another run, the next fit goes on with that one.
        """
        return self._fit.state_dict()

    @run.setter
    def run(self, run: Mapping[str, Any]) -> None:
        self._fit.load_state_dict(run)

    @property
    def async_safe(self) -> bool:
        """Whether Keras may call ``on_train_batch_end`` in another thread, which it asks for."""
        return bool(self._stages) and not self._is_loop

    def watch(
        self, stage: str, model: Any, arguments: dict[str, Any], act: Callable[[], Any]
    ) -> Any:
        """Report the call of a model's method; for the wrapper of these methods."""
        self._check_thread()
        if stage == "fit" or self._stages == [stage]:
            self._give_up_loop()
        depth, outer = self._fit.depth, list(self._stages)
        try:
            self._begin(stage, model, arguments)
            result = act()
        except BaseException as error:
            self._end(depth, outer, error)
            raise
        self._end(depth, outer)
        return result

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Look at the fit."""
        if self._is_loop or not self._stages:
            self._begin_loop("fit")
        params = self.params or {}
        if self._arguments is not None:
            self._saves = Saves(self._model, self._saved)
        try:
            self._training = Training(self._fit, self._model, self._arguments)
        except Exception as error:
            log_error(error, "TelemetryCallback cannot look into this fit. It goes on.")
            return
        self._training.epochs, self._training.batches = params.get("epochs"), params.get("steps")

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Say which epoch it is."""
        if self._training is not None:
            self._training.start_epoch(epoch + 1)

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Say which step is next."""
        if self._training is not None:
            self._training.start_batch()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report the step, in a loop of the user's."""
        if self._training is not None and threading.current_thread() is self._thread:
            self._training.end_batch(logs)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Report the epoch."""
        if self._training is None:
            return
        self._training.settle()
        named = _named(logs)
        measured = {k: v for k, v in named.items() if not k.startswith(_VALIDATION)}
        if "loss" in measured and "epoch_loss" not in measured:
            measured["epoch_loss"] = measured.pop("loss")
        emit_epoch(measured, epoch=epoch + 1, total_epochs=self._training.epochs)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run, in a loop of the user's."""
        if self._is_loop:
            self._end(0, [])

    def on_test_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Begin the validation of a fit."""
        if not self._stages:
            self._begin_loop("evaluate")
        elif self._stages[-1] != "evaluate" and self._training is not None:
            self._training.settle()
            self._validating_since = time.monotonic_ns()
            self._fit.begin("validate", module=type(self._model).__module__, trains=False)

    def on_test_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """Report what was measured."""
        if self._stages and self._stages[-1] == "evaluate":
            emit_eval(_named(logs), split=self._split)
            if self._is_loop and len(self._stages) == 1:
                self._end(0, [])
        elif self._training is not None:
            emit_eval(_named(logs), split="val")
            self._fit.leave()
            self._training.resume(after=time.monotonic_ns() - self._validating_since)

    def _begin(self, stage: str, model: Any, arguments: dict[str, Any]) -> None:
        trains = stage == "fit"
        if trains:
            if stage in self._stages:
                raise RuntimeError(
                    f"This {type(self).__name__} is in a fit already, of {self._fitting!r}. "
                    "Allowed: one fit at a time. Make another one for the other fit."
                )
            self._arguments, self._fitting = arguments, model.name
            self._backup = Backup(callbacks_in(arguments.get("callbacks")))
            if self._backup.run:
                self._fit.load_state_dict(self._backup.run)
        self._thread = threading.current_thread()
        self._stages.append(stage)
        self._fit.begin(
            stage,
            module=type(model).__module__,
            workflow=model.name,
            trains=trains,
            resumes=bool(arguments.get("initial_epoch")),
        )
        if trains and self._backup is not None and self._backup.run:
            self._backup.write(self.run)
        elif stage == "evaluate" and self._training is None:
            self._fit.at(**_place_of_weights(model))

    def _begin_loop(self, stage: str) -> None:
        self._check_thread()
        self._give_up_loop()
        if self._model is None:
            raise RuntimeError(
                f"This {type(self).__name__} was not told its model. Tell it: "
                "keras.callbacks.CallbackList([...], model=model)."
            )
        try:
            self._begin(stage, self._model, {})
        except BaseException as error:
            self._end(0, [], error)
            raise
        self._is_loop, self._arguments = True, None

    def _check_thread(self) -> None:
        other = self._thread
        if self._stages and other is not threading.current_thread() and other and other.is_alive():
            raise RuntimeError(
                f"This {type(self).__name__} is in use by another thread, {other.name!r}. "
                "Allowed: one thread at a time. Make another one for this thread."
            )

    def _give_up_loop(self) -> None:
        if self._is_loop and len(self._stages) == 1:
            self._end(0, [], RuntimeError("The loop before has not called on_train_end."))

    def _end(self, depth: int, outer: list[str], error: BaseException | None = None) -> None:
        with ExitStack() as stack:  # where an interrupt comes in one of them, the others are done
            stack.callback(self._forget, outer)
            for _ in range(self._fit.depth - depth):
                stack.push(lambda _kind, raised, _where: self._fit.leave(error or raised))
            if "fit" not in outer:
                for watching in (self._training, self._saves):
                    if watching is not None:
                        stack.callback(watching.close)

    def _forget(self, outer: list[str]) -> None:
        if "fit" not in outer:
            self._training = self._saves = self._arguments = None
        self._stages, self._is_loop = outer, self._is_loop and bool(outer)

    def _saved(self, path: str) -> None:
        if self._backup is not None and self._backup.covers(path):
            self._backup.write(self.run)


def _named(logs: Mapping[Any, Any] | None) -> dict[str, Any]:
    return {str(name): value for name, value in (logs or {}).items()}


def _place_of_weights(model: Any) -> dict[str, int]:
    """The optimizer step that a model's weights are of; nothing if there was none."""
    optimizer = getattr(model, "optimizer", None)
    iterations = getattr(stepping(optimizer), "_iterations", None)
    if iterations is None:
        return {}
    steps = Steps(optimizer)
    steps.batches = number(iterations)
    return {"step": steps.made} if steps.made else {}


# Not when the first callback is made: in ``model.fit(..., callbacks=[TelemetryCallback()])`` that
# is after the method was looked up.
watch_models(TelemetryCallback)
