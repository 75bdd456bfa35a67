"""What became of runs, known by hand."""

import math
from datetime import UTC, datetime

import pytest

import handlers
import telemetry
from telemetry.runs import workflow_run
from telemetry.viewer.summaries.summary import summarize
from telemetry.viewer.summaries.troubles import Alert, Drop, Failure


def event(name, measurements, second=0, **metadata):
    return {
        "timestamp": f"2026-11-21T10:{second // 60:02}:{second % 60:02}.000000Z",
        "event": name,
        "measurements": measurements,
        "metadata": metadata,
    }


def started(second, span_id, parent=None, trace=None, **metadata):
    context = {"span_id": span_id, "parent_id": parent, "trace_id": trace or span_id}
    more = {"telemetry_span_context": context, "workflow": "w", **metadata}
    return event("workflow.run.start", {"system_time": 1}, second, **more)


def ended(second, span_id, seconds, how="stop", parent=None, trace=None, **metadata):
    context = {"span_id": span_id, "parent_id": parent, "trace_id": trace or span_id}
    more = {"telemetry_span_context": context, "workflow": "w", **metadata}
    took = seconds if isinstance(seconds, str) else seconds * 10**9
    return event(f"workflow.run.{how}", {"duration": took}, second, **more)


def summary_of(log, **options):
    (summary,) = summarize(log, **options)
    return summary


def test_a_run_that_has_finished(write, step_of):
    records = [started(0, "a"), step_of(1, 3.0, total_steps=4), step_of(2, 1.0, total_steps=4)]
    log = write("log.jsonl", [*records, step_of(3, 2.0, total_steps=4), ended(59, "a", 90)])
    summary = summary_of(log)
    assert (summary.run, summary.files, summary.records) == ("log", (str(log),), 5)
    assert (summary.course.status, summary.course.error, summary.course.attempt) == (
        "finished",
        "",
        1,
    )
    assert summary.course.began == datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
    assert summary.course.duration_s == 90.0
    assert (summary.pace.step, summary.pace.total_steps) == (3, 4)
    (loss,) = summary.metrics
    assert (loss.name, loss.values, loss.last, loss.best, loss.best_step, loss.goal) == (
        "training.loss",
        3,
        2.0,
        1.0,
        2.0,
        "lowest",
    )


def test_a_run_that_has_failed(write):
    records = [started(0, "a"), ended(5, "a", 5, "exception", kind="error", error="ValueError: no")]
    summary = summary_of(write("log.jsonl", records))
    assert (summary.course.status, summary.course.error) == ("failed", "ValueError: no")
    assert summary.failures == (Failure("span", "workflow.run", 1, "ValueError: no"),)


def test_a_run_without_an_end_is_as_long_as_its_records(write, step_of):
    log = write("log.jsonl", [started(0, "a"), event("x", {}, 42)])
    course = summary_of(log).course
    assert (course.status, course.duration_s) == ("no end", 42.0)


def test_a_log_without_runs_is_as_long_as_its_records(write, step_of):
    course = summary_of(write("log.jsonl", [step_of(1, 1.0), step_of(31, 1.0)])).course
    assert (course.status, course.duration_s) == ("unknown", 30.0)


def test_a_log_without_times_has_no_duration(write):
    course = summary_of(write("log.jsonl", [{"step": 1, "loss": 1}])).course
    assert (course.status, course.duration_s, course.began) == ("unknown", None, None)


def test_an_inner_workflow_ends_no_run(write):
    inner = started(1, "b")
    inner["metadata"]["telemetry_span_context"]["parent_id"] = "a"
    records = [started(0, "a"), inner, ended(2, "b", 1), event("x", {}, 9)]
    course = summary_of(write("log.jsonl", records)).course
    assert (course.status, course.duration_s) == ("no end", 9.0)


def test_attempts_add_up_and_the_last_says_how_it_ended(write):
    records = [
        started(0, "a", run_id="r", attempt=1),  # killed at second 10
        event("x", {}, 10, run_id="r", attempt=1),
        started(60, "b", run_id="r", attempt=2),
        ended(80, "b", 20, run_id="r", attempt=2),
    ]
    course = summary_of(write("log.jsonl", records)).course
    assert (course.status, course.attempt, course.duration_s) == ("finished", 2, 10.0 + 20.0)


