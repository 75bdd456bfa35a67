"""Blocks and calls that are timed, several at once."""

import threading
import time

import pytest

from handlers.timed import Timed


def test_blocks_of_two_threads_do_not_mix():
    told = []
    timed = Timed(told.append)
    entered, left = threading.Event(), threading.Event()

    def long():
        with timed:
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=long)
    thread.start()
    entered.wait(10)
    time.sleep(0.2)
    with timed:
        pass
    left.set()
    thread.join()
    short, long_one = told
    assert short < 0.2 <= long_one


def test_blocks_within_one_another_are_told_from_the_inside():
    told = []
    timed = Timed(told.append)
    with timed:
        time.sleep(0.05)
        with timed:
            pass
    inner, outer = told
    assert inner < 0.05 <= outer


def test_a_generator_is_timed_until_it_has_ended():
    told = []

    @Timed(told.append)
    def numbers():
        yield 1
        time.sleep(0.05)
        return 2

    running = numbers()
    assert next(running) == 1
    assert told == []
    with pytest.raises(StopIteration) as caught:
        next(running)
    assert caught.value.value == 2
    assert told[0] >= 0.05


def test_an_asynchronous_generator_is_refused():
    async def numbers():
        yield 1

    with pytest.raises(TypeError, match="asynchronous generator cannot be timed"):
        Timed(print)(numbers)
