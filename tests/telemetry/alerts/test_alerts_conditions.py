"""Every condition on a series made by hand: at which value it is raised and cleared."""

from fractions import Fraction
from math import inf, nan

import numpy as np
import pytest

from telemetry import alerts


def raised(index):
    return ("raised", index)


def cleared(index):
    return ("cleared", index)


def test_above_is_raised_by_a_value_above_the_limit_and_not_by_the_limit(judge):
    values = [0.05, 0.1, 0.11, 0.2, 0.1, 0.1, 0.3]
    assert judge(values, above=0.1) == [raised(2), cleared(4), raised(6)]


def test_below_is_raised_by_a_value_below_the_limit_and_not_by_the_limit(judge):
    assert judge([0.6, 0.5, 0.4, 0.1, 0.5], below=0.5) == [raised(2), cleared(4)]


def test_outside_is_raised_on_either_side_and_not_by_the_ends(judge):
    values = [0.0, 1.0, 1.1, 0.5, -0.1, 2.0, 0.0]
    assert judge(values, outside=(0, 1)) == [raised(2), cleared(3), raised(4), cleared(6)]


def test_limits_can_be_whole_numbers_and_negative(judge):
    assert judge([-3, -2, -1, 0, -2], above=-2) == [raised(2), cleared(4)]


def test_a_value_that_swings_around_the_limit_makes_one_alert_with_hysteresis(judge):
    flapping = [0.05, 0.11, 0.09, 0.11, 0.09, 0.12, 0.081, 0.1, 0.11, 0.08, 0.09, 0.1]
    assert judge(flapping, above=0.1, clear=0.08) == [raised(1), cleared(9)]
    without = judge(flapping, above=0.1)
    assert [change for change, _ in without] == ["raised", "cleared"] * 4


def test_hysteresis_below_and_outside(judge):
    assert judge([0.4, 0.5, 0.54, 0.55], below=0.5, clear=0.55) == [raised(0), cleared(3)]
    values = [11.0, 10.0, 9.0, 0.5, 8.0, -1.0, 1.9, 2.0]
    changes = [raised(0), cleared(4), raised(5), cleared(7)]
    assert judge(values, outside=(0, 10), clear=(2, 8)) == changes


def test_for_steps_takes_so_many_in_a_row(judge):
    values = [1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]
    assert judge(values, above=0.5, for_steps=3) == [raised(5), cleared(7)]


def test_a_nan_neither_raises_nor_clears_a_limit_and_does_not_count_as_a_step(judge):
    assert judge([nan, nan, nan], above=0.5) == []
    assert judge([1.0, nan, 0.0], above=0.5) == [raised(0), cleared(2)]
    assert judge([1.0, nan, 1.0, 0.0], above=0.5, for_steps=2) == [raised(2), cleared(3)]
    assert judge([nan] * 20, below=0.5) == judge([nan] * 20, outside=(0, 1)) == []
    assert judge([1.0] * 10 + [nan], drop=0.5) == judge([1.0] * 10 + [nan], spike=2.0) == []


def test_an_infinity_is_a_value_beyond_any_limit(judge):
    assert judge([inf, 0.0], above=0.5) == [raised(0), cleared(1)]
    assert judge([inf, -inf, 1.0], below=0.5) == [raised(1), cleared(2)]


def test_what_is_not_finite_is_raised_once_and_cleared_by_a_finite_value(judge):
    values = [1.0, nan, inf, -inf, 0.5, -inf, 1.7e308, inf]
    changes = [raised(1), cleared(4), raised(5), cleared(6), raised(7)]
    assert judge(values, nonfinite=True) == changes
    assert judge([nan, nan, 1.0, nan, nan, nan], nonfinite=True, for_steps=3) == [raised(5)]


# levels


def test_a_drop_is_measured_from_the_median_of_the_values_before(judge):
    # The median of 1 to 10 is 5.5, half of it 2.75; with 2.75 itself the median becomes 5.
    values = [*range(1, 11), 2.75, 2.4, 5.0]
    assert judge(values, drop=0.5) == [raised(11), cleared(12)]


def test_a_level_needs_ten_values_or_the_window(judge):
    assert judge([1.0] * 9 + [0.1], drop=0.5) == []
    assert judge([1.0] * 10 + [0.1], drop=0.5) == [raised(10)]
    assert judge([1.0] * 2 + [0.1], drop=0.5, window=3) == []
    assert judge([1.0] * 3 + [0.1], drop=0.5, window=3) == [raised(3)]


