"""`ZScoreClip` on numbers that can be followed by hand."""

import json
import math

import numpy as np
import pytest

import clipping
from clipping.replay import Norms, replay
from telemetry.testing import capture

GATES = {"warmup_steps": 0, "min_history": 1}
GOOD = {
    "format": 1,
    "algo": "zscore",
    "scope": "global",
    "keys": [["global"]],
    "steps": 3,
    "thresholds": [2.0],
    "means": [1.5],
    "variances": [0.25],
    "weights": [1.75],
    "counts": [3],
}
T3 = 7 / 3 + math.sqrt(8 / 9)
"""The third threshold after norms 1 and 3 with decay 1/2: their weights are 1/3 and 2/3, so the
mean is 7/3 and the variance (1/3)(4/3)^2 + (2/3)(2/3)^2 = 8/9."""


def make(**options):
    return clipping.ZScoreClip(**{"zmax": 1.0, "ema_decay": 0.5} | GATES | options)


def test_threshold_is_of_the_norms_before(feed):
    clipped, thresholds = feed(make(min_history=2), [1.0, 3.0, 9.0])
    assert thresholds.tolist() == pytest.approx([math.inf, 1.0, T3])
    assert clipped.tolist() == pytest.approx([1.0, 3.0, T3])


@pytest.mark.parametrize("huge", [1e155, 1e200, 1.7e308])
def test_a_norm_whose_square_overflows_is_not_learned(huge):
    """In the warm-up no threshold holds it back; its variance would be infinite for good."""
    norms = map(Norms, (huge, 1.0, 3.0, huge, 9.0))
    thresholds = [one.threshold for one in replay(make(warmup_steps=9), norms)]
    assert thresholds == pytest.approx([math.inf, math.inf, 1.0, T3, T3])


def test_nor_is_one_without_a_square_in_float32():
    import jax.numpy as jnp

    clipper = make(warmup_steps=9)
    for norm in (1.0, 3.0, 1e25, 9.0):
        clipping.jax.apply_grads([jnp.array([norm])], [jnp.ones(1)], clipper)
    assert clipper.threshold_any() == pytest.approx(T3)
    make().load_state_dict(clipper.state_dict())  # infinity is refused


def test_history_takes_in_the_clipped_norm(feed):
    _, thresholds = feed(make(min_history=2), [1.0, 3.0, 9.0, 0.0])
    norms, weights = np.array([1.0, 3.0, T3]), np.array([1, 2, 4]) / 7
    mean = weights @ norms
    assert thresholds[3] == pytest.approx(mean + math.sqrt(weights @ (norms - mean) ** 2))


def test_history_takes_in_the_whole_norm_where_nothing_is_clipped_yet(feed):
    clipper = make(warmup_steps=3)
    clipped, _ = feed(clipper, [1.0, 3.0, 9.0])
    assert clipped.tolist() == [1.0, 3.0, 9.0]
    assert clipper.state_dict()["means"] == pytest.approx([(1 + 2 * 3 + 4 * 9) / 7])


def test_norms_that_are_all_alike_are_the_threshold(feed):
    clipped, thresholds = feed(make(zmax=3.0), [2.0, 2.0, 2.0, 2.5])
    assert thresholds[1:].tolist() == pytest.approx([2.0, 2.0, 2.0])
    assert clipped.tolist() == pytest.approx([2.0, 2.0, 2.0, 2.0])


def test_zeros_give_no_threshold(feed):
    clipped, thresholds = feed(make(), [0.0, 0.0, 5.0])
    assert clipped.tolist() == [0.0, 0.0, 5.0]
    assert thresholds.tolist() == [math.inf] * 3


def test_zmax_is_how_many_deviations(feed):
    _, thresholds = feed(make(zmax=2.5, min_history=2), [1.0, 3.0, 0.0])
    assert thresholds[2] == pytest.approx(7 / 3 + 2.5 * math.sqrt(8 / 9))


@pytest.mark.parametrize(
    ("gates", "first_clipped"),
    [
        ({"warmup_steps": 0, "min_history": 0}, 1),
        ({"warmup_steps": 0, "min_history": 3}, 3),
        ({"warmup_steps": 4, "min_history": 1}, 4),
    ],
)
def test_gates_hold_back_the_cut_and_not_the_threshold(feed, gates, first_clipped):
    norms = 2.0 ** np.arange(6)
    clipped, thresholds = feed(make(zmax=0.001, **gates), norms)
    assert (clipped < norms).tolist() == [step >= first_clipped for step in range(6)]
    assert np.isfinite(thresholds[1:]).all()


def test_gates_count_steps_and_not_groups(kit):
    """Three groups: three observations a step must not end a warm-up of four steps sooner."""
    clipper = make(scope="per_param", warmup_steps=4, min_history=2, zmax=0.001)
    model = kit.model([0.0], [0.0], [0.0])
    for step in range(5):
        norm = 2.0**step
        kit.set_grads(model, [norm], [norm], [norm])
        clipping.apply(model, clipper)
        clipped = [grad.item() < norm for grad in kit.grads(model)]
        assert clipped == [step == 4] * 3


def test_groups_have_histories_of_their_own(kit):
    clipper = make(scope="per_param")
    model = kit.model([0.0], [0.0])
    for first, second in ((1.0, 10.0), (5.0, 5.0)):
        kit.set_grads(model, [first], [second])
        clipping.apply(model, clipper)
    assert [grad.item() for grad in kit.grads(model)] == pytest.approx([1.0, 5.0])
    assert clipper.state_dict()["thresholds"] == pytest.approx([1.0, 10.0])
    assert clipper.threshold_any() == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("policy", ["skip", "zero", "propagate"])
