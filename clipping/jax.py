"""Clipping of JAX gradients: as an optax transformation in compiled code, and in eager code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.on_metrics import Listener
from clipping.records import OnMetrics
from telemetry.extras import import_extra

if TYPE_CHECKING:
    import optax  # type: ignore[import-untyped] # it ships no types

    from clipping.backends import jax as backend
    from clipping.backends import jax_events as events
    from clipping.backends import jax_optax as pure
    from clipping.backends import jax_state as states
else:
    _WANTED = {"extra": "jax", "feature": "clipping.jax"}
    import_extra("jax", **_WANTED)
    optax = import_extra("optax", **_WANTED)
    backend = import_extra("clipping.backends.jax", **_WANTED)
    events = import_extra("clipping.backends.jax_events", **_WANTED)
    pure = import_extra("clipping.backends.jax_optax", **_WANTED)
    states = import_extra("clipping.backends.jax_state", **_WANTED)

__all__ = ["apply_grads", "emit", "state_dict", "transformation"]

Tree = TypeVar("Tree")


def transformation(clipper: Clipper, *, live: bool = False) -> optax.GradientTransformation:
    """Clipping as an optax ``GradientTransformation``, to be put before an optimizer.

    It is a pure pair of functions for ``jit``, ``scan``, ``vmap``, ``pmap`` and ``shard_map``. Its
    state is a pytree of float32 and int32 arrays: what the clipper has learned, and the
    measurements of the last update, which `emit` sends. The clipper object lends its options and
    remembers nothing.

    Gradients that are sharded under ``jit`` have the norms of the whole. Inside ``pmap`` and
    ``shard_map`` they must be averaged over the devices and not be sharded, because a device sees
    only its own there.

    Args:
        clipper: What decides.
        live: Emit events while the compiled code runs, through a callback that costs about 100 us
            a step and runs on another thread, where the metadata of `telemetry.context` are not
            known. On several devices each replica of ``pmap`` and ``shard_map`` emits. Every call
            of ``update`` is reported: ``optax.MultiSteps`` may call it in each micro-step and
            throw the result away, so use `emit` with it.

    Returns:
        The transformation. ``init`` begins anew, whatever the clipper object has seen or loaded.
        ``init`` and ``update`` take trees of arrays of floating-point or
        complex numbers; a tree without leaves is passed through, and so are None and
        ``optax.MaskedNode``, which are branches without leaves. Clipped gradients keep their
        dtype. Gradients that are all 0 have norm 0 and stay as they are; for NaN and infinity see
        ``on_nonfinite`` of the clipper. AGC needs ``update(grads, state, params)``.

        Both raise TypeError for leaves of other dtypes (integers, float0), and ValueError for
        gradients that do not match the parameters that ``init`` was given, and for a state whose
        window is not of the clipper's ``window_size``, when they are traced. Under ``vmap`` and
        ``pmap`` ``init`` is given the parameters of one member or device.

    Raises:
        TypeError: The clipper is none.
        ValueError: Its policy is ``"raise"``, which compiled code cannot do.

    Example:
        >>> import jax, optax
        >>> import jax.numpy as jnp
        >>> from clipping import AutoClip
        >>> optimizer = optax.chain(transformation(AutoClip()), optax.sgd(0.1))
        >>> params = {"w": jnp.ones(2)}
        >>> opt_state = optimizer.init(params)
        >>> grads = {"w": jnp.array([3.0, 4.0])}
        >>> updates, opt_state = jax.jit(optimizer.update)(grads, opt_state, params)
        >>> optax.tree.get(opt_state, "norms")
        Array([5.], dtype=float32)
    """
    check_clipper(clipper)
    return pure.make(clipper, live=live)


def emit(opt_state: Any, on_metrics: OnMetrics | None = None) -> None:
    """Send the events of the last update, or of each update of a state stacked by ``scan``.

    Call it outside of compiled code, as often as events are wanted; called twice it sends them
    twice. The stop event has no ``duration``.

    - A single state is not waited for: measurements are arrays on the device, ``outcome`` is not
      known, and the non-finite event comes once the device has said whether it is due. Before the
      first update the norms are NaN.
    - A stack of states (leading axes) is fetched in one copy, which waits, if anybody listens. Its
      steps are sent in order, with ``clipper_step`` and ``outcome``. What only repeats the entry
      before it is left out: replicas of ``pmap``, steps in which ``optax.MultiSteps`` accumulates,
      and members of ``vmap`` that measure the same (send each by itself if all are wanted).

    Args:
        opt_state: Anything that contains states of `transformation`: that of a chain, a
            ``TrainState``, an ``nnx.Optimizer``. The states of several are sent one after another,
            and their events do not say whose they are: to tell them apart send each under a
            `telemetry.context` of its own.
        on_metrics: Called with a `MetricsRecord` of each group, whose numbers are Python's (which
            waits for the device). If it raises, that is announced like a failing handler.

    Raises:
        TypeError: It is being traced.
        ValueError: There is no such state in it.

    Example:
        >>> import jax, optax
        >>> import jax.numpy as jnp
        >>> import telemetry
        >>> from clipping import AutoClip
        >>> clip = transformation(AutoClip())
        >>> def step(state, norm):
        ...     _, state = clip.update({"w": norm}, state)
        ...     return state, state
        >>> _, stack = jax.lax.scan(step, clip.init({"w": 0.0}), jnp.array([3.0, 4.0]))
        >>> with telemetry.testing.capture(("smartclip", "clip", "stop")) as sent:
        ...     emit(stack)
        >>> [(e.metadata["clipper_step"], e.measurements["grad_norm"]) for e in sent]
        [(1, 3.0), (2, 4.0)]
    """
    listener = None if on_metrics is None else Listener(on_metrics)
    for state in states.find(opt_state):
        events.report(state, listener)


def state_dict(opt_state: Any, clipper: Clipper) -> dict[str, Any]:
    """What a transformation has learned, for ``clipper.load_state_dict()`` or as JSON data.

    To go on with the same transformation, save the optimizer's state itself.

    Args:
        opt_state: Anything that contains one state of `transformation`; waits for its device.
        clipper: The one that was given to `transformation`.

    Raises:
        TypeError: It is being traced, or the clipper is none.
        ValueError: There is no such state in it, or several, or it is a stack of them.

    Example:
        >>> from clipping import AutoClip
        >>> clipper = AutoClip()
        >>> opt_state = transformation(clipper).init({"w": 0.0})
        >>> state_dict(opt_state, clipper)["keys"]
        [['global']]
    """
    check_clipper(clipper)
    return states.described(states.find(opt_state), clipper)


def apply_grads(
    grads: Tree, params: Any, clipper: Clipper, on_metrics: OnMetrics | None = None
) -> Tree:
    """Clip gradients in eager code and return them.

    The clipper keeps its state on the device. One compiled function does it all; nothing is read
    back, except for ``on_metrics`` and policy ``"raise"``.

    Args:
        grads: A tree of arrays of floating-point or complex numbers. None stands for a parameter
            without a gradient.
        params: The parameters: the same tree and shapes.
        clipper: What decides; it remembers the norms, so use the same one every step.
        on_metrics: Called with a `MetricsRecord` of each group, whose numbers are Python's (which
            waits for the device). If it raises, that is announced like a failing handler.

    Returns:
        The same tree with new arrays of the same shapes and dtypes. Gradients that are all 0 have
        norm 0 and stay as they are; for NaN and infinity see ``on_nonfinite`` of the clipper.

    Raises:
        TypeError: A gradient or parameter is no such array, the clipper is none, or this is being
            traced: use `transformation` in compiled code.
        ValueError: The trees do not match, or hold no gradient.
        FloatingPointError: See ``on_nonfinite`` of the clipper.

    Example:
        >>> import jax.numpy as jnp
        >>> from clipping import AutoClip
        >>> clipper = AutoClip(mode="percentile")
        >>> apply_grads({"w": jnp.array([3.0, 4.0])}, {"w": jnp.zeros(2)}, clipper)
        {'w': Array([3., 4.], dtype=float32)}
        >>> clipper.threshold_any()
        5.0
    """
    check_clipper(clipper)
    listener = None if on_metrics is None else Listener(on_metrics)
    return cast("Tree", backend.clip(grads, params, clipper, listener))
