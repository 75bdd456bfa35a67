"""The state of a transformation: a pytree of arrays, and what is needed to understand them."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from clipping import state_dict
from clipping.backends.jax_ops import JAX
from clipping.backends.jax_tree import Leaves
from clipping.clipper import Clipper
from clipping.groups import Groups
from clipping.memory import Memory
from clipping.records import Decision, Measured, State


@jax.tree_util.register_static
class About(NamedTuple):
    """What is known when the parameters are: to JAX a node without leaves.

    It is a named tuple of strings and booleans because that is what pickle, orbax (with a
    template) and ``flax.serialization`` all bring back, and nothing else is.

    The policy and ``dry_run`` have no part in equality. They are those of the clipper that made
    the last update, and the loops of JAX want a state that another one began (it was restored) to
    have the structure of the states that come after it. No compiled code reads them.

    Attributes:
        algo: The clipper's.
        scope: The clipper's.
        policy: What is done about gradients that are not finite.
        dry_run: Whether the gradients are left alone.
        layout: The parameters' paths and shapes and their groups, as JSON.
    """

    algo: str
    scope: str
    policy: str
    dry_run: bool
    layout: str

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, About):
            return NotImplemented
        return self._identity == other._identity

    def __ne__(self, other: object) -> bool:
        return not self == other  # a tuple has its own, which compares all

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[str, str, str]:
        return self.algo, self.scope, self.layout

    @property
    def groups(self) -> Groups:
        """How the parameters are grouped."""
        return _read(self.layout).groups

    @property
    def paths(self) -> list[str]:
        """The paths of the parameters."""
        return _read(self.layout).paths

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The shapes of the parameters."""
        return _read(self.layout).shapes


class ClipState(NamedTuple):
    """The state of `clipping.jax.transformation`.

    Attributes:
        clipper: What the clipper remembers.
        last: The measurements of the last update, each of shape [rows]; norms and limits are NaN
            before the first.
        about: What they are of.
    """

    clipper: State
    last: Decision
    about: About


def describe(clipper: Clipper, groups: Groups, params: Leaves) -> About:
    """Put into strings what `emit` needs to know of a clipper and its groups."""
    starts = np.flatnonzero(np.r_[True, groups.owner[1:] != groups.owner[:-1]])
    runs = np.stack([groups.owner[starts], np.diff(np.r_[starts, groups.rows])], axis=1)
    layout = {
        "paths": params.paths,
        "shapes": params.shapes,
        "names": groups.names,
        "count": groups.count,
        "owners": runs.tolist(),
        "first": groups.first.tolist(),
        "unitwise": groups.unitwise,
    }
    return About(clipper.algo, clipper.scope, clipper.policy, clipper.dry_run, json.dumps(layout))


def fresh(clipper: Clipper, about: About) -> ClipState:
    """The state before the first update."""
    rows = (about.groups.rows,)
    nan = JAX.full(rows, np.nan)
    limits = {name: JAX.full(rows, np.nan) for name in clipper.limits(nan, Measured(nan, nan))}
    flags = (jnp.zeros(rows, bool) for _ in range(2))  # two arrays, because both may be donated
    last = Decision(nan, limits, JAX.full(rows, 1.0), *flags)
    return ClipState(clipper.init(JAX, rows[0]), last, about)


def find(tree: Any) -> list[ClipState]:
    """The clip states in a tree, such as the state of a chain, with bare arrays in them.

    Raises:
        TypeError: It is being traced.
        ValueError: There is none.
    """
    nodes = jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, ClipState))
    states = [node for node in nodes if isinstance(node, ClipState)]
    if not states:
        raise ValueError(
            f"There is no state of clipping.jax.transformation() in {type(tree).__name__}. Give "
            "the optimizer's state (or a TrainState) of a chain that contains it; what orbax "
            "restores without a template is dictionaries."
        )
    if any(isinstance(array, Tracer) for state in states for array in jax.tree.leaves(state)):
        raise TypeError(
            "The state of clipping.jax.transformation() is being traced, so that it has no values "
            "yet. Call this outside of jit, or use transformation(clipper, live=True)."
        )
    return [_bare(state) for state in states]


def described(found: list[ClipState], clipper: Clipper) -> dict[str, Any]:
    """The only state among some as the JSON data that `Clipper.load_state_dict` takes."""
    if len(found) != 1 or np.ndim(found[0].clipper.steps):
        stacked = any(np.ndim(state.clipper.steps) for state in found)
        raise ValueError(
            f"There must be one state of clipping.jax.transformation(), got {len(found)}"
            f"{', stacked' if stacked else ''}. Give the part of the optimizer's state that is "
            "wanted; of a stack jax.tree.map(lambda x: x[-1], stack)."
        )
    state, about = found[0].clipper, found[0].about
    if (clipper.algo, clipper.scope) != (about.algo, about.scope):
        raise ValueError(
            f"The state is of algo and scope {(about.algo, about.scope)!r}, the clipper of "
            f"{(clipper.algo, clipper.scope)!r}. Give the clipper that transformation() was given."
        )
    memory = Memory()
    memory.keep(JAX, about.groups.names, state)
    return state_dict.head(about.algo, about.scope) | memory.described(clipper)


def _bare(state: ClipState) -> ClipState:
    """Without the variables that flax.nnx puts around each array."""
    bare: ClipState = jax.tree.map(
        lambda node: jax.tree.leaves(node)[0],
        state,
        is_leaf=lambda node: not isinstance(node, tuple | dict),
    )
    return bare


class _Layout(NamedTuple):
    """What a layout says, read."""

    groups: Groups
    paths: list[str]
    shapes: list[tuple[int, ...]]


@lru_cache(maxsize=64)
def _read(layout: str) -> _Layout:
    data = json.loads(layout)
    owners = np.array(data["owners"], np.intp)
    owner = np.repeat(owners[:, 0], owners[:, 1])
    names = tuple(map(tuple, data["names"]))
    first = np.array(data["first"], np.intp)
    groups = Groups(names, data["count"], owner.size, owner, first, unitwise=data["unitwise"])
    return _Layout(groups, data["paths"], [tuple(shape) for shape in data["shapes"]])
