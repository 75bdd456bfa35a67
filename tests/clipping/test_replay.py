"""A replay of recorded norms decides as the real clippers did when they saw the gradients."""

import dataclasses
import math

import numpy as np
import pytest

import clipping
import telemetry.testing
from clipping.replay import Norms, ReplayError, replay

EAGER = {"warmup_steps": 3, "min_history": 2}
SHAPES = [(3, 4), (4,), (2, 2, 5)]


def live(clipper, gradients, weights):
    """What a real clipper says of each step, as the events have it, and the norms in them."""
    steps = []
    with telemetry.testing.capture(("smartclip", "clip", "**")) as events:
        for arrays in gradients:
            del events[:]
            clipping.numpy.apply_grads(arrays, weights, clipper)
            stop = events[-1]
            groups = {
                event.metadata["key"]: event.measurements
                for event in events
                if event.event[-1] == "group"
            }
            steps.append((stop, groups))
    return steps


def norms_of(steps):
    return [
        Norms(
            grad_norm=stop.measurements["grad_norm"],
            step=number,
            groups={key: row["grad_norm"] for key, row in groups.items()},
            weights={
                key: row["weight_norm"] for key, row in groups.items() if "weight_norm" in row
            },
        )
        for number, (stop, groups) in enumerate(steps, start=1)
    ]


def gradients_with_accidents(count=160, seed=0):
    """Gradients with spikes, zeros, NaN, infinities, and ones that are missing."""
    rng = np.random.default_rng(seed)
    every = []
    for step in range(count):
        arrays = [rng.normal(size=shape) * rng.lognormal(sigma=0.5) for shape in SHAPES]
        if step % 13 == 7:
            arrays[0] *= 300.0
        if step in (31, 90):
            arrays[2][0, 0, 0] = math.nan
        if step == 40:
            arrays[0][0, 0] = math.inf
        if step == 41:
            arrays = [np.zeros(shape) for shape in SHAPES]
        every.append([None if step % 11 == 5 and i == 0 else a for i, a in enumerate(arrays)])
    return every


CLIPPERS = [
    clipping.AutoClip(**EAGER),
    clipping.AutoClip(percentile=10, window_size=20, **EAGER),
    clipping.AutoClip(mode="percentile", percentile=90, **EAGER),
    clipping.AutoClip(mode="percentile", percentile=70, history="window", window_size=16, **EAGER),
    clipping.AutoClip(scope="per_param", warmup_steps=0, min_history=4),
    clipping.AutoClip(mode="percentile", percentile=80, scope="per_param", ema_decay=0.9, **EAGER),
    clipping.ZScoreClip(zmax=1.5, ema_decay=0.9, **EAGER),
    clipping.ZScoreClip(scope="per_param", on_nonfinite="zero", **EAGER),
    clipping.ZScoreClip(scope="per_param", guard_nans=False, dry_run=True, **EAGER),
    clipping.AGC(clipping=0.5, scope="global", exclude_bias_bn=False),
    clipping.AGC(clipping=1.0, scope="per_param", warmup_steps=5),
    clipping.AGC(clipping=1.0, scope="per_unit"),
]


def of_one_row(stop):
    """The threshold in a stop event, NaN if it has none."""
    return stop.measurements.get("threshold", stop.measurements.get("target", math.nan))


@pytest.mark.parametrize("clipper", CLIPPERS, ids=repr)
def test_a_replay_decides_as_the_clipper_did_step_by_step(clipper):
    weights = [np.random.default_rng(1).normal(size=shape) for shape in SHAPES]
    steps = live(clipper, gradients_with_accidents(), weights)

    replayed = list(replay(clipper, norms_of(steps)))

    assert len(replayed) == len(steps)
    for one, (stop, groups) in zip(replayed, steps, strict=True):
        measured = stop.measurements
        np.testing.assert_equal(one.threshold, of_one_row(stop))
        assert one.scale == measured["scale"]
        assert one.groups_clipped == measured["groups_clipped"]
        assert one.outcome == stop.metadata["outcome"]
        if clipper.scope != "global":
            assert one.groups == tuple(groups)
            limits = [row.get("threshold", row.get("target")) for row in groups.values()]
            scales = [row["scale"] for row in groups.values()]
            np.testing.assert_array_equal(one.thresholds, np.hstack(limits))
            np.testing.assert_array_equal(one.scales, np.hstack(scales))


