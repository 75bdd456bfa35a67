"""Which of several cooperating processes this one is."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Final

from telemetry.slurm import slurm_step

RANK_VARIABLES: Final = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
SIZE_VARIABLES: Final = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


def rank() -> int | None:
    """This process's rank, or None while nothing tells.

    Asked in this order: ``torch.distributed`` and JAX, if they are imported and have been
    initialised; then the launcher's variable of the environment (see `rank_variable`), which a
    process that starts further ones hands down to all of them. Imports nothing, initialises
    nothing.

    Example:
        >>> import os
        >>> os.environ["RANK"] = "3"
        >>> rank()
        3
        >>> del os.environ["RANK"]
    """
    group = _group()
    if group is not None:
        return group[0]
    variable = rank_variable()
    return None if variable is None else int(os.environ[variable])


def rank_variable() -> str | None:
    """The variable of the environment that tells the rank, or None.

    ``RANK`` of torchrun and accelerate, ``SLURM_PROCID`` in a step of several tasks,
    ``OMPI_COMM_WORLD_RANK``, ``PMI_RANK``.

    Example:
        >>> rank_variable() is None
        True
    """
    return _telling(RANK_VARIABLES)


def world_size() -> int:
    """How many processes cooperate; 1 where nothing tells.

    Asked like `rank`: ``torch.distributed`` and JAX, then ``WORLD_SIZE``,
    ``SLURM_STEP_NUM_TASKS``, ``OMPI_COMM_WORLD_SIZE``, ``PMI_SIZE``.

    Example:
        >>> world_size()
        1
    """
    group = _group()
    if group is not None:
        return group[1]
    variable = _telling(SIZE_VARIABLES)
    return 1 if variable is None else int(os.environ[variable])


def _telling(variables: Iterable[str]) -> str | None:
    for variable in variables:
        if os.environ.get(variable, "").isdecimal() and (
            not variable.startswith("SLURM_") or _in_a_step_of_several()
        ):
            return variable
    return None


def _in_a_step_of_several() -> bool:
    step = slurm_step()
    return step is not None and step.tasks > 1


def _group() -> tuple[int, int] | None:
    """Rank and size of the group of processes that a framework has made."""
    torch = _torch_group()
    if torch is not None:
        return int(torch.get_rank()), int(torch.get_world_size())
    jax = _jax_group()
    return None if jax is None else (int(jax.process_id), int(jax.num_processes))


def _torch_group() -> Any:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available():
        return None
    return distributed if distributed.is_initialized() else None


def _jax_group() -> Any:
    distributed = sys.modules.get("jax._src.distributed")
    if distributed is None or distributed.global_state.client is None:
        return None  # asking jax itself would start its backend
    return distributed.global_state
