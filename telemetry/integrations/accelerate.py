"""What is tracked with Hugging Face accelerate, as events."""

from __future__ import annotations

import atexit
import functools
import os
import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from telemetry.arguments import check_count, check_mapping, check_name
from telemetry.extras import import_extra
from telemetry.integrations.accelerate_config import shown_config
from telemetry.integrations.accelerate_values import sort_out
from telemetry.integrations.fit import EVAL, STEP
from telemetry.registry import default_registry
from telemetry.runs import WorkflowRun, ambient_identity, current_run, workflow_run
from telemetry.runs.meta import check_without
from telemetry.spans import NOTHING

_FEATURE: Final = {"extra": "transformers", "feature": "telemetry.integrations.accelerate"}

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker  # type: ignore[import-untyped] # it has no types
else:
    GeneralTracker = import_extra("accelerate.tracking", **_FEATURE).GeneralTracker

__all__ = ["TelemetryTracker"]

_CONFIG: Final = "config"


class TelemetryTracker(GeneralTracker):  # type: ignore[misc] # accelerate has no types
    """Report what an ``Accelerator`` is told to track.

    - ``accelerator.init_trackers(..., config=...)``: ``workflow.run.start``, whose metadata have
      ``config``, as plain data; what looks like a secret in it is ``***``.
    - ``accelerator.log(values, step=...)``: ``training.step``, with the step as it is given. Names
      that begin with ``eval``, ``val``, ``valid``, ``validation``, ``dev`` or ``test`` and then
      ``_``, ``/`` or ``.`` make a ``training.eval`` of that split instead; ``train_`` and
      ``training_`` are taken off, and ``learning_rate`` is ``lr``. A whole ``epoch`` is metadata,
      as are values that are no numbers. A tensor is copied, not read.
    - ``accelerator.end_training()``: ``workflow.run.stop``.

    accelerate calls trackers on the main process only. There, all events of the thread carry
    ``run_id`` and ``attempt`` until the end. Inside a `telemetry.workflow_run` no further run is
    begun: put one around the training of each rank if all of them are to report.

    accelerate does not tell of a failure. What goes through ``with tracker:`` ends the run with its
    exception event, and so does leaving the process, or starting another tracker, before
    ``end_training``.

    Making a first tracker wraps ``Accelerator.init_trackers``, which does not tell custom trackers
    that there is no ``config``.

    Args:
        run_name: The name of the run.
        run_id: Which run it is; by default see `telemetry.workflow_run`.
        attempt: Which attempt at it; likewise.
        without: What the start of the run shall not tell, such as ``["user", "config"]``.

    Raises:
        TypeError: A name is no string, or the attempt no number.
        ValueError: A name is empty, the attempt is less than 1, or ``without`` has an unknown name.

    Example:
        >>> from accelerate import Accelerator
        >>> from telemetry.testing import capture
        >>> accelerator = Accelerator(cpu=True, log_with=TelemetryTracker("digits"))
        >>> with capture() as events:
        ...     accelerator.init_trackers("demo", config={"lr": 0.1})
        ...     accelerator.log({"loss": 2.5}, step=1)
        ...     accelerator.end_training()
        >>> [".".join(event.event) for event in events]
        ['workflow.run.start', 'training.step', 'workflow.run.stop']
    """

    name = "telemetry"
    requires_logging_directory = False

    def __init__(
        self,
        run_name: str,
        *,
        run_id: str | None = None,
        attempt: int | None = None,
        without: Iterable[str] = (),
    ) -> None:
        super().__init__()
        self.run_name = check_name("run_name", run_name)
        if run_id is not None:
            check_name("run_id", run_id)
        if attempt is not None:
            check_count("attempt", attempt, least=1)
        skipped = check_without(without, _CONFIG)
        self._tells_config = _CONFIG not in skipped
        self._options: dict[str, Any] = {
            "run_id": run_id,
            "attempt": attempt,
            "without": skipped - {_CONFIG},
        }
        self._run: WorkflowRun | None = None
        self._identity: dict[str, Any] = {}
        _watch_accelerators()

    @property
    def tracker(self) -> WorkflowRun | None:
        """The run that it has begun and not ended, if any."""
        return self._run

    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Begin the run, with the configuration in its metadata.

        Raises:
            TypeError: It is no mapping, and has no attributes either.
        """
        config = shown_config(values)
        self._begin({_CONFIG: config} if self._tells_config else NOTHING)

    def log(self, values: Mapping[str, Any], step: int | None = None, **metadata: Any) -> None:
        """Report values.

        Args:
            values: Numbers, scalars of a device, and anything else, which is metadata.
            step: As the events shall carry it.
            **metadata: More of it, from ``log_kwargs={"telemetry": {...}}``.

        Raises:
            TypeError: The values are no mapping, or the step is no number.
            ValueError: The step is negative or not whole.
        """
        if step is not None:
            check_count("step", step)
            metadata["step"] = step
        check_mapping(STEP, "Values", values)
        if not (default_registry.enabled(STEP) or default_registry.enabled(EVAL)):
            return
        logged = sort_out(values)
        place = {**logged.metadata, **metadata, **self._identity}
        if logged.step:
            default_registry.execute(STEP, logged.step, place)
        for split, measured in logged.splits.items():
            default_registry.execute(EVAL, measured, {**place, "split": split})

    def finish(self) -> None:
        """End the run."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(error)

    def _begin(self, metadata: Mapping[str, Any]) -> None:
        if self._identity:
            return
        while _unended:
            _unended[-1].abandon("another one has begun")
        if current_run() is None:
            self._run = workflow_run(self.run_name, **self._options, **metadata)
            self._run.open()
            _unended.append(_Unended(self))
            atexit.unregister(_abandon_at_exit)  # once, and before the handlers attached so far
            atexit.register(_abandon_at_exit)
        self._identity = dict(ambient_identity())

    def _end(self, error: BaseException | None = None) -> None:
        run, self._run, self._identity = self._run, None, {}
        if run is None:
            return
        _unended[:] = [each for each in _unended if each.tracker is not self]
        run.close(error)