def test_bad_norm_counts_as_a_step_and_enters_no_history(feed, policy, bad):
    clipper = make(on_nonfinite=policy)
    clipped, thresholds = feed(clipper, [1.0, bad, 1.0])
    assert thresholds[1:].tolist() == pytest.approx([1.0, 1.0])
    state = clipper.state_dict()
    assert (state["steps"], state["counts"], state["means"]) == (3, [2], [1.0])
    np.testing.assert_array_equal(clipped[1], bad if policy == "propagate" else 0.0)


def test_dry_run_learns_and_reports_and_leaves_gradients_alone(kit):
    acting, dry = make(), make(dry_run=True)
    for norm in (1.0, 3.0, 2.0, 9.0):
        model = kit.model([0.0])
        kit.set_grads(model, [norm])
        with capture(("smartclip", "clip", "stop")) as events:
            clipping.apply(model, dry)
            assert kit.grads(model)[0].item() == norm
            clipping.apply(model, acting)
        would, did = events
        assert would.measurements["scale"] == did.measurements["scale"]
        assert would.measurements["threshold"] == did.measurements["threshold"]
        assert (would.metadata["dry_run"], did.metadata["dry_run"]) == (True, False)
        assert would.metadata["outcome"] == did.metadata["outcome"]
    assert dry.state_dict() == acting.state_dict()


def test_threshold_before_and_after_loading(feed):
    clipper = make()
    assert clipper.threshold_any() == math.inf
    clipper.load_state_dict(GOOD)
    assert clipper.threshold_any() == 2.0
    assert feed(clipper, [0.0])[1].tolist() == [1.5 + math.sqrt(0.25)]


def test_state_says_what_was_learned(feed):
    clipper = make(min_history=2)
    feed(clipper, [1.0, 3.0])
    assert clipper.state_dict() == GOOD | {
        "steps": 2,
        "thresholds": [1.0],
        "means": [pytest.approx(7 / 3)],
        "variances": [pytest.approx(8 / 9)],
        "weights": [1.5],
        "counts": [2],
    }


def test_state_of_a_new_clipper_is_empty_and_loading_it_forgets(feed):
    empty = make().state_dict()
    columns = ("keys", "thresholds", "means", "variances", "weights", "counts")
    assert empty == GOOD | {"steps": 0} | {name: [] for name in columns}
    clipper = make()
    feed(clipper, [1.0, 3.0])
    clipper.load_state_dict(empty)
    assert clipper.threshold_any() == math.inf
    assert clipper.state_dict() == empty


@pytest.mark.parametrize("steps", [0, 1, 2, 17])
def test_clipper_continues_bit_identically_through_json(feed, steps):
    norms = np.random.default_rng(steps).lognormal(size=steps + 20)
    straight, resumed = make(ema_decay=0.9), make(ema_decay=0.9)
    feed(straight, norms[:steps])
    resumed.load_state_dict(json.loads(json.dumps(straight.state_dict(), allow_nan=False)))
    assert resumed.threshold_any() == straight.threshold_any()
    expected, got = feed(straight, norms[steps:]), feed(resumed, norms[steps:])
    assert [row.tolist() for row in got] == [row.tolist() for row in expected]
    assert resumed.state_dict() == straight.state_dict()


NORMS = "1 finite numbers of at least 0"


@pytest.mark.parametrize(
    ("change", "name", "value", "allowed"),
    [
        ({"algo": "agc"}, "algo", "'agc'", "'zscore' here"),
        ({"scope": "per_param"}, "scope", "'per_param'", "'global' here"),
        ({"format": 0}, "format", "0", "1 here"),
        ({"thresholds": [-1.0]}, "thresholds", "[-1.0]", "1 numbers of at least 0 or None"),
        ({"means": [math.nan]}, "means", "[nan]", NORMS),
        ({"means": [1.0, 2.0]}, "means", "[1.0, 2.0]", NORMS),
        ({"means": 1.5}, "means", "1.5", NORMS),
        ({"variances": [-0.25]}, "variances", "[-0.25]", NORMS),
        ({"variances": [None]}, "variances", "[None]", NORMS),
        ({"counts": [4]}, "counts", "[4]", "1 integers from 0 to 3"),
        ({"counts": [1.0]}, "counts", "[1.0]", "1 integers from 0 to 3"),
    ],
)
def test_state_that_does_not_fit_is_refused_and_changes_nothing(feed, change, name, value, allowed):
    clipper = make()
    feed(clipper, [1.0, 3.0])
    before = clipper.state_dict()
    with pytest.raises(ValueError, match="cannot be loaded") as refused:
        clipper.load_state_dict(GOOD | change)
    assert str(refused.value) == (
        f"This state cannot be loaded: {name!r} is {value}, it must be {allowed}. "
        "Nothing was changed."
    )
    assert clipper.state_dict() == before


def test_state_of_another_make_is_refused():
    state = {name: GOOD[name] for name in GOOD if name != "variances"} | {"zmax": 3.0}
    with pytest.raises(ValueError, match="no clipper's state") as refused:
        make().load_state_dict(state)
    assert str(refused.value) == (
        "This is no clipper's state: missing ['variances'], unknown ['zmax']. Allowed: exactly "
        "['format', 'algo', 'scope', 'keys', 'steps', 'thresholds', 'means', 'variances', "
        "'weights', 'counts'], as state_dict() returns them."
    )


def test_state_of_autoclip_is_refused_by_its_name():
    with pytest.raises(ValueError, match="cannot be loaded") as refused:
        make().load_state_dict(clipping.AutoClip().state_dict())
    assert str(refused.value) == (
        "This state cannot be loaded: 'algo' is 'autoclip', it must be 'zscore' here. "
        "Nothing was changed."
    )
