"""The axes of a W&B run: each family of curves has its own.

Source: https://docs.wandb.ai/models/track/log/customize-logging-axes
"""

from __future__ import annotations

import logging
from typing import Any, Final

from handlers.records import Site
from handlers.rows import Row, axis_key, family_of, placed

STEP: Final = "step"
MOST: Final = 10_000
"""Curves whose axis is remembered; a run with more of them has them on W&B's own axis."""

logger = logging.getLogger("telemetry")


class Axes:
    """Says where values stand by a value beside them, and has W&B draw them over it.

    W&B's own step only grows, and what comes with a smaller one is dropped there. So no row has
    one from here: ``training/loss`` is drawn over ``training/step``. What W&B takes no definition
    for is drawn over its own step.

    Args:
        site: Where the handler is attached.
        run: The ``wandb.Run``.
    """

    def __init__(self, site: Site, run: Any) -> None:
        self._site = site
        self._run = run
        self._defined: set[str] = set()
        self._seen: set[tuple[str, str]] = set()  # curves and axes for which that was done
        self._told = False

    def placed(self, row: Row) -> dict[str, float]:
        """The values of a row with those that say where they stand."""
        if row.place is not None:
            axis = row.place.axis
            for key in row.values:
                if (key, axis) not in self._seen:
                    self._define(key, axis_key(key, axis), axis)
        return placed(row)

    def _define(self, key: str, axis: str, name: str) -> None:
        if len(self._seen) < MOST:
            self._seen.add((key, name))
        # A family's steps are the rule; curves over epochs are named one by one.
        family = family_of(key)
        curves = f"{family}/*" if family and name == STEP else key
        if curves in self._defined or key == axis or len(self._defined) >= MOST:
            return
        self._defined.add(curves)
        # W&B takes a "*" for any text, and only at the end.
        if "*" in curves.removesuffix("/*") or not curves:
            return
        try:
            if axis not in self._defined:
                self._defined.add(axis)
                self._run.define_metric(axis, hidden=True)
            # Otherwise a row without a place would get the last one's.
            self._run.define_metric(curves, step_metric=axis, step_sync=False)
        except Exception as error:
            self._tell(curves, error)

    def _tell(self, curves: str, error: Exception) -> None:
        """Say once that an axis is missing: a row is worth more than its axis."""
        if not self._told:
            self._told = True
            logger.warning(
                "Handler %r cannot have W&B draw %r over the steps of the events: %s: %s",
                self._site.handler_id,
                curves,
                type(error).__name__,
                error,
            )
