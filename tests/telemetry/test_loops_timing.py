"""`training.timing` of a plain loop, by a clock that the test turns."""

import numpy as np
import pytest

import telemetry
from telemetry.loops import Track, track
from telemetry.passes import Loop
from telemetry.testing import capture
from telemetry.timing import StepTimer, batch_size_of

TIMING = ("training", "timing")
S = 10**9


class Clock:
    def __init__(self):
        self.now = 1_000

    def __call__(self):
        return self.now

    def drawing(self, batches, durations):
        """The batches, each of which takes its seconds to draw."""
        for batch, seconds in zip(batches, durations, strict=True):
            self.now += round(seconds * S)
            yield batch


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def heard(bus, recorder):
    bus.attach("recorder", TIMING, recorder)
    return recorder


def test_a_step_lasts_from_the_wait_for_its_batch_to_the_wait_for_the_next(clock, bus, heard):
    drawn = clock.drawing([[1] * 8, [1] * 8], [0.5, 0.25])
    loop = Loop(epoch=3, step=10, total_steps=12, registry=bus, clock=clock)
    batches = iter(Track(drawn, loop))
    next(batches)
    clock.now += round(1.5 * S)
    next(batches)
    batches.close()
    assert [event.measurements for event in heard] == [
        {
            "step_duration": 2 * S,
            "data_duration": S // 2,
            "batch_size": 8,
            "samples_per_second": 4.0,
        },
    ]
    assert heard[0].metadata == {"epoch": 3, "total_steps": 12, "step": 11}


def test_the_last_step_of_an_epoch_is_timed_too(clock, bus, heard):
    for _ in Track(clock.drawing(["a", "b"], [1, 2]), Loop(registry=bus, clock=clock)):
        clock.now += 3 * S
    assert [e.measurements["step_duration"] for e in heard] == [4 * S, 5 * S]
    assert [e.measurements["data_duration"] for e in heard] == [1 * S, 2 * S]
    assert [e.metadata["step"] for e in heard] == [1, 2]


def test_accumulated_batches_are_timed_together_and_the_rest_by_itself(clock, bus, heard):
    drawn = clock.drawing([[0] * 4] * 3, [1, 2, 4])
    for _ in Track(drawn, Loop(accumulate=2, registry=bus, clock=clock)):
        clock.now += S
    assert [event.measurements for event in heard] == [
        {
            "step_duration": 5 * S,
            "data_duration": 3 * S,
            "batch_size": 8,
            "samples_per_second": 8 / 5,
        },
        {
            "step_duration": 5 * S,
            "data_duration": 4 * S,
            "batch_size": 4,
            "samples_per_second": 4 / 5,
        },
    ]


def test_a_step_that_is_left_in_the_middle_has_no_timing(clock, bus, heard):
    for batch in Track("abc", Loop(registry=bus, clock=clock)):
        if batch == "b":
            break
    assert [event.metadata["step"] for event in heard] == [1]

    def fail():
        for _ in Track("abc", Loop(registry=bus, clock=clock)):
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert len(heard) == 1


def test_a_step_that_was_left_does_not_run_on_into_the_next_pass(clock, bus, heard):
    batches = Track(["a", "b"], Loop(accumulate=2, registry=bus, clock=clock))
    for _ in batches:
        break
    clock.now += 60 * S
    for _ in batches:
        clock.now += S
    assert [e.measurements["step_duration"] for e in heard] == [2 * S]


def test_the_timing_is_of_its_step_wherever_the_next_batch_is_drawn(clock, bus, heard):
    batches = iter(Track("ab", Loop(epoch=1, registry=bus, clock=clock)))
    with telemetry.context(trial=3):
        next(batches)
    next(batches)
    batches.close()
    assert [event.metadata for event in heard] == [{"epoch": 1, "step": 1}]


def test_what_is_paused_belongs_to_no_step(clock, bus, heard):
    batches = Track(clock.drawing([[1], [1]], [1, 1]), Loop(registry=bus, clock=clock))
    for _ in batches:
        clock.now += 2 * S
        if batches.step == 1:
            with batches.pause():
                clock.now += 60 * S
    assert [e.measurements["step_duration"] for e in heard] == [3 * S, 3 * S]
    assert [e.measurements["data_duration"] for e in heard] == [S, S]


