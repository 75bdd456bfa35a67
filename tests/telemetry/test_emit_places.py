"""Emit helpers: what says where something was, and how measurements and metadata are given."""

import pytest

import telemetry
from telemetry import emit
from telemetry.testing import capture

HELPERS = [getattr(telemetry, name) for name in emit.__all__ if name != "time_operation"]
PLACED = {
    "step": 3,
    "total_steps": 9,
    "epoch": 1,
    "total_epochs": 2,
    "batch_idx": 0,
    "run_id": "r",
    "attempt": 2,
    "user_id": "u",
}


@pytest.mark.parametrize("helper", HELPERS, ids=lambda helper: helper.__name__)
def test_what_says_where_is_metadata_of_every_event(helper):
    split = {"split": "val"} if helper is telemetry.emit_eval else {}
    with capture() as events:
        helper(**PLACED, **split, x=1.5)
        helper(run_id=None, attempt=None, **split)
    assert events[0][1:] == ({"x": 1.5}, {**PLACED, **split})
    assert events[1][1:] == ({}, split)


@pytest.mark.parametrize("helper", HELPERS, ids=lambda helper: helper.__name__)
@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        (
            "step",
            "three",
            TypeError,
            "step must be a whole number of at least 0, got 'three' (str).",
        ),
        ("epoch", -1, ValueError, "epoch must be a whole number of at least 0, got -1 (int)."),
        ("batch_idx", 0.5, ValueError, "batch_idx must be a whole number of at least 0, got 0.5 "),
        ("attempt", 0, ValueError, "attempt must be a whole number of at least 1, got 0 (int)."),
        ("run_id", 7, TypeError, "run_id must be a string, got 7 (int)."),
        ("user_id", "", ValueError, "user_id must not be empty."),
    ],
)
def test_what_says_where_is_checked_however_it_is_given(helper, name, value, error, said):
    split = {"split": "val"} if helper is telemetry.emit_eval else {}
    for call in (
        lambda: helper(**{name: value}, **split),
        lambda: helper({}, {name: value, **split}),
    ):
        with pytest.raises(error) as caught:
            call()
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize("name", ["measurements", "metadata"])
@pytest.mark.parametrize("helper", HELPERS, ids=lambda helper: helper.__name__)
def test_mappings_are_not_given_by_keyword(helper, name):
    split = {"split": "val"} if helper is telemetry.emit_eval else {}
    with pytest.raises(TypeError) as caught:
        helper(**{name: {"loss": 1.0}}, **split)
    with capture() as events:
        helper(**split)
    event = events[0].event
    assert str(caught.value) == (
        f"Measurements and metadata of event {event!r} are given by position, got the keyword "
        f"{name!r}. Write ({{'loss': 2.5}}, {{'step': 1}}), or their names as keywords: "
        "(loss=2.5, step=1)."
    )


@pytest.mark.parametrize("helper", HELPERS, ids=lambda helper: helper.__name__)
def test_a_bus_of_ones_own_can_be_given(helper, bus, heard):
    split = {"split": "val"} if helper is telemetry.emit_eval else {}
    with capture() as elsewhere:
        helper({"x": 1}, {"step": 1}, registry=bus, **split)
        with pytest.raises(TypeError, match=r"^registry must be a telemetry\.Registry, got 'bus'"):
            helper(registry="bus", **split)
    assert heard[0][1:] == ({"x": 1}, {"step": 1, **split})
    assert elsewhere == []


def test_metadata_may_be_none_as_for_execute():
    with capture() as events:
        telemetry.emit_step({"loss": 1.0}, None)
        telemetry.emit_step({"loss": 1.0}, None, step=3)
    assert [event.metadata for event in events] == [{}, {"step": 3}]


def test_another_run_than_the_one_around_has_an_attempt_of_its_own():
    with capture() as events, telemetry.context(run_id="x", attempt=5):
        telemetry.emit_step(step=1, run_id="other")
        telemetry.emit_step({}, {"step": 1, "run_id": "other", "attempt": 3})
        telemetry.emit_step(step=1, run_id="x")
    assert [(e.metadata["run_id"], e.metadata["attempt"]) for e in events] == [
        ("other", 1),
        ("other", 3),
        ("x", 5),
    ]


def test_an_evaluation_is_of_a_split():
    for call in (
        lambda: telemetry.emit_eval(loss=0.5),
        lambda: telemetry.emit_eval({"loss": 0.5}, {"step": 1}),
        lambda: telemetry.emit_eval({"loss": 0.5}, {"split": None}),
    ):
        with pytest.raises(TypeError) as caught:
            call()
        assert str(caught.value) == (
            "emit_eval must be told which split was evaluated, got none, and the context around "
            "tells none either. Write emit_eval(split='val', ...)."
        )
    with pytest.raises(TypeError, match=r"^split must be a string, got 3 "):
        telemetry.emit_eval(split=3)
    with capture() as events, telemetry.context(split="test"):
        telemetry.emit_eval(loss=0.5)
        telemetry.emit_eval({"loss": 0.5}, {"split": "val"})
    assert [event.metadata["split"] for event in events] == ["test", "val"]
