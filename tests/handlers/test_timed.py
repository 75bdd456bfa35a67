"""Blocks and calls that are timed, several at once."""

import threading

import pytest

from handlers.timed import Timed


@pytest.fixture
def clock(monkeypatch):
    """What `time.perf_counter` says, for a test to change."""
    now = [100.0]
    monkeypatch.setattr("handlers.timed.time.perf_counter", lambda: now[0])
    return now


def test_blocks_of_two_threads_do_not_mix(clock):
    told = []
    timed = Timed(told.append)
    entered, left = threading.Event(), threading.Event()

    def long():
        with timed:
            entered.set()
            left.wait(60)

    thread = threading.Thread(target=long)
    thread.start()
    assert entered.wait(60)
    clock[0] += 4.0
    with timed:
        clock[0] += 1.0
    left.set()
    thread.join()
    assert told == [1.0, 5.0]


def test_blocks_within_one_another_are_told_from_the_inside(clock):
    told = []
    timed = Timed(told.append)
    with timed:
        clock[0] += 4.0
        with timed:
            clock[0] += 1.0
    assert told == [1.0, 5.0]


def test_a_generator_is_timed_until_it_has_ended(clock):
    told = []

    @Timed(told.append)
    def numbers():
        yield 1
        clock[0] += 4.0
        return 2

    running = numbers()
    assert next(running) == 1
    assert told == []
    with pytest.raises(StopIteration) as caught:
        next(running)
    assert caught.value.value == 2
    assert told == [4.0]


def test_an_asynchronous_generator_is_refused():
    async def numbers():
        yield 1

    with pytest.raises(TypeError, match="asynchronous generator cannot be timed"):
        Timed(print)(numbers)
