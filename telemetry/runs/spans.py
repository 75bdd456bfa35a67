"""The spans of a run and of its stages."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from telemetry.ambient import Layer, ambient_metadata, context, restore
from telemetry.arguments import check_count, check_name
from telemetry.decorate import decorate
from telemetry.registry import Registry, check_registry, default_registry
from telemetry.runs.current import CURRENT_RUN, ambient_identity, current_run
from telemetry.runs.identity import attempt_of_the_job, new_run_id
from telemetry.runs.meta import check_without, run_meta
from telemetry.span_context import CURRENT
from telemetry.spans import NOTHING, Span
from telemetry.values.jsonable import bounded_repr

Function = TypeVar("Function", bound=Callable[..., Any])

MAX_WORDS: Final = 2000
"""Characters."""


class RunSpan(Span):
    """A span of a run or a stage, which says in words what went wrong."""

    __slots__ = ()

    def exception(self, error: BaseException) -> None:
        """End it with an exception. Does nothing if it has ended, or not begun."""
        if isinstance(error, BaseException):
            self.annotate(error=in_words(error))
        super().exception(error)

    def again(self) -> RunSpan:
        """Another one like it, for another call of a decorated function."""
        raise NotImplementedError

    def __call__(self, function: Function) -> Function:
        """Make a span of each call of ``function``.

        Raises:
            TypeError: It is a generator function, or no function.
        """
        plain = getattr(function, "__func__", function)  # of a static or class method
        if inspect.isgeneratorfunction(plain) or inspect.isasyncgenfunction(plain):
            raise TypeError(
                f"{self!r} cannot decorate {function!r}, a generator function: between two items "
                "its consumer would be in the run as well. Decorate the consumer, or put the loop "
                "over the generator into a with block."
            )
        decorated: Function = decorate(function, self.again)
        return decorated


class WorkflowRun(RunSpan):
    """One run: what `workflow_run` gives.

    Attributes:
        workflow: The name of what is run.
        around: The run that it was entered in, if any.
    """

    __slots__ = (
        "_attempt",
        "_extra",
        "_here",
        "_identity",
        "_run_id",
        "_scope",
        "_without",
        "around",
        "workflow",
    )

    def __init__(
        self,
        workflow: str,
        *,
        run_id: str | None,
        attempt: int | None,
        without: Iterable[str],
        registry: Registry,
        metadata: Mapping[str, Any],
    ) -> None:
        self.workflow = check_name("workflow", workflow)
        if run_id is not None:
            check_name("run_id", run_id)
        if attempt is not None:
            check_count("attempt", attempt, least=1)
        self._run_id, self._attempt = run_id, attempt
        self._without = check_without(without)
        self._extra = metadata
        self._identity: tuple[str, int] | None = None
        self._scope: context | None = None
        self._here: Token[WorkflowRun | None] | None = None
        self.around: WorkflowRun | None = None
        super().__init__(check_registry(registry), ("workflow", "run"))

    @property
    def run_id(self) -> str:
        """Which run it is."""
        return self._identify()[0]

    @property
    def attempt(self) -> int:
        """Which attempt at it, counted from 1."""
        return self._identify()[1]

    @property
    def ended(self) -> bool:
        """Whether it has begun and ended, in whatever thread."""
        return self._begun and not hasattr(self, "_started")

    def again(self) -> WorkflowRun:
        """A new run of the same workflow."""
        return WorkflowRun(
            self.workflow,
            run_id=self._run_id,
            attempt=self._attempt,
            without=self._without,
            registry=self._registry,
            metadata=self._extra,
        )

    def begin(self) -> None:
        """Start the clock and emit the start event, with what is known of the process."""
        if not self._begun:
            heard = any(map(self._registry.enabled, self._names))
            self._metadata = {
                **(run_meta(self._without) if heard else NOTHING),
                **self._extra,
                "workflow": self.workflow,
                "run_id": self.run_id,
                "attempt": self.attempt,
            }
        super().begin()

    def open(self) -> None:
        """Enter it by hand. Unlike those of ``with``, blocks around it may end before `close`."""
        self.around = current_run()
        Layer.lay({"run_id": self.run_id, "attempt": self.attempt}, self)
        try:
            super().__enter__()
        except BaseException:
            Layer.lift(self)
            raise
        CURRENT_RUN.set(self)

    def close(self, error: BaseException | None = None) -> None:
        """End what was opened: as it should, or with an exception."""
        if CURRENT_RUN.get() is self:
            CURRENT_RUN.set(self.around)
        if CURRENT.get() is not self.context:
            self._token = None  # the span around it has ended before
        try:
            super().__exit__(type(error) if error else None, error, None)
        finally:
            Layer.lift(self)

    def __enter__(self) -> Self:
        self.around = current_run()
        scope = context(run_id=self.run_id, attempt=self.attempt)
        scope.__enter__()
        try:
            super().__enter__()
        except BaseException:
            scope.__exit__()
            raise
        self._scope = scope
        self._here = CURRENT_RUN.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._here is not None:
            if CURRENT_RUN.get() is self:
                restore(CURRENT_RUN, self._here)
            self._here = None
        try:
            super().__exit__(kind, error, traceback)
        finally:
            scope, self._scope = self._scope, None
            if scope is not None and (ambient_metadata() or NOTHING).get("run_id") == self.run_id:
                scope.__exit__()  # else a block around it has ended before, and it with that

    def _identify(self) -> tuple[str, int]:
        # Not when it is made: one that decorates a function never begins, and takes no place in
        # the numbering of a job's runs.
        if self._identity is None:
            self._identity = _identity(self._run_id, self._attempt)
        return self._identity


def _identity(run_id: str | None, attempt: int | None) -> tuple[str, int]:
    ambient = ambient_identity()
    outer = ambient.get("run_id")
    if run_id is None:
        run_id = new_run_id() if outer is None else check_name("run_id of the context", outer)
    if attempt is None and run_id == outer:
        attempt = ambient.get("attempt")  # of another run it says nothing about this one
    if attempt is None:
        attempt = attempt_of_the_job()
    check_count("attempt", attempt, least=1)
    return run_id, int(attempt)


class StageRun(RunSpan):
    """One stage of a run: what `stage_run` gives."""

    __slots__ = ()

    def again(self) -> StageRun:
        """The same stage once more."""
        return StageRun(self._registry, self._prefix, self._metadata)

    def stop(self) -> None:
        """End it. It was a success unless ``success=False`` was given or annotated."""
        if "success" not in (self._annotated or ()) and "success" not in self._metadata:
            self.annotate(success=True)
        super().stop()


def workflow_run(
    workflow: str,
    *,
    run_id: str | None = None,
    attempt: int | None = None,
    without: Iterable[str] = (),
    registry: Registry = default_registry,
    **metadata: Any,
) -> WorkflowRun:
    """The span of a whole run, for ``with``, ``async with`` or as a decorator.

    It emits ``workflow.run.start`` and ``.stop`` or ``.exception``. Every event inside carries its
    ``run_id`` and ``attempt``. If somebody hears them when the run begins, its own events say where
    and how the process runs: ``host``, ``user``, ``pid``, ``world_size``, ``command`` (what looks
    like a secret is hidden), ``python``, ``frameworks`` (versions of those imported by then) and
    ``git_commit``. One inside another has the outer one's ``run_id``, unless it is given its own.

    Args:
        workflow: The name of what is run.
        run_id: Which run it is. By default the ``run_id`` of the `context` around; else that of
            the launcher's job (``TORCHELASTIC_RUN_ID``, ``SLURM_JOB_ID``); else a new one, of the
            time and random digits.
        attempt: Which attempt at this run, counted from 1: a resumed run is a new attempt, which
            `next_attempt` counts. By default that of the `context` around if it is of the same
            run, else what the launcher tells (``TORCHELASTIC_RESTART_COUNT``,
            ``SLURM_RESTART_COUNT``), else 1.
        without: What its events shall not tell, such as ``["user", "command"]``.
        registry: The bus.
        **metadata: Anything else that all its events shall carry.

    Raises:
        TypeError: A name is no string, the attempt no number, or the bus none.
        ValueError: A name is empty, the attempt is less than 1, or ``without`` has an unknown name.

    Example:
        >>> import telemetry
        >>> from telemetry.testing import capture
        >>> with capture() as events, telemetry.workflow_run("digits", run_id="r1") as run:
        ...     telemetry.emit_step(loss=2.5, step=1)
        >>> [".".join(event.event) for event in events]
        ['workflow.run.start', 'training.step', 'workflow.run.stop']
        >>> events[1].metadata
        {'run_id': 'r1', 'attempt': 1, 'step': 1}
    """
    return WorkflowRun(
        workflow,
        run_id=run_id,
        attempt=attempt,
        without=without,
        registry=registry,
        metadata=metadata,
    )


def stage_run(
    stage: str,
    *,
    module: str | None = None,
    registry: Registry = default_registry,
    **metadata: Any,
) -> StageRun:
    """The span of a stage of a run, for ``with``, ``async with`` or as a decorator.

    It emits ``stage.run.start`` and ``.stop``, with ``success``, or ``.exception``, with ``error``.
    ``success`` is True, unless it is given here or by ``annotate``.

    Args:
        stage: Its name, such as ``"load_dataset"``.
        module: Where it is defined; by default the module of the caller.
        registry: The bus.
        **metadata: Anything else that all its events shall carry.

    Raises:
        TypeError: A name is no string, or the bus is none.
        ValueError: A name is empty.

    Example:
        >>> import telemetry
        >>> from telemetry.testing import capture
        >>> with capture(("stage", "run", "stop")) as events:
        ...     with telemetry.stage_run("load_dataset", module="data"):
        ...         pass
        >>> {key: events[0].metadata[key] for key in ("stage", "module", "success")}
        {'stage': 'load_dataset', 'module': 'data', 'success': True}
    """
    caller = sys._getframe(1).f_globals.get("__name__", "?")  # noqa: SLF001 -- documented, of CPython
    named = {
        "stage": check_name("stage", stage),
        "module": caller if module is None else check_name("module", module),
    }
    return StageRun(check_registry(registry), ("stage", "run"), {**metadata, **named})


def in_words(error: BaseException) -> str:
    """An exception as a person reads it, cut to 2000 characters.

    Example:
        >>> in_words(ValueError("no data")), in_words(KeyboardInterrupt())
        ('ValueError: no data', 'KeyboardInterrupt')
    """
    try:
        text = str(error)
    except Exception:
        text = bounded_repr(error)
    text = text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
