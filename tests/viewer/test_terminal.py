"""Charts of characters."""

import re

import numpy as np
import pandas as pd
import pytest

from telemetry.viewer.charts.chart import chart_of
from telemetry.viewer.charts.terminal import draw_text, tick_texts
from telemetry.viewer.charts.treatment import check_treatment

PLAIN = check_treatment(0, "mean", None, None, None)


def chart(*frames, metrics=None):
    return chart_of(frames, metrics, "step", None, PLAIN)


def run_of(name, **metrics):
    count = len(next(iter(metrics.values())))
    frame = pd.DataFrame({"run": name, "step": np.arange(count, dtype=float), **metrics})
    frame.attrs["metrics"] = list(metrics)
    return frame


def drawn(of, *, color=False, width=60, **options):
    return draw_text(of, width=width, height=12, color=color, **options)


def test_a_falling_loss_falls_from_the_upper_left_to_the_lower_right():
    lines = drawn(chart(run_of("a", loss=np.linspace(9, 1, 50)))).splitlines()
    inside = [re.split("[│┤]", line, maxsplit=1)[1] for line in lines if line.endswith("│")]
    marks = [re.search(r"[\u2801-\u28ff]", line) for line in inside]
    starts = [mark.start() for mark in marks if mark]
    assert len(starts) > 5
    assert starts == sorted(starts)
    assert lines[0] == "loss"
    assert lines[-1].strip() == "step"


def test_no_line_is_wider_than_the_terminal():
    frames = [run_of("n" * 90 + str(n), **{"m" * 90: np.arange(9.0)}) for n in range(3)]
    for color in (False, True):
        text = re.sub(r"\x1b\[[0-9;]*m", "", drawn(chart(*frames), color=color, width=72))
        assert max(map(len, text.splitlines())) <= 72


def test_colours_or_characters_tell_lines_apart_and_the_heading_says_which():
    two = chart(run_of("a", loss=np.ones(9)), run_of("b", loss=np.zeros(9)))
    plain = drawn(two)
    assert plain.splitlines()[0] == "loss  • a  x b"
    assert plain.count("•") > 10
    assert plain.count("x") > 10
    assert "\x1b" not in plain
    colored = drawn(two, color=True)
    assert "\x1b[38;5;12m  ━ a" in colored
    assert "\x1b[38;5;9m  ━ b" in colored


def test_each_panel_has_its_heading():
    one = run_of("a", **{"train.loss": np.ones(5), "val.loss": np.ones(5), "lr": np.ones(5)})
    text = drawn(chart(one))
    assert "loss  • train.loss  x val.loss" in text
    assert "\nlr\n" in text


@pytest.mark.parametrize(
    ("values", "log", "said"),
    [
        ([np.inf, -np.inf], False, "no finite value"),
        ([-1.0, 0.0], True, "no value above zero"),
    ],
)
def test_what_cannot_be_drawn_is_said(values, log, said):
    assert said in drawn(chart(run_of("a", loss=np.array(values))), log=log)


def test_one_point_and_values_that_never_change_are_drawn():
    assert "loss" in drawn(chart(run_of("a", loss=np.array([3.0]))))
    assert "3" in drawn(chart(run_of("a", loss=np.full(5, 3.0))))


def test_a_logarithmic_axis_leaves_out_what_is_not_above_zero():
    text = drawn(chart(run_of("a", loss=np.array([1000.0, 10.0, 0.0, -1.0, 0.1]))), log=True)
    assert re.search(r"^1000", text, re.MULTILINE)


def test_control_characters_of_names_are_not_sent_to_the_terminal():
    text = drawn(chart(run_of("a", **{"x\x1b[2J": np.ones(3)})))
    assert "\x1b" not in text
    assert "x\\x1b[2J" in text


def test_a_heading_that_is_too_long_has_several_lines():
    frames = [run_of(f"a-run-of-{n}", loss=np.ones(3)) for n in range(6)]
    lines = drawn(chart(*frames)).splitlines()
    assert [name for line in lines[:3] for name in re.findall(r"a-run-of-\d", line)] == [
        f"a-run-of-{n}" for n in range(6)
    ]
    assert max(map(len, lines)) <= 60


def test_large_steps_have_all_their_digits():
    frame = run_of("a", loss=np.ones(8))
    frame["step"] += 1234567
    assert re.search(r"1,234,56[789]", drawn(chart(frame)))


@pytest.mark.parametrize(
    ("ticks", "texts"),
    [
        ([0.0, 0.5, 1.0], ["0", "0.5", "1"]),
        ([1e6, 2e6], ["1,000,000", "2,000,000"]),
        ([12345.25, 12345.5], ["12345.25", "12345.5"]),
    ],
)
def test_ticks_have_as_many_digits_as_tell_them_apart(ticks, texts):
    assert tick_texts(ticks) == texts


def test_points_that_are_as_near_as_numbers_can_be_are_drawn():
    frame = run_of("a", loss=np.ones(2))
    frame["step"] = [0.0, 5e-324]
    assert "loss" in drawn(chart(frame))


def test_control_characters_of_the_axis_are_not_sent_to_the_terminal():
    frame = run_of("a", loss=np.ones(3))
    frame.insert(1, "x\x1b[2J", [1.0, 2.0, 3.0])
    assert "\x1b" not in drawn(chart_of([frame], None, "x\x1b[2J", None, PLAIN))