@pytest.mark.parametrize("attempts", [(1, 2), (None, None)])
def test_a_pause_between_attempts_is_no_part_of_any(write, attempts):
    first, second = attempts
    records = [
        started(0, "a", attempt=first),  # killed at second 10
        event("x", {}, 10, attempt=first),
        started(3000, "b", attempt=second),
        ended(3010, "b", 10, attempt=second),
        event("late", {}, 3500, attempt=second),
    ]
    course = summary_of(write("log.jsonl", records)).course
    assert (course.status, course.duration_s) == ("finished", 10.0 + 10.0)


def test_a_later_attempt_without_a_span_makes_an_earlier_one_no_longer(write):
    records = [started(0, "a", attempt=1), event("x", {}, 10, attempt=1)]
    late = event("x", {}, 3000, attempt=2)
    course = summary_of(write("log.jsonl", [*records, late])).course
    assert (course.status, course.attempt, course.duration_s) == ("no end", 2, 10.0)


def test_a_workflow_below_another_span_ends_no_run(write):
    below = {"parent": "epoch", "trace": "t"}
    records = [
        started(0, "a", trace="t"),
        started(2, "b", **below),
        ended(3, "b", 1, "exception", error="trial diverged", **below),
        ended(5, "a", 5, trace="t"),
    ]
    course = summary_of(write("log.jsonl", records)).course
    assert (course.status, course.error, course.duration_s) == ("finished", "", 5.0)


def test_one_run_after_another_below_a_span_add_up(write):
    below = {"parent": "study", "trace": "t"}
    records = [
        started(0, "a", **below),
        ended(5, "a", 5, **below),
        started(6, "b", **below),
        ended(9, "b", 3, "exception", error="no", **below),
    ]
    course = summary_of(write("log.jsonl", records)).course
    assert (course.status, course.duration_s) == ("failed", 5.0 + 3.0)


@pytest.mark.parametrize("duration", ["NaN", "Infinity", -1, "soon"])
def test_a_duration_that_is_none_is_told_by_the_times(write, duration):
    records = [started(0, "a"), event("x", {}, 4), ended(9, "a", duration)]
    course = summary_of(write("log.jsonl", records)).course
    assert (course.status, course.duration_s) == ("finished", 9.0)


def test_the_last_attempt_is_the_latest_whatever_the_files_are_called(write, tmp_path):
    def attempt(number, second, losses, how, total, rule):
        run = {"run_id": "r", "attempt": number}
        span = str(number)
        steps = [
            event("training.step", {"loss": loss}, second + 1, step=step, total_steps=total, **run)
            for step, loss in losses
        ]
        failed = event("custom_loss.exception", {}, second + 1, reason=f"in {number}", **run)
        known = {"rule": "kl", "severity": rule, "message": f"said by {number}", **run}
        alert = event("alert.raised", {"value": 1}, second + 1, **known)
        end = ended(second + 3, span, 3, how, error="boom", **run)
        return [started(second, span, **run), *steps, failed, alert, end]

    write("runs/b.jsonl", attempt(1, 0, [(1, 3.0), (2, 2.5)], "exception", 10, "warning"))
    write("runs/a.jsonl", attempt(2, 600, [(2, 2.0), (3, 2.25)], "stop", 20, "critical"))
    summary = summary_of(tmp_path / "runs")
    assert (summary.course.status, summary.course.attempt) == ("finished", 2)
    assert summary.course.duration_s == 3 + 3
    assert (summary.pace.step, summary.pace.total_steps) == (3, 20)
    (loss,) = summary.metrics
    assert (loss.last, loss.last_step, loss.best, loss.best_step) == (2.25, 3, 2.0, 2)
    assert summary.alerts == (Alert("kl", "critical", 2, still=True, message="said by 2"),)
    spans = {failure.name: (failure.count, failure.reason) for failure in summary.failures}
    assert spans == {"custom_loss": (2, "in 2"), "workflow.run": (1, "boom")}


