"""From where on a later attempt at a run is valid."""

import pytest

from telemetry.viewer import global_step
from telemetry.viewer.frames.frame import read_jsonl


@pytest.fixture
def attempt(step_of):
    """The records of an attempt at some (epoch, step); its losses are its number."""

    def records(number, *places):
        return [
            step_of(step, float(number), epoch=epoch, run_id="r", attempt=number)
            for epoch, step in places
        ]

    return records


def places_of(log):
    """The (epoch, step) that are left of each attempt."""
    frame = read_jsonl(log)
    return {
        int(attempt): list(zip(group["epoch"], group["step"], strict=True))
        for attempt, group in frame.groupby("attempt")
    }


def epochs(*numbers, steps=(1, 2, 3, 4)):
    return [(number, step) for number in numbers for step in steps]


def test_an_attempt_takes_nothing_from_the_epochs_before_its_first(write, attempt):
    first = [*epochs(1), (2, 1), (2, 2)]
    log = write("log.jsonl", [*attempt(1, *first), *attempt(2, *epochs(2))])
    assert places_of(log) == {1: epochs(1), 2: epochs(2)}


def test_an_attempt_from_the_middle_of_an_epoch_is_valid_from_there(write, attempt):
    first, second = [*epochs(1, 2), (3, 1)], [(2, 3), (2, 4), *epochs(3)]
    log = write("log.jsonl", [*attempt(1, *first), *attempt(2, *second)])
    assert places_of(log) == {1: [*epochs(1), (2, 1), (2, 2)], 2: second}


def test_an_attempt_that_has_gone_less_far_yet_takes_what_is_after_it(write, attempt):
    first, second = epochs(1, 2, 3), [(2, 3)]
    log = write("log.jsonl", [*attempt(1, *first), *attempt(2, *second)])
    assert places_of(log) == {1: [*epochs(1), (2, 1), (2, 2)], 2: second}


def test_attempts_that_made_one_epoch_each_are_both_valid(write, attempt):
    log = write("log.jsonl", [*attempt(1, *epochs(1)), *attempt(2, *epochs(2))])
    assert places_of(log) == {1: epochs(1), 2: epochs(2)}


def test_of_several_attempts_the_one_that_goes_back_furthest_counts(write, attempt):
    attempts = [epochs(1, 2), epochs(2, 3), [(1, 3), (1, 4)]]
    records = [record for n, places in enumerate(attempts, 1) for record in attempt(n, *places)]
    assert places_of(write("log.jsonl", records)) == {1: [(1, 1), (1, 2)], 3: [(1, 3), (1, 4)]}


