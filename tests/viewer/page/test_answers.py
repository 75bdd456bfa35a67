"""What the page is told, against the same worked out with NumPy, without a browser."""

import time
from contextlib import closing

import numpy as np
import pytest
from starlette.datastructures import QueryParams

from telemetry.viewer.page import live, watched
from telemetry.viewer.page.answers import Answers
from telemetry.viewer.page.lanes import lanes_of
from telemetry.viewer.page.live import Live
from telemetry.viewer.page.recorded import Recorded
from telemetry.viewer.page.spans import Span
from telemetry.viewer.page.watched import Watched

from .conftest import WAIT, line


class Asked:
    """Answers on some logs."""

    def __init__(self, *paths):
        self.watched = Watched(paths)
        self.watched.look()
        self.answers = Answers(Live(self.watched), {})

    def __call__(self, what, query=""):
        return getattr(self.answers, what)(QueryParams(query))

    def curve(self, query):
        (found,) = self("curves", query)
        return list(found["x"]), list(found["y"])


def test_few_points_keep_every_spike_and_invent_none(log):
    values = np.random.default_rng(3).normal(size=20_000)
    values[[137, 9_999]] = [50.0, -50.0]
    log().steps(values.tolist())
    x, y = Asked(log().path).curve("metric=training.loss&points=200")
    assert len(x) <= 200
    assert (min(y), max(y)) == (-50.0, 50.0)
    assert x == sorted(x)
    assert (x[0], x[-1]) == (1, 20_000)
    assert y == values[np.array(x, dtype=int) - 1].tolist()


def test_smoothing_comes_before_points_are_left_out(log):
    values = np.random.default_rng(4).normal(size=5_000)
    log().steps(values.tolist())
    x, y = Asked(log().path).curve("metric=training.loss&points=100&smooth=50&mode=mean")
    whole = np.array([values[max(0, i - 49) : i + 1].mean() for i in range(5_000)])
    assert len(x) <= 100
    assert y == pytest.approx(whole[np.array(x, dtype=int) - 1])


def test_a_stretch_has_all_its_points_and_one_on_either_side(log):
    log().steps([float(value) for value in range(1, 10_001)])
    x, _ = Asked(log().path).curve("metric=training.loss&points=200&from=500&to=520")
    assert x == list(range(499, 522))


def test_runs_never_become_one_line(log):
    a, b = log("a.jsonl").steps([1.0, 2.0]), log("b.jsonl").steps([3.0, 4.0])
    found = Asked(a.path, b.path)("curves", "metric=training.loss")
    assert [(each["run"], list(each["y"])) for each in found] == [(0, [1, 2]), (1, [3, 4])]


def test_runs_of_one_file_are_told_apart_by_their_ids(log):
    run = log()
    for step in (1, 2):
        for name in ("a", "b"):
            run.steps([float(step)], first=step, run_id=name)
    asked = Asked(run.path)
    assert asked("state")["runs"] == ["a", "b"]
    assert [each["run"] for each in asked("curves", "metric=training.loss")] == [0, 1]
    assert [each["run"] for each in asked("curves", "metric=training.loss&run=1")] == [1]


def test_ranks_in_one_file_are_runs_with_curves_of_their_own(log):
    run = log().steps([1.0], rank=0)
    asked = Asked(run.path)
    assert asked("state")["runs"] == ["run"]
    for rank, loss in ((1, 11.0), (0, 2.0), (1, 12.0)):
        run.steps([loss], first=int(loss) % 10, rank=rank)
    run.steps([3.0], first=3)  # what says no rank is of the lowest
    assert asked.watched.look()
    assert asked("state")["runs"] == ["run rank 0", "run rank 1"]
    found = asked("curves", "metric=training.loss")
    curves = [(each["run"], list(each["x"]), list(each["y"])) for each in found]
    assert curves == [(0, [1, 2, 3], [1, 2, 3]), (1, [1, 2], [11, 12])]
    assert [each["run"] for each in asked("curves", "metric=training.loss&run=1")] == [1]


