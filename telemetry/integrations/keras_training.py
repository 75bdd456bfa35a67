"""One ``fit`` of a Keras model: which step it is in, and what each step reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from telemetry.integrations.fit import Fit
from telemetry.integrations.keras_backends import Backend, backend_of, number
from telemetry.integrations.keras_feeds import Data, Feed
from telemetry.integrations.keras_rates import Rate, rate_of, source_of
from telemetry.integrations.keras_steps import Steps, stepping
from telemetry.log import log_error
from telemetry.records import EventName
from telemetry.registry import default_registry
from telemetry.timing import TIMING

STEP: Final[EventName] = ("training", "step")
_FUNCTION: Final = "train_function"

execute, enabled = default_registry.execute, default_registry.enabled


class Training:
    """What a fit has done so far.

    While it runs, a stand-in for the model's ``train_function`` sees the batches and the logs in
    the thread that trains, before Keras reads the logs, which it may do in another.

    Args:
        fit: Where to report.
        model: In ``fit``.
        arguments: Of ``fit``; None in a loop of the user's, which tells its logs to the callback.

    Attributes:
        epochs: The number of the last epoch; None if it is not known.
        batches: How many batches an epoch has; None if that is not known.
        epoch: In which it is, counted from 1.
    """

    def __init__(self, fit: Fit, model: Any, arguments: Mapping[str, Any] | None) -> None:
        self._fit, self._model = fit, model
        self.stands_in = arguments is not None
        optimizer = stepping(getattr(model, "optimizer", None))
        self._iterations = getattr(optimizer, "_iterations", None)
        self._steps = Steps(getattr(model, "optimizer", None))
        source = source_of(optimizer)
        variable = source if hasattr(source, "assign") else None
        self._backend: Backend = backend_of(model, self._iterations, variable)
        self._rate: Rate = rate_of(optimizer, self._backend)
        self._may_ask = self.stands_in and self._iterations is not None
        self._data = Data(arguments or {})
        self._stand_in: Callable[..., Any] | None = None
        self._original: Any = None
        self.epochs: int | None = None
        self.batches: int | None = None
        self.epoch = 0
        self._placed = -1
        self._together = 1
        self._total: dict[str, int] | None = None
        self._is_new = True
        self._batch, self._expected = 0, 1
        self._idle_since = self._outside = 0
        self._waited: int | None = 0
        self._failed = self._is_checked = False

    def start_epoch(self, epoch: int) -> None:
        """An epoch begins; ``epoch`` is counted from 1."""
        self.epoch, self._batch, self._is_new, self._placed = epoch, 0, True, -1
        self.settle()
        self._wait()

    def settle(self) -> None:
        """Nothing is being made now: what happens is of the last step."""
        self._at(self._steps.made)

    def start_batch(self) -> None:
        """A batch begins, or several at once."""
        if self._is_new:
            self._is_new = False
            self._safely(self._look)
        if self.stands_in and vars(self._model).get(_FUNCTION) is not self._stand_in:
            self._stand()
        if self._backend.fetches_first:
            self._outside = time.monotonic_ns() - self._idle_since
        if self._together != 1:
            self._expected = self._batches_to_come()
        self._at(self._steps.coming(self._expected))

    def end_batch(self, logs: Any) -> None:
        """What a loop of the user's tells of a batch; in ``fit``, Keras has read its logs."""
        if self.stands_in:
            self._idle_since = time.monotonic_ns()
        else:
            self._safely(self._done, Feed(1), logs, None)

    def resume(self, *, after: int) -> None:
        """Something else than training is over, which took nanoseconds."""
        self._fit.timer.leave_out(after)
        self._wait()

    def close(self) -> None:
        """Leave the model and its optimizer as they were."""
        if self._stand_in is not None and vars(self._model).get(_FUNCTION) is self._stand_in:
            vars(self._model)[_FUNCTION] = self._original
        self._stand_in = None
        self._backend.close()
        self._rate.close()

    def _stand(self) -> None:
        original = vars(self._model).get(_FUNCTION)
        if original is None:
            return

        def call(*arguments: Any) -> Any:
            feed = None
            try:
                feed, arguments = self._backend.feed(arguments)
            except Exception as error:
                self._give_up(error)
            result = original(*arguments)
            if feed is not None and not self._failed:
                try:
                    self._done(feed, self._backend.logs(result), result)
                except Exception as error:
                    self._give_up(error)
            return result

        self._original, self._stand_in = original, _StandIn(original, call)
        self._together = self._model.steps_per_execution  # of which that function was made
        self._expected = 1
        vars(self._model)[_FUNCTION] = self._stand_in

    def _look(self) -> None:
        # Keras has just read the logs of the epoch before, so that nothing is waited for here.
        self._backend.start_epoch()
        if self._iterations is not None and (self.stands_in or self._total is None):
            self._steps.begin(number(self._iterations))
        if self._total is None:
            self._total = {}
            if self.epochs is not None and self.batches is not None:
                left = self.epochs - self.epoch + 1
                seen = self._steps.batches + left * self.batches
                self._total["total_steps"] = seen // self._steps.each

    def _batches_to_come(self) -> int:
        left = self._together if self.batches is None else self.batches - self._batch
        return max(1, min(self._together, left))

    def _done(self, feed: Feed, logs: Any, result: Any) -> None:
        before, taken = self._steps.made, feed.batches or self._expected
        items = feed.items
        if items is None:
            items = self._data.items(first=self._batch, batches=taken, of=self.batches)
        self._fit.timer.work(items)
        waited = self._outside if self._backend.fetches_first else feed.waited
        self._waited = None if waited is None or self._waited is None else self._waited + waited
        is_open = feed.batches is None and self._expected > 1 and self.batches is None
        if self._may_ask and self._must_ask(is_open):
            seen = self._backend.batches_seen(result)
            self._steps.take(taken, seen=seen, or_fewer=is_open)
        else:
            self._steps.batches += taken
        self._batch += taken
        made = self._steps.made
        if made != before:
            self._report(logs, made, made - before)
        self._idle_since = time.monotonic_ns()

    def _must_ask(self, is_open: bool) -> bool:
        if not self._steps.follows:
            return False
        if self._steps.may_skip:
            return bool(default_registry.list_handlers())
        is_first, self._is_checked = not self._is_checked, True
        return is_first or is_open

    def _report(self, logs: Any, made: int, steps: int) -> None:
        self._at(made)  # it took fewer batches than expected, or another step is in progress
        about = self._total or {}
        if enabled(STEP):
            measured = _flat(logs)
            follows, last = self._steps.follows, made * self._steps.each - 1
            rate = self._rate.of(last if follows else None) if self._steps.uses else None
            if rate is not None:
                measured["lr"] = rate
            execute(STEP, measured, about)
        times = self._fit.timer.step()
        if enabled(TIMING):
            times["data_duration"] = self._waited
            if self._waited is None or not self.stands_in:
                del times["data_duration"]
            execute(TIMING, times if steps == 1 else _each(times, steps), about)
        self._waited = 0
        self._fit.timer.wait()

    def _wait(self) -> None:
        self._fit.timer.wait()
        self._idle_since = time.monotonic_ns()

    def _at(self, step: int) -> None:
        if step != self._placed:
            self._placed = step
            if step:
                self._fit.at(epoch=self.epoch, step=step)
            else:
                self._fit.at(epoch=self.epoch)

    def _safely(self, act: Callable[..., None], *arguments: Any) -> None:
        if not self._failed:
            try:
                act(*arguments)
            except Exception as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        log_error(
            error,
            "TelemetryCallback cannot tell the steps of this fit, of which no more are reported. "
            "The training goes on.",
        )


def _flat(logs: Any) -> dict[str, Any]:
    """The logs of a step, as Keras flattens them for callbacks."""
    flat: dict[str, Any] = {}
    if isinstance(logs, dict):
        for name, value in logs.items():
            if isinstance(value, dict):
                flat.update(_flat(value))
            else:
                flat[str(name)] = value
    return flat


class _StandIn:
    """Called instead of a function; it has the attributes of that one."""

    def __init__(self, original: Callable[..., Any], call: Callable[..., Any]) -> None:
        self._original, self._call = original, call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __getattr__(self, name: str) -> Any:
        if name in ("_original", "_call"):
            raise AttributeError(name)  # of one that is being copied
        return getattr(self._original, name)


def _each(times: dict[str, Any], steps: int) -> dict[str, Any]:
    """The times of each of several steps, of which only the sum is known."""
    for name in ("step_duration", "data_duration", "batch_size"):
        if name in times:
            whole, rest = divmod(times[name], steps)
            times[name] = times[name] / steps if rest and name == "batch_size" else whole
    return times