def test_what_was_clipped_in_superseded_steps_does_not_count(write):
    clipped = {"grad_norm": 2.0, "scale": 0.5, "groups_clipped": 1}
    stops = [
        event("smartclip.clip.stop", clipped, step=step, run_id="r", attempt=attempt)
        for step, attempt in ((1, 1), (2, 1), (3, 1), (2, 2))
    ]
    clipping = summary_of(write("log.jsonl", stops)).clipping
    assert (clipping.clips, clipping.clipped) == (2, 2)


def test_an_alert_is_still_raised_if_that_came_last(write):
    def alert(what, rule, severity="warning"):
        return event(f"alert.{what}", {"value": 2}, rule=rule, severity=severity, message="m")

    records = [
        alert("cleared", "before"),  # raised in a log that is gone
        alert("raised", "before"),
        alert("cleared", "never"),
        alert("raised", "twice"),
        alert("raised", "twice", "info"),
        alert("cleared", "twice", "info"),
    ]
    assert summary_of(write("log.jsonl", records)).alerts == (
        Alert("before", "warning", 1, still=True, message="m"),
        Alert("twice", "info", 2, still=False, message="m"),
    )


def test_alerts_are_counted_and_those_still_raised_are_told(write):
    def alert(what, rule, attempt, **more):
        known = {"rule": rule, "severity": "critical", "attempt": attempt, "run_id": "r", **more}
        return event(f"alert.{what}", {"value": 2, "limit": 1}, **known)

    records = [
        alert("raised", "kl", 1, message="first"),  # the attempt died with it
        alert("raised", "loss", 2, message="up"),
        alert("cleared", "loss", 2, message="down"),
        alert("raised", "loss", 2, message="up again"),
        alert("cleared", "kl", 2),
        alert("raised", "old", 1, message="died with it"),
    ]
    assert summary_of(write("log.jsonl", records)).alerts == (
        Alert("kl", "critical", 1, still=False, message="first"),
        Alert("old", "critical", 1, still=False, message="died with it"),
        Alert("loss", "critical", 2, still=True, message="up again"),
    )


def test_failures_and_drops_are_counted(write):
    records = [
        event("telemetry.handler.failure", {}, handler_id="wandb", reason="first"),
        event("telemetry.handler.failure", {}, handler_id="wandb", reason="ValueError('x')"),
        event("telemetry.probe.failure", {}, probe="gpu", reason="gone"),
        event("custom_loss.exception", {"duration": 1}, reason="boom"),
        event("telemetry.handler.overflow", {"dropped": 3}, handler_id="h", policy="drop_oldest"),
        event("telemetry.handler.overflow", {"dropped": 4}, handler_id="h", policy="drop_oldest"),
    ]
    summary = summary_of(write("log.jsonl", records))
    assert summary.failures == (
        Failure("handler", "wandb", 2, "ValueError('x')"),
        Failure("probe", "gpu", 1, "gone"),
        Failure("span", "custom_loss", 1, "boom"),
    )
    assert summary.drops == (Drop("h", "drop_oldest", 7),)


def test_metrics_of_a_superseded_attempt_do_not_count_but_its_failures_do(write, step_of):
    failure = event("custom_loss.exception", {}, reason="boom", step=3, run_id="r", attempt=1)
    records = [step_of(s, 0.1, run_id="r", attempt=1) for s in (1, 2, 3)]
    records += [failure, step_of(2, 5.0, run_id="r", attempt=2)]
    summary = summary_of(write("log.jsonl", records))
    assert [(end.values, end.last, end.best) for end in summary.metrics] == [(2, 5.0, 0.1)]
    assert summary.failures == (Failure("span", "custom_loss", 1, "boom"),)


def test_the_best_is_finite_and_the_last_is_what_it_is(write, step_of):
    losses = [float("inf"), 3.0, 2.0, float("nan")]
    records = [step_of(step, loss) for step, loss in enumerate(losses)]
    (loss,) = summary_of(write("log.jsonl", records)).metrics
    assert math.isnan(loss.last)
    assert (loss.values, loss.best, loss.best_step) == (4, 2.0, 2.0)
    scores = [{"step": step, "score": value} for step, value in enumerate(["NaN", 0.5, "Infinity"])]
    (score,) = summary_of(write("scores.jsonl", scores)).metrics
    assert (score.last, score.best, score.best_step, score.goal) == (math.inf, 0.5, 1.0, "highest")


