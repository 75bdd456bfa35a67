"""Clipping as a pure pair of functions, an optax ``GradientTransformation``."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax  # type: ignore[import-untyped] # it ships no types

from clipping.backends.jax_events import report_known
from clipping.backends.jax_norms import row_norms, scaled
from clipping.backends.jax_ops import JAX
from clipping.backends.jax_state import About, ClipState, describe, fresh
from clipping.backends.jax_tree import (
    UNTOUCHED,
    Leaves,
    check_paths,
    check_shapes,
    flatten,
    lay_out,
)
from clipping.clipper import Clipper
from clipping.groups import Groups
from clipping.records import Measured, Window


def make(clipper: Clipper, *, live: bool) -> optax.GradientTransformation:
    """See `clipping.jax.transformation`."""
    if clipper.policy == "raise" and not clipper.dry_run:
        raise ValueError(
            "on_nonfinite='raise' cannot raise from inside a compiled function. Allowed in a "
            "transformation: 'skip', 'zero' and 'propagate'; or clip eagerly with "
            "clipping.jax.apply_grads()."
        )
    return optax.GradientTransformation(
        partial(_init, clipper), partial(_update, clipper, live=live)
    )


def _init(clipper: Clipper, params: Any) -> Any:
    leaves = flatten(params, "params")
    if not leaves.arrays:
        # One leaf, since optax.tree.map_params() asks for the state of a placeholder and holds it
        # against a real one, of which a leaf is the only prefix.
        return jnp.zeros((), jnp.int32)
    return fresh(clipper, describe(clipper, lay_out(clipper, leaves), leaves))


def _update(
    clipper: Clipper, updates: Any, state: Any, params: Any = None, *, live: bool
) -> tuple[Any, Any]:
    grads = flatten(updates, "updates")
    if not isinstance(state, ClipState):
        if grads.arrays:
            raise ValueError(_of_nothing(state))
        return updates, state
    about = state.about
    _check_owner(clipper, about)
    check_paths(grads.paths, about.paths, "the params given to init()")
    _check_shapes(grads, about)
    _check_window(clipper, state)
    groups = about.groups
    weights = _weights(clipper, groups, grads, params) if clipper.weighs else None
    measured = Measured(
        row_norms(groups, grads.arrays, grads.shapes), weights, None, groups.grouped
    )
    before = jax.tree.map(jnp.asarray, state.clipper)
    last, after = clipper.update(JAX, before, measured)
    about = about._replace(policy=clipper.policy, dry_run=clipper.dry_run)
    if live:
        jax.debug.callback(partial(report_known, about, None), last, after.steps)
    if not clipper.dry_run:
        updates = jax.tree.unflatten(grads.tree, scaled(groups, grads.arrays, last))
    return updates, ClipState(after, last, about)


def _weights(clipper: Clipper, groups: Groups, grads: Leaves, params: Any) -> Any:
    if params is None:
        raise ValueError(
            f"{type(clipper).__name__} holds gradients against weights, but update() got no "
            f"params. Call update(grads, state, params). {UNTOUCHED}"
        )
    leaves = flatten(params, "params")
    check_paths(grads.paths, leaves.paths, "the params")
    check_shapes(grads, leaves)
    return row_norms(groups, leaves.arrays, leaves.shapes)


def _check_owner(clipper: Clipper, about: About) -> None:
    mine, its = (clipper.algo, clipper.scope), (about.algo, about.scope)
    if mine != its:
        raise ValueError(
            f"The state is of algo and scope {its!r}, the transformation of {mine!r}. Give the "
            f"state that this transformation's init() or update() returned. {UNTOUCHED}"
        )


def _check_shapes(grads: Leaves, about: About) -> None:
    for path, shape, known in zip(grads.paths, grads.shapes, about.shapes, strict=True):
        if shape != known:
            raise ValueError(
                f"The gradient {path!r} has shape {shape}, its parameter had {known} in init(). "
                f"They must be equal. {UNTOUCHED} Inside shard_map give gradients that are not "
                "sharded; if update() is inside vmap or pmap, init() must be given what one "
                "member or device has."
            )


def _check_window(clipper: Clipper, state: ClipState) -> None:
    history, size = state.clipper.history, getattr(clipper, "window_size", None)
    if isinstance(history, Window) and history.ring.shape[-1] != size:
        held = history.ring.shape[-1]
        raise ValueError(
            f"The state holds a window of {held} norms, the clipper has window_size={size}. They "
            f"must be equal. {UNTOUCHED} Give window_size={held}, or begin anew with init(); for "
            "apply_grads() what was learned can be moved by clipping.jax.state_dict()."
        )


def _of_nothing(state: object) -> str:
    return (
        f"The state is no state of this transformation for gradients, got {state!r} "
        f"({type(state).__name__}). Give what init(params) returned for params that have leaves. "
        f"{UNTOUCHED}"
    )
