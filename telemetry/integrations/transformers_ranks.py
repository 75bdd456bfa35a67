"""The same run for all ranks of a training."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from typing import Any, Final

from telemetry.log import log_error

PATIENCE: Final = timedelta(seconds=30)


class _Rendezvous:
    """What this process has shared with the other ranks.

    Attributes:
        runs: How many runs it has begun; those of one number are one.
        told: The key under which rank zero tells of the run that it is in.
        is_apart: Whether this rank has begun other runs than rank zero.
    """

    def __init__(self) -> None:
        self.runs = 0
        self.told: str | None = None
        self.is_apart = False


_here: Final = _Rendezvous()


def share(identity: dict[str, Any], *, is_named: bool) -> dict[str, Any]:
    """The ``run_id`` and ``attempt`` of rank zero, which puts them where all ranks look.

    That is the store of ``torch.distributed``. It is no collective operation: a callback that only
    some of the ranks have must not hold up the others. The ranks count the runs that they begin.
    Rank zero tells of each while it is in it, so that a rank that has begun fewer finds none, and
    never a wrong one.

    Args:
        identity: Those of this rank.
        is_named: Whether the user has given the ``run_id``.

    Returns:
        Those of this rank, too, where nothing is distributed, or where rank zero has not told any
        for 30 seconds, and from then on. A ``run_id`` that the user has not given then has
        ``-rank1`` added: a launcher's would be that of other runs of rank zero.

    Example:
        >>> share({"run_id": "r1", "attempt": 1}, is_named=False)
        {'run_id': 'r1', 'attempt': 1}
    """
    store = _store()
    if store is None:
        return identity
    rank = sys.modules["torch.distributed"].get_rank()
    suffix = "" if rank == 0 or is_named else f"-rank{rank}"
    own = {**identity, "run_id": identity["run_id"].removesuffix(suffix) + suffix}
    if _here.is_apart:
        return own
    _here.runs += 1
    key = f"telemetry/run/{_here.runs}"
    try:
        if rank == 0:
            store.set(key, json.dumps(identity))
            _here.told = key
            return identity
        store.wait([key], PATIENCE)
        found: dict[str, Any] = json.loads(store.get(key))
    except RuntimeError as error:
        _here.is_apart = True
        log_error(
            error,
            "Rank zero has told no run_id: it has begun other runs than this rank, whose runs have "
            "ids of their own from now on. Give each rank a callback, or each the same run_id=.",
        )
        return own
    return found


def withdraw() -> None:
    """The run is over: rank zero tells nobody of it any more."""
    key, _here.told = _here.told, None
    store = None if key is None else _store()
    if store is not None:
        try:
            store.delete_key(key)
        except RuntimeError as error:
            log_error(error, "Cannot take %r out of the store of torch.distributed.", key)


def _store() -> Any:
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return None
    return distributed.distributed_c10d._get_default_store()  # noqa: SLF001 -- the public ways to talk are collective