def test_an_attempt_whose_first_record_has_no_epoch_is_valid_from_it(write, step_of, attempt):
    first = [(1 + (step - 1) // 20, step) for step in range(1, 61)]
    begun = step_of(51, 2.0, run_id="r", attempt=2)
    later = [(3, step) for step in range(52, 61)]
    log = write("log.jsonl", [*attempt(1, *first), begun, *attempt(2, *later)])
    assert places_of(log)[1] == first[:50]


def test_epochs_that_are_numbered_anew_take_no_steps_away(write, attempt):
    """A loop that resumes its steps, and not its epochs."""
    first = [(1 + (step - 1) // 4, step) for step in range(1, 17)]
    second = [(1, step) for step in range(13, 17)]
    log = write("log.jsonl", [*attempt(1, *first), *attempt(2, *second)])
    assert places_of(log) == {1: first[:12], 2: second}


def test_without_epochs_in_one_of_them_steps_alone_are_compared(write, step_of, attempt):
    later = [step_of(step, 2.0, run_id="r", attempt=2) for step in (3, 4)]
    log = write("log.jsonl", [*attempt(1, *epochs(1)), *later])
    assert places_of(log)[1] == [(1, 1), (1, 2)]


def test_what_says_no_step_stays_whatever_its_epoch(write, attempt):
    note = {"event": "note", "measurements": {"x": 1}}
    note["metadata"] = {"epoch": 3, "run_id": "r", "attempt": 1}
    log = write("log.jsonl", [*attempt(1, *epochs(1, 2)), note, *attempt(2, *epochs(2))])
    assert list(read_jsonl(log)["event"]).count("note") == 1


def clipped(records):
    """The records, each with one of the clipping behind it, which tells no epoch."""
    for record in records:
        place = {key: value for key, value in record["metadata"].items() if key != "epoch"}
        clip = {"event": "smartclip.clip.stop", "measurements": {"scale": 0.5}, "metadata": place}
        yield from (record, clip)


@pytest.mark.parametrize(
    "second", [[(2, 3), (2, 4), *epochs(3)], [*epochs(2)], [*epochs(3)], [(1, 4), *epochs(2)]]
)
def test_what_tells_no_epoch_is_of_the_one_before_it(write, attempt, second):
    """Here and where steps are counted on: it is left, and placed, as the step that it is of."""
    first = [*epochs(1, 2), (3, 1), (3, 2)]
    records = [*clipped(attempt(1, *first)), *clipped(attempt(2, *second))]
    frame = global_step(read_jsonl(write("log.jsonl", records)))
    steps = {event: list(group["step"]) for event, group in frame.groupby("event", observed=True)}
    left = [*(place for place in first if place < second[0]), *second]
    assert steps["training.step"] == [4 * (epoch - 1) + step for epoch, step in left]
    assert steps["smartclip.clip.stop"] == steps["training.step"]


def test_what_is_before_any_epoch_is_of_the_first_one(write, attempt):
    """An attempt that begins behind the one that takes its place is gone with its first record."""
    (_, clip), second = clipped(attempt(2, (2, 1))), clipped(attempt(2, *epochs(2, 3)))
    records = [*clipped(attempt(1, *epochs(1))), clip, *second, *attempt(3, (1, 4))]
    assert set(places_of(write("log.jsonl", records))) == {1, 3}


def test_steps_alone_are_compared_of_an_attempt_that_tells_no_epoch(write, step_of, attempt):
    first = [step_of(step, 1.0, run_id="r", attempt=1) for step in (1, 2, 3, 4)]
    log = write("log.jsonl", [*first, *attempt(2, *epochs(1, 2, steps=(3, 4)))])
    assert list(read_jsonl(log)["step"]) == [1, 2, 3, 4, 3, 4]


def loaded(step, **place):
    return {
        "event": "checkpoint.loaded",
        "measurements": {"x": 1.0},
        "metadata": {"step": step, "run_id": "r", **place},
    }


def test_an_attempt_that_made_no_step_of_training_yet_takes_nothing_away(write, attempt):
    records = [*attempt(1, *epochs(1)), loaded(0, attempt=2)]
    log = write("log.jsonl", records)
    assert places_of(log)[1] == epochs(1)
    write("log.jsonl", attempt(2, (1, 3)), mode="ab")
    assert places_of(log)[1] == [(1, 1), (1, 2)]


def test_before_any_step_of_training_the_attempts_take_each_others_place(write):
    log = write("log.jsonl", [loaded(step, attempt=number) for number in (1, 2) for step in (1, 2)])
    assert list(read_jsonl(log)["attempt"]) == [2, 2]


@pytest.mark.parametrize("before", [[], epochs(1)])
def test_the_training_of_an_attempt_says_where_all_of_it_begins(write, attempt, before):
    """Also what it says without a rank, beside what says one."""
    ranked = [*attempt(1, *before), *attempt(2, (1, 3), (1, 4))]
    for record in ranked:
        record["metadata"]["rank"] = 0
    first = [loaded(step, attempt=1) for step in (1, 2, 3)]
    frame = read_jsonl(write("log.jsonl", [*first, loaded(0, attempt=2), *ranked]))
    of_first = frame[(frame["event"] == "checkpoint.loaded") & (frame["attempt"] == 1)]
    assert list(of_first["step"]) == [1, 2]


def test_ends_of_epochs_with_the_epoch_as_their_step_do_not_begin_an_attempt(write):
    def record(kind, epoch, step, attempt):
        place = {"step": step, "epoch": epoch, "run_id": "r", "attempt": attempt}
        return {**place, **kind, "metrics": {"loss": 1.0}}

    end = {"_type": "epoch_end"}
    first = [record({}, 1 + step // 6, step, 1) for step in range(1, 11)]
    first.insert(5, record(end, 1, 1, 1))
    second = [*(record({}, 2, step, 2) for step in (8, 9, 10)), record(end, 2, 2, 2)]
    log = write("log.jsonl", [*first, *second])
    assert places_of(log)[1] == [*((1, s) for s in range(1, 6)), (1, 1), (2, 6), (2, 7)]