def test_the_step_of_the_best_is_its_own(write, step_of):
    records = [step_of(1, 3.0), event("training.step", {"loss": 0.5}), step_of(3, 2.0)]
    (loss,) = summary_of(write("log.jsonl", records)).metrics
    assert (loss.best, loss.best_step) == (0.5, None)
    scores = [{"step": step, "score": value} for step, value in ((4, 1.0), (2, 2.0), (1, 2.0))]
    scores.append({"score": 1.5})
    (score,) = summary_of(write("scores.jsonl", scores)).metrics
    assert (score.best, score.best_step) == (2.0, 2.0)  # the first of the two
    assert (score.last, score.last_step) == (1.5, None)


def test_runs_are_summed_up_each_for_itself(write, step_of):
    good = write("good.jsonl", [step_of(1, 1.0)])
    bad = write("bad.jsonl", [b"no record", step_of(9, 9.0), b"none", {"val/acc": 0.5}])
    with pytest.warns(UserWarning, match=r"lines 1, 3"):
        one, two = summarize([good, bad])
    assert (one.run, one.bad_lines, one.pace.step) == ("good", 0, 1)
    assert (two.run, two.bad_lines, two.pace.step) == ("bad", 2, 9)
    assert [end.name for end in one.metrics] == ["training.loss"]
    assert [(end.name, end.best) for end in two.metrics] == [
        ("training.loss", 9.0),
        ("val.acc", 0.5),
    ]


def test_ranks_of_one_file_are_summed_up_each_for_itself(write, step_of):
    records = [
        started(second, name, rank=rank) for rank, second, name in ((0, 0, "a"), (1, 2, "b"))
    ]
    records += [step_of(s, 10.0 * rank + s, rank=rank) for s in (1, 2) for rank in (0, 1)]
    records += [event("custom_loss.exception", {}, reason="boom", rank=1), ended(9, "a", 9, rank=0)]
    log = write("log.jsonl", [*records, step_of(3, 3.0)])  # what says no rank is of the lowest
    zero, one = summarize(log)
    assert [zero.run, one.run] == ["log rank 0", "log rank 1"]
    assert (zero.records, zero.pace.step, zero.course.status) == (5, 3, "finished")
    assert (one.records, one.pace.step, one.course.status) == (4, 2, "no end")
    assert [(end.values, end.last, end.best) for end in zero.metrics] == [(3, 3.0, 1.0)]
    assert [(end.values, end.last, end.best) for end in one.metrics] == [(2, 12.0, 11.0)]
    assert (len(zero.failures), len(one.failures)) == (0, 1)


def test_metrics_can_be_chosen(write, step_of):
    log = write("log.jsonl", [step_of(1, 1.0), {"val": {"acc": 1, "loss": 2}}])
    chosen = summary_of(log, metrics=["val."]).metrics
    assert [end.name for end in chosen] == ["val.acc", "val.loss"]
    with pytest.raises(ValueError, match=r"There is no metric 'val.ac'. Nearest: val.acc"):
        summarize(log, metrics="val.ac")
    with pytest.raises(ValueError, match=r"metrics=\[\] names no metric"):
        summarize(log, metrics=[])


def test_many_metrics_are_summed_up(write):
    measured = {f"m{number}": number for number in range(130)}
    records = [event("a", measured, step=1), event("a", {"m129": 7}, step=2)]
    ends = summary_of(write("log.jsonl", records), metrics="a.").metrics
    assert [end.name for end in ends] == [f"a.m{number}" for number in range(130)]
    assert [end.last for end in ends] == [*range(129), 7]


def test_a_real_run_is_summed_up(tmp_path):
    bus = telemetry.Registry()
    log = tmp_path / "metrics.jsonl"
    with handlers.attach("jsonl", path=log, registry=bus):
        with workflow_run("w", run_id="mine", registry=bus):
            bus.execute(("training", "step"), {"loss": 2.5}, {"step": 1, "total_steps": 2})
        with pytest.raises(ValueError, match="no"), workflow_run("w", run_id="mine", registry=bus):
            raise ValueError("no")
    summary = summary_of(log)
    assert (summary.course.status, summary.course.error) == ("failed", "ValueError: no")
    assert 0 < summary.course.duration_s < 60


def test_an_empty_file_has_no_runs(write):
    assert summarize(write("log.jsonl", [])) == []
