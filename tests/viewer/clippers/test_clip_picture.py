"""The picture of clippers: norms, thresholds, what was clipped; and the numbers beside it."""

import io
import math

import numpy as np
import pytest

from telemetry.viewer.clips.picture import Line, Panel, draw_comparison
from telemetry.viewer.clips.tally import Tally

STEPS = np.arange(1.0, 7.0)
NORMS = np.array([1.0, 8.0, math.nan, 2.0, math.inf, 0.0])
HIGH = np.array([math.nan, 4.0, 4.0, 4.0, 4.0, 4.0])
AT_2 = STEPS == 2


def panel(*lines, norms=NORMS, steps=STEPS):
    return Panel("run", "step", steps, norms, lines)


def curves(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def marks(axes):
    """Of each clipper, where its marks are and how tall."""
    return [
        [(s[0][0], round(abs(s[1][1] - s[0][1]), 6)) for s in collection.get_segments()]
        for collection in axes.collections
    ]


def test_the_norm_and_each_threshold_are_curves_on_a_logarithmic_axis():
    axes, _ = draw_comparison([panel(Line("zscore", HIGH, AT_2, recorded=False))]).axes
    drawn = curves(axes)
    assert axes.get_yscale() == "log"
    np.testing.assert_array_equal(drawn["zscore"].get_xydata()[1:], np.c_[STEPS[1:], HIGH[1:]])
    np.testing.assert_array_equal(
        drawn["gradient norm"].get_ydata(), [1.0, 8.0, math.nan, 2.0, math.nan, 0.0]
    )
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "gradient norm", "zscore", "norm not finite",
    ]  # fmt: skip


def test_norms_that_are_not_finite_are_marked():
    axes, _ = draw_comparison([panel(Line("zscore", HIGH, AT_2, recorded=False))]).axes
    assert curves(axes)["norm not finite"].get_xdata().tolist() == [3.0, 5.0]


def test_clipped_steps_are_marked_for_each_clipper():
    none = np.zeros(6, bool)
    _, strip = draw_comparison(
        [panel(Line("a", HIGH, AT_2, recorded=True), Line("b", HIGH, none, recorded=False))]
    ).axes
    assert marks(strip) == [[(2.0, 0.8)], []]
    assert [label.get_text() for label in strip.get_yticklabels()] == ["16.7%", "0.0%"]


def test_of_many_steps_a_mark_is_taller_where_more_are_clipped():
    steps = np.arange(6000.0)
    half = np.isin(steps % 10, (0, 1, 2, 3)) & (steps < 3000)
    few = (steps % 10 == 0) & (steps < 3000)
    _, strip = draw_comparison([
        panel(
            Line("half", np.full(6000, 2.0), half, recorded=False),
            Line("few", np.full(6000, 2.0), few, recorded=False),
            norms=np.ones(6000), steps=steps,
        )
    ]).axes  # fmt: skip
    of_half, of_few = marks(strip)
    assert 295 <= len(of_half) <= 305
    assert {height for _, height in of_half} == {0.8}
    assert np.median([height for _, height in of_few]) == pytest.approx(0.3 + 0.5 / 4)


def test_a_spike_among_many_norms_stays_in_the_picture():
    norms = np.ones(100_000)
    norms[54_321] = 500.0
    steps = np.arange(100_000.0)
    line = Line("zscore", np.full(100_000, 2.0), norms > 2, recorded=False)
    axes, strip = draw_comparison([panel(line, norms=norms, steps=steps)]).axes
    assert curves(axes)["gradient norm"].get_ydata().max() == 500.0
    assert len(curves(axes)["gradient norm"].get_ydata()) <= 4000
    ((place, _),) = marks(strip)[0]
    assert place == pytest.approx(54_321, abs=200)


def test_thresholds_of_groups_are_not_one_curve_and_the_legend_says_so():
    line = Line("agc", np.full(6, math.nan), AT_2, recorded=False, grouped=True)
    axes, _ = draw_comparison([panel(line)]).axes
    assert "agc (a threshold per group)" in curves(axes)


@pytest.mark.parametrize("steps", [0, 6])
def test_the_legend_says_where_there_never_was_a_threshold(steps):
    line = Line("zscore", np.full(steps, math.nan), np.zeros(steps, bool), recorded=False)
    axes, _ = draw_comparison([panel(line)]).axes
    assert "zscore (no threshold)" in curves(axes)


def test_a_clipper_that_ended_the_training_is_drawn_up_to_there():
    steps = np.arange(20_000.0)
    ended = Line("a", np.full(15_000, 2.0), np.arange(15_000) == 14_000, recorded=False)
    axes, strip = draw_comparison([panel(ended, norms=np.ones(20_000), steps=steps)]).axes
    assert curves(axes)["a"].get_xdata().max() == 14_999
    ((place, _),) = marks(strip)[0]
    assert place == pytest.approx(14_000, abs=40)
    nothing = Line("a", np.zeros(0), np.zeros(0, bool), recorded=False)
    axes, strip = draw_comparison([panel(nothing)]).axes
    assert marks(strip) == [[]]


def test_each_run_has_panels_of_its_own():
    line = Line("zscore", HIGH, AT_2, recorded=False)
    assert len(draw_comparison([panel(line), panel(line)]).axes) == 4


def test_norms_that_are_all_zero_are_drawn_on_a_plain_axis():
    axes, _ = draw_comparison([panel(Line("a", HIGH, AT_2, recorded=False), norms=STEPS * 0)]).axes
    assert axes.get_yscale() == "linear"


def test_a_name_with_dollars_is_no_formula():
    line = Line("$\\frac$", HIGH, AT_2, recorded=False)
    draw_comparison([panel(line)._replace(title="$\\frac$")]).savefig(io.BytesIO())


def test_a_picture_of_a_single_step_is_drawn():
    one = np.array([5.0])
    line = Line("a", np.array([2.0]), np.array([True]), recorded=False)
    figure = draw_comparison([Panel("run", "step", one, np.array([3.0]), [line])])
    figure.savefig(io.BytesIO())
    assert marks(figure.axes[1]) == [[(5.0, 0.8)]]


@pytest.mark.parametrize("count", [0, 13])
def test_a_number_of_runs_that_has_no_room_is_refused(count):
    line = Line("zscore", HIGH, AT_2, recorded=False)
    with pytest.raises(ValueError, match=f"room for 1 to 12 runs, and there are {count}"):
        draw_comparison([panel(line)] * count)


def test_a_summary_with_numbers_worked_out_by_hand():
    tally = Tally()
    for place, (threshold, scale, finite) in enumerate(
        [(math.inf, 1.0, True), (1.0, 0.5, True), (2.0, 0.0, False), (6.0, 0.25, True)]
    ):
        tally.add(place, threshold, scale, finite=finite)
    told = tally.summary(np.array([10.0, 20.0, 30.0, 40.0]))
    assert told._asdict() == {
        "steps": 4, "nonfinite": 1, "clipped": 2, "clip_rate": 0.5, "first_clipped": 20.0,
        "threshold_mean": 3.0, "threshold_median": 2.0, "threshold_last": 6.0,
        "scale_mean": pytest.approx(1.75 / 3), "scale_min": 0.25,
    }  # fmt: skip


def test_a_summary_of_nothing_says_nothing():
    told = Tally().summary(np.zeros(0))
    assert (told.steps, told.clip_rate, told.scale_mean, told.threshold_last) == (0, *[None] * 3)
