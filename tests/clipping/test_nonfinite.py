import math

import numpy as np
import pytest

import clipping
from clipping.host import HOST
from clipping.records import Measured
from telemetry.testing import capture

NONFINITE = ("smartclip", "clip", "nonfinite")
BAD = [math.nan, math.inf, -math.inf]


def one_bad_step(kit, clipper, bad):
    """Three calm steps, one with a bad value in the first of two gradients."""
    model = kit.model(np.zeros(2), np.zeros(1))
    for _ in range(3):
        kit.set_grads(model, [3.0, 0.0], [4.0])
        clipping.apply(model, clipper)
    kit.set_grads(model, [bad, 1.0], [2.0])
    with capture(NONFINITE, ("smartclip", "clip", "stop")) as events:
        clipping.apply(model, clipper)
    return kit.grads(model), events


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("policy", ["skip", "zero"])
@pytest.mark.parametrize("mode", ["auto", "percentile"])
def test_gradients_of_the_step_become_zeros(kit, mode, policy, bad):
    clipper = clipping.AutoClip(mode=mode, on_nonfinite=policy)
    grads, events = one_bad_step(kit, clipper, bad)
    assert [g.tolist() for g in grads] == [[0.0, 0.0], [0.0]]
    assert events[1].metadata["outcome"] == "skipped"
    assert events[1].measurements["scale"] == 0.0
    assert events[1].measurements["clipped_grad_norm"] == 0.0


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize(
    "options", [{"on_nonfinite": "propagate"}, {"guard_nans": False}], ids=["policy", "guard_nans"]
)
def test_gradients_propagate_when_asked_to(kit, options, bad):
    clipper = clipping.AutoClip(mode="percentile", **options)
    grads, events = one_bad_step(kit, clipper, bad)
    np.testing.assert_array_equal(grads[0], [bad, 1.0])
    assert grads[1].tolist() == [2.0]
    assert events[1].metadata["outcome"] == "unclipped"
    assert events[0].metadata["policy"] == "propagate"


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
def test_bad_norm_never_enters_the_history(kit, policy, bad):
    clipper = clipping.AutoClip(mode="percentile", on_nonfinite=policy)
    one_bad_step(kit, clipper, bad)
    state = clipper.state_dict()
    assert state["norms"] == [[5.0, 5.0, 5.0]]
    assert state["steps"] == 4
    assert clipper.threshold_any() == 5.0


@pytest.mark.parametrize("bad", BAD)
def test_event_names_the_groups_and_the_policy(kit, bad):
    _, (event, stop) = one_bad_step(kit, clipping.AutoClip(), bad)
    assert event.event == NONFINITE
    assert event.metadata == {"algo": "autoclip", "keys": (("global",),), "policy": "skip"}
    assert set(event.measurements) == {"grad_norm", "count"}
    assert event.measurements["count"] == 1
    assert not math.isfinite(event.measurements["grad_norm"])
    assert not math.isfinite(stop.measurements["grad_norm"])


def test_raise_leaves_gradients_and_history_alone(kit):
    clipper = clipping.AutoClip(mode="percentile", on_nonfinite="raise")
    model = kit.model(np.zeros(2))
    kit.set_grads(model, [3.0, 4.0])
    clipping.apply(model, clipper)
    before = clipper.state_dict()
    kit.set_grads(model, [1.0, math.inf])
    with capture(("smartclip", "clip", "**")) as events, pytest.raises(FloatingPointError) as error:
        clipping.apply(model, clipper)
    assert str(error.value) == (
        "Gradients are not finite in 1 of 1 groups, [('global',)]: the model's gradient norm is "
        "inf. on_nonfinite='raise' allows finite gradients only; gradients and history are "
        "untouched. To go on without such steps: on_nonfinite='skip'."
    )
    assert kit.grads(model)[0].tolist() == [1.0, math.inf]
    assert clipper.state_dict() == before
    assert [e.event[-1] for e in events] == ["start", "nonfinite", "exception"]


@pytest.mark.parametrize("policy", ["skip", "zero", "propagate", "raise"])
def test_dry_run_touches_and_raises_nothing(kit, policy):
    clipper = clipping.AutoClip(on_nonfinite=policy, dry_run=True)
    grads, events = one_bad_step(kit, clipper, math.nan)
    np.testing.assert_array_equal(grads[0], [math.nan, 1.0])
    assert [e.event[-1] for e in events] == ["nonfinite", "stop"]
    assert events[0].metadata["policy"] == policy


@pytest.mark.parametrize(
    ("policy", "zeroed", "scale"),
    [
        ("skip", [True, True, True], [0.0, 0.0, 0.0]),
        ("zero", [False, True, False], [1.0, 0.0, 0.5]),
        ("propagate", [False] * 3, [1.0, 1.0, 0.5]),
    ],
)
def test_policy_of_several_groups(policy, zeroed, scale):
    """Groups of norms 2, NaN and 4, after a step in which each had norm 2."""
    clipper = clipping.AutoClip(
        mode="percentile",
        percentile=1e-9,
        history="window",
        warmup_steps=0,
        min_history=1,
        on_nonfinite=policy,
    )
    _, state = clipper.update(HOST, clipper.init(HOST, 3), Measured(np.full(3, 2.0)))
    decision, state = clipper.update(HOST, state, Measured(np.array([2.0, math.nan, 4.0])))
    assert decision.zeroed.tolist() == zeroed
    assert decision.scale == pytest.approx(scale)
    assert decision.nonfinite.tolist() == [False, True, False]
    assert state.history.count.tolist() == [2, 1, 2]


def test_finite_steps_send_no_such_event(kit):
    model = kit.model(np.zeros(1))
    kit.set_grads(model, [1.0])
    with capture(NONFINITE) as events:
        clipping.apply(model, clipping.AutoClip())
    assert events == []


def test_training_goes_on_after_a_bad_step(kit, feed, percentile):
    clipped, thresholds = feed(percentile(50.0), [1.0, 1.0, math.nan, 3.0, 1.0])
    assert clipped.tolist() == [1.0, 1.0, 0.0, pytest.approx(1.0), 1.0]
    assert np.isfinite(thresholds).all()
