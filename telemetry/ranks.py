"""Which of several cooperating processes this one is."""

from __future__ import annotations

import os
import sys

RANK_VARIABLES = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")


def rank() -> int | None:
    """This process's rank, or None while nothing tells.

    Asked in this order: the launcher's environment variable (``RANK`` of torchrun and accelerate,
    ``SLURM_PROCID``, ``OMPI_COMM_WORLD_RANK``, ``PMI_RANK``), then ``torch.distributed`` and JAX
    if they are imported and have been initialised. Imports nothing, initialises nothing.

    Example:
        >>> import os
        >>> os.environ["RANK"] = "3"
        >>> rank()
        3
        >>> del os.environ["RANK"]
    """
    for variable in RANK_VARIABLES:
        value = os.environ.get(variable, "")
        if value.isdecimal():
            return int(value)
    return _torch_rank() if "torch.distributed" in sys.modules else _jax_rank()


def _torch_rank() -> int | None:
    distributed = sys.modules["torch.distributed"]
    if distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    return _jax_rank()


def _jax_rank() -> int | None:
    distributed = sys.modules.get("jax._src.distributed")
    if distributed is None or distributed.global_state.client is None:
        return None  # asking jax itself would start its backend
    return int(distributed.global_state.process_id)