def test_the_clippers_of_the_comparison_all_clip_something_and_leave_something():
    """Otherwise the comparison would say nothing."""
    weights = [np.random.default_rng(1).normal(size=shape) for shape in SHAPES]
    for options in CLIPPERS:
        fresh = type(options)(
            **{
                field.name: getattr(options, field.name)
                for field in dataclasses.fields(options)
                if field.init
            }
        )
        steps = live(fresh, gradients_with_accidents(), weights)
        outcomes = {one.outcome for one in replay(fresh, norms_of(steps))}
        assert {"applied", "unclipped"} <= outcomes, options


def test_a_replay_with_numbers_worked_out_by_hand():
    clipper = clipping.ZScoreClip(zmax=1.0, ema_decay=0.5, warmup_steps=0, min_history=2)
    first, second, third = replay(clipper, map(Norms, (1.0, 4.0, 9.0)))
    assert (first.threshold, first.scale) == (math.inf, 1.0)
    assert (second.threshold, second.scale, second.outcome) == (1.0, 1.0, "unclipped")
    # The weights are 1/3 and 2/3: mean 3, variance 2.
    assert third.threshold == pytest.approx(3 + math.sqrt(2))
    assert third.scale == pytest.approx((3 + math.sqrt(2)) / 9)
    assert third.outcome == "applied"


def test_a_replay_leaves_what_the_clipper_has_learned_as_it_is():
    clipper = clipping.AutoClip(mode="percentile", history="window")
    clipping.numpy.apply_grads([np.array([5.0])], [np.zeros(1)], clipper)
    before = clipper.state_dict()
    assert next(iter(replay(clipper, [Norms(100.0)]))).threshold == 100.0
    assert clipper.state_dict() == before


def test_a_replay_takes_one_step_at_a_time():
    def endless():
        while True:
            yield Norms(2.0)

    steps = replay(clipping.AutoClip(mode="percentile"), endless())
    assert [next(steps).threshold for _ in range(3)] == [2.0, 2.0, 2.0]


def test_a_norm_that_is_not_finite_is_skipped_and_not_learned():
    clipper = clipping.AutoClip(mode="percentile", percentile=100, history="window", **EAGER)
    one, nan, infinite, last = replay(clipper, map(Norms, (3.0, math.nan, math.inf, 2.0)))
    assert [step.outcome for step in (one, nan, infinite, last)] == [
        "unclipped", "skipped", "skipped", "unclipped",
    ]  # fmt: skip
    assert [step.finite for step in (one, nan, infinite, last)] == [True, False, False, True]
    assert (nan.scale, infinite.scale, last.threshold) == (0.0, 0.0, 3.0)


def test_policy_raise_ends_the_replay_where_it_would_have_ended_the_training():
    clipper = clipping.AutoClip(on_nonfinite="raise")
    steps = replay(clipper, [Norms(1.0, 1), Norms(math.nan, 2)])
    assert next(steps).step == 1
    with pytest.raises(FloatingPointError, match="gradient norm is nan"):
        next(steps)


def test_policy_raise_of_a_clipper_that_only_watches_does_not():
    clipper = clipping.AutoClip(on_nonfinite="raise", dry_run=True)
    assert [one.finite for one in replay(clipper, [Norms(math.nan)])] == [False]


def test_a_gradient_that_agc_leaves_out_spoils_the_whole_step():
    """A NaN in a bias is in the model's norm only."""
    weights = [np.ones((2, 2)), np.ones(2)]
    gradients = [
        [np.ones((2, 2)), np.ones(2)],
        [np.ones((2, 2)), np.array([math.nan, 0.0])],
        [np.ones((2, 2)), np.ones(2)],
    ]
    clipper = clipping.AGC(clipping=10.0, scope="per_param")
    steps = live(clipper, gradients, weights)
    replayed = list(replay(clipper, norms_of(steps)))
    assert [one.outcome for one in replayed] == ["unclipped", "skipped", "unclipped"]
    assert [one.outcome for one in replayed] == [stop.metadata["outcome"] for stop, _ in steps]
    assert [one.scale for one in replayed] == [stop.measurements["scale"] for stop, _ in steps]
    with pytest.raises(FloatingPointError):
        list(replay(clipping.AGC(scope="per_param", on_nonfinite="raise"), norms_of(steps)))


