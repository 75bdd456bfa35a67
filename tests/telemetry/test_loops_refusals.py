"""`track`: what is refused of its arguments, and in which words."""

import math

import numpy as np
import pytest

import telemetry
from telemetry.testing import capture


def here():
    """What the context says where this is called."""
    with capture(("here",)) as events:
        telemetry.execute(("here",), {})
    return dict(events[0].metadata)


def steps(loop):
    return [here()["step"] for _ in loop]


@pytest.mark.parametrize("value", [5, None, list, object()])
def test_what_cannot_be_iterated_over_is_refused(value):
    with pytest.raises(TypeError) as refused:
        telemetry.track(value)
    assert str(refused.value) == (
        f"track iterates over batches, and {value!r} ({type(value).__name__}) cannot be iterated "
        "over. Give it a DataLoader, a list, or anything else that `for` takes."
    )


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("epoch", 1),
        ("total_epochs", 1),
        ("start", 0),
        ("total_steps", 1),
        ("accumulate", 1),
        ("batch_size", 1),
    ],
)
@pytest.mark.parametrize("bad", ["3", 0.5, math.nan, math.inf, -1, True, [1], np.arange(2)])
def test_each_number_is_checked(name, least, bad):
    kind = ValueError if isinstance(bad, float | int) and bad is not True else TypeError
    with pytest.raises(kind, match=rf"{name} must be a whole number of at least {least}, got"):
        telemetry.track("ab", **{name: bad})


def test_the_step_of_a_checkpoint_may_be_a_tensor():
    import torch

    for start in (torch.tensor(7), np.int64(7), np.float32(7.0), 7.0):
        (place,) = [here() for _ in telemetry.track("a", start=start)]
        assert place["step"] == 8
        assert type(place["step"]) is int


def test_a_tensor_is_checked_like_a_number():
    import torch

    for bad in (torch.tensor(2.5), np.array(-1), np.float32("nan")):
        with pytest.raises(ValueError, match="start must be a whole number of at least 0"):
            telemetry.track("ab", start=bad)
    for bad in (torch.tensor(0), torch.tensor(-2), np.int64(0)):
        with pytest.raises(ValueError, match="accumulate must be a whole number of at least 1"):
            telemetry.track("ab", accumulate=bad)
    assert steps(telemetry.track("abc", accumulate=torch.tensor(2))) == [1, 1, 2]


def test_an_epoch_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match="epoch must") as refused:
        telemetry.track("ab", epoch=4, total_epochs=3)
    assert str(refused.value) == (
        "epoch must be at most total_epochs, got epoch=4 and total_epochs=3. Epochs are counted "
        "from 1 over the whole run."
    )
    assert steps(telemetry.track("ab", epoch=3, total_epochs=3)) == [5, 6]


@pytest.mark.parametrize(
    ("arguments", "made", "total"),
    [
        ({"start": 9, "total_steps": 9}, 9, 9),
        ({"start": 9, "total_epochs": 2}, 9, 4),
        ({"epoch": 3, "total_steps": 4}, 4, 4),  # two epochs of two steps were made
    ],
)
def test_a_run_whose_steps_are_made_has_none_left(arguments, made, total):
    with pytest.raises(ValueError, match="none is left") as refused:
        telemetry.track("ab", **arguments)
    assert str(refused.value) == (
        f"{made} steps were made before, and total_steps is {total}, so none is left. Give "
        "total_steps of the whole run, those made before included, or do not enter the loop."
    )


def test_what_is_left_of_the_last_epoch_may_be_nothing():
    assert steps(telemetry.track([], epoch=2, start=9, total_steps=9)) == []


def test_the_message_of_a_wrong_number_says_what_is_allowed():
    with pytest.raises(ValueError, match="epoch") as refused:
        telemetry.track("ab", epoch=0)
    assert str(refused.value) == (
        "epoch must be a whole number of at least 1, got 0 (int). Epochs are counted from 1: "
        "range(1, n + 1), or epoch=epoch + 1."
    )
    with pytest.raises(ValueError, match="epoch") as refused:
        telemetry.track("ab", epoch=-1)
    assert str(refused.value) == "epoch must be a whole number of at least 1, got -1 (int)."


def test_a_bus_that_is_none_is_refused():
    with pytest.raises(TypeError) as refused:
        telemetry.track("ab", registry="mine")
    assert str(refused.value) == (
        "registry must be a telemetry.Registry, got 'mine' (str). Leave it out for the default one."
    )
