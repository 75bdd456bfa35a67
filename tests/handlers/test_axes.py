import math

import numpy as np
import pytest

from handlers.axes import KEYS, Place, place_of


@pytest.mark.parametrize("key", ["step", "epoch", "batch_idx", "clipper_step"])
def test_what_counts_something_is_a_place(key):
    assert place_of({"name": "x", key: 7}) == Place(key, 7)


def test_a_step_comes_before_an_epoch_wherever_it_stands():
    assert place_of({"epoch": 2, "step": 30}) == Place("step", 30)
    assert KEYS[0] == "step"


def test_zero_is_a_place():
    assert place_of({"step": 0}) == Place("step", 0)


@pytest.mark.parametrize(
    "whole", [5.0, np.int64(5), np.float32(5), np.array(5), np.array(5.0), np.uint8(5)]
)
def test_a_whole_number_of_any_type_is_an_integer(whole):
    place = place_of({"step": whole})
    assert place == Place("step", 5)
    assert type(place.number) is int


@pytest.mark.parametrize(
    "odd", [None, "5", True, -1, 2.5, math.nan, math.inf, -math.inf, [5], np.arange(2), object()]
)
def test_what_counts_nothing_is_passed_over(odd):
    assert place_of({"step": odd}) is None
    assert place_of({"step": odd, "epoch": 3}) == Place("epoch", 3)


def test_no_step_is_made_up():
    assert place_of({}) is None
    assert place_of({"name": "x", "global_step": 4}) is None