@pytest.mark.parametrize(
    "clipper",
    [
        clipping.AutoClip(scope="per_param", min_history=2, warmup_steps=0),
        clipping.AutoClip(mode="percentile", scope="per_param", min_history=2, ema_decay=0.9),
        clipping.ZScoreClip(scope="per_param", min_history=2, warmup_steps=25),
    ],
    ids=repr,
)
def test_a_group_that_comes_later_begins_its_history_then(clipper):
    rng = np.random.default_rng(3)
    gradients = [
        [rng.normal(size=2), None if step < 20 else rng.normal(size=2) * (1 + 9 * (step == 30))]
        for step in range(40)
    ]
    steps = live(clipper, gradients, [np.ones(2), np.ones(2)])
    for one, (_, groups) in zip(replay(clipper, norms_of(steps)), steps, strict=True):
        np.testing.assert_array_equal(one.thresholds, [row["threshold"] for row in groups.values()])
        np.testing.assert_array_equal(one.scales, [row["scale"] for row in groups.values()])


def test_the_threshold_is_the_model_s_as_long_as_there_is_one_group():
    clipper = clipping.ZScoreClip(scope="per_param")
    groups = [{("a",): 1.0}, {("a",): 1.0}, {("a",): 1.0, ("b",): 1.0}, {("a",): 1.0}]
    steps = list(replay(clipper, [Norms(1.0, groups=each) for each in groups]))
    np.testing.assert_array_equal(
        [one.threshold for one in steps], [math.inf, 1.0, math.nan, math.nan]
    )
    assert [one.grouped for one in steps] == [False, False, True, True]


def test_a_threshold_that_is_nan_is_the_model_s_all_the_same():
    """AGC's is, where a weight is NaN."""
    clipper = clipping.AGC(clipping=0.01, scope="global", exclude_bias_bn=False)
    groups = {("global",): 1.0}
    weights = [{("global",): norm} for norm in (10.0, math.nan)]
    steps = list(replay(clipper, [Norms(1.0, groups=groups, weights=each) for each in weights]))
    np.testing.assert_array_equal([one.threshold for one in steps], [0.1, math.nan])
    assert [one.grouped for one in steps] == [False, False]


def test_the_threshold_of_a_unit_is_never_the_model_s():
    clipper = clipping.AGC(scope="per_unit")
    (one,) = replay(clipper, [Norms(1.0, groups={("a",): [1.0]}, weights={("a",): [5.0]})])
    assert (math.isnan(one.threshold), one.grouped) == (True, True)
    assert one.thresholds.tolist() == [0.05]


def test_steps_without_any_group_count_for_the_warmup():
    """AGC leaves biases out, and some steps may have gradients of biases only."""
    clipper = clipping.AGC(clipping=0.1, scope="per_param", warmup_steps=2)
    gradients = [[None, np.ones(2)], [None, np.ones(2)], [np.ones((1, 4)), np.ones(2)]]
    steps = live(clipper, gradients, [np.full((1, 4), 3.0), np.ones(2)])
    *_, last = replay(clipper, norms_of(steps))
    assert last.scale == pytest.approx(0.1 * 6 / 2)
    assert last.scale == steps[-1][0].measurements["scale"]


def test_a_norm_that_overflows_hides_nothing():
    clipper = clipping.AutoClip(mode="percentile", scope="per_param")
    huge = {("param", "0"): 1e200, ("param", "1"): 1e200}
    (one,) = replay(clipper, [Norms(math.inf, 1, huge)])
    assert (one.outcome, one.finite) == ("unclipped", True)


def test_groups_are_asked_for_where_the_scope_needs_them():
    with pytest.raises(ReplayError) as refused:
        list(replay(clipping.AutoClip(scope="per_layer"), [Norms(1.0, 7)]))
    assert str(refused.value) == (
        "AutoClip with scope='per_layer' needs the norm of each group, and step 7 has that of the "
        "whole model only. They are recorded where a clipper of the same scope clips, be it with "
        "dry_run=True."
    )


@pytest.mark.parametrize("groups", [{}, {("global",): 1.0}])
def test_weight_norms_are_asked_for_where_agc_needs_them(groups):
    with pytest.raises(ReplayError) as refused:
        list(replay(clipping.AGC(scope="global"), [Norms(1.0, None, groups)]))
    assert str(refused.value) == (
        "AGC holds gradients against weights, and step ? has no weight norm of [('global',)]. "
        "They are recorded where AGC clips with the same scope, be it with dry_run=True."
    )


def test_units_of_a_group_do_not_change():
    key = ("param", "0")
    steps = [Norms(1.0, n, {key: [0.5] * n}, {key: [1.0] * n}) for n in (2, 3)]
    with pytest.raises(ReplayError, match=r"\('param', '0'\) has 3 units in step 3 and had 2"):
        list(replay(clipping.AGC(scope="per_unit"), steps))
