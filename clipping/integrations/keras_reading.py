"""Reading, between the steps of ``fit``, what they have left in the optimizer's variables."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops  # type: ignore[import-untyped] # it ships no types

from clipping.backends.keras_ops import KERAS, read
from clipping.backends.keras_variables import StepVariables, on_cpu, to_host
from clipping.clipper import Clipper
from clipping.groups import Groups
from clipping.host import HOST
from clipping.integrations.keras_checks import inner
from clipping.integrations.keras_report import Look
from clipping.memory import Held
from clipping.records import Measured, Ops, State


class Reading:
    """The variables of a step from outside, from one filling of them to the next.

    Args:
        model: The model in ``fit``.
        clipper: What decides.
        groups: How the trainable variables are grouped.
        variables: Made for these groups.
        waits: Whether non-finite gradients are to be known at once, on an accelerator too.
    """

    def __init__(
        self, model: Any, clipper: Clipper, groups: Groups, variables: StepVariables, *, waits: bool
    ) -> None:
        self._model, self._clipper, self._groups, self._waits = model, clipper, groups, waits
        self._owner = inner(model.optimizer)
        self._variables = variables
        state = clipper.memory.recall(clipper, KERAS, groups.names, groups.rows)
        variables.fill(state)
        self._keep(state)
        self._start = int(read(self._owner.iterations))
        self._first = self._last = int(read(state.steps))
        self._last_counts: Any = 0
        self._last_batch = -1

    @property
    def outdated(self) -> bool:
        """Whether the clipper has been given another state since."""
        return self._clipper.memory.held is not self._held

    def start_epoch(self) -> None:
        """Batches are counted from 0 again."""
        self._last_batch = -1

    def sync(self) -> None:
        """Let the clipper remember what the variables say, unless it was given another state."""
        values = self._values()
        if values is not None and not self.outdated:
            self._keep(self._variables.state_of(values))

    def look(self, batch: int, present: Any) -> Look | None:
        """What the step of a batch left behind; None if there was none.

        Args:
            batch: Its number in the epoch.
            present: Which rows have a gradient; None if all.
        """
        values = self._values()
        if values is None:
            return None
        passed, self._last_batch = batch - self._last_batch, batch
        free = on_cpu(values[0])
        known = free or self._may_rest()
        steps = int(read(values[0])) if known else self._last + passed
        if steps == self._last:
            return None
        self._last = steps
        copies = list(map(to_host if free else ops.copy, values[-3:]))
        decision, counts, norm = self._variables.decision_of(copies)
        array: Ops = HOST if free else KERAS
        grouped = self._groups.grouped
        measured = Measured(
            decision.norms, grouped=None if grouped is None else array.from_host(grouped)
        )
        offending = self._offending(counts) if free or self._waits else np.zeros(len(counts), bool)
        step = self._start + steps - self._first
        return Look(array, measured, decision, present, offending, array.export(norm), steps, step)

    def _keep(self, state: State) -> None:
        memory = self._clipper.memory
        memory.keep(KERAS, self._groups.names, state)
        self._held: Held | None = memory.held

    def _values(self) -> list[Any] | None:
        """The variables' values, or None if Keras has lost them.

        In the middle of an epoch Keras on JAX keeps them elsewhere, and if the first step of one
        fails, nowhere.
        """
        ours, model = self._variables.all, self._model
        state = getattr(model, "_jax_state", None)
        if state and not model._jax_state_synced:  # noqa: SLF001 -- the public way copies all
            where = {id(v): i for i, v in enumerate(model.optimizer.variables)}
            return [state["optimizer_variables"][where[id(v)]] for v in ours]
        lost = any(v._value is None for v in ours)  # noqa: SLF001 -- value has a placeholder
        return None if lost else [variable.value for variable in ours]

    def _offending(self, counts: Any) -> Any:
        counts, before = to_host(counts), self._last_counts
        self._last_counts = counts
        return counts > before

    def _may_rest(self) -> bool:
        """Whether a batch may end without a step."""
        scaled = self._owner is not self._model.optimizer
        return scaled or bool(self._owner.gradient_accumulation_steps)