def test_pauses_nest(clock, bus, heard):
    batches = Track("a", Loop(registry=bus, clock=clock))
    for _ in batches:
        with batches.pause():
            clock.now += 7 * S
            with batches.pause():
                clock.now += 20 * S
            clock.now += 3 * S
        clock.now += 2 * S
    assert heard[0].measurements["step_duration"] == 2 * S


def test_a_pause_over_the_end_of_a_step_is_left_out_of_both(clock, bus, heard):
    drawn = clock.drawing([[1]] * 3, [1, 8, 1])
    batches = Track(drawn, Loop(registry=bus, clock=clock))
    steps = iter(batches)
    next(steps)
    clock.now += 2 * S
    with batches.pause():
        clock.now += 60 * S
        next(steps)
        clock.now += 60 * S
    clock.now += 4 * S
    list(steps)
    assert [e.measurements["step_duration"] for e in heard] == [3 * S, 4 * S, S]
    assert [e.measurements["data_duration"] for e in heard] == [S, 0, S]


def test_a_look_at_the_first_batch_does_not_touch_the_time_of_the_step(clock, bus, heard):
    batches = Track(["a", "b"], Loop(registry=bus, clock=clock))
    for _ in batches:
        clock.now += 2 * S
        next(iter(batches))
        clock.now += S
    assert [e.measurements["step_duration"] for e in heard] == [3 * S, 3 * S]


def test_an_empty_batch_is_a_part_of_its_step(clock, bus, heard):
    drawn = clock.drawing([[], [1, 2]], [1, 2])
    for _ in Track(drawn, Loop(accumulate=2, registry=bus, clock=clock)):
        clock.now += 4 * S
    assert [event.measurements for event in heard] == [
        {
            "step_duration": 11 * S,
            "data_duration": 3 * S,
            "batch_size": 2,
            "samples_per_second": 2 / 11,
        },
    ]


def test_the_last_step_does_not_wait_for_the_end_of_the_data(clock, bus, heard):
    def drawing():
        yield from clock.drawing([[1]] * 3, [1, 1, 1])
        clock.now += 60 * S

    for _ in Track(drawing(), Loop(accumulate=2, registry=bus, clock=clock)):
        clock.now += 2 * S
    assert [e.measurements["step_duration"] for e in heard] == [6 * S, 3 * S]
    assert [e.measurements["data_duration"] for e in heard] == [2 * S, S]


def test_a_pause_that_fails_is_left_out_as_well(clock, bus, heard):
    batches = Track("a", Loop(registry=bus, clock=clock))

    @batches.pause()
    def evaluate():
        clock.now += 9 * S
        raise ValueError("eval")

    for _ in batches:
        with pytest.raises(ValueError, match="eval"):
            evaluate()
    assert heard[0].measurements["step_duration"] == 0


def test_a_pause_outside_of_the_loop_does_nothing(clock, bus, heard):
    batches = Track("a", Loop(registry=bus, clock=clock))
    with batches.pause():
        clock.now += S
    for _ in batches:
        clock.now += S
    with batches.pause():
        clock.now += S
    assert [e.measurements["step_duration"] for e in heard] == [S]


def test_what_lies_between_two_epochs_belongs_to_no_step(clock, bus, heard):
    batches = Track("ab", Loop(registry=bus, clock=clock))
    for _ in range(2):
        for _ in batches:
            clock.now += S
        clock.now += 60 * S
    assert [e.measurements["step_duration"] for e in heard] == [S] * 4


def test_the_size_of_a_batch_can_be_told(bus, heard):
    for _ in track("ab", batch_size=32, registry=bus):
        pass
    assert [e.measurements["batch_size"] for e in heard] == [32, 32]


def test_a_batch_of_unknown_size_has_no_throughput(bus, heard):
    for _ in track([object()], registry=bus):
        pass
    assert heard[0].measurements.keys() == {"step_duration", "data_duration"}


