"""What the page is told of logs that are not as expected, and that change while it is open."""

import json
import threading

import pytest

from telemetry.viewer.logs.records import Records
from telemetry.viewer.page import watched as watched_module
from telemetry.viewer.page.lanes import MOST_LANES, lanes_of
from telemetry.viewer.page.live import Live
from telemetry.viewer.page.spans import Span
from telemetry.viewer.page.watched import Watched

from .conftest import WAIT, line, span_line
from .test_answers import Asked


def test_a_log_that_comes_after_a_named_one_was_deleted_is_read(log, tmp_path):
    a, _ = log("a.jsonl").steps([1.0]), log("b.jsonl").steps([2.0])
    asked = Asked(a.path, tmp_path)
    a.path.unlink()
    log("c.jsonl").steps([3.0])
    assert asked.watched.look()
    assert asked("state")["runs"] == ["a", "b", "c"]
    assert [list(each["y"]) for each in asked("curves", "metric=training.loss")] == [[1], [2], [3]]
    log("other/").path.mkdir()
    log("other/a.jsonl").steps([4.0])
    assert asked.watched.look()
    runs = asked("state")["runs"]
    assert len(set(runs)) == 4
    assert "other/a" in runs


@pytest.mark.parametrize(
    "record",
    [
        '{"event": "smartclip.clip.nonfinite", "measurements": {"grad_norm": NaN}, "metadata": {}}',
        '{"event": "a.exception", "measurements": {}, "metadata": ["a"]}',
        '{"event": "a.exception", "measurements": {}, "metadata": "text"}',
        '{"event": "alert.raised", "measurements": {}, "metadata": null}',
        '{"event": "alert.raised", "measurements": {}}',
    ],
)
def test_an_odd_record_is_one_problem_among_the_others(log, record):
    log().steps([1.0]).write(record + "\n", line("alert.raised", 9.0, rule="spike", message="m"))
    told = Asked(log().path)("problems")
    assert told["count"] == 2
    assert told["problems"][0]["text"] == "m"


def test_metrics_that_differ_in_case_alone_are_two(log):
    for step in (1, 2):
        metrics = {"loss": step, "Loss": 10 * step, "LOSS": 100 * step}
        log().write(json.dumps({"step": step, "metrics": metrics}) + "\n")
    found = Asked(log().path)("curves", "metric=loss&metric=Loss&metric=LOSS")
    told = {each["metric"]: list(each["y"]) for each in found}
    assert told == {"loss": [1, 2], "Loss": [10, 20], "LOSS": [100, 200]}


def test_records_are_counted_where_lines_are_left_out_and_files_are_read_anew(log):
    run = log().steps([1.0]).write("no json\n").steps([2.0], first=2)
    with pytest.warns(UserWarning, match="no record in line 2"):
        asked = Asked(run.path)
    assert (asked("state")["records"], asked("state")["left_out"]) == (2, 1)
    run.write("no json either\n")
    assert asked.watched.look()
    assert (asked("state")["records"], asked("state")["left_out"]) == (2, 2)
    assert not asked.watched.look()
    run.path.write_text("")
    run.steps([7.0], name="lr")
    assert asked.watched.look()
    state = asked("state")
    assert (state["records"], state["left_out"]) == (1, 0)
    assert [metric["name"] for metric in state["metrics"]] == ["training.lr"]


def test_a_look_that_fails_loses_nothing(log, monkeypatch):
    one, other = log("a.jsonl").steps([1.0, 2.0]), log("b.jsonl").steps([3.0, 4.0])
    fail_once(monkeypatch, on=2)
    watched = Watched([one.path, other.path])
    with pytest.raises(OSError, match="no room"):
        watched.look()
    assert watched.snapshot is None
    other.path.unlink()  # and nothing is new
    assert watched.look()
    assert (watched.snapshot.runs, watched.snapshot.size) == (("a",), 2)
    assert not watched.look()


