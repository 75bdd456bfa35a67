"""Figures, as matplotlib has them."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from telemetry.viewer import plot_metrics


def run_of(name, steps=range(1, 5), **metrics):
    frame = pd.DataFrame({"run": name, "step": np.array(steps, float), **metrics})
    frame.attrs["metrics"] = list(metrics)
    return frame


def lines_of(axes):
    """The lines of a panel with what they show, not those behind them."""
    return [
        line
        for line in axes.get_lines()
        if line.get_linewidth() == 1.5 and line.get_alpha() is None
    ]


def data_of(axes):
    return [list(zip(*line.get_data(), strict=True)) for line in lines_of(axes)]


def test_a_line_has_the_points_of_its_run():
    frames = [run_of("a", loss=[4.0, 3.0, 2.0, 1.0]), run_of("b", loss=[8.0, 6.0, 4.0, 2.0])]
    (axes,) = plot_metrics(frames).axes
    assert data_of(axes) == [[(1, 4), (2, 3), (3, 2), (4, 1)], [(1, 8), (2, 6), (3, 4), (4, 2)]]
    assert axes.get_title("left") == "loss"
    assert axes.get_xlabel() == "step"


def test_a_legend_names_the_colour_that_the_run_has():
    frames = [run_of("a", loss=[1.0] * 4), run_of("b", loss=[math.inf, 2.0, 2.0, 2.0])]
    (axes,) = plot_metrics(frames, smooth=2).axes
    named = {
        text.get_text(): to_hex(handle.get_color())
        for text, handle in zip(
            axes.get_legend().get_texts(), axes.get_legend().legend_handles, strict=True
        )
    }
    drawn = {len(set(line.get_ydata())): to_hex(line.get_color()) for line in lines_of(axes)[:2]}
    assert list(named) == ["a", "b"]
    assert named["a"] == drawn[1]  # its values are all the same
    assert named["a"] != named["b"]


def test_what_was_measured_is_faint_behind_what_is_smoothed():
    frame = run_of("a", loss=[4.0, 2.0, 4.0, 2.0])
    (axes,) = plot_metrics(frame, smooth=2).axes
    faint, strong = axes.get_lines()
    assert faint.get_ydata().tolist() == [4.0, 2.0, 4.0, 2.0]
    assert strong.get_ydata().tolist() == [4.0, 3.0, 3.0, 3.0]
    assert faint.get_alpha() < 0.5
    assert faint.get_zorder() < strong.get_zorder()
    assert faint.get_color() == strong.get_color()


def test_few_points_have_marks_and_many_have_none():
    frame = run_of("a", range(200), loss=np.ones(200), acc=np.where(np.arange(200) % 50, np.nan, 1))
    loss, accuracy = plot_metrics(frame).axes
    assert lines_of(loss)[0].get_marker() == ""
    assert lines_of(accuracy)[0].get_marker() == "o"


def test_infinities_are_marked_at_the_edge_at_their_step():
    frame = run_of("a", loss=[1.0, math.inf, -math.inf, 2.0])
    (axes,) = plot_metrics(frame).axes
    marks = {line.get_marker(): line for line in axes.get_lines()}
    assert marks["^"].get_data()[0].tolist() == [2.0]
    assert marks["v"].get_data()[0].tolist() == [3.0]
    assert marks["^"].get_visible()
    assert not marks["^"].get_clip_on()
    assert (marks["^"].get_ydata()[0], marks["v"].get_ydata()[0]) == (1.0, 0.0)


def test_panels_share_the_axis_of_steps_and_the_lowest_say_what_it_is():
    frame = run_of("a", **{name: [1.0] * 4 for name in ("loss", "lr", "acc", "norm")})
    figure = plot_metrics(frame)
    assert [axes.get_xlabel() for axes in figure.axes] == ["", "", "step", "step"]
    figure.axes[0].set_xlim(2, 3)
    assert {axes.get_xlim() for axes in figure.axes} == {(2, 3)}


def test_the_empty_place_of_a_grid_is_not_shown_and_what_is_above_it_has_a_label():
    frame = run_of("a", **{name: [1.0] * 4 for name in ("loss", "lr", "acc", "norm", "scale")})
    axes = plot_metrics(frame).axes
    assert [each.get_visible() for each in axes] == [True] * 5 + [False]
    assert [each.get_xlabel() for each in axes[:5]] == ["", "", "", "step", "step"]


def test_a_band_is_drawn_around_the_mean():
    frames = [run_of("s1", loss=[1.0] * 4), run_of("s2", loss=[3.0] * 4)]
    (axes,) = plot_metrics(frames, band="minmax").axes
    assert data_of(axes) == [[(1, 2), (2, 2), (3, 2), (4, 2)]]
    (around,) = axes.collections
    assert {y for _, y in around.get_paths()[0].vertices} == {1.0, 3.0}


def test_a_logarithmic_axis_is_for_panels_with_something_above_zero():
    frame = run_of("a", loss=[10.0, 1.0, 0.1, 0.0], reward=[-1.0, -2.0, -3.0, -4.0])
    loss, reward = plot_metrics(frame, log=True).axes
    assert (loss.get_yscale(), reward.get_yscale()) == ("log", "linear")


def test_a_logarithmic_axis_over_less_than_a_decade_has_plain_numbers():
    figure = plot_metrics(run_of("a", acc=[0.86, 0.9, 0.94, 0.98]), log=True)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    shown = [text.get_text() for text in axes.get_yticklabels(which="both") if text.get_text()]
    assert "0.9" in shown
    assert not [text for text in shown if "10^" in text]


def test_names_are_shown_as_they_are_and_shortened():
    frames = [
        run_of("_hidden", loss=[1.0] * 4),
        run_of("$x^2$", loss=[1.0] * 4),
        run_of("n" * 200, loss=[1.0] * 4),
    ]
    figure = plot_metrics(frames, title="a $ and a _")
    figure.draw_without_rendering()
    texts = figure.axes[0].get_legend().get_texts()
    assert [text.get_text() for text in texts][:2] == ["_hidden", "$x^2$"]
    assert len(texts[2].get_text()) == 40
    assert not any(text.get_parse_math() for text in texts)
    assert figure.get_suptitle() == "a $ and a _"


def test_a_long_legend_says_how_much_it_leaves_out():
    frames = [run_of(f"run{n}", loss=[float(n)] * 4) for n in range(30)]
    (axes,) = plot_metrics(frames).axes
    assert len(lines_of(axes)) == 30
    assert len(axes.get_legend().get_texts()) == 12
    assert axes.get_legend().get_title().get_text() == "18 more entries"


def test_a_single_run_is_in_the_title():
    assert plot_metrics(run_of("digits", loss=[1.0] * 4)).get_suptitle() == "digits"
    frames = [run_of("a", loss=[1.0] * 4), run_of("b", loss=[1.0] * 4)]
    assert plot_metrics(frames).get_suptitle() == ""


def test_a_figure_that_is_given_is_drawn_anew():
    figure = Figure()
    figure.subplots()
    assert plot_metrics(run_of("a", loss=[1.0] * 4), figure=figure) is figure
    assert [axes.get_title("left") for axes in figure.axes] == ["loss"]


def test_pyplot_knows_nothing_of_the_figure():
    import matplotlib.pyplot

    before = matplotlib.pyplot.get_fignums()
    figure = plot_metrics(run_of("a", loss=[1.0] * 4), size=(3, 2))
    assert figure.get_size_inches().tolist() == [3, 2]
    assert matplotlib.pyplot.get_fignums() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["los"]}, "There is no metric 'los'. Nearest: loss."),
        ({"x_key": "stp"}, "The axis 'stp' is on no record."),
        ({"smooth": -1}, "must not be negative"),
        ({"smooth_mode": "x"}, "one of mean, centered, ema, median, got 'x'"),
        ({"clip": 101}, "between 0 and 100"),
        ({"downsample": 2}, "must be 5 or more, got 2"),
        ({"band": "x"}, "band must be one of minmax, std or None, got 'x'"),
        ({"labels": []}, "labels must be as many as there are runs, got 0 for 1 run: []."),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=r".") as caught:
        plot_metrics(run_of("a", loss=[1.0] * 4), **arguments)
    assert message in str(caught.value)


def test_a_logarithmic_line_has_gaps_where_values_are_not_above_zero():
    (axes,) = plot_metrics(run_of("a", loss=[1.0, 0.0, -1.0, 10.0]), log=True).axes
    (line,) = lines_of(axes)
    shown = line.get_transform().transform_path(line.get_path()).vertices
    assert np.isfinite(shown[:, 1]).tolist() == [True, False, False, True]


def test_huge_values_do_not_end_a_chart(tmp_path):
    frame = run_of("a", loss=[1e-300, 1.0, 1e297, 1.7e308])
    for log in (False, True):
        figure = plot_metrics(frame, log=log)
        figure.savefig(tmp_path / "x.png")
        marks = [line for line in figure.axes[0].get_lines() if line.get_marker() == "^"]
        assert [line.get_xdata().tolist() for line in marks] == [[3.0, 4.0]]


def test_titles_are_not_wider_than_the_picture():
    frame = run_of("a-run-" * 50, **{"loss_of_layer_" * 20: [1.0] * 4})
    figure = plot_metrics(frame, size=(4, 3))
    figure.canvas.draw()
    for text in (figure._suptitle, figure.axes[0]._left_title):
        assert text.get_window_extent().x1 <= figure.bbox.x1
        assert "…" in text.get_text()


def test_a_band_is_seen_through():
    frames = [run_of("s1", loss=[1.0] * 4), run_of("s2", loss=[2.0] * 4)]
    (axes,) = plot_metrics(frames, band="minmax").axes
    (between,) = axes.collections
    assert between.get_alpha() == 0.25


def test_a_legend_that_is_cut_has_the_metrics():
    two = {"train.loss": [1.0] * 4, "val.loss": [1.0] * 4}
    (axes,) = plot_metrics([run_of(f"r{n}", **two) for n in range(20)]).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[:3] == ["train.loss", "val.loss", "r0"]
    assert axes.get_legend().get_title().get_text() == "10 more entries"


def test_a_legend_that_is_cut_has_the_runs():
    many = {f"layer{n}.norm": [1.0] * 4 for n in range(12)}
    with pytest.warns(UserWarning, match="'norm' has 12 metrics of several runs"):
        (axes,) = plot_metrics([run_of("one", **many), run_of("two", **many)], ["*"]).axes
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[-3:] == ["layer9.norm", "one", "two"]
    assert axes.get_legend().get_title().get_text() == "2 more entries"


def test_a_legend_is_read_above_lines():
    (axes,) = plot_metrics([run_of(name, loss=[1.0] * 4) for name in "ab"]).axes
    frame = axes.get_legend().get_frame()
    assert (frame.get_visible(), frame.get_alpha()) == (True, 0.8)


def polygons_of(axes):
    """Each piece of a band, as the corners that the axis of the panel shows."""
    (band,) = axes.collections
    shown = band.get_transform()
    return [shown.transform_path(path).vertices for path in band.get_paths()]


def test_a_logarithmic_band_is_whole_where_its_lower_end_is_not_above_zero():
    frames = [run_of("s1", loss=[1.0, 1.0, 0.1, 1.0]), run_of("s2", loss=[2.0, 9.0, 0.9, 2.0])]
    (axes,) = plot_metrics(frames, band="std", log=True).axes
    (corners,) = polygons_of(axes)
    assert np.isfinite(corners).all()
    (band,) = axes.collections
    apart = np.std([[1.0, 1.0, 0.1, 1.0], [2.0, 9.0, 0.9, 2.0]], axis=0, ddof=1)
    mean = np.array([1.5, 5.0, 0.5, 1.5])
    lower = {x: min(y for at, y in band.get_paths()[0].vertices if at == x) for x in (1, 2, 3, 4)}
    floor = 0.5  # the lowest that is above zero, at step 3, whose lower end is not
    assert (mean - apart < 0).tolist() == [False, True, True, False]
    assert lower == pytest.approx({1: 1.5 - apart[0], 2: floor, 3: floor, 4: 1.5 - apart[3]})


def test_a_logarithmic_band_ends_where_it_is_not_above_zero():
    frames = [run_of("s1", loss=[1.0, 1.0, -1.0, 1.0]), run_of("s2", loss=[2.0, 2.0, -2.0, 2.0])]
    (axes,) = plot_metrics(frames, band="minmax", log=True).axes
    corners = np.concatenate(polygons_of(axes))
    assert np.isfinite(corners).all()
    (band,) = axes.collections
    assert {x for path in band.get_paths() for x, _ in path.vertices} <= {1.0, 2.0, 4.0}
