"""What a trainer's callback reports: the part that all frameworks share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Protocol, TypeAlias

from telemetry.ambient import Layer
from telemetry.arguments import check_count, check_name
from telemetry.log import log_error
from telemetry.records import EventName
from telemetry.runs import (
    ambient_identity,
    attempt_of_the_job,
    current_run,
    new_run_id,
    stage_run,
    workflow_run,
)
from telemetry.runs.meta import check_without
from telemetry.spans import NOTHING
from telemetry.timing import StepTimer
from telemetry.values.jsonable import bounded_repr

Identity: TypeAlias = dict[str, Any]
"""``run_id`` and ``attempt``."""

STEP: Final[EventName] = ("training", "step")
EPOCH: Final[EventName] = ("training", "epoch")
EVAL: Final[EventName] = ("training", "eval")
CHECKPOINT: Final[EventName] = ("training", "checkpoint")
_IDENTITY: Final = ("run_id", "attempt")


class _Block(Protocol):
    def __enter__(self) -> object: ...

    def annotate(self, metadata: Mapping[str, Any], /) -> None: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> object: ...


class _Frame:
    """A run or a stage that has begun, and the place inside it."""

    __slots__ = ("block", "place")

    def __init__(self, block: _Block) -> None:
        self.block = block
        self.place: Mapping[str, Any] = NOTHING


class Fit:
    """The runs that one callback reports, from hook to hook.

    A trainer calls hooks, so what a loop would write as nested ``with`` blocks is a stack here.
    Inside a `workflow_run` of the user's, no further run is begun.

    Args:
        workflow: The name of the runs; None if `begin` says it.
        run_id: Which run; None for that of a checkpoint or the `context` around, or a new one.
        attempt: Which attempt at it; None for one more than that of a checkpoint, or what the
            launcher tells.
        without: What the start of the run shall not tell.

    Attributes:
        timer: Times the optimizer steps.

    Raises:
        TypeError: A name is no string, or the attempt no number.
        ValueError: A name is empty, the attempt is less than 1, or ``without`` has an unknown name.

    Example:
        >>> import telemetry
        >>> from telemetry.testing import capture
        >>> fit = Fit("digits", run_id="r1")
        >>> with capture() as events:
        ...     fit.begin("fit", module="example")
        ...     fit.at(step=1, epoch=1)
        ...     telemetry.emit_step(loss=2.5, total_steps=10)
        ...     fit.end()
        >>> [".".join(event.event) for event in events]  # doctest: +NORMALIZE_WHITESPACE
        ['workflow.run.start', 'stage.run.start', 'training.step', 'stage.run.stop',
         'workflow.run.stop']
    """

    def __init__(
        self,
        workflow: str | None = None,
        *,
        run_id: str | None = None,
        attempt: int | None = None,
        without: Iterable[str] = (),
    ) -> None:
        self.workflow = None if workflow is None else check_name("workflow", workflow)
        self._run_id = None if run_id is None else check_name("run_id", run_id)
        if attempt is not None:
            check_count("attempt", attempt, least=1)
        self._attempt = attempt
        self._without = check_without(without)
        self.timer = StepTimer()
        self._frames: list[_Frame] = []
        self._saved: Identity = {}
        self._last: Identity = {}
        self._has_trained = False

    @property
    def active(self) -> bool:
        """Whether something has begun and not ended."""
        return bool(self._frames)

    def __getstate__(self) -> dict[str, Any]:
        """A copy is in no run: what has begun ends in this one."""
        return {**vars(self), "_frames": []}

    def state_dict(self) -> Identity:
        """``run_id`` and ``attempt`` of the run that it is in, or was in last; empty before."""
        return dict(self._last)

    def load_state_dict(self, state: object) -> None:
        """Go on with the run of a checkpoint: a training will be a new attempt at it.

        Loaded in the middle of a run, it changes nothing: a trainer's tuner saves and restores.
        What tells of no run is logged: it must not end a training that resumes.
        """
        if not self._frames:
            self._saved = _identity_in(state)

    def begin(
        self,
        stage: str,
        *,
        module: str,
        workflow: str | None = None,
        trains: bool = True,
        resumes: bool = False,
        share: Callable[[Identity], Identity] | None = None,
        **metadata: Any,
    ) -> None:
        """Begin a stage, and before the first one the run.

        Args:
            stage: Its name, such as ``"fit"``.
            module: Where what is run is defined.
            workflow: The name of the run, unless the constructor was given one.
            trains: False for an evaluation, which belongs to the attempt that has trained.
            resumes: Whether the training goes on where that of the last run of this object ended:
                the same run, in a new attempt. A checkpoint's state says so too.
            share: Given the run's ``run_id`` and ``attempt``, returns those of rank zero.
            **metadata: Of the stage.
        """
        if not self._frames and current_run() is None:
            identity = self._identity(trains, resumes)
            if share is not None:
                identity = share(identity)
            name = self.workflow or workflow or stage
            self._enter(workflow_run(name, without=self._without, **identity))
        self._last = dict(ambient_identity())
        self._saved = {}
        self._has_trained = self._has_trained or trains
        self._enter(stage_run(stage, module=module, **metadata))

    def at(self, **place: Any) -> None:
        """Say where the training is: every event of this stage from now on carries it.

        Does nothing outside of a stage.
        """
        if self._frames:
            frame = self._frames[-1]
            frame.place = place
            Layer.lay(place, frame)  # other callbacks may be in blocks of theirs, and leave them

    @property
    def depth(self) -> int:
        """How many runs and stages it is in."""
        return len(self._frames)

    def leave(self, error: BaseException | None = None) -> None:
        """End the innermost stage, or run: as it should, or with an exception."""
        self._exit(error)

    def end(self, error: BaseException | None = None) -> None:
        """End all that has begun: as it should, or with an exception."""
        while self._frames:
            self._exit(error)

    def _identity(self, trains: bool, resumes: bool) -> Identity:
        saved = self._saved
        joins = resumes or not trains or not self._has_trained
        ambient = ambient_identity()
        known = saved or (self._last if joins else {})
        run_id = self._run_id or ambient.get("run_id") or known.get("run_id") or new_run_id()
        before = next((each for each in (saved, self._last) if each.get("run_id") == run_id), {})
        self._has_trained = before is saved or (before is self._last and self._has_trained)
        attempt = self._attempt or ambient.get("attempt")
        if attempt is None:
            attempt = before.get("attempt") or attempt_of_the_job()
            if trains and self._has_trained:
                attempt = max(attempt + 1, attempt_of_the_job())
        return {"run_id": run_id, "attempt": attempt}

    def _enter(self, block: _Block) -> None:
        block.__enter__()
        self._frames.append(_Frame(block))

    def _exit(self, error: BaseException | None) -> None:
        frame = self._frames.pop()
        Layer.lift(frame)
        if error is None:
            frame.block.__exit__(None, None, None)
        else:
            frame.block.annotate(frame.place)  # where it failed
            frame.block.__exit__(type(error), error, error.__traceback__)
        if not self._frames:
            self.timer = StepTimer()  # what a step that failed has measured is not the next one's


def _identity_in(state: object) -> Identity:
    """What a checkpoint tells of a run; nothing if it was saved before there was one."""
    try:
        if not state:
            return {}
        found = {key: state[key] for key in _IDENTITY if key in state}  # type: ignore[index,operator] # what is no mapping is logged below
        check_name("run_id", found.get("run_id"))
        check_count("attempt", found.get("attempt", 1), least=1)
    except Exception as error:
        log_error(
            error,
            "The checkpoint has %s where run_id and attempt should be, so what is trained is a run "
            "of its own. Give run_id= and attempt= to go on with another.",
            bounded_repr(state),
        )
        return {}
    return found
