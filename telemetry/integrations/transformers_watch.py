"""What a ``Trainer`` tells no callback: its batches, their losses, and that it has failed.

`Trainer.train`, ``evaluate`` and ``predict`` are wrapped, once for all trainers: those without a
callback that listens only pass through.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Protocol

from telemetry.extras import import_extra
from telemetry.runs.spans import in_words

_FEATURE: Final = {"extra": "transformers", "feature": "telemetry.integrations.transformers"}


class Watcher(Protocol):
    """A callback that wants to know.

    Attributes:
        watch: The call of ``Trainer.train`` that it reports, if any.
    """

    watch: Watch | None

    @property
    def reporting(self) -> bool:
        """Whether something has begun and not ended."""
        ...

    def batch_begins(self, inputs: Any) -> None:
        """A batch is there."""
        ...

    def batch_ends(self, loss: Any) -> None:
        """It went forward and backward."""
        ...

    def begin(self, stage: str, trainer: Any) -> None:
        """A stage begins."""
        ...

    def end(self, error: BaseException | None = None) -> None:
        """Whatever has begun ends, if anything has."""
        ...


class Watch:
    """One call of ``Trainer.train``.

    Attributes:
        trainer: That trains.
        trial: Of a hyperparameter search, if it is one.
        watcher: The callback that reports it, once it is asked to.
        failure: In words, why the last batch has failed. The exception itself would hold on to the
            memory of its batch, which `auto_find_batch_size` needs back.
    """

    def __init__(self, trainer: Any, trial: Any = None) -> None:
        self.trainer = trainer
        self.trial = trial
        self.watcher: Watcher | None = None
        self.failure = ""
        self._standing_in: Callable[..., Any] | None = None
        self._stood_in_for: Any = None

    def take(self, watcher: Watcher) -> None:
        """Let a callback report this training.

        Raises:
            ValueError: Another one does, or it reports something else.
        """
        if self.watcher is watcher:
            return
        kind = type(watcher).__name__
        if self.watcher is not None:
            raise ValueError(
                f"Another {kind} reports this Trainer already, so every event would come twice. "
                "Allowed: one in callbacks=[...]. Remove the other, with trainer.pop_callback."
            )
        if watcher.watch is not None:
            raise ValueError(
                f"This {kind} reports a training that has not ended, so it cannot report another "
                "inside. Allowed: one training at a time. Give the inner Trainer a callback of "
                "its own."
            )
        self.watcher, watcher.watch = watcher, self
        self._stand_in(watcher)

    @property
    def output_dir(self) -> str:
        """Where its checkpoints are: in a hyperparameter search, each trial has its own folder."""
        if self.trial is None:
            return str(self.trainer.args.output_dir)
        return str(self.trainer._get_output_dir(trial=self.trial))  # noqa: SLF001 -- nobody else knows

    def end(self, error: BaseException | None = None) -> None:
        """The call has returned, or failed."""
        own = vars(self.trainer)
        if self._standing_in is not None and own.get("training_step") is self._standing_in:
            if self._stood_in_for is None:
                del self.trainer.training_step
            else:
                self.trainer.training_step = self._stood_in_for
        if self.watcher is not None:
            self.watcher.end(error)
            self.watcher.watch = None

    def _stand_in(self, watcher: Watcher) -> None:
        """Stand in for ``training_step``, which subclasses override too, on this object alone."""
        self._stood_in_for = vars(self.trainer).get("training_step")
        original = self.trainer.training_step

        @functools.wraps(original)
        def training_step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            watcher.batch_begins(inputs)
            try:
                loss = original(model, inputs, *args, **kwargs)
            except BaseException as error:
                self.failure = in_words(error)
                raise
            watcher.batch_ends(loss)
            return loss

        self._standing_in = self.trainer.training_step = training_step


CURRENT_WATCH: Final[ContextVar[Watch | None]] = ContextVar("telemetry_trainer", default=None)
"""The innermost call of ``Trainer.train`` that the code is in."""


@functools.cache
def watch_trainers(kind: type[Any]) -> None:
    """Tell the callbacks of all trainers what trainers do not tell.

    Args:
        kind: The class of the callbacks, which is a `Watcher`.

    Raises:
        MissingExtraError: What a ``Trainer`` needs is not installed.
    """
    trainer = import_extra("transformers.trainer", **_FEATURE).Trainer
    trainer.train = _training(trainer.train, kind)
    trainer.evaluate = _evaluating(trainer.evaluate, kind, "evaluate")
    trainer.predict = _evaluating(trainer.predict, kind, "predict")


def _training(original: Callable[..., Any], kind: type[Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        watch = Watch(self, args[1] if len(args) > 1 else kwargs.get("trial"))
        here = CURRENT_WATCH.set(watch)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            watcher = _watcher_of(self, kind)
            if watch.watcher is None and watcher is not None and not watcher.reporting:
                watch.take(watcher)  # it failed before it asked the callbacks for the first time
                watcher.begin("train", self)
            watch.end(error)
            raise
        finally:
            CURRENT_WATCH.reset(here)
        watch.end()
        return result

    return train


def _evaluating(original: Callable[..., Any], kind: type[Any], stage: str) -> Callable[..., Any]:
    @functools.wraps(original)
    def evaluate(self: Any, *args: Any, **kwargs: Any) -> Any:
        watcher = _watcher_of(self, kind)
        if watcher is None or watcher.reporting:
            return original(self, *args, **kwargs)
        watcher.begin(stage, self)
        try:
            result = original(self, *args, **kwargs)
        except BaseException as error:
            watcher.end(error)
            raise
        watcher.end()
        return result

    return evaluate


def _watcher_of(trainer: Any, kind: type[Any]) -> Watcher | None:
    callbacks = trainer.callback_handler.callbacks
    return next((each for each in callbacks if isinstance(each, kind)), None)
