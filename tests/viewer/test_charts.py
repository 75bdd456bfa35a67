"""What a chart shows, before it is drawn."""

import itertools

import numpy as np
import pandas as pd
import pytest

from telemetry.viewer.charts.chart import check_frames
from telemetry.viewer.charts.strokes import (
    Entry,
    Legend,
    legend_of,
    palette,
    strokes_of,
    warn_of_alike,
)

from .charting import chart, points, run_of


def test_several_runs_are_several_lines_whatever_they_are_called():
    values = [1.0, 2.0, 3.0, 4.0]
    for labels in (None, ["same", "same"]):
        frames = [run_of("metrics", loss=values), run_of("metrics", loss=values[::-1])]
        both = chart(frames, labels=labels)
        assert len({line.run for panel in both.panels for line in panel.lines}) == 2, labels
    one_frame = pd.concat([run_of("a", loss=values), run_of("b", loss=values[::-1])])
    drawn = chart([one_frame]).panels[0].lines
    assert [(line.run, list(points(line).values())) for line in drawn] == [
        ("a", values),
        ("b", values[::-1]),
    ]


def test_metrics_that_end_alike_share_a_panel_and_others_have_their_own():
    frame = run_of("a", **{"train.loss": [1.0] * 4, "val.loss": [2.0] * 4, "train.lr": [0.1] * 4})
    panels = chart([frame]).panels
    assert [(panel.title, [line.metric for line in panel.lines]) for panel in panels] == [
        ("loss", ["train.loss", "val.loss"]),
        ("train.lr", ["train.lr"]),
    ]


def test_rows_without_a_value_are_no_points_and_those_without_a_place_are_told():
    frame = run_of("a", [1, np.nan, 3, 4], loss=[1.0, 2.0, np.nan, 4.0])
    with pytest.warns(
        UserWarning, match=r"^Some values of loss of a are not drawn: they have no 's"
    ):
        drawn = chart([frame])
    assert points(drawn.panels[0].lines[0]) == {1.0: 1.0, 4.0: 4.0}


def test_lines_are_clipped_before_they_are_smoothed():
    frame = run_of("a", range(4), loss=[0.0, 0.0, 0.0, 100.0])
    clipped = 40.0  # 60 % of four values is place 1.8 of 0, 0, 0, 100: still 0; 80 % is place 2.4
    line = chart([frame], clip=80, smooth=2).panels[0].lines[0]
    assert line.raw.y.tolist() == pytest.approx([0.0, 0.0, 0.0, clipped])
    assert line.curve.y.tolist() == pytest.approx([0.0, 0.0, 0.0, clipped / 2])


def test_lines_are_smoothed_before_points_are_left_out():
    values = np.zeros(1000)
    values[::2] = 1.0
    frame = run_of("a", range(1000), loss=values)
    line = chart([frame], smooth=2, downsample=20).panels[0].lines[0]
    assert len(line.curve.y) <= 20
    assert set(line.curve.y[1:].tolist()) == {0.5}  # of what is left one in two would be 1
    assert set(line.raw.y.tolist()) == {0.0, 1.0}


def test_a_line_with_no_more_points_than_the_window_stays_as_it_is():
    frame = run_of("a", loss=[4.0, 3.0, 2.0, 1.0])
    line = chart([frame], smooth=4).panels[0].lines[0]
    assert line.curve.y.tolist() == [4.0, 3.0, 2.0, 1.0]
    assert line.raw is None


def test_time_is_shown_in_a_unit_that_suits_the_longest_run():
    frame = run_of("a", loss=[1.0, 2.0, 3.0, 4.0])
    stamps = pd.to_datetime([0, 1800, 3600, 7200], unit="s", utc=True)
    frame["timestamp"] = pd.Series(stamps).astype("datetime64[us, UTC]")
    frame = frame[["run", "step", "timestamp", "loss"]]
    drawn = chart([frame], x_key="time")
    assert drawn.x_label == "time (minutes)"
    assert drawn.panels[0].lines[0].curve.x.tolist() == [0.0, 30.0, 60.0, 120.0]


def test_a_metric_without_the_axis_is_left_out_with_a_warning():
    frame = run_of("a", [1, 2, np.nan, np.nan], loss=[1.0, 2.0, np.nan, np.nan])
    frame["gpu.memory"] = [np.nan, np.nan, 7.0, 8.0]
    with pytest.warns(UserWarning, match=r"gpu.memory of a is not drawn: none of its values has"):
        drawn = chart([frame], ["loss", "gpu."])
    assert [panel.title for panel in drawn.panels] == ["loss"]
    assert [panel.title for panel in chart([frame]).panels] == ["loss"]  # not asked for: no warning


def test_metrics_none_of_which_has_the_axis_are_refused_with_those_they_have():
    frame = run_of("a", [1, 2, np.nan, np.nan], loss=[1.0, 2.0, np.nan, np.nan])
    frame["epoch"] = [np.nan, np.nan, 1.0, 2.0]
    frame["gpu.memory"] = [np.nan, np.nan, 7.0, 8.0]
    with pytest.raises(ValueError, match=r"of gpu.memory has 'step'\. Axes it has: epoch\."):
        chart([frame], ["gpu.memory"])


def test_too_many_panels_are_refused():
    frame = run_of("a", **{f"m{n}": [1.0] * 4 for n in range(61)})
    with pytest.raises(ValueError, match="61 metrics would need 61 panels, and a chart has 60 at"):
        chart([frame], ["*"])