def test_a_batch_is_measured_as_the_framework_has_it(bus, heard):
    import torch

    batches = [torch.zeros(8, 3), {"x": np.zeros((5, 2))}, (torch.zeros(7, 1), torch.zeros(7))]
    for _ in track(batches, registry=bus):
        pass
    assert [e.measurements["batch_size"] for e in heard] == [8, 5, 7]


def test_nobody_who_listens_means_no_reading_of_the_clock(bus):
    def clock():
        raise AssertionError("the clock was read")

    for _ in Track("abc", Loop(registry=bus, clock=clock)):
        pass


def test_who_begins_to_listen_in_the_middle_hears_whole_steps_only(clock, bus, recorder):
    for batch in Track(clock.drawing("abc", [1, 1, 1]), Loop(registry=bus, clock=clock)):
        clock.now += S
        if batch == "a":
            bus.attach("recorder", TIMING, recorder)
    assert [e.metadata["step"] for e in recorder] == [2, 3]
    assert [e.measurements["step_duration"] for e in recorder] == [2 * S, 2 * S]


def test_a_handler_that_fails_does_not_end_the_loop(bus):
    bus.attach("bad", TIMING, lambda *_: 1 / 0)
    assert list(track("abc", registry=bus)) == ["a", "b", "c"]


def test_the_timing_carries_what_the_context_says():
    with capture(TIMING) as events, telemetry.context(run_id="r", attempt=2):
        for _ in telemetry.track("a", epoch=1):
            pass
    assert events[0].metadata == {
        "run_id": "r", "attempt": 2, "epoch": 1, "step": 1
    }  # fmt: skip


def test_the_clock_of_the_host_is_the_default():
    with capture(TIMING) as events:
        for _ in telemetry.track("a"):
            pass
    assert 0 <= events[0].measurements["data_duration"] <= events[0].measurements["step_duration"]


# The timer by itself


def test_a_timer_that_was_never_started_measures_nothing():
    assert StepTimer(clock=lambda: 5).step() == {"step_duration": 0, "data_duration": 0}


def test_a_step_never_lasts_less_than_nothing(clock):
    timer = StepTimer(clock)
    timer.work(1)
    timer.leave_out(5 * S)
    assert timer.step()["step_duration"] == 0


def test_time_is_taken_out_of_a_step_in_progress_only(clock):
    timer = StepTimer(clock)
    timer.leave_out(S)
    timer.work(1)
    clock.now += 3 * S
    timer.leave_out(S)
    assert timer.step()["step_duration"] == 2 * S


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (np.zeros((4, 2)), 4),
        ({"ids": [np.zeros((6, 1))]}, 6),
        (["one", "two"], 2),
        ([[1, 2, 3], [4, 5, 6]], 2),
        ([np.zeros((5, 1)), ["a"] * 5], 5),
        (({"text": ["a", "b", "c"]}, 1), 3),
        ([], 0),
        ((), None),
        ([{"image": np.zeros((3, 8))}] * 5, 5),  # items that nobody has collated
        (({"image": np.zeros((4, 8))}, {"image": np.zeros((4, 1))}), 4),
        ([{"x": np.zeros((7, 8))}, {"y": np.zeros((7, 1))}], 7),  # inputs and targets
        ([np.zeros((6, 2)), [{"box": np.zeros(4)}] * 6], 6),
        ("text", None),
        (np.float32(1.0), None),
        (3, None),
        (((((((np.zeros(2),),),),),),), None),
    ],
)
def test_how_many_items_a_batch_has(batch, size):
    assert batch_size_of(batch) == size


def test_packed_sequences_are_as_many_as_at_their_first_place():
    import torch

    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(3, 2), torch.zeros(2, 2)])
    assert batch_size_of(packed) == 2
    assert batch_size_of([packed, torch.zeros(2)]) == 2


def test_a_batch_that_cannot_be_looked_at_has_no_size():
    class Hostile:
        @property
        def shape(self):
            raise RuntimeError("not now")

    assert batch_size_of(Hostile()) is None
