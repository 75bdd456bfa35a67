"""Points of curves: their names, and totals of a bounded number of them."""

import logging

import pytest

from handlers.curves import Curves, Point
from handlers.records import TimedEvent
from telemetry.metrics import last_value, sum_


def event(user):
    return TimedEvent(0, ("mine", "step"), {"tokens": 2.0}, {"user": user})


def test_totals_of_too_many_curves_begin_anew_and_that_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr("handlers.curves.MOST", 2)
    curves = Curves([sum_("mine.step.tokens", tags=["user"])])
    with caplog.at_level(logging.WARNING, "telemetry"):
        values = [curves.points(event(user))[0].value for user in ("a", "b", "a", "c", "a", "b")]
    # "b" was longest without a value when "c" came.
    assert values == [2.0, 2.0, 4.0, 2.0, 6.0, 2.0]
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("More than 2 curves are running totals")


def test_a_name_without_a_text_can_be_encoded():
    curves = Curves([last_value("mine.step.tokens", report_as="a\ud800")])
    assert curves.points(event("a")) == [Point("a\\ud800", 2.0)]


@pytest.mark.parametrize("place", [2**63, 10**400])
def test_a_step_beyond_64_bits_is_none(place):
    from handlers.axes import place_of

    assert place_of({"step": place}) is None
