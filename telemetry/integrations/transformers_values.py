"""What a ``Trainer`` logs, as measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from telemetry.integrations.scalars import scalar_of

_RUNTIME: Final = "_runtime"
_ELSEWHERE: Final = ("epoch", "step", "learning_rate")
"""Logged names of which an event says the same in its own way."""


def logged(logs: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of what was logged in training; a ``loss`` is the mean since the last log.

    Example:
        >>> logged({"loss": 2.5, "learning_rate": 0.1, "reward": 1.0, "text": "no", "epoch": 0.5})
        {'mean_loss': 2.5, 'reward': 1.0}
    """
    return {
        "mean_loss" if name == "loss" else name: number
        for name, value in logs.items()
        if name not in _ELSEWHERE and (number := scalar_of(value)) is not None
    }


def is_of_a_step(logs: Mapping[str, Any]) -> bool:
    """Whether what is logged belongs to a step or an epoch.

    Results of an evaluation are in its own event, and those of the whole training, which come
    after the last step, in none. Both have a ``<prefix>_runtime``, and no ``loss``.

    Example:
        >>> is_of_a_step({"reward": 1.0}), is_of_a_step({"eval_loss": 0.5, "eval_runtime": 0.1})
        (True, False)
    """
    return "loss" in logs or not any(str(name).endswith(_RUNTIME) for name in logs)


def evaluated(metrics: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The split that was evaluated, and its numbers without the prefix of their names.

    The prefix is that of ``<prefix>_runtime``, which the ``Trainer`` adds to every evaluation. It
    is ``eval``, or ``eval_`` and the name of one of several data sets, which is the split then.

    Example:
        >>> evaluated({"eval_loss": 0.5, "eval_runtime": 0.1, "epoch": 1.0})
        ('eval', {'loss': 0.5, 'runtime': 0.1})
        >>> evaluated({"eval_clean_loss": 0.5, "eval_clean_runtime": 0.1})
        ('clean', {'loss': 0.5, 'runtime': 0.1})
    """
    timed = [name.removesuffix(_RUNTIME) for name in metrics if name.endswith(_RUNTIME)]
    prefix = min(timed, key=len, default="eval")
    numbers = {
        name.removeprefix(f"{prefix}_"): number
        for name, value in metrics.items()
        if name not in _ELSEWHERE and (number := scalar_of(value)) is not None
    }
    return prefix.removeprefix("eval_"), numbers