def test_a_later_attempt_is_shown_from_its_first_step_on(log):
    run = log().steps([9.0, 8.0, 7.0, 6.0], run_id="r", attempt=1)
    asked = Asked(run.path)
    assert asked.curve("metric=training.loss")[1] == [9, 8, 7, 6]
    run.steps([1.0, 0.5], first=3, run_id="r", attempt=2)
    assert asked.watched.look()
    assert asked.curve("metric=training.loss") == ([1, 2, 3, 4], [9, 8, 1, 0.5])


def test_what_is_read_bit_by_bit_is_what_is_read_at_once(log):
    values = np.random.default_rng(5).normal(size=300).tolist()
    run = log().steps(values[:100])
    asked = Asked(run.path)
    asked("curves", "metric=training.loss")
    for start in (100, 200):
        run.steps(values[start : start + 100], first=start + 1)
        run.steps([0.1], first=start + 1, name=f"metric{start}")
        assert asked.watched.look()
        asked("curves", "metric=training.loss")
    fresh = Asked(run.path)
    for name in ("loss", "metric100", "metric200"):
        query = f"metric=training.{name}&points=4000"
        assert asked.curve(query) == fresh.curve(query)
    assert asked.curve("metric=training.loss&points=4000")[1] == values
    assert not asked.watched.look()


def test_a_line_that_is_being_written_waits_for_its_end(log):
    whole = line("training.step", 1.0, {"loss": 2.0}, step=2)
    run = log().steps([1.0]).write(whole[:40])
    asked = Asked(run.path)
    assert asked.curve("metric=training.loss")[1] == [1]
    run.write(whole[40:])
    assert asked.watched.look()
    assert asked.curve("metric=training.loss")[1] == [1, 2]


def test_a_file_that_is_begun_anew_is_read_anew(log):
    run = log().steps([1.0, 2.0, 3.0])
    asked = Asked(run.path)
    asked("curves", "metric=training.loss")
    run.path.write_text("")
    run.steps([7.0])
    assert asked.watched.look()
    assert asked.curve("metric=training.loss") == ([1], [7])


def test_a_deleted_file_leaves_what_was_read_of_it(log):
    a, b = log("a.jsonl").steps([1.0]), log("b.jsonl").steps([2.0])
    asked = Asked(a.path.parent)
    a.path.unlink()
    b.steps([3.0], first=2)
    assert asked.watched.look()
    found = asked("curves", "metric=training.loss")
    assert [list(each["y"]) for each in found] == [[1], [2, 3]]


def test_steps_that_begin_anew_in_each_epoch_are_counted_on(log):
    run = log()
    for epoch in (1, 2, 3):
        run.steps([1.0, 2.0], epoch=epoch)
    assert Asked(run.path).curve("metric=training.loss")[0] == [1, 2, 3, 4, 5, 6]


def test_times_are_since_each_runs_beginning(log):
    a = log("a.jsonl").write(*(line("training.step", s, {"loss": 1.0}) for s in (0.0, 600.0)))
    b = log("b.jsonl").write(*(line("training.step", s, {"loss": 1.0}) for s in (50.0, 350.0)))
    asked = Asked(a.path, b.path)
    assert asked("state")["unit"] == {"name": "minutes", "seconds": 60.0}
    assert asked("state")["axes"] == ("time",)
    found = asked("curves", "metric=training.loss&axis=time")
    assert [list(each["x"]) for each in found] == [[0, 10], [0, 5]]
    cut = asked("curves", "metric=training.loss&axis=time&run=0&from=599&to=601")
    assert list(cut[0]["x"]) == [0, 10]


