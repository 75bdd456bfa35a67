"""JAX, eager: one compiled step, whose state the clipper keeps on the device."""

from __future__ import annotations

from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary, ref

import jax
import numpy as np
from jax.core import Tracer
from numpy.typing import NDArray

import telemetry
from clipping import deferred, emission
from clipping.backends.jax_events import Events, metadata
from clipping.backends.jax_norms import row_norms, scaled
from clipping.backends.jax_ops import JAX
from clipping.backends.jax_state import About, describe
from clipping.backends.jax_tree import (
    UNTOUCHED,
    Leaves,
    check_paths,
    check_shapes,
    flatten,
    lay_out,
)
from clipping.clipper import Clipper
from clipping.nonfinite import refusal
from clipping.on_metrics import Listener
from clipping.records import Decision, Measured, State


class Stepped(NamedTuple):
    """What came of one step."""

    results: list[Any]
    decision: Decision
    state: State


class Step:
    """The clipping of one model's gradients by one clipper.

    Args:
        clipper: What decides; not kept alive.
        params: The parameters.
    """

    def __init__(self, clipper: Clipper, params: Leaves) -> None:
        self.paths = params.paths
        self.shapes = params.shapes
        self.groups = lay_out(clipper, params)
        self.about = describe(clipper, self.groups, params)
        self._clipper = ref(clipper)
        self.compiled = jax.jit(self.run)

    def fits(self, params: Leaves) -> bool:
        """Whether it is for such parameters."""
        return self.paths == params.paths and self.shapes == params.shapes

    def present(self, gradients: list[Any]) -> NDArray[np.bool_] | None:
        """Which rows have a gradient; None if all."""
        return self.groups.present(np.array([gradient is not None for gradient in gradients]))

    def run(self, gradients: list[Any], weights: list[Any] | None, before: State) -> Stepped:
        """Decide, remember and scale.

        Args:
            gradients: Of every parameter; None where there is none.
            weights: The parameters, if the clipper wants them.
            before: The state.
        """
        clipper, groups = cast("Clipper", self._clipper()), self.groups
        norms = row_norms(groups, gradients, self.shapes)
        against = None if weights is None else row_norms(groups, weights, self.shapes)
        measured = Measured(norms, against, self.present(gradients), groups.grouped)
        decision, after = clipper.update(JAX, before, measured)
        results = [] if clipper.dry_run else scaled(groups, gradients, decision)
        return Stepped(results, decision, after)


class Call(NamedTuple):
    """How some trees are clipped.

    Attributes:
        signature: Of the trees.
        step: What clips them.
        places: Which leaves of the gradients belong to parameters.
    """

    signature: Any
    step: Step
    places: list[int]


def clip(grads: Any, params: Any, clipper: Clipper, listener: Listener | None) -> Any:
    """See `clipping.jax.apply_grads`."""
    arrays, held, call = _understood(grads, params, clipper)
    step, given = call.step, [arrays[place] for place in call.places]
    weights = held if clipper.weighs else None
    with telemetry.span(emission.CLIP, metadata(step.about)) as span:
        done = _run(step, given, weights, clipper)
        last = done.decision if listener is None else jax.device_get(done.decision)
        events = Events(step.about, last, step.present(given))
        events.tell(listener)
        if telemetry.enabled(emission.STOP):
            span.measure(events.totals())
            span.annotate(events.outcome())
    deferred.settle()
    return grads if clipper.dry_run else _refilled(grads, done.results)


def _run(step: Step, gradients: list[Any], weights: list[Any] | None, clipper: Clipper) -> Stepped:
    """One step, which the clipper remembers unless its policy refuses the gradients."""
    names = step.groups.names
    before = clipper.memory.recall(clipper, JAX, names, step.groups.rows)
    done = cast("Stepped", step.compiled(gradients, weights, before))
    if isinstance(done.decision.norms, Tracer):
        raise TypeError(_TRACED)
    if clipper.policy == "raise" and not clipper.dry_run:
        flags = JAX.to_host(done.decision.nonfinite)
        if flags.any():
            clipper.memory.keep(JAX, names, before)
            _refuse(step.about, flags, float(emission.model_norm(JAX, done.decision.norms)))
    clipper.memory.keep(JAX, names, done.state)
    return done


def _refuse(about: About, flags: NDArray[np.bool_], grad_norm: float) -> None:
    groups = about.groups
    emission.emit_nonfinite(groups, about, flags, grad_norm)
    raise refusal(groups.named(flags), len(groups.names), grad_norm)


def _understood(grads: Any, params: Any, clipper: Clipper) -> tuple[list[Any], list[Any], Call]:
    """The leaves of both trees, and what is to be done with them; checked if they are new."""
    arrays, tree = jax.tree.flatten(grads, is_leaf=lambda leaf: leaf is None)
    held, tree_held = jax.tree.flatten(params)
    if any(isinstance(leaf, Tracer) for leaf in (*arrays, *held)):
        raise TypeError(_TRACED)
    signature = (tree, tree_held, [*map(_kind, arrays)], [*map(_kind, held)])
    known = _calls.get(clipper)
    if known is None or known.signature != signature:
        known = _calls[clipper] = _checked(grads, params, clipper, signature)
    return arrays, held, known


def _checked(grads: Any, params: Any, clipper: Clipper, signature: Any) -> Call:
    given, held = flatten(grads, "grads", nones=True), flatten(params, "params")
    owned = set(held.paths)
    # None in both trees stands for nothing at all.
    places = [
        place
        for place, (path, array) in enumerate(zip(given.paths, given.arrays, strict=True))
        if array is not None or path in owned
    ]
    given = Leaves([given.arrays[i] for i in places], [given.paths[i] for i in places], given.tree)
    check_paths(given.paths, held.paths, "the parameters")
    check_shapes(given, held)
    if all(gradient is None for gradient in given.arrays):
        raise ValueError(f"There is no gradient to clip in {grads!r}. Give at least one array.")
    known = _calls.get(clipper)
    fits = known is not None and known.step.fits(held)
    step = known.step if known is not None and fits else Step(clipper, held)
    return Call(signature, step, places)


def _kind(leaf: Any) -> Any:
    return np.shape(leaf), getattr(leaf, "dtype", type(leaf))


def _refilled(grads: Any, results: list[Any]) -> Any:
    """The tree of the gradients with what they have become."""
    rest = iter([result for result in results if result is not None])
    return jax.tree.map(lambda _: next(rest), grads)


_calls: WeakKeyDictionary[Clipper, Call] = WeakKeyDictionary()
"""The last call of each clipper; compiled anew when the parameters are others."""

_TRACED = (
    "clipping.jax.apply_grads() is for eager code, and is being traced here (by jit, grad, vmap or "
    f"scan). {UNTOUCHED} In compiled code use optax.chain(clipping.jax.transformation(clipper), "
    "...), or clip the gradients outside."
)