def test_a_level_is_that_of_the_last_values_of_the_window(judge):
    # Of 3 values: after 8, 8, 8, 4, 4 the median is 4, and 3 is no drop by more than half.
    assert judge([8.0, 8.0, 8.0, 4.0, 4.0, 3.0], drop=0.5, window=3) == []
    assert judge([8.0, 8.0, 8.0, 4.0, 3.0], drop=0.5, window=3) == [raised(4)]


def test_values_beyond_the_limit_do_not_enter_the_level(judge):
    # Or the level would be 1 in the end, and the alert over.
    values = [10.0] * 10 + [1.0] * 200 + [10.0]
    assert judge(values, drop=0.5, window=10) == [raised(10), cleared(210)]
    values = [1.0] * 10 + [100.0] * 200 + [1.0]
    assert judge(values, spike=3.0, window=10) == [raised(10), cleared(210)]


def test_a_spike_is_above_so_many_times_the_level(judge):
    assert judge([2.0] * 10 + [6.0, 6.1, 6.0], spike=3.0) == [raised(11), cleared(12)]
    values = [2.0] * 10 + [6.1, 4.0, 3.1, 3.0]
    assert judge(values, spike=3.0, clear=1.5) == [raised(10), cleared(13)]


def test_a_drop_can_have_hysteresis(judge):
    values = [10.0] * 10 + [4.9, 6.9, 7.0]
    assert judge(values, drop=0.5, clear=0.3) == [raised(10), cleared(12)]


def test_a_level_that_is_not_above_zero_judges_nothing(judge):
    assert judge([-1.0] * 20 + [-100.0, 100.0], spike=2.0) == []
    assert judge([0.0] * 20 + [-100.0, 100.0], drop=0.5) == []


def test_a_level_that_moves_is_followed_value_by_value(judge):
    # After 6 to 1 and two more 1 the median is 2.5; the value before, it was 3.5.
    falling = [8, 7, 6, 5, 4, 3, 2, 1, 1, 1]
    assert judge([*falling, 5.5], spike=2.0, window=8) == [raised(10)]
    assert judge([*falling, 5.0], spike=2.0, window=8) == []
    # After 3 to 8 and two more 8 it is 6.5; the value before, it was 5.5.
    rising = [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    assert judge([*rising, 3.1], drop=0.5, window=8) == [raised(10)]
    assert judge([*rising, 3.25], drop=0.5, window=8) == []


def test_infinities_do_not_enter_the_level(judge):
    assert judge([*[1.0] * 5, inf, -inf, *[1.0] * 5, 2.1], spike=2.0) == [raised(12)]


# shares


def test_a_share_is_of_the_last_values_of_the_window(judge):
    # More than half of 4 are 3; they need not be in a row, and nothing came before the first.
    values = [0.5, 1.0, 0.5, 0.5, 1.0, 1.0]
    assert judge(values, below=1, share=0.5, window=4) == [raised(3), cleared(4)]
    assert judge([0.5, 0.5, 0.5], below=1, share=0.5, window=4) == [raised(2)]
    assert judge([0.5, 0.5] + [1.0, 1.0, 0.5, 0.5] * 9, below=1, share=0.5, window=4) == []


def test_a_share_can_have_hysteresis(judge):
    # Of 4: raised with 3, over with 1.
    values = [0.5, 0.5, 0.5, 1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 0.5]
    changes = judge(values, below=1, share=0.5, window=4, clear=0.25)
    assert changes == [raised(2), cleared(6)]


@pytest.mark.parametrize("percent", [7, 29, 57, 58])
def test_a_share_itself_does_not_raise(judge, percent):
    # In floats, 0.07 of 100 is more than 7, and 0.29 and 0.57 are less than 29 and 57.
    share = percent / 100
    assert judge([2.0] * percent + [0.0] * 100, above=1, share=share) == []
    values = [2.0] * (percent + 1) + [0.0] * 100
    assert judge(values, above=1, share=share) == [raised(percent), cleared(100)]


def test_a_share_is_over_at_its_own_limit(judge):
    # 60 were beyond; from the value 100 on each takes one of them out: 29 are left at 130.
    values = [2.0] * 60 + [0.0] * 100
    assert judge(values, above=1, share=0.5, clear=0.29) == [raised(50), cleared(130)]
    values = [2.0, 2.0, -1.0, 0.5, 0.5, 0.5]
    changes = judge(values, outside=(0, 1), share=0.5, window=4, clear=0.25)
    assert changes == [raised(2), cleared(5)]


@pytest.mark.parametrize(
    ("level", "rule", "limit"),
    [
        (10.0, {"drop": 0.7}, 3.0),
        (10.0, {"drop": 0.9}, 1.0),
        (100.0, {"drop": 0.45}, 55.0),
        (100.0, {"spike": 1.15}, 115.0),
        (3.0, {"spike": 1.1}, 3.3),
        (0.7, {"spike": 1.1}, 0.77),
    ],
)
def test_the_limit_of_a_level_itself_does_not_raise(judge, level, rule, limit):
    """Though products of floats are a little more, or less."""
    assert judge([level] * 10 + [limit], **rule) == []
    assert judge([level] * 60 + [limit], **rule) == []
    beyond = limit * (1 - 1e-12) if "drop" in rule else limit * (1 + 1e-12)
    assert judge([level] * 10 + [beyond], **rule) == [raised(10)]


def test_limits_can_be_any_real_numbers(judge):
    assert judge([0.3, 0.34], above=Fraction(1, 3)) == [raised(1)]
    assert judge([0.4, 0.6], above=np.float32(0.5)) == [raised(1)]
    assert judge([1.0] * 10 + [0.4], drop=np.float64(0.5)) == [raised(10)]


def test_a_long_time_without_anything_does_not_change_a_share(judge):
    values = [1.0] * 1000 + [0.5] * 51 + [1.0] * 50
    assert judge(values, below=1, share=0.5) == [raised(1050), cleared(1100)]


# cooldown


def test_a_cooldown_counts_from_when_it_was_raised(judge):
    values = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0]
    changes = [raised(0), cleared(1), raised(4), cleared(6)]
    assert judge(values, every=10.0, above=0.5, cooldown=40) == changes
    # What is still beyond when the time is over is raised then.
    values = [1.0, 0.0, 1.0, 1.0, 1.0]
    assert judge(values, every=10.0, above=0.5, cooldown=40) == [raised(0), cleared(1), raised(4)]