def test_what_was_asked_for_longest_ago_is_forgotten_first(log):
    run = log().steps([1.0] * 60).steps([2.0] * 60, name="lr").steps([3.0] * 60, name="entropy")
    snapshot = Asked(run.path).watched.snapshot
    recorded = Recorded(most=150)
    for name in ("loss", "lr", "loss", "entropy"):
        assert len(recorded.points(snapshot, [f"training.{name}"])[f"training.{name}"].row) == 60
    assert list(recorded._kept) == ["training.loss", "training.entropy"]


def test_lanes_keep_spans_apart_and_children_below_their_parents():
    def span(name, parent, first, last):
        return Span("n", "stop", name, parent, first, last, None, None, None)

    spans = [
        span("root", None, 0.0, 10.0),
        span("b", "root", 2.0, 6.0),
        span("a", "root", 1.0, 5.0),  # beside b, at the same time
        span("a1", "a", 1.0, 2.0),
        span("c", "root", 6.0, 7.0),
    ]
    lanes = {each.span: lane for each, lane in lanes_of(spans)}
    assert lanes == {"root": 0, "a": 1, "a1": 2, "b": 2, "c": 1}


def test_a_flood_of_spans_is_cut_to_the_longest_with_those_they_are_in(log):
    from .conftest import span_line

    run = log().write(span_line("stage.run.stop", 1, None, 5000.0, duration=0.5, stage="s"))
    run.write(
        *(
            span_line("performance.operation.stop", n, 1, float(n), duration=n / 1e4, operation="x")
            for n in range(2, 2002)
        )
    )
    told = Asked(run.path)("spans")
    assert told["count"] == 2001
    shortest = min(each["last"] - each["first"] for each in told["spans"] if each["parent"])
    assert len(told["spans"]) == 1500
    assert shortest == pytest.approx(503 / 1e4, abs=1e-6)  # the 1499 longest of 2000, and the stage


def test_a_log_is_shown_while_most_of_it_is_still_to_be_read(log, monkeypatch):
    monkeypatch.setattr(watched, "SOON", 4000)
    run = log("b.jsonl").steps(range(1000), run_id="b", attempt=1)
    run.steps([-1.0] * 500, first=901, run_id="b", attempt=2)
    run.steps([2.0], first=1401, name="entropy", run_id="b", attempt=2)
    run.steps(["NaN"], first=1402, run_id="b", attempt=2)
    other = log("a.jsonl").steps([7.0] * 100, run_id="a", attempt=1)
    size = run.path.stat().st_size + other.path.stat().st_size
    asked = Asked(run.path, other.path)
    told = asked("state")
    assert (told["runs"], told["unread"]) == (["b"], size - 4000)
    assert [metric["name"] for metric in told["metrics"]] == ["training.loss"]
    x, y = asked.curve("metric=training.loss&points=4000")
    assert (x, y) == (list(range(1, len(x) + 1)), list(range(len(x))))
    assert 10 < len(x) < 40
    left = [told["unread"]]
    while left[-1]:
        assert asked.watched.look()
        asked("curves", "metric=training.loss")
        left.append(asked("state")["unread"])
    assert left == [size - 4000, size - 36_000, 0]
    assert not asked.watched.look()
    assert asked("state")["runs"] == ["b", "a"]
    assert asked.curve("metric=training.entropy") == ([1401], [2])
    first, second = asked("curves", "metric=training.loss&points=4000")
    assert list(first["y"][:-1]) == [*range(900), *[-1.0] * 500]
    assert first["odd"] == [{"x": 1402, "y": -1.0, "text": "NaN"}]
    assert list(second["y"]) == [7.0] * 100


def test_what_is_there_is_read_without_a_pause(log, monkeypatch):
    monkeypatch.setattr(watched, "SOON", 4000)
    monkeypatch.setattr(live, "PAUSE", 3600.0)
    run = log().steps(range(2000))
    looking = Live(Watched([run.path]))
    with closing(looking):
        looking.start()
        deadline = time.monotonic() + WAIT
        while looking.watched.snapshot is None or looking.watched.snapshot.size < 2000:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert looking.version == 3
