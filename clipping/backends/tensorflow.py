"""TensorFlow: one step in tensors, run eagerly as a compiled function or traced into a graph.

Norms, history and factors stay where the gradients are. What the events need is read on the CPU,
where that is free; on an accelerator it is handed over as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast
from weakref import WeakKeyDictionary, ref

import numpy as np
import tensorflow as tf  # type: ignore[import-untyped] # it ships no types
from numpy.typing import NDArray

import telemetry
from clipping import deferred, emission
from clipping.backends.tensorflow_given import (
    Gradient,
    Layout,
    gradients_of,
    lay_out,
    on_cpu,
    variables_of,
)
from clipping.backends.tensorflow_norms import row_norms, scaled
from clipping.backends.tensorflow_ops import TENSORFLOW
from clipping.backends.tensorflow_state import Slots, noted, replicated, slots_of
from clipping.clipper import Clipper
from clipping.host import HOST
from clipping.nonfinite import refusal
from clipping.on_metrics import Listener
from clipping.records import Decision, Measured, Ops

BACKEND: Final = "tensorflow"


class Step:
    """The clipping of one model's gradients by one clipper.

    Args:
        clipper: What decides; not kept alive.
        layout: Of the model.
    """

    def __init__(self, clipper: Clipper, layout: Layout) -> None:
        self.layout = layout
        self._clipper = ref(clipper)
        # Sparse gradients differ in their number of rows from step to step.
        self.compiled = tf.function(self.run, autograph=False, reduce_retracing=True)

    def run(self, gradients: list[Gradient | None]) -> tuple[list[Gradient | None], Decision]:
        """Decide, remember and scale; under policy ``"raise"`` only if all is finite.

        Args:
            gradients: Of every variable; in a replica those of it alone.

        Returns:
            What they become, and the decision.
        """
        clipper, layout = cast("Clipper", self._clipper()), self.layout
        slots = slots_of(clipper, layout.groups)
        before = slots.read()
        decision, after = clipper.update(TENSORFLOW, before, self._measured(gradients, clipper))
        if refuses(clipper):
            fine = ~TENSORFLOW.any(decision.nonfinite)
            after = tf.nest.map_structure(lambda a, b: tf.where(fine, a, b), after, before)
        slots.write(after)
        if clipper.dry_run:
            return gradients, decision
        return scaled(layout, gradients, decision), decision

    def present(self, gradients: Sequence[Gradient | None]) -> NDArray[np.bool_] | None:
        """Which rows have a gradient; None if all."""
        return self.layout.groups.present(np.array([g is not None for g in gradients]))

    def _measured(self, gradients: list[Gradient | None], clipper: Clipper) -> Measured:
        layout = self.layout
        norms = row_norms(layout, _over_replicas(gradients))
        weights = row_norms(layout, layout.variables) if clipper.weighs else None
        return Measured(norms, weights, self.present(gradients), layout.groups.grouped)


def clip(grads: Any, model: Any, clipper: Clipper, listener: Listener | None) -> Any:
    """Clip gradients in eager code, a graph, or one replica of several; see `gradients_of`.

    Raises:
        RuntimeError: The graph is not that of a ``tf.function``.
        ValueError: A graph cannot do what is asked for.
    """
    structure = variables_of(model)
    gradients = gradients_of(grads, structure)
    step = _step_of(clipper, model, tf.nest.flatten(structure))
    if tf.executing_eagerly() and not replicated():
        results = _eagerly(step, gradients, clipper, listener)
    else:
        results = _in_graph(step, gradients, clipper, listener)
    return tf.nest.pack_sequence_as(grads, results)


def make_variables(clipper: Clipper, model: Any) -> list[Any]:
    """The variables of a clipper, made if there are none yet."""
    structure = variables_of(model)
    layout = _step_of(clipper, model, tf.nest.flatten(structure)).layout
    slots = slots_of(clipper, layout.groups)
    slots.share(clipper)
    return list(tf.nest.flatten(slots.state))


def report(clipper: Clipper, listener: Listener | None) -> None:
    """Send the events of the last step in a graph.

    Raises:
        ValueError: There was none.
    """
    slots = noted(clipper)
    if slots is None or not tf.executing_eagerly():
        where = "traced no step of it yet" if slots is None else "is what is traced now"
        raise ValueError(
            f"There is nothing to emit: a tf.function {where}. Call clipping.tensorflow.emit() "
            "after the tf.function that calls apply_grads(); eager apply_grads() emits by itself."
        )
    seen = _fetched(slots.seen)
    steps = int(TENSORFLOW.to_host(seen.steps)) if on_cpu(slots.seen.steps) else None
    if steps == 0:
        raise ValueError(
            "There is nothing to emit: the tf.function with apply_grads() in it has not run yet, "
            "or not since load_state_dict()."
        )
    with telemetry.context(**({} if steps is None else {"clipper_step": steps})):
        events = _Events(clipper, slots, seen.decision, slots.presence())
        events.tell(listener)
        if telemetry.enabled(emission.STOP):
            about = emission.about(clipper, BACKEND)
            telemetry.execute(emission.STOP, events.totals(), about | events.outcome())
    deferred.settle()


def refuses(clipper: Clipper) -> bool:
    """Whether gradients that are not finite raise."""
    return clipper.policy == "raise" and not clipper.dry_run


class _Events(NamedTuple):
    """What there is to say of a step."""

    clipper: Clipper
    slots: Slots
    decision: Decision
    present: NDArray[np.bool_] | None

    @property
    def ops(self) -> Ops:
        """On the CPU everything has been read."""
        return HOST if isinstance(self.decision.norms, np.ndarray) else TENSORFLOW

    def tell(self, listener: Listener | None) -> None:
        """Report what is not finite, and the groups."""
        groups, clipper, decision = self.slots.groups, self.clipper, self.decision
        emission.report_nonfinite(self.ops, groups, clipper, decision)
        emission.emit_groups(self.ops, groups, clipper, decision, listener, self.present)

    def totals(self) -> dict[str, Any]:
        """The measurements of the stop event."""
        groups = self.slots.groups
        measured = Measured(self.decision.norms, present=self.present, grouped=groups.grouped)
        return emission.totals(self.ops, groups, measured, self.decision, self.present)

    def outcome(self) -> dict[str, str]:
        """The metadata of the stop event."""
        return emission.outcome(self.ops, self.decision, self.present)


def _eagerly(
    step: Step, gradients: list[Gradient | None], clipper: Clipper, listener: Listener | None
) -> list[Gradient | None]:
    with telemetry.span(emission.CLIP, emission.about(clipper, BACKEND)) as span:
        slots = slots_of(clipper, step.layout.groups)
        results, decision = step.compiled(gradients)
        if refuses(clipper):
            _raise_nonfinite(slots, clipper, decision)
        events = _Events(clipper, slots, _fetched(decision), step.present(gradients))
        events.tell(listener)
        if telemetry.enabled(emission.STOP):
            span.measure(events.totals())
            span.annotate(events.outcome())
    deferred.settle()
    return list(results)


def _in_graph(
    step: Step, gradients: list[Gradient | None], clipper: Clipper, listener: Listener | None
) -> list[Gradient | None]:
    if not (tf.inside_function() or tf.executing_eagerly()):
        raise RuntimeError(
            "apply_grads() works in eager code and in a tf.function, not in a tf.compat.v1 graph. "
            "Decorate the training step with tf.function."
        )
    if listener is not None:
        raise ValueError(
            "on_metrics cannot be called from inside a graph. Leave it out here, and call "
            "clipping.tensorflow.emit(clipper, on_metrics=...) after the tf.function."
        )
    if refuses(clipper):
        raise ValueError(
            "on_nonfinite='raise' cannot raise from inside a graph. Allowed there: 'skip', 'zero' "
            "and 'propagate'; or clip in eager code."
        )
    results, decision = step.run(gradients)
    slots = slots_of(clipper, step.layout.groups)
    slots.note(decision, step.present(gradients))
    slots.share(clipper)
    return results


def _raise_nonfinite(slots: Slots, clipper: Clipper, decision: Decision) -> None:
    flags = TENSORFLOW.to_host(decision.nonfinite)
    if flags.any():
        groups = slots.groups
        total = float(emission.model_norm(TENSORFLOW, decision.norms))
        emission.emit_nonfinite(groups, clipper, flags, total)
        raise refusal(groups.named(flags), len(groups.names), total)


def _fetched(record: Any) -> Any:
    """Tensors for the events: NumPy arrays where a read is free."""
    first = tf.nest.flatten(record)[0]
    fetch = _read if on_cpu(first) else tf.convert_to_tensor
    return tf.nest.map_structure(fetch, record)


def _read(tensor: Any) -> NDArray[Any]:
    """In float64, as `HOST` has it: sums of squares of norms need its range."""
    array: NDArray[Any] = TENSORFLOW.to_host(tensor)
    return array.astype(np.float64) if array.dtype == np.float32 else array


def _over_replicas(gradients: list[Gradient | None]) -> list[Gradient | None]:
    """The sums over all replicas, as an optimizer will form them."""
    if not replicated():
        return gradients
    given = [gradient for gradient in gradients if gradient is not None]
    context = tf.distribute.get_replica_context()
    sums = iter(context.all_reduce(tf.distribute.ReduceOp.SUM, given))
    return [None if gradient is None else next(sums) for gradient in gradients]


_steps: WeakKeyDictionary[Clipper, Step] = WeakKeyDictionary()


def _step_of(clipper: Clipper, model: Any, variables: list[Any]) -> Step:
    """The step of a clipper and a model, laid out anew when it is another model than last time."""
    known = _steps.get(clipper)
    if known is None or list(map(id, known.layout.variables)) != list(map(id, variables)):
        known = _steps[clipper] = Step(clipper, lay_out(clipper, model, variables))
    return known
