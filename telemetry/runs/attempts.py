"""Attempts at a run that several processes make, one after another: counted in a small file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final, TypedDict

from telemetry.arguments import check_count, check_name
from telemetry.ranks import rank
from telemetry.runs.identity import attempt_of_the_job, new_run_id
from telemetry.values.jsonable import bounded_repr

_MOST: Final = 10_000
"""Bytes that are read: what is longer is another file."""


class Attempt(TypedDict):
    """Which run, and which attempt at it."""

    run_id: str
    attempt: int


def next_attempt(path: str | os.PathLike[str], *, resume: bool = True) -> Attempt:
    """Begin an attempt at the run that a file tells of, and write it there at once.

    A checkpoint cannot count the attempts: one that ends before its first checkpoint would be
    forgotten, and the next one would have its number. So this file lies beside the checkpoints.
    Without it, a new run begins.

    The file is replaced as a whole, so one that is read is complete. Two programs that resume the
    same run at the same time are not told apart.

    Args:
        path: The file, such as ``"runs/digits/run.json"``. Its folders are made.
        resume: False to begin a new run in its place.

    Returns:
        ``run_id`` and ``attempt``, which `workflow_run` and the callbacks take. The attempt is one
        more than the file says; or what the launcher has counted, if that is more.

    Raises:
        TypeError: The path is none, or ``resume`` is not True or False.
        ValueError: The file is none of this function's.
        RuntimeError: This is not rank 0: each rank would count an attempt of its own.
        OSError: The file cannot be read or written.

    Example:
        >>> import tempfile, telemetry
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for _ in range(2):
        ...         which = telemetry.next_attempt(f"{folder}/run.json")
        ...         with telemetry.workflow_run("digits", **which) as run:
        ...             print(run.attempt)
        1
        2
    """
    file = _check_path(path)
    if not isinstance(resume, bool):
        raise TypeError(
            f"resume must be True or False, got {bounded_repr(resume)} ({type(resume).__name__})."
        )
    _check_rank()
    before = _read(file) if resume else None
    if before is None:
        now = Attempt(run_id=new_run_id(), attempt=attempt_of_the_job())
    else:
        attempt = max(before["attempt"] + 1, attempt_of_the_job())
        now = Attempt(run_id=before["run_id"], attempt=attempt)
    _write(file, now)
    return now


def _check_path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(
            f"path must be a path, got {bounded_repr(path)} ({type(path).__name__}). "
            "Write next_attempt('runs/digits/run.json')."
        )
    return Path(path)


def _check_rank() -> None:
    local = os.environ.get("LOCAL_RANK", "")  # all that Lightning tells the processes it starts
    mine = rank() or (int(local) if local.isdecimal() else 0)
    if mine:
        raise RuntimeError(
            f"next_attempt was called on rank {mine}, and each rank would count an attempt of "
            "its own. Call it on rank 0 and hand the result to the others, as with "
            "torch.distributed.broadcast_object_list."
        )


def _read(file: Path) -> Attempt | None:
    try:
        with file.open("rb") as opened:
            text = opened.read(_MOST)
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        run_id, attempt = found["run_id"], found["attempt"]
        check_name("run_id", run_id)
        check_count("attempt", attempt, least=1)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError(
            f"{str(file)!r} has {bounded_repr(text)}, which does not tell of a run. Allowed: what "
            'next_attempt writes, as {"run_id": "r1", "attempt": 1}. Give another path, or '
            "resume=False for a new run in its place."
        ) from error
    return Attempt(run_id=run_id, attempt=int(attempt))


def _write(file: Path, identity: Attempt) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("w") as opened:
            opened.write(json.dumps(identity) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
