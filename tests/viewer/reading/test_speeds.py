"""How fast runs were, known by hand."""

import pytest

from telemetry.viewer.summaries.summary import summarize


def event(name, measurements, second=0, **metadata):
    return {
        "timestamp": f"2026-11-21T10:{second // 60:02}:{second % 60:02}.000000Z",
        "event": name,
        "measurements": measurements,
        "metadata": metadata,
    }


def pace_of(log):
    (summary,) = summarize(log)
    return summary.pace


def test_steps_that_took_no_time_that_there_is_do_not_count(write):
    taken = ["NaN", "Infinity", 0, -5, 2 * 10**8, 3 * 10**8]
    timings = [
        event("training.timing", {"step_duration": took, "batch_size": 10}, step=step)
        for step, took in enumerate(taken)
    ]
    del timings[-1]["measurements"]["batch_size"]
    pace = pace_of(write("log.jsonl", timings))
    assert pace.steps_per_second == pytest.approx(2 / 0.5)
    assert pace.samples_per_second == pytest.approx(10 / 0.2)  # the last says no batch size


def test_steps_with_several_records_count_once(write, step_of):
    twice = [step_of(step, 1.0) for step in (1, 2, 3) for _ in range(2)]
    assert pace_of(write("log.jsonl", twice)).steps_per_second == 1.0


def test_speed_is_that_of_the_timings(write):
    timings = [
        event("training.timing", {"step_duration": 2 * 10**8, "batch_size": 10}, step=1),
        event("training.timing", {"step_duration": 3 * 10**8, "batch_size": 20}, step=2),
    ]
    pace = pace_of(write("log.jsonl", timings))
    assert pace.steps_per_second == pytest.approx(2 / 0.5)
    assert pace.samples_per_second == pytest.approx(30 / 0.5)


def test_without_timings_the_times_of_the_steps_tell_the_speed(write, step_of):
    records = [step_of(step, 1.0, attempt=1) for step in (1, 2, 3)]
    late = [event("training.step", {"loss": 1}, second=3000 + s, step=s, attempt=2) for s in (4, 6)]
    pace = pace_of(write("log.jsonl", [*records, *late]))
    assert pace.steps_per_second == pytest.approx((2 + 2) / (2 + 2))  # not the hour between
    assert pace.samples_per_second is None


def test_steps_between_two_records_count(write):
    records = [event("training.step", {"loss": 1}, second=n, step=100 * n) for n in range(1, 21)]
    records.append(event("training.step", {"loss": 1}, second=59))  # it has no step
    assert pace_of(write("log.jsonl", records)).steps_per_second == 100


def test_steps_that_begin_anew_in_each_epoch_count_on(write):
    def of_epoch(epoch, first_second):
        return [
            event("training.step", {"loss": 1}, first_second + n, step=10 * n, epoch=epoch)
            for n in range(1, 6)
        ]

    # Steps 10 to 50 of three epochs are 10 to 150; an epoch takes 4 s, and 3 s are between two.
    records = [line for epoch in (1, 2, 3) for line in of_epoch(epoch, 7 * epoch)]
    pace = pace_of(write("log.jsonl", records))
    assert pace.steps_per_second == pytest.approx((150 - 10) / (4 + 3 + 4 + 3 + 4))
    other = [event("training.step", {"loss": 1}, second=n, step=n) for n in range(4)]
    write("runs/a.jsonl", records)
    write("runs/b.jsonl", other)
    by_run = {
        run.run: run.pace.steps_per_second for run in summarize(write("x", []).parent / "runs")
    }
    assert by_run == {"a": pytest.approx(140 / 18), "b": 1.0}


def test_steps_of_others_that_count_on_by_themselves_do_not_so_again(write):
    """100 steps in 10 epochs, a step a second; the clipper says its steps of the whole run."""
    records = []
    for second in range(100):
        place = {"step": second % 10, "epoch": second // 10}
        records.append(event("training.step", {"loss": 1}, second, **place))
        whole = place | {"step": second}
        records.append(event("smartclip.clip.stop", {"grad_norm": 1, "scale": 1}, second, **whole))
    assert pace_of(write("log.jsonl", records)).steps_per_second == pytest.approx(1)


def test_an_attempt_that_made_no_step_takes_no_time(write, step_of):
    records = [step_of(step, 1.0, attempt=1) for step in range(5)]
    records += [
        event("training.step", {"loss": 1}, second, step=5, attempt=2) for second in (2400, 3000)
    ]
    assert pace_of(write("log.jsonl", records)).steps_per_second == 1.0
