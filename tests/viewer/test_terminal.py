"""Charts of characters."""

import re

import numpy as np
import pandas as pd
import pytest
from rich.cells import cell_len

from telemetry.viewer.charts.chart import chart_of
from telemetry.viewer.charts.terminal import draw_text
from telemetry.viewer.charts.ticks import log_ticks, round_ticks, tick_texts
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
        ([-1.0, 0.0, np.inf], True, "no finite value above zero"),
    ],
)
def test_what_cannot_be_drawn_is_said(values, log, said):
    assert said in drawn(chart(run_of("a", loss=np.array(values))), log=log)


def test_one_point_and_values_that_never_change_are_drawn():
    assert "loss" in drawn(chart(run_of("a", loss=np.array([3.0]))))
    assert "3" in drawn(chart(run_of("a", loss=np.full(5, 3.0))))


def test_a_logarithmic_axis_leaves_out_what_is_not_above_zero():
    text = drawn(chart(run_of("a", loss=np.array([1000.0, 10.0, 0.0, -1.0, 0.1]))), log=True)
    assert re.search(r"^ *1,000┤", text, re.MULTILINE)


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


@pytest.mark.parametrize(
    ("values", "tick"),
    [
        ([1e-3] * 9, "0.001"),
        ([0.5], "0.5"),
        ([1e-300, 1e-300], "1e-300"),
        ([2.0, 2.0, 0.0, -1.0, np.inf], "2"),
    ],
)
def test_what_never_changes_stands_beside_its_value(values, tick):
    text = drawn(chart(run_of("a", loss=np.array(values))), log=True)
    assert re.findall(r"^ *(\S+)┤", text, re.MULTILINE) == [tick]
    assert re.search(rf"^ *{tick}┤.*[\u2801-\u28ff]", text, re.MULTILINE)


@pytest.mark.parametrize("log", [False, True])
def test_what_changes_little_is_drawn_over_the_whole_height(log):
    values = 1234567.0 + np.arange(1, 10) / 1000
    lines = drawn(chart(run_of("a", loss=values)), log=log).splitlines()
    rows = [n for n, line in enumerate(lines) if re.search(r"[\u2801-\u28ff]", line)]
    assert rows == list(range(2, 11))  # of 12 lines below the heading, without the frame's three
    assert any(line.lstrip().startswith("1234567.006┤") for line in lines)


def inside(text):
    """What is between the two sides of the frame, line by line."""
    return [re.split("[│┤]", line, maxsplit=1)[1][:-1] for line in text.splitlines() if "│" in line]


@pytest.mark.parametrize("log", [False, True])
def test_a_line_has_a_gap_where_it_is_infinite_and_a_triangle_at_the_edge(log):
    values = np.ones(100)
    values[40:60] = np.inf
    values[80:90] = -np.inf
    rows = inside(drawn(chart(run_of("a", loss=values)), log=log, width=102))
    (line,) = [row for row in rows if re.search("[\u2801-\u28ff]", row)]
    assert len(line) >= 95
    for first, last, is_drawn in [(2, 38, True), (42, 58, False), (62, 78, True), (82, 88, False)]:
        columns = line[round(first / 99 * len(line)) : round(last / 99 * len(line))]
        assert ("" if is_drawn else columns).strip() == ""
        assert (" " in columns) is not is_drawn
    for row, mark, first, last in [(rows[0], "▲", 40, 59), (rows[-1], "▼", 80, 89)]:
        assert row.count(mark) >= last - first
        assert abs(row.index(mark) - first / 99 * len(row)) < 2
        assert abs(row.rindex(mark) - last / 99 * len(row)) < 2
        assert set(row) == {mark, " "}


def test_a_line_that_ends_in_infinities_has_triangles_up_to_its_end():
    values = 1 / np.arange(1.0, 101)
    values[60:] = np.inf
    rows = inside(drawn(chart(run_of("a", loss=values))))
    assert rows[0].endswith("▲" * 15)
    assert not any(re.search("[\u2801-\u28ff]", row[40:]) for row in rows)


def test_a_logarithmic_line_has_a_gap_where_it_is_not_above_zero():
    values = np.ones(50)
    values[20:30] = 0
    text = drawn(chart(run_of("a", loss=values)), log=True)
    (line,) = [row for row in inside(text) if re.search("[\u2801-\u28ff]", row)]
    assert "  " in line.strip()
    assert "▼" not in text


def test_many_lines_are_all_told_apart():
    many = chart(*[run_of(f"a{n}", loss=np.full(9, float(n))) for n in range(30)])
    colored = drawn(many, color=True, width=200)
    entries = re.findall(r"\x1b\[38;5;(\d+)m  (\S) a\d+", colored)
    assert len(set(entries)) == 30
    assert [mark for _, mark in entries[:8]] == ["━"] * 7 + ["•"]
    rows = inside(colored.split("┌")[1])
    assert sum("•" in row for row in rows) >= 1  # as the heading says
    plain = re.findall(r"  (\S) a\d+", drawn(many, width=200))
    assert len(set(plain)) == 30


def test_wide_characters_count_as_two_columns():
    frames = [
        run_of(f"运行-{n}号实验-很长的名字", **{"训练.损失" * 9: np.ones(3)}) for n in range(3)
    ]
    for color in (False, True):
        text = re.sub(r"\x1b\[[0-9;]*m", "", drawn(chart(*frames), color=color))
        assert max(map(cell_len, text.splitlines())) <= 60
        assert all(f"{n}号" in text for n in range(3))


@pytest.mark.parametrize(
    ("low", "high", "count", "ticks"),
    [
        (0.0, 1.0, 6, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-3.0, 9.0, 4, [0, 5]),
        (0.3, 9.0, 4, [2.5, 5, 7.5]),
        (7.0, 7.0, 6, [7]),
    ],
)
def test_ticks_are_round_numbers(low, high, count, ticks):
    assert round_ticks(low, high, count) == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.15, 12.0, [0.2, 0.5, 1, 2, 5, 10]),
        (0.15, 1.2e5, [1, 100, 1e4]),
        (0.15, 1.2e3, [1, 10, 100, 1000]),
        (2.0, 6.0, [2, 3, 4, 5, 6]),
        (5e-324, 1e250, [1e-288, 1e-144, 1, 1e144]),
        (7.0, 7.0, [7]),
    ],
)
def test_logarithmic_ticks_are_powers_of_ten_where_there_are_some(low, high, ticks):
    assert log_ticks(low, high, 4) == pytest.approx(ticks)