def test_a_signal_that_comes_while_a_listener_is_noted_ends_the_page():
    live = Live(Watched([]))

    def be_interrupted():
        with live._lock:
            live.stop()  # as the handler of a signal does, in the same thread

    thread = threading.Thread(target=be_interrupted, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive()


def test_what_was_taken_from_a_file_when_the_engine_failed_is_read_again(log, monkeypatch):
    run = log().steps([1.0, 2.0])
    asked = Asked(run.path)
    asked("curves", "metric=training.loss")
    fail_once(monkeypatch, on=1)
    run.steps([3.0], first=3)
    with pytest.raises(OSError, match="no room"):
        asked.watched.look()
    run.steps([4.0], first=4)
    assert asked.watched.look()
    assert asked.curve("metric=training.loss") == ([1, 2, 3, 4], [1, 2, 3, 4])
    assert asked("state")["records"] == 4


def fail_once(monkeypatch, *, on):
    """Let the engine have no room for the lines of the next file, or of one after it."""
    insert, calls = Records._insert, []

    def full(self, *lines):
        calls.append(lines)
        if len(calls) == on:
            raise OSError("no room")
        insert(self, *lines)

    monkeypatch.setattr(Records, "_insert", full)


def test_that_a_rest_without_an_end_is_all_that_is_left_is_told(log, monkeypatch):
    run = log().steps(range(100))
    monkeypatch.setattr(watched_module, "SOON", run.path.stat().st_size)
    run.write('{"event": "tra')
    asked = Asked(run.path)
    assert asked("state")["unread"] == 14
    assert asked.watched.look()
    assert asked("state")["unread"] == 0
    assert not asked.watched.look()


def test_spans_of_two_runs_with_the_same_ids_are_two(log):
    for name in ("a", "b"):
        log(f"{name}.jsonl").write(span_line("stage.run.start", 1, None, 0.0))
        log(f"{name}.jsonl").steps([1.0])
    log("b.jsonl").write(span_line("stage.run.stop", 1, None, 3.0, duration=3.0))
    asked = Asked(log().path.parent)
    endings = [[each["ending"] for each in asked("spans", f"run={n}")["spans"]] for n in (0, 1)]
    assert endings == [["start"], ["stop"]]


def test_a_span_that_a_killed_attempt_left_open_ends_with_that_attempt(log):
    first, second = ({"run_id": "r", "attempt": number} for number in (1, 2))
    run = log().write(span_line("stage.run.start", 1, None, 0.0, **first))
    run.write(line("training.step", 4.0, {"loss": 1.0}, step=9, **first))
    asked = Asked(run.path)
    (open_,) = asked("spans")["spans"]
    assert (open_["ending"], open_["last"]) == ("start", pytest.approx(4.0))
    run.write(span_line("stage.run.start", 2, None, 100.0, **second))
    run.write(line("training.step", 110.0, {"loss": 1.0}, step=5, **second))
    assert asked.watched.look()
    lost, open_ = asked("spans")["spans"]
    assert (lost["ending"], lost["last"]) == ("lost", pytest.approx(4.0))
    assert (open_["ending"], open_["last"]) == ("start", pytest.approx(110.0))
    assert asked("spans", "from=50&to=90")["spans"] == []
    run.write(span_line("stage.run.stop", 2, None, 111.0, duration=11.0, **second))
    assert asked.watched.look()
    assert [each["ending"] for each in asked("spans")["spans"]] == ["lost", "stop"]


def test_a_time_without_end_is_no_place(log):
    run = log().steps([1.0])
    for time in ("infinity", "-infinity"):
        record = {"timestamp": time, "event": "training.step", "measurements": {"loss": 2.0}}
        run.write(json.dumps({**record, "metadata": {"step": 2}}) + "\n")
    run.write(span_line("stage.run.stop", 1, None, 1.0, duration=1.0))
    context = {"telemetry_span_context": {"span_id": "2", "parent_id": None, "trace_id": "1"}}
    for length in ("Infinity", "-Infinity", "NaN"):
        run.write(line("stage.run.stop", 1.0, {"duration": length}, **context))
    asked = Asked(run.path)
    assert asked("state")["unit"]["name"] == "seconds"
    assert [list(each["x"]) for each in asked("curves", "metric=training.loss&axis=time")] == [[0]]
    assert [each["span"] for each in asked("spans")["spans"]] == [f"{1:016x}"]


@pytest.mark.parametrize("axis", ["step", "time", "epoch"])
def test_a_gradients_share_is_found_by_the_record_that_follows_it(log, axis):
    run = log()
    for step in (1, 2, 3):
        place = {"step": step, "epoch": 1 + step // 3}
        measured = {"value": 4.0, "contribution": 2.0, "grad_norm": float(step), "duration": 1}
        told = {"regularizer_name": "l2", **place}
        run.write(line("regularizer.compute.stop", step, measured, **told))
        if step == 2:
            continue  # the process that would have reported the total was killed
        measured = {"loss_total": 3.0, "total_grad_norm": 2.0, "duration": 1}
        run.write(line("custom_loss.stop", step + 0.25, measured, **place))
    (share,) = Asked(run.path)("losses", f"run=0&axis={axis}")["shares"]
    # half the norm (2 / 4), by the total's 2; of step 2 there is no total
    assert list(share["y"]) == [0.25, 0.75]
    assert list(share["x"]) == {"step": [1, 3], "time": [0, 2], "epoch": [1, 2]}[axis]


def test_the_runs_that_began_last_are_shown_first(log):
    for number in range(12):
        log(f"{number:02}.jsonl").write(line("training.step", 100.0 - number, {"loss": 1.0}))
    assert Asked(log().path.parent)("state")["usual"] == [0, 1, 2, 3, 4, 5, 6, 7]


def test_spans_in_more_spans_than_there_are_lanes_are_in_the_last():
    spans = [
        Span("n", "stop", str(n), str(n - 1), float(n), 1000.0 - n, None, None, None)
        for n in range(2 * MOST_LANES)
    ]
    lanes = [lane for _, lane in lanes_of(spans)]
    assert lanes == [*range(MOST_LANES), *[MOST_LANES - 1] * MOST_LANES]
