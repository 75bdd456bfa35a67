"""Outputs as trees of JAX, and events of what is mapped and closed over."""

import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regularizers import CustomLoss, RegularizerSpec, custom_loss, emit, penalties, schedules
from telemetry.testing import capture

X = jnp.array([0.5, -1.0, 2.0])
FACTORS = jnp.array([1.0, 10.0])


def base(data, x):
    return x.sum()


def loss_with(fn=penalties.l2, weight=0.01, **options):
    """By hand: the base loss is 1.5, and l2 5.25."""
    options = {"step": 0, **options}
    return custom_loss(None, X, base, regularizers=[RegularizerSpec(fn, weight, "a")], **options)


MAPPED = {
    "weight": (lambda factor, **how: loss_with(weight=lambda step: factor, **how), 5.25, FACTORS),
    "step": (
        lambda factor, **how: loss_with(weight=lambda step: 2.0 * step, step=factor, **how),
        5.25,
        2 * FACTORS,
    ),
    "function": (
        lambda factor, **how: loss_with(lambda d, x: factor * penalties.l2(d, x), 1.0, **how),
        5.25 * FACTORS,
        1.0,
    ),
}


@pytest.mark.parametrize("tracked", [False, True])
@pytest.mark.parametrize("what", MAPPED)
def test_an_array_that_is_mapped_and_closed_over_is_sent_by_emit(what, tracked):
    compute, values, weights = MAPPED[what]
    with capture() as events:
        outputs = jax.vmap(lambda factor: compute(factor, track_grad_norms=tracked))(FACTORS)
    assert events == []
    with capture() as events:
        emit(outputs)
    values, weights = (np.broadcast_to(number, 2) for number in (values, weights))
    parts, totals = events[0::2], events[1::2]
    assert [e.measurements["value"] for e in parts] == pytest.approx(values)
    assert [e.metadata["weight"] for e in parts] == pytest.approx(weights)
    assert all(("total_grad_norm" in e.measurements) is tracked for e in totals)
    assert [e.measurements["loss_total"] for e in totals] == pytest.approx(1.5 + values * weights)


def test_a_mapped_loss_that_is_differentiated_sends_no_tracers():
    def slope(factor):
        return jax.grad(lambda x: custom_loss(None, x, lambda d, x: factor * x.sum()).loss)(X)

    with capture() as events:
        slopes = jax.vmap(slope)(FACTORS)
    assert events == []
    np.testing.assert_allclose(slopes, np.outer(FACTORS, np.ones(3)))


def test_after_a_map_events_are_sent_at_once_again():
    jax.vmap(lambda factor: loss_with(weight=lambda step: factor).loss)(FACTORS)
    with capture() as events:
        jax.grad(lambda x: custom_loss(None, x, base).loss)(X)
    assert [event.event for event in events] == [("custom_loss", "start"), ("custom_loss", "stop")]


def test_live_events_keep_no_tracer():
    with jax.checking_leaks(), capture() as events:
        jax.jit(lambda x: custom_loss(None, x, base, live=True, track_grad_norms=True).loss)(X)
        jax.effects_barrier()
    assert [float(event.measurements["loss_total"]) for event in events] == [1.5]


def test_a_finished_output_can_be_emitted_while_code_is_compiled():
    """It has its numbers, whatever goes on in the thread."""
    finished = jax.jit(lambda x: custom_loss(None, x, base))(X)

    def inside(x):
        emit(finished)
        return x

    with capture() as events:
        jax.jit(inside)(X)
    assert [event.measurements["loss_total"] for event in events] == [1.5]


def test_outputs_of_the_steps_of_a_schedule_can_be_stacked():
    loss = CustomLoss(base, [RegularizerSpec(penalties.l2, schedules.linear_warmup(1.0, 4), "a")])
    outputs = [loss(None, X) for _ in range(3)]
    assert outputs[0].regularizers["a"].weight == 0.0  # reading one makes no difference
    stack = jax.tree.map(lambda *numbers: jnp.stack(numbers), *outputs)
    assert stack.regularizers["a"].weight == [0.0, 0.25, 0.5]
    assert stack.loss_total == pytest.approx([1.5, 1.5 + 0.25 * 5.25, 1.5 + 0.5 * 5.25])


def test_an_output_that_was_read_goes_to_the_same_compiled_code():
    traced = []

    @jax.jit
    def total(output):
        traced.append(output)
        return output.loss

    output = jax.jit(lambda x: loss_with(weight=lambda step: step + jnp.float32(0.5)))(X)
    total(output)
    output.to_dict()
    total(output)
    assert len(traced) == 1


FRESH = """
import pickle, sys
import jax
from regularizers import CustomLossOutput
output = {output}
leaves = jax.tree.leaves(output)
print(len(leaves), all(isinstance(leaf, float) for leaf in leaves))
"""


@pytest.mark.parametrize("how", ["unpickled", "read"])
def test_an_output_is_a_tree_where_no_loss_was_computed_yet(how):
    """The numbers are two totals, the base loss, the value and the contribution."""
    output = custom_loss(
        [], [1.0], lambda d, x: 2.0, regularizers=[RegularizerSpec(penalties.l1, 1, "a")]
    )
    if how == "read":
        made = f"CustomLossOutput.from_dict({output.to_dict()})"
        expected = 5
    else:
        made = f"pickle.loads({pickle.dumps(output)})"
        expected = 6  # with the loss itself
    code = FRESH.format(output=made)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [str(expected), "True"]
