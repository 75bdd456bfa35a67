"""What is no norm is refused, with the step and the group."""

import math

import numpy as np
import pytest

import clipping
from clipping.replay import Norms, ReplayError, replay

KEY = ("param", "0")
ALLOWED = "must be a number of 0 or more; NaN and infinity are. Got"
UNITS = "must be numbers of 0 or more, one for each unit; NaN and infinity are. Got"


def refused(clipper, norms):
    with pytest.raises(ReplayError) as error:
        list(replay(clipper, [norms]))
    return str(error.value)


@pytest.mark.parametrize(
    ("norm", "shown"),
    [
        (-1.0, "-1.0"),
        (-math.inf, "-inf"),
        (None, "None"),
        (True, "True"),
        ("1.5", "'1.5'"),
        ([1.0, 2.0], "[1.0, 2.0]"),
        ([[1.0], [2.0, 3.0]], "[[1.0], [2.0, 3.0]]"),
        ([], "[]"),
        (10**400, "an integer of 1329 bits"),
    ],
)
def test_a_norm_that_is_none(norm, shown):
    assert refused(clipping.AutoClip(), Norms(norm, 1_234_567)) == (
        f"The norm of the model in step 1,234,567 {ALLOWED} {shown}."
    )
    of_group = Norms(1.0, None, {KEY: norm})
    assert refused(clipping.AutoClip(scope="per_param"), of_group) == (
        f"The gradient norm of ('param', '0') in step ? {ALLOWED} {shown}."
    )
    of_weights = Norms(1.0, 0.5, {KEY: 1.0}, {KEY: norm})
    assert refused(clipping.AGC(scope="per_param"), of_weights) == (
        f"The weight norm of ('param', '0') in step 0.5 {ALLOWED} {shown}."
    )


@pytest.mark.parametrize("norm", [[], [1.0, None], [1.0, -1.0], [[1.0]]])
def test_norms_of_units_that_are_none(norm):
    said = refused(clipping.AGC(scope="per_unit"), Norms(1.0, 3, {KEY: norm}, {KEY: [1.0, 1.0]}))
    assert said == f"The gradient norm of ('param', '0') in step 3 {UNITS} {norm!r}."


def test_weights_of_another_number_than_gradients():
    norms = Norms(1.0, 3, {KEY: [1.0, 2.0]}, {KEY: [1.0, 1.0, 1.0]})
    assert refused(clipping.AGC(scope="per_unit"), norms) == (
        "The group ('param', '0') has 2 gradient norms and 3 weight norms in step 3."
    )


@pytest.mark.parametrize("norm", [2, 2.0, np.float32(2), np.array(2.0), np.array([2.0])])
def test_numbers_of_any_kind_are_taken(norm):
    (made,) = replay(clipping.AutoClip(mode="percentile"), [Norms(norm)])
    assert (made.threshold, made.grad_norm, type(made.grad_norm)) == (2.0, 2.0, float)


def test_what_a_clipper_does_not_look_at_may_be_anything():
    (made,) = replay(clipping.AutoClip(), [Norms(1.0, 1, {KEY: "?"})])
    assert made.outcome == "unclipped"