@pytest.mark.parametrize("empty", [[], pd.DataFrame(), run_of("a"), run_of("a", loss=[np.nan] * 4)])
def test_frames_without_metrics_are_refused(empty):
    with pytest.raises(ValueError, match=r"^Empty DataFrame provided to plot_metrics: it has no"):
        check_frames(empty, "plot_metrics")


def test_the_message_names_the_files():
    frame = run_of("a")
    frame.attrs["sources"] = ["runs/a.jsonl"]
    with pytest.raises(ValueError, match=r"plot_metrics: runs/a\.jsonl has no metrics\. A record"):
        check_frames(frame, "plot_metrics")


def test_what_is_no_frame_is_refused():
    with pytest.raises(TypeError, match="takes the DataFrame that read_jsonl gives, got str"):
        check_frames(["runs/a.jsonl"], "plot_metrics")


def test_colours_tell_metrics_of_one_run_and_runs_of_several():
    two = {"train.loss": [1.0] * 4, "val.loss": [2.0] * 4}
    one = strokes_of(chart([run_of("a", **two)]))[0]
    assert len({stroke.color for stroke in one}) == 2
    several = chart([run_of("a", **two), run_of("b", **two)])
    by_line = dict(
        zip(
            [(x.run, x.metric) for x in several.panels[0].lines],
            strokes_of(several)[0],
            strict=True,
        )
    )
    assert len(set(by_line.values())) == 4
    assert by_line["a", "train.loss"].color == by_line["a", "val.loss"].color
    assert by_line["a", "train.loss"].style == by_line["b", "train.loss"].style


def test_a_legend_tells_colours_and_styles_as_the_lines_have_them():
    two = {"train.loss": [1.0] * 4, "val.loss": [2.0] * 4}
    several = chart([run_of("a", **two), run_of("b", **two)])
    strokes = strokes_of(several)[0]
    entries = {entry.name: entry for entry in legend_of(several, 0).entries}
    assert list(entries) == ["train.loss", "val.loss", "a", "b"]
    for line, stroke in zip(several.panels[0].lines, strokes, strict=True):
        assert entries[line.run].color == stroke.color
        assert entries[line.metric].style == stroke.style
    assert legend_of(chart([run_of("a", loss=[1.0] * 4)]), 0).entries == ()


def test_a_panel_in_which_a_run_is_missing_has_its_own_legend():
    frames = [run_of("a", loss=[1.0] * 4, lr=[1.0] * 4), run_of("b", loss=[1.0] * 4)]
    both = chart(frames)
    (entry,) = legend_of(both, 1).entries
    assert (entry.name, entry.color) == ("a", strokes_of(both)[0][0].color)


def test_any_number_of_colours_are_different():
    for count in (1, 7, 8, 30):
        assert len(set(palette(count))) == count
    assert all(len(color) == 7 for color in itertools.chain(palette(5), palette(20)))


def test_metrics_without_any_place_are_an_error_that_says_so():
    frame = run_of("a", [1, np.nan], loss=[np.nan, 1.0])
    with pytest.raises(ValueError, match=r"^No value of loss has 'step', or a place on any other"):
        chart([frame])


def test_what_is_too_large_to_be_drawn_is_an_infinity():
    frame = run_of("a", loss=[1.0, 1.7e308, -1e297, 2.0])
    assert points(chart([frame]).panels[0].lines[0]) == {
        1.0: 1.0,
        2.0: np.inf,
        3.0: -np.inf,
        4.0: 2.0,
    }


def test_a_place_that_is_too_far_away_is_none():
    frame = run_of("a", [1, 2, 1e308], loss=[1.0, 2.0, 3.0])
    with pytest.warns(UserWarning, match="Some values of loss of a are not drawn"):
        drawn = chart([frame])
    assert points(drawn.panels[0].lines[0]) == {1.0: 1.0, 2.0: 2.0}


def of_several(metrics, *runs):
    many = {f"m{n}.loss": [1.0] * 4 for n in range(metrics)}
    return chart([run_of(run, **many) for run in runs], ["*"])


def test_eight_metrics_of_several_runs_are_eight_styles():
    eight = of_several(8, "a", "b")
    assert len(set(strokes_of(eight)[0])) == 16
    warn_of_alike(eight)


def test_more_metrics_than_styles_are_told_where_styles_tell_them_apart():
    with pytest.warns(UserWarning, match="'loss' has 9 metrics of several runs, and only 8 styles"):
        warn_of_alike(of_several(9, "a", "b"))
    warn_of_alike(of_several(9, "a"))


@pytest.mark.parametrize(
    ("metrics", "runs", "shown"),
    [
        (12, 2, (10, 2)),
        (2, 20, (2, 10)),
        (12, 20, (6, 6)),
        (13, 0, (12, 0)),
        (0, 20, (0, 12)),
        (1, 1, (1, 1)),
    ],
)
def test_of_a_long_legend_metrics_and_runs_have_half_each_at_least(metrics, runs, shown):
    legend = Legend(
        tuple(Entry(f"m{n}", "#444444", "-") for n in range(metrics)),
        tuple(Entry(f"r{n}", "#444444", "-") for n in range(runs)),
    )
    names = [entry.name for entry in legend.within(12)]
    assert names == [f"m{n}" for n in range(shown[0])] + [f"r{n}" for n in range(shown[1])]