class _Unended:
    """A tracker whose run has begun, in this process, and what was the last uncaught error."""

    def __init__(self, tracker: TelemetryTracker) -> None:
        self.tracker = tracker
        self._process = os.getpid()
        self._earlier = id(_uncaught())

    def abandon(self, why: str) -> None:
        """End the run with what has become of it, unless that is another process's to say."""
        if self._process != os.getpid():
            _unended.remove(self)
            return
        error = _uncaught()
        if error is None or id(error) == self._earlier:
            error = RuntimeError(
                f"The run of {type(self.tracker).__name__}({self.tracker.run_name!r}) was not "
                f"ended: {why}. Call accelerator.end_training()."
            )
        self.tracker._end(error)  # noqa: SLF001 -- of this file


_unended: list[_Unended] = []


def _uncaught() -> BaseException | None:
    """What has ended the program, or a cell of a notebook."""
    return getattr(sys, "last_value", None)


def _abandon_at_exit() -> None:
    while _unended:
        _unended[-1].abandon("the process is ending")


@functools.cache
def _watch_accelerators() -> None:
    kind = import_extra("accelerate", **_FEATURE).Accelerator
    original = kind.init_trackers

    @functools.wraps(original)
    def init_trackers(self: Any, *args: Any, **kwargs: Any) -> None:
        ours = [each for each in self.log_with if isinstance(each, TelemetryTracker)]
        if len(ours) > 1:
            raise ValueError(
                f"log_with has {len(ours)} TelemetryTrackers, so every event would come "
                f"{len(ours)} times. Allowed: one. Attach several handlers instead."
            )
        if given := _trackers_of(self):
            raise RuntimeError(
                "init_trackers was called before, so accelerate would give everything to "
                f"TelemetryTracker({given[0].run_name!r}) twice. Allowed: once. Make a new "
                "Accelerator for another run."
            )
        original(self, *args, **kwargs)
        for tracker in _trackers_of(self):
            tracker._begin(NOTHING)  # noqa: SLF001 -- of this file

    kind.init_trackers = init_trackers


def _trackers_of(accelerator: Any) -> list[TelemetryTracker]:
    return [each for each in accelerator.trackers if isinstance(each, TelemetryTracker)]