# what they say


@pytest.mark.parametrize(
    ("rule", "values", "measured", "message"),
    [
        ({"above": 0.1}, [0.25], (0.25, 0.1), "training.loss is 0.25: above 0.1."),
        ({"below": 0.1}, [0.05], (0.05, 0.1), "training.loss is 0.05: below 0.1."),
        ({"outside": (0, 1)}, [-2.0], (-2.0, 0), "training.loss is -2: outside 0 to 1."),
        ({"outside": (0, 1)}, [2.0], (2.0, 1), "training.loss is 2: outside 0 to 1."),
        (
            {"above": 0.1, "for_steps": 2},
            [0.2, 0.25],
            (0.25, 0.1),
            "training.loss is 0.25: above 0.1, 2 times in a row.",
        ),
        (
            {"above": 0.1, "message": "Lower the learning rate."},
            [0.2],
            (0.2, 0.1),
            "training.loss is 0.2: above 0.1. Lower the learning rate.",
        ),
        (
            {"drop": 0.5},
            [8.0] * 10 + [3.0],
            (3.0, 4.0),
            "training.loss is 3: more than 50 % below the median of the last 100 (it was 8).",
        ),
        (
            {"spike": 3, "window": 10},
            [8.0] * 10 + [25.0],
            (25.0, 24.0),
            "training.loss is 25: above 3 times the median of the last 10 (it was 8).",
        ),
        (
            {"below": 1, "share": 0.5, "window": 2},
            [0.5, 0.25],
            (0.25, 1),
            "training.loss is 0.25: below 1, in more than 50 % of the last 2.",
        ),
    ],
)
def test_an_alert_says_what_was_measured_and_what_to_do(bus, said, rule, values, measured, message):
    with alerts.attach([alerts.Rule("r", "training.loss", **rule)], registry=bus):
        for value in values:
            bus.execute(("training", "step"), {"loss": value}, {"step": 7, "run_id": "a"})
    (alert,) = said
    assert (alert.measurements["value"], alert.measurements["limit"]) == measured
    assert alert.metadata == {
        "step": 7,
        "run_id": "a",
        "rule": "r",
        "severity": "critical",
        "metric": "training.step.loss",
        "message": message,
    }


def test_what_is_over_says_so(bus, said):
    rules = [
        alerts.Rule("high", "training.loss", above=3, severity="warning", message="Do this."),
        alerts.Rule("nan", "training.loss", nonfinite=True),
    ]
    with alerts.attach(rules, registry=bus):
        for step, loss in enumerate([4.0, nan, 2.5]):
            bus.execute(("training", "step"), {"loss": loss}, {"step": step})
    over = {event.metadata["rule"]: event for event in said if event.event[1] == "cleared"}
    assert over["high"].measurements == {"value": 2.5, "limit": 3}
    assert over["high"].metadata["message"] == "training.loss is 2.5: no longer above 3."
    assert over["high"].metadata["severity"] == "warning"
    assert over["nan"].measurements == {"value": 2.5}
    assert over["nan"].metadata["message"] == "training.loss is 2.5: finite again."
