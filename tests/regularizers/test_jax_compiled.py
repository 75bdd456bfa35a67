"""Events of losses that JAX compiles: none while it traces, all of them when asked for."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import telemetry
from regularizers import CustomLoss, RegularizerSpec, custom_loss, emit, penalties, schedules
from telemetry.testing import capture

X = jnp.array([0.5, -1.0, 2.0])
SPECS = [
    RegularizerSpec(penalties.l2, 0.01, "z"),
    RegularizerSpec(lambda d, x: (x.sum(), {"top": x.max()}), schedules.linear_warmup(1.0, 4), "a"),
]
LOSS = CustomLoss(lambda d, x: d * x.sum(), SPECS, model_id="m", track_grad_norms=True)


def output_at(step, x):
    return LOSS(2.0, x, step=step)


def names(events):
    return [(".".join(event.event), event.metadata.get("regularizer_name")) for event in events]


ONE_STEP = [
    ("regularizer.compute.stop", "z"),
    ("regularizer.compute.stop", "a"),
    ("custom_loss.stop", None),
]


@pytest.mark.parametrize(
    "transform",
    [
        jax.jit,
        lambda f: lambda s, x: jax.vmap(f)(jnp.array([s]), x[None]),
        lambda f: lambda s, x: jax.pmap(f)(jnp.array([s]), x[None]),
        lambda f: lambda s, x: jax.lax.map(lambda pair: f(*pair), (jnp.array([s]), x[None])),
        lambda f: lambda s, x: jax.lax.cond(x[0] > 0, f, f, s, x),
        lambda f: lambda s, x: jax.vmap(lambda d: custom_loss(d, x, lambda d, x: d * x.sum()))(X),
        lambda f: jax.jit(lambda s, x: f(2, X)),  # nothing that it is given is traced
        lambda f: jax.jit(lambda s, x: LOSS(2.0, lambda w: w * 1.0, step=2, wrt=x)),
        jax.make_jaxpr,
        lambda f: lambda s, x: jax.eval_shape(f, s, x),
    ],
)
def test_nothing_is_sent_while_code_is_compiled(transform):
    with capture() as events:
        transform(output_at)(2, X)
    assert names(events) == []


def test_emit_sends_the_catalogued_events_once_it_has_run():
    """By hand: z is 5.25, its gradient (1, -2, 4); a is 1.5 with weight 0.5 and slope (1, 1, 1)."""
    output = jax.jit(output_at)(2, X)
    with telemetry.context(run_id="r"), capture() as events:
        emit(output)
    assert names(events) == ONE_STEP
    first, second, last = events
    assert first.metadata == {
        "regularizer_name": "z",
        "weight": 0.01,
        "async": False,
        "run_id": "r",
    }
    assert set(first.measurements) == {"value", "contribution", "grad_norm"}
    assert second.metadata["weight"] == 0.5
    assert second.measurements["value"] == 1.5
    assert second.measurements["contribution"] == 0.75
    assert second.measurements["grad_norm"] == pytest.approx(3**0.5)
    assert last.metadata == {
        "model_id": "m",
        "data_count": None,
        "regularizer_count": 2,
        "track_grad_norms": True,
        "run_id": "r",
    }
    assert set(last.measurements) == {"loss_total", "regularizer_total", "total_grad_norm"}
    assert last.measurements["loss_total"] == pytest.approx(3.0 + 0.0525 + 0.75)
    slope = 2 + 0.5 + 0.01 * np.array([1.0, -2.0, 4.0])
    assert last.measurements["total_grad_norm"] == pytest.approx(np.linalg.norm(slope))
    assert all(isinstance(v, jax.Array) for event in events for v in event.measurements.values())


def test_without_tracking_norms_are_absent():
    output = jax.jit(lambda x: custom_loss(None, x, penalties.l1, regularizers=SPECS[:1]))(X)
    with capture() as events:
        emit(output)
    assert set(events[0].measurements) == {"value", "contribution"}
    assert set(events[1].measurements) == {"loss_total", "regularizer_total"}


def test_the_same_code_sends_its_events_once_in_eager_code():
    def train(transform):
        with capture() as events:
            emit(transform(output_at)(2, X))
        return [name for name in names(events) if name[0].endswith("stop")]

    assert train(lambda function: function) == train(jax.jit) == ONE_STEP


def test_an_output_that_was_handed_through_a_transformation_keeps_everything():
    output = output_at(2, X)
    again = jax.jit(lambda output: output)(output)
    assert again == output
    assert list(again.regularizers) == ["z", "a"]
    assert again.metadata == output.metadata
    assert again.reported
    assert not jax.jit(output_at)(2, X).reported


def test_jax_says_where_in_an_output_something_is():
    leaves, _ = jax.tree_util.tree_flatten_with_path(output_at(2, X))
    places = [jax.tree_util.keystr(path) for path, _ in leaves]
    assert places[:4] == [".loss", ".loss_total", ".regularizer_total", ".total_grad_norm"]
    assert {place.partition("[")[0] for place in places[4:]} == {".base_loss", ".regularizers"}


def test_the_steps_of_a_scan_are_sent_in_order():
    def body(x, step):
        return x - 0.5, output_at(step, x)

    _, stack = jax.jit(lambda x: jax.lax.scan(body, x, jnp.arange(3)))(X)
    expected = [float(X.sum()) - 1.5 * step for step in range(3)]
    for _ in range(2):  # reading it first makes no difference
        with capture() as events:
            emit(stack)
        assert names(events) == ONE_STEP * 3
        assert [e.measurements["value"] for e in events[1::3]] == pytest.approx(expected)
        assert [e.metadata["weight"] for e in events[1::3]] == [0.0, 0.25, 0.5]
        assert [e.metadata["weight"] for e in events[0::3]] == [0.01] * 3
        assert all(type(v) is float for e in events for v in e.measurements.values())
        assert stack.regularizers["a"].value == pytest.approx(expected)


def test_stacks_of_stacks_are_sent_member_by_member():
    grid = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    outputs = jax.vmap(jax.vmap(lambda x: custom_loss(None, x, lambda d, x: x)))(grid)
    with capture() as events:
        emit(outputs)
    assert [event.measurements["loss_total"] for event in events] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


def test_emit_refuses_an_output_that_is_still_traced():
    message = (
        "regularizers.emit got an output that jax is still tracing, which has no numbers. Return "
        "it from the compiled function and emit what that returns, or call custom_loss with "
        "live=True."
    )
    kept = []

    def inside(x):
        kept.append(output_at(2, x))
        emit(kept[0])

    with pytest.raises(TypeError) as refused:
        jax.jit(inside)(X)
    assert str(refused.value) == message
    with pytest.raises(jax.errors.UnexpectedTracerError, match="side effect"):
        emit(kept[0])  # it was not returned but smuggled out


@pytest.mark.parametrize(
    ("compiled", "x"),
    [(jax.jit(output_at), X), (jax.vmap(output_at, in_axes=(None, 0)), X[None])],
)
def test_emit_inside_of_a_differentiation_sends_no_tracers(compiled, x):
    def loss(x):
        output = compiled(2, x)
        emit(output)
        return output.loss.sum()

    with capture() as events:
        jax.grad(loss)(x)
    assert names(events) == ONE_STEP
    held = [v for e in events for v in (*e.measurements.values(), *e.metadata.values())]
    assert not [value for value in held if isinstance(value, jax.core.Tracer)]
    assert events[0].measurements["value"] == 5.25


def test_live_events_are_sent_each_time_the_code_runs():
    loss = CustomLoss(lambda d, x: x.sum(), SPECS[:1], track_grad_norms=True, live=True)
    step = jax.jit(lambda x: loss(None, x))
    with capture() as events:
        outputs = [step(X * scale) for scale in (1.0, 2.0)]
        jax.effects_barrier()
        for output in outputs:
            emit(output)  # they have been sent
    assert names(events) == [ONE_STEP[0], ONE_STEP[2]] * 2
    assert [e.measurements["value"] for e in events[0::2]] == [5.25, 21.0]
    assert events[0].metadata["weight"] == 0.01
    assert all(isinstance(v, np.generic) for e in events for v in e.measurements.values())


def test_live_events_of_scan_and_of_differentiated_code():
    loss = CustomLoss(lambda d, x: x.sum(), SPECS[:1], track_grad_norms=True, live=True)

    def body(carry, x):
        output = loss(None, x)
        return carry + output.loss, output

    run = jax.jit(jax.value_and_grad(lambda x: jax.lax.scan(body, 0.0, x), has_aux=True))
    with capture(("custom_loss", "stop")) as events:
        run(jnp.stack([X, 2 * X]))
        jax.effects_barrier()
    totals = sorted(float(event.measurements["loss_total"]) for event in events)
    assert totals == pytest.approx([1.5 + 0.0525, 3.0 + 0.21])


def test_live_changes_nothing_in_eager_code():
    with capture() as events:
        custom_loss(None, X, penalties.l1, regularizers=SPECS[:1], live=True)
    assert [e.event[-1] for e in events] == ["start", "start", "stop", "stop"]


def test_eager_code_in_another_thread_is_not_taken_for_compiled():
    """A trace belongs to its thread."""
    seen = []

    def body(x):
        def elsewhere():
            with capture() as events:
                custom_loss(None, X, penalties.l1)
            seen.append(len(events))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return x

    jax.jit(body)(X)
    assert seen == [2]


def test_a_callable_weight_counts_no_steps_in_compiled_code():
    loss = CustomLoss(penalties.l1, [SPECS[1]])
    with pytest.raises(ValueError, match="no step was given"):
        jax.jit(lambda x: loss(None, x))(X)
    jax.jit(lambda x, step: loss(None, x, step=step))(X, 3)
    assert loss.step == 0
