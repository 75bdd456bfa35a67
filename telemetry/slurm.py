"""The step of a Slurm job that this process belongs to."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

_LARGEST_STEP: Final = 0xFFFF_0000
"""Above are Slurm's marks for what is no step, such as the batch script."""


class SlurmStep(NamedTuple):
    """What ``srun`` has started.

    Attributes:
        number: Of the step in its job, counted from 0.
        tasks: How many processes it has.
    """

    number: int
    tasks: int


def slurm_step() -> SlurmStep | None:
    """The step that this process belongs to, or None outside of one.

    A batch script and an interactive shell have Slurm's variables too, those of the whole job: what
    is started there without ``srun`` is one process, whatever ``SLURM_NTASKS`` says.
    Source: https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES

    Example:
        >>> import os
        >>> os.environ |= {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}
        >>> slurm_step()
        SlurmStep(number=0, tasks=8)
        >>> del os.environ["SLURM_STEP_ID"], os.environ["SLURM_STEP_NUM_TASKS"]
        >>> slurm_step() is None
        True
    """
    number = os.environ.get("SLURM_STEP_ID", "")
    if not number.isdecimal() or int(number) >= _LARGEST_STEP:
        return None
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    return SlurmStep(int(number), int(tasks) if tasks.isdecimal() else 1)
