"""`Retrying.once`: for what comes again with the next attempt."""

import pytest

import handlers
from handlers.losses import Losses
from handlers.records import Site

STEP = ("training", "step")


@pytest.fixture
def retrying(bus, monkeypatch):
    monkeypatch.setattr("handlers.retrying.FIRST", 3600.0)
    site = Site("once", bus, (STEP,), "zero")
    passing = lambda error: 0.0 if isinstance(error, OSError) else None  # noqa: E731 -- an argument
    return handlers.Retrying(site, "the place", passes=passing, losses=Losses(site, "lost"))


def test_it_attempts_nothing_for_as_long_as_the_back_off_lasts(retrying, drops, caplog):
    attempts = []

    def fail():
        attempts.append(1)
        raise OSError("down")

    assert retrying.once(fail) is False
    assert retrying.once(fail) is False
    assert len(attempts) == 1
    assert drops == []
    retrying._not_before = 0.0  # as if it had passed
    assert retrying.once(lambda: None) is True
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "Handler 'once' cannot reach the place (OSError: down); it goes on trying."
    assert said[1].startswith("Handler 'once' reaches the place again")


def test_what_does_not_pass_is_raised(retrying):
    def fail():
        raise KeyError("wrong")

    with pytest.raises(KeyError):
        retrying.once(fail)
