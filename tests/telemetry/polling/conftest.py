"""Pollers of a test's own bus, and what is heard of them."""

import queue

import pytest

import telemetry
from telemetry import poller

SOON = 0.01


@pytest.fixture
def heard(bus):
    """Every event of the bus, as it comes."""
    events = queue.SimpleQueue()

    def put(event, measurements, metadata, config):
        events.put(telemetry.Event(event, dict(measurements), dict(metadata)))

    bus.attach("sink", telemetry.ALL, put)
    return events


@pytest.fixture
def start(bus):
    """Start a poller of the test's own bus, without what the machine has unless it is asked for."""
    started = []

    def start(interval=SOON, **options):
        options = {"host": False, "gpu": False, "registry": bus, **options}
        started.append(poller.start(interval, **options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def failing_on():
    """Make a probe that counts how often it was asked, and fails on some of these."""

    def make(*fails):
        asked = iter(range(1, 1_000_000))

        def probe():
            number = next(asked)
            if number in fails:
                raise OSError(number)
            return number

        return probe

    return make
