"""Which run this is, and which attempt at it."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from telemetry.ambient import ambient_metadata
from telemetry.ranks import rank
from telemetry.slurm import slurm_step

_RESTARTS: Final = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
_BY_HAND: Final = frozenset({"interactive", "bash", "sh", "zsh"})
"""Names of Slurm jobs in which somebody starts one program after another."""

_runs_of_the_job = itertools.count(1)


def new_run_id() -> str:
    """A name for a run that nobody has named.

    Where a launcher tells which job this is, all its ranks and later attempts get the same name:

    - under torchrun the ``--rdzv-id`` (``TORCHELASTIC_RUN_ID``); without one, on a single machine,
      ``torchrun-`` and what this launch has named its directory;
    - under Slurm the job and the step, ``1234.0`` (``SLURM_JOB_ID``, ``SLURM_STEP_ID``); without
      ``srun`` the job, ``1234``, if a rank or a restart of the job is told, for else it would be
      the name of every training that a batch script starts. Nor in a shell of Slurm's, unless it is
      a step of several tasks.

    The second run of a process has ``-2`` added, and so on. Where nobody tells, it is the time in
    UTC and six random digits.

    Example:
        >>> new_run_id() != new_run_id()
        True
    """
    job = _torchrun() or _slurm()
    if job is not None:
        number = next(_runs_of_the_job)
        return job if number == 1 else f"{job}-{number}"
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(3).hex()}"


def attempt_of_the_job() -> int:
    """Which attempt this is, counted from 1, as the launchers tell it.

    That is one more than the restarts by torchrun (``TORCHELASTIC_RESTART_COUNT``) and by Slurm,
    which has queued the job again (``SLURM_RESTART_COUNT``).

    Example:
        >>> attempt_of_the_job()
        1
    """
    restarts = (os.environ.get(name, "") for name in _RESTARTS)
    return 1 + sum(int(count) for count in restarts if count.isdecimal())


def with_own_attempt(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Metadata of an event; of another run than the one around, with an attempt of its own.

    Else the event would carry the attempt at the run around, which says nothing about its own.

    Example:
        >>> from telemetry import context
        >>> with context(run_id="r1", attempt=5):
        ...     with_own_attempt({"run_id": "r2"}), with_own_attempt({"run_id": "r1"})
        ({'run_id': 'r2', 'attempt': 1}, {'run_id': 'r1'})
    """
    ambient = ambient_metadata()
    if ambient is None or "run_id" not in metadata or "attempt" in metadata:
        return metadata
    if "attempt" not in ambient or ambient.get("run_id", metadata["run_id"]) == metadata["run_id"]:
        return metadata
    return {**metadata, "attempt": attempt_of_the_job()}


def _torchrun() -> str | None:
    job = os.environ.get("TORCHELASTIC_RUN_ID", "")
    if job not in ("", "none"):
        return job
    if not job or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return None
    # Without an id of the launch, its ranks share the parts above attempt_0/0/error.json.
    above = Path(os.environ.get("TORCHELASTIC_ERROR_FILE", "")).parts[-4:]
    if len(above) == 4 and above[1].startswith("attempt_"):  # noqa: PLR2004 -- as in the line above
        return "torchrun-" + above[0].removeprefix("none_")
    return None


def _slurm() -> str | None:
    job, step = os.environ.get("SLURM_JOB_ID"), slurm_step()
    by_hand = os.environ.get("SLURM_JOB_NAME") in _BY_HAND
    if not job or (by_hand and (step is None or step.tasks == 1)):
        return None
    if step is not None:
        return f"{job}.{step.number}"
    # A batch script may start one training after another: only what is several has the job's name.
    return job if rank() is not None or _is_restarted() else None


def _is_restarted() -> bool:
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return restarts.isdecimal() and int(restarts) > 0
