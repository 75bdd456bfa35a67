"""What `emit` and ``live=True`` put on the bus."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clipping
import telemetry
from clipping import deferred
from telemetry.testing import capture

CLIP = ("smartclip", "clip", "*")


def clipper(**options):
    defaults = {"mode": "percentile", "percentile": 50.0, "history": "window"}
    return clipping.AutoClip(**(defaults | {"warmup_steps": 0, "min_history": 1} | options))


def stack_of(norms, using, *, live=False):
    transformation = clipping.jax.transformation(using, live=live)

    def step(state, norm):
        _, state = transformation.update({"a": {"w": norm}, "b": {"w": 2 * norm}}, state)
        return state, state

    init = transformation.init({"a": {"w": 0.0}, "b": {"w": 0.0}})
    return jax.jit(lambda norms: jax.lax.scan(step, init, norms))(jnp.array(norms))


def test_a_single_state_hands_over_what_is_on_the_device():
    state, _ = stack_of([3.0], clipper())
    with capture(CLIP) as events, telemetry.context(step=7):
        clipping.jax.emit(state)
    group, stop = events
    assert stop.event == ("smartclip", "clip", "stop")
    assert set(stop.measurements) == {
        "grad_norm", "clipped_grad_norm", "scale", "groups", "groups_clipped", "threshold",
    }  # fmt: skip
    assert {"algo", "scope", "backend", "dry_run", "step"} == set(stop.metadata)
    assert isinstance(stop.measurements["grad_norm"], jax.Array)
    assert stop.measurements["groups"] == 1
    norm = 3 * 5**0.5
    np.testing.assert_allclose(float(stop.measurements["grad_norm"]), norm, rtol=1e-6)
    np.testing.assert_allclose(float(stop.measurements["threshold"]), norm, rtol=1e-6)
    assert group.metadata["key"] == ("global",)
    assert bool(group.measurements["clipped"]) is False


@pytest.mark.parametrize("scope", ["per_layer", "per_unit"])
def test_measurements_outlive_a_donated_state(scope):
    using = clipping.AGC(clipping=0.5, scope=scope, exclude_bias_bn=False)
    transformation = clipping.jax.transformation(using)
    params = {"w": jnp.ones((2, 2))}
    _, state = transformation.update(params, transformation.init(params), params)
    with capture(CLIP) as events:
        clipping.jax.emit(state)
    for array in jax.tree.leaves(state):
        array.delete()  # as donating does
    assert len(events) == 2
    for event in events:
        assert not any(getattr(x, "is_deleted", bool)() for x in event.measurements.values())


def test_a_stack_sends_each_of_its_steps():
    norms = [1.0, 2.0, 9.0, float("nan"), 2.0]
    _, stack = stack_of(norms, clipper(scope="per_layer"))
    with capture(CLIP) as events, telemetry.context(epoch=1):
        clipping.jax.emit(stack)
    stops = [e for e in events if e.event[-1] == "stop"]
    assert [e.metadata["clipper_step"] for e in stops] == [1, 2, 3, 4, 5]
    assert {e.metadata["epoch"] for e in events} == {1}
    # Thresholds of layer a: 1, 1.5, 2, then the step with a NaN, then 2.
    outcomes = ["unclipped", "applied", "applied", "skipped", "unclipped"]
    assert [e.metadata["outcome"] for e in stops] == outcomes
    assert [e.measurements["groups_clipped"] for e in stops[:3]] == [0, 2, 2]
    groups = [e for e in events if e.event[-1] == "group" and e.metadata["clipper_step"] == 3]
    assert [e.metadata["key"] for e in groups] == [("layer", "a"), ("layer", "b")]
    assert [e.measurements["threshold"] for e in groups] == [2.0, 4.0]
    assert type(groups[0].measurements["grad_norm"]) is float
    (spoilt,) = (e for e in events if e.event[-1] == "nonfinite")
    assert spoilt.metadata["keys"] == (("layer", "a"), ("layer", "b"))
    assert spoilt.metadata["clipper_step"] == 4
    assert spoilt.metadata["policy"] == "skip"


def test_a_stack_need_not_have_the_history():
    _, stack = stack_of([1.0, 2.0], clipper())
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(stack._replace(clipper=stack.clipper._replace(history=())))
    assert len(events) == 2


def test_the_nonfinite_event_comes_when_it_is_known():
    state, _ = stack_of([float("inf")], clipper(on_nonfinite="zero"))
    with capture(("smartclip", "clip", "nonfinite")) as events:
        with telemetry.context(step=3):
            clipping.jax.emit(state)
        deferred.settle_all()
    assert [(e.metadata["step"], e.measurements["count"]) for e in events] == [(3, 1)]


def test_a_state_emitted_twice_is_sent_twice_and_a_chain_sends_all():
    state, _ = stack_of([1.0], clipper())
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit({"one": state, "other": [state]})
        clipping.jax.emit(state)
    assert len(events) == 3


def test_before_the_first_update_a_state_has_nothing_to_say():
    state = clipping.jax.transformation(clipper()).init({"w": jnp.ones(1)})
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(state)
        clipping.jax.emit(jax.tree.map(lambda x: x[None], state))
    (single,) = events
    assert np.isnan(float(single.measurements["grad_norm"]))


def test_groups_are_not_computed_when_nobody_listens(monkeypatch):
    state, _ = stack_of([1.0], clipper(scope="per_layer"))
    monkeypatch.setattr(type(state.about.groups), "split", None)
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.jax.emit(state)
    assert len(events) == 1


def test_a_stack_is_not_fetched_when_nobody_listens(monkeypatch):
    _, stack = stack_of([1.0, 2.0], clipper())
    fetched, fetch = [], jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(1) or fetch(tree))
    clipping.jax.emit(stack)
    assert not fetched
    clipping.jax.emit(stack, on_metrics=lambda record: None)
    assert fetched


def test_on_metrics_gets_numbers():
    records = []
    state, _ = stack_of([3.0], clipper(scope="per_layer"))
    clipping.jax.emit(state, on_metrics=records.append)
    assert [(r["key"], r["grad_norm"], r["scale"]) for r in records] == [
        (("layer", "a"), 3.0, 1.0),
        (("layer", "b"), 6.0, 1.0),
    ]


def test_units_come_as_arrays():
    using = clipping.AGC(clipping=0.5, scope="per_unit")
    transformation = clipping.jax.transformation(using)
    params = {"w": jnp.array([[3.0, 0.6], [4.0, 0.8]]), "z": jnp.ones(2)}
    _, state = transformation.update(params, transformation.init(params), params)
    with capture(CLIP) as events:
        clipping.jax.emit(state)
        clipping.jax.emit(jax.tree.map(lambda x: x[None], state))
    for group, stop in (events[:2], events[2:]):
        assert group.metadata["key"] == ("param", "0")
        np.testing.assert_allclose(group.measurements["grad_norm"], [5, 1], rtol=1e-6)
        np.testing.assert_allclose(group.measurements["target"], [2.5, 0.5], rtol=1e-6)
        assert (stop.measurements["groups"], int(stop.measurements["groups_clipped"])) == (1, 1)
        np.testing.assert_allclose(float(stop.measurements["grad_norm"]), 28**0.5, rtol=1e-6)


def test_what_has_no_state_is_refused():
    with pytest.raises(ValueError, match="There is no state") as caught:
        clipping.jax.emit({"w": jnp.ones(1)})
    assert str(caught.value) == (
        "There is no state of clipping.jax.transformation() in dict. Give the optimizer's state "
        "(or a TrainState) of a chain that contains it; what orbax restores without a template is "
        "dictionaries."
    )


def test_a_traced_state_is_refused():
    state, _ = stack_of([1.0], clipper())

    @jax.jit
    def inside(state):
        clipping.jax.emit(state)
        return state

    with pytest.raises(TypeError) as caught:
        inside(state)
    assert str(caught.value) == (
        "The state of clipping.jax.transformation() is being traced, so that it has no values "
        "yet. Call this outside of jit, or use transformation(clipper, live=True)."
    )


@pytest.mark.parametrize(
    "using",
    [
        clipper(),
        clipping.AutoClip(scope="per_param"),
        clipping.ZScoreClip(scope="per_layer", on_nonfinite="zero"),
        clipping.AGC(scope="per_unit", exclude_bias_bn=False),
    ],
    ids=["window", "auto", "zscore", "agc"],
)
def test_only_a_live_transformation_calls_back(using):
    params = {"w": jnp.ones((2, 2))}
    for live in (False, True):
        transformation = clipping.jax.transformation(using, live=live)
        jaxpr = str(
            jax.make_jaxpr(transformation.update)(params, transformation.init(params), params)
        )
        assert ("callback" in jaxpr) == live


def test_live_events_come_while_it_runs():
    with capture(("smartclip", "clip", "stop")) as events:
        stack_of([1.0, 9.0], clipper(), live=True)
        jax.effects_barrier()
    assert [e.metadata["clipper_step"] for e in events] == [1, 2]
    assert [e.metadata["outcome"] for e in events] == ["unclipped", "applied"]
