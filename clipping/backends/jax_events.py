"""The events of clippings in JAX: of a step just made, of a state, and of a stack of states."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import telemetry
from clipping import deferred, emission
from clipping.backends.jax_ops import JAX
from clipping.backends.jax_state import About, ClipState
from clipping.host import HOST
from clipping.on_metrics import Listener
from clipping.records import Decision, Measured, Ops

BACKEND: Final = "jax"

_EVENTS: Final = (emission.STOP, emission.GROUP, emission.NONFINITE)


class Events(NamedTuple):
    """What there is to say of one step.

    Attributes:
        about: What the measurements are of.
        last: The measurements, of JAX or, if they have been read, of NumPy.
        present: Which rows have a gradient; None if all.
    """

    about: About
    last: Decision
    present: Any = None

    @property
    def _ops(self) -> Ops:
        return HOST if isinstance(self.last.norms, np.ndarray) else JAX

    def tell(self, listener: Listener | None) -> None:
        """Report what is not finite, and the groups."""
        about, last, groups = self.about, self.last, self.about.groups
        if groups.unitwise and self._ops is JAX:
            # Handed over as arrays, which are gone if the state that they are of is donated.
            last = jax.tree.map(jnp.copy, last) if _groups_wanted(listener) else last
        emission.report_nonfinite(self._ops, groups, about, last)
        emission.emit_groups(self._ops, groups, about, last, listener, self.present)

    def totals(self) -> dict[str, Any]:
        """The measurements of the stop event."""
        groups = self.about.groups
        if self._ops is JAX:
            numbers: dict[str, Any] = _totals(self.last, self.about)
            return numbers | {"groups": len(emission.reported(groups, self.present))}
        measured = Measured(self.last.norms, present=self.present, grouped=groups.grouped)
        return emission.totals(HOST, groups, measured, self.last, self.present)

    def outcome(self) -> dict[str, str]:
        """The metadata of the stop event that are not always known."""
        return emission.outcome(self._ops, self.last, self.present)


def metadata(about: About) -> dict[str, Any]:
    """The metadata that each stop event has."""
    return {
        "algo": about.algo,
        "scope": about.scope,
        "backend": BACKEND,
        "dry_run": about.dry_run,
    }


def report(state: ClipState, listener: Listener | None) -> None:
    """Send the events of a state's last step, or of each step of a stack of states."""
    if listener is None and not any(map(telemetry.enabled, _EVENTS)):
        deferred.settle()
        return
    if np.ndim(state.clipper.steps):
        about = state.about
        for steps, last in _unstacked(*jax.device_get((state.clipper.steps, state.last))):
            report_known(about, listener, last, steps)
        return
    last = jax.tree.map(_local, state.last)
    _send(Events(state.about, last if listener is None else jax.device_get(last)), listener)


def report_known(about: About, listener: Listener | None, last: Decision, steps: Any) -> None:
    """Send the events of a step whose measurements are on the host.

    Args:
        about: What they are of.
        listener: The caller's ``on_metrics``.
        last: The measurements.
        steps: How many steps the clipper had seen.
    """
    with telemetry.context(clipper_step=int(steps)):
        _send(Events(about, jax.tree.map(np.asarray, last)), listener)


def _send(events: Events, listener: Listener | None) -> None:
    events.tell(listener)
    if telemetry.enabled(emission.STOP):
        about = metadata(events.about) | events.outcome()
        telemetry.execute(emission.STOP, events.totals(), about)
    deferred.settle()


def _unstacked(steps: Any, last: Decision) -> Iterator[tuple[Any, Decision]]:
    """Each step of a stack, in order, without those that say again what the one before said.

    Such are the replicas of ``pmap``, and the steps in which `optax.MultiSteps` accumulates.
    """
    if not steps.ndim:
        if steps > 0:
            yield steps, last
        return
    before = None
    for index in range(len(steps)):
        entry = jax.tree.map(lambda array, index=index: array[index], (steps, last))
        if before is None or not _same(entry, before):
            yield from _unstacked(*entry)
        before = entry


def _same(one: Any, other: Any) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def _groups_wanted(listener: Listener | None) -> bool:
    return listener is not None or telemetry.enabled(emission.GROUP)


def _local(array: Any) -> Any:
    """One device's copy of what all have, so that measurements need no other device."""
    if isinstance(array, jax.Array) and array.is_fully_replicated:
        return array.addressable_data(0)
    return array


@partial(jax.jit, static_argnames="about")
def _totals(last: Decision, about: About) -> dict[str, Any]:
    measured = Measured(last.norms, grouped=about.groups.grouped)
    return emission.totals(JAX, about.groups, measured, last)
