"""The run that the code is in."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from telemetry.ambient import Layer, ambient_metadata

if TYPE_CHECKING:
    from telemetry.runs.spans import WorkflowRun

CURRENT_RUN: Final[ContextVar[WorkflowRun | None]] = ContextVar("telemetry_run", default=None)
"""The run that was entered last; it may have ended in another thread, see `current_run`."""

_IDENTITY: Final = ("run_id", "attempt")


def current_run() -> WorkflowRun | None:
    """The run that the code is in; None if there is none.

    One that has ended in another thread, or task, is none, although it could not be left here.

    Example:
        >>> import telemetry
        >>> with telemetry.workflow_run("digits") as run:
        ...     current_run() is run
        True
    """
    run = CURRENT_RUN.get()
    while run is not None and run.ended:
        Layer.lift(run)
        run = run.around
    return run


def ambient_identity() -> Mapping[str, Any]:
    """``run_id`` and ``attempt`` that the code is in, as far as they are known.

    Those of a run that has ended in another thread are not.

    Example:
        >>> from telemetry import context
        >>> with context(run_id="r1", step=3):
        ...     ambient_identity()
        {'run_id': 'r1'}
    """
    run = current_run()
    ambient = ambient_metadata() or {}
    found = {name: ambient[name] for name in _IDENTITY if name in ambient}
    entered = CURRENT_RUN.get()
    if entered is not run and entered is not None and found == _identity_of(entered):
        return {} if run is None else _identity_of(run)
    return found


def _identity_of(run: WorkflowRun) -> dict[str, Any]:
    return {"run_id": run.run_id, "attempt": run.attempt}
