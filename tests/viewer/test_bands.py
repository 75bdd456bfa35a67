"""Several seeds of one run as a line with a band."""

import numpy as np
import pytest

from telemetry.viewer.charts.treatment import check_treatment

from .charting import chart, points, run_of

SEEDS = [
    run_of("digits-seed0", loss=[1.0, 2.0, 3.0, 4.0]),
    run_of("digits-seed1", loss=[3.0, 4.0, 5.0, 12.0]),
]


def test_a_band_reaches_from_the_lowest_seed_to_the_highest():
    (line,) = chart(SEEDS, band="minmax").panels[0].lines
    assert line.run == "digits-seed* (2 runs)"
    assert line.curve.y.tolist() == [2.0, 3.0, 4.0, 8.0]
    assert line.low.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert line.high.tolist() == [3.0, 4.0, 5.0, 12.0]


def test_a_band_of_a_standard_deviation_is_that_of_a_sample():
    (line,) = chart(SEEDS, band="std").panels[0].lines
    apart = np.std([[1, 2, 3, 4], [3, 4, 5, 12]], axis=0, ddof=1)
    assert (line.high - line.curve.y).tolist() == pytest.approx(apart.tolist())
    assert (line.curve.y - line.low).tolist() == pytest.approx(apart.tolist())


def test_seeds_with_other_steps_are_interpolated_and_never_continued():
    frames = [
        run_of("s1", [0, 10, 20], loss=[0.0, 10.0, 20.0]),
        run_of("s2", [0, 5, 10], loss=[2.0, 2.0, 2.0]),
    ]
    (line,) = chart(frames, band="minmax").panels[0].lines
    assert points(line) == {0.0: 1.0, 5.0: 3.5, 10.0: 6.0, 20.0: 20.0}


def test_runs_with_one_label_make_a_band_and_others_stay_lines():
    frames = [*SEEDS, run_of("other", loss=[9.0] * 4)]
    lines = chart(frames, band="minmax", labels=["a", "a", "b"]).panels[0].lines
    assert [(line.run, line.low is None) for line in lines] == [("a (2 runs)", False), ("b", True)]


def test_a_band_stays_whole_when_points_are_left_out():
    rng = np.random.default_rng(0)
    frames = [run_of(f"s{n}", range(500), loss=rng.normal(size=500)) for n in range(3)]
    every = chart(frames, band="minmax").panels[0].lines[0]
    few = chart(frames, band="minmax", downsample=20).panels[0].lines[0]
    assert len(few.curve.x) <= 60
    assert few.low.min() == every.low.min()
    assert few.high.max() == every.high.max()
    assert (few.low <= few.curve.y).all()
    assert (few.curve.y <= few.high).all()


def test_a_band_needs_several_seeds():
    with pytest.raises(ValueError, match=r"A band needs several runs .* Runs: a, b\."):
        chart([run_of("a", loss=[1.0] * 4), run_of("b", loss=[1.0] * 4)], band="minmax")
    with pytest.raises(ValueError, match="band must be one of minmax, std or None, got 'range'"):
        check_treatment(0, "mean", None, "range", None)


def test_a_mean_is_infinite_where_a_seed_is():
    frames = [
        run_of("s1", loss=[1.0, 2.0, np.inf, np.inf]),
        run_of("s2", loss=[3.0, 4.0, 5.0, -np.inf]),
    ]
    for band in ("minmax", "std"):
        (line,) = chart(frames, band=band).panels[0].lines
        assert points(line) == {1.0: 2.0, 2.0: 3.0, 3.0: np.inf, 4.0: np.inf}
    assert line.high[2] == 5.0


def test_decimals_are_no_seeds():
    frames = [run_of(name, loss=[1.0] * 4) for name in ("lr0.1", "lr0.2")]
    with pytest.raises(ValueError, match="A band needs several runs"):
        chart(frames, band="minmax")


def test_a_run_with_several_values_at_a_place_is_their_mean():
    epochs = [1, 1, 2, 2]
    frames = [
        run_of("s1", epochs, loss=[1.0, 3.0, 5.0, 7.0]),
        run_of("s2", epochs, loss=[4.0, 4.0, 9.0, 1.0]),
    ]
    (line,) = chart(frames, band="minmax").panels[0].lines
    assert points(line) == {1.0: 3.0, 2.0: 5.5}  # of 2 and 4, of 6 and 5
    assert (line.low.tolist(), line.high.tolist()) == ([1.0, 1.0], [4.0, 9.0])
    (line,) = chart(frames, band="std").panels[0].lines
    assert points(line) == {1.0: 3.0, 2.0: 5.5}
    assert (line.high - line.curve.y).tolist() == pytest.approx([np.std([2, 4], ddof=1), 0.5**0.5])


def test_an_axis_of_epochs_has_the_mean_of_each():
    frames = []
    for name in ("s1", "s2"):
        frame = run_of(name, range(1, 301), loss=np.tile(np.linspace(10.0, 5.0, 100), 3))
        frame.insert(2, "epoch", np.repeat([1.0, 2.0, 3.0], 100))
        frames.append(frame)
    (line,) = chart(frames, x_key="epoch", band="minmax").panels[0].lines
    assert points(line) == pytest.approx({1.0: 7.5, 2.0: 7.5, 3.0: 7.5})
    assert (line.low.tolist(), line.high.tolist()) == ([5.0] * 3, [10.0] * 3)


def test_nothing_is_made_up_where_a_seed_is_infinite():
    frames = [
        run_of("s1", [1, 2, 4], loss=[1.0, np.inf, 3.0]),
        run_of("s2", [1, 2, 3, 4], loss=[1.0, 5.0, 7.0, 3.0]),
    ]
    for band in ("minmax", "std"):
        (line,) = chart(frames, band=band).panels[0].lines
        assert points(line) == {1.0: 1.0, 2.0: np.inf, 3.0: 7.0, 4.0: 3.0}
        assert line.low.tolist() == line.high.tolist() == [1.0, 5.0, 7.0, 3.0]


def test_a_place_is_infinite_where_one_of_its_values_is():
    frames = [run_of("s1", [1, 1], loss=[1.0, np.inf]), run_of("s2", [1, 1], loss=[2.0, 4.0])]
    (line,) = chart(frames, band="minmax").panels[0].lines
    assert points(line) == {1.0: np.inf}
    assert (line.low.tolist(), line.high.tolist()) == ([2.0], [4.0])


def test_huge_values_have_a_standard_deviation():
    frames = [run_of("s1", [1], loss=[1e200]), run_of("s2", [1], loss=[3e200])]
    (line,) = chart(frames, band="std").panels[0].lines
    assert line.high - line.curve.y == pytest.approx([2**0.5 * 1e200])
