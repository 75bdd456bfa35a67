"""Clipping of TensorFlow gradients, in eager code and inside ``tf.function``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.on_metrics import Listener
from clipping.records import OnMetrics
from telemetry.extras import import_extra

if TYPE_CHECKING:
    import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

    from clipping.backends import tensorflow as backend
else:
    _FEATURE = "clipping.tensorflow"
    tf = import_extra("tensorflow", extra="tensorflow", feature=_FEATURE)
    backend = import_extra("clipping.backends.tensorflow", extra="tensorflow", feature=_FEATURE)

__all__ = ["apply_grads", "emit", "variables"]

Tree = TypeVar("Tree")


def apply_grads(
    grads: Tree, model: Any, clipper: Clipper, on_metrics: OnMetrics | None = None
) -> Tree:
    """Clip gradients and return them; nothing is written to what was given.

    The clipper's state is in float32 and int64 variables, made in the first call, that eager code
    and graphs share. Once a graph has them, no other framework can use the clipper. In eager code
    the events are sent at once. In a graph, ``jit_compile=True`` included, nothing calls back into
    Python: `emit`, called outside, sends them.

    In one of several replicas of a ``tf.distribute`` strategy it is the sum of all replicas'
    gradients that is measured, and each replica's own that are scaled, before the optimizer sums
    them. `emit` sends the events there too.

    Args:
        grads: What ``tape.gradient(loss, model.trainable_variables)`` returned: tensors of
            floating-point or complex numbers or ``tf.IndexedSlices``, all on one device. None
            stands for a variable without a gradient.
        model: A Keras model, a ``tf.Module``, or the (nested) variables themselves, in the
            structure of the gradients.
        clipper: What decides; it remembers the norms, so use the same one every step.
        on_metrics: Called with a `MetricsRecord` of each group, whose numbers are Python's. If it
            raises, that is announced like a failing handler. Not in a graph: give it to `emit`.

    Returns:
        The same structure with new tensors of the same shapes and dtypes. Gradients that are all 0
        have norm 0 and stay as they are; for NaN and infinity see ``on_nonfinite`` of the clipper.

    Raises:
        TypeError: A gradient or variable is of a kind that cannot be used, or the clipper is none.
        ValueError: The gradients do not match the variables, there are none, they are on several
            devices, or a graph cannot do what is asked for.
        RuntimeError: The graph is one of ``tf.compat.v1``.
        FloatingPointError: See ``on_nonfinite`` of the clipper.

    Example:
        >>> import tensorflow as tf
        >>> from clipping import AutoClip
        >>> weight = tf.Variable([0.0, 0.0])
        >>> clipper = AutoClip(mode="percentile")
        >>> @tf.function
        ... def step(gradient):
        ...     (clipped,) = apply_grads([gradient], [weight], clipper)
        ...     return clipped
        >>> step(tf.constant([3.0, 4.0])).numpy()
        array([3., 4.], dtype=float32)
        >>> clipper.threshold_any()
        5.0
    """
    check_clipper(clipper)
    listener = None if on_metrics is None else Listener(on_metrics)
    return cast("Tree", _unconverted(backend.clip)(grads, model, clipper, listener))


def emit(clipper: Clipper, on_metrics: OnMetrics | None = None) -> None:
    """Send the events of the last step that was clipped inside a graph.

    Call it outside, as often as events are wanted; called twice it sends them twice. The stop
    event has no ``duration``. On the CPU ``clipper_step`` says which step it was. On an accelerator
    nothing is waited for, unless the clipper is in graphs that differ in which variables have a
    gradient.

    Args:
        clipper: The one that was given to `apply_grads`.
        on_metrics: Called with a `MetricsRecord` of each group, whose numbers are Python's (which
            waits for the device). If it raises, that is announced like a failing handler.

    Raises:
        TypeError: The clipper is none.
        ValueError: There was no such step, or none since a state was loaded.

    Example:
        >>> import tensorflow as tf
        >>> import telemetry
        >>> from clipping import AutoClip
        >>> weight, clipper = tf.Variable([0.0, 0.0]), AutoClip()
        >>> step = tf.function(lambda gradient: apply_grads([gradient], [weight], clipper))
        >>> _ = step(tf.constant([3.0, 4.0]))
        >>> with telemetry.testing.capture(("smartclip", "clip", "stop")) as events:
        ...     emit(clipper)
        >>> events[0].measurements["grad_norm"], events[0].metadata["clipper_step"]
        (5.0, 1)
    """
    check_clipper(clipper)
    backend.report(clipper, None if on_metrics is None else Listener(on_metrics))


def variables(clipper: Clipper, model: Any) -> list[tf.Variable]:
    """The variables that hold what a clipper has learned, made if there are none yet.

    For ``tf.train.Checkpoint``, and to make them before a ``tf.function`` is called or inside
    ``strategy.scope()``. From then on no other framework can use the clipper.

    Args:
        clipper: Whose.
        model: What it clips, as for `apply_grads`.

    Raises:
        TypeError: The clipper or the model is of a kind that cannot be used.
        ValueError: The clipper's state is of another model, or the model has no variables.

    Example:
        >>> import tensorflow as tf
        >>> from clipping import AutoClip
        >>> weight, clipper = tf.Variable([0.0, 0.0]), AutoClip(window_size=8)
        >>> tracked = tf.Module()
        >>> tracked.clipper = variables(clipper, [weight])
        >>> checkpoint = tf.train.Checkpoint(clipper=tracked)
        >>> [tuple(variable.shape) for variable in tracked.clipper]
        [(), (1,), (1, 8), (1,)]
    """
    check_clipper(clipper)
    return backend.make_variables(clipper, model)


def _unconverted(function: Any) -> Any:
    """A function that AutoGraph leaves alone."""
    return tf.autograph.experimental.do_not_convert(function)
