"""The penalties that compare with something in the data."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from regularizers import RegularizerSpec, custom_loss, penalties

COMPARING = [penalties.kl_divergence, penalties.consistency]
HALVES = [math.log(0.5), math.log(0.5)]
QUARTERS = [math.log(0.75), math.log(0.25)]
KL = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)


def number(value):
    return float(value.detach() if hasattr(value, "detach") else value)


def test_the_reference_is_data_itself_or_found_by_a_key_an_index_or_a_function(framework):
    ours, theirs = framework.tensor([QUARTERS]), framework.tensor([HALVES])
    given = [
        (theirs, None),
        ({"old": theirs}, "old"),
        ((None, theirs), 1),
        ({"batch": [theirs]}, lambda data: data["batch"][0]),
    ]
    for data, reference in given:
        value = penalties.kl_divergence(data, ours, reference=reference)
        assert number(value) == pytest.approx(KL)


def test_a_mean_is_over_distributions_and_over_elements(framework):
    """The squared differences are log(1.5)^2 and log(0.5)^2, once, and 0 in the other row."""
    ours, theirs = framework.tensor([QUARTERS, HALVES]), framework.tensor([HALVES, HALVES])
    squares = math.log(1.5) ** 2 + math.log(0.5) ** 2
    kl = penalties.kl_divergence(theirs, ours, reduction="mean")
    assert number(kl) == pytest.approx(KL / 2)
    consistency = penalties.consistency(theirs, ours, reduction="mean")
    assert number(consistency) == pytest.approx(squares / 4)


def test_leaves_are_matched_by_their_place_and_not_by_their_order(framework):
    ours = {"a": framework.tensor([1.0]), "b": framework.tensor([2.0, 3.0])}
    theirs = {"b": framework.tensor([2.0, 5.0]), "a": framework.tensor([4.0])}
    assert number(penalties.consistency(theirs, ours)) == 9 + 4
    gradient = penalties.consistency.grad(theirs, ours)
    assert framework.to_numpy(gradient["a"]).tolist() == [-6.0]
    assert framework.to_numpy(gradient["b"]).tolist() == [0.0, -4.0]


def test_a_reference_of_numpy_in_another_precision_is_compared(framework):
    """As data loaders hand them over; TensorFlow mixes no dtypes by itself."""
    ours, theirs = framework.tensor([QUARTERS]), np.array([HALVES], dtype=np.float32)
    value = penalties.kl_divergence(theirs, ours)
    assert number(value) == pytest.approx(KL, rel=1e-6)


def test_nan_gives_nan(framework):
    for values in ([[math.nan, 0.0]], HALVES), (HALVES, [[math.nan, 0.0]]):
        ours, theirs = (framework.tensor(np.reshape(one, (1, 2))) for one in values)
        for penalty in COMPARING:
            assert math.isnan(number(penalty(theirs, ours)))


def test_what_only_the_reference_finds_impossible_is_infinitely_far(framework):
    ours, theirs = framework.tensor([HALVES]), framework.tensor([[0.0, -math.inf]])
    assert number(penalties.kl_divergence(theirs, ours)) == math.inf
    assert number(penalties.kl_divergence(ours, theirs)) == pytest.approx(math.log(2))


def test_a_probability_that_underflows_counts_nothing():
    """exp(-200) is 0 in float32, and 0 * inf would be NaN."""
    ours = torch.tensor([[0.0, -200.0]], requires_grad=True)
    value = penalties.kl_divergence(torch.tensor([[0.0, -math.inf]]), ours)
    value.backward()
    assert value.item() == 0.0
    assert ours.grad.tolist() == [[1.0, 0.0]]


def test_a_gradient_flows_into_the_reference_unless_it_is_detached():
    """By hand: d/dr (x - r)^2 is -2 (x - r)."""
    ours = torch.tensor([1.0], requires_grad=True)
    theirs = torch.tensor([4.0], requires_grad=True)
    penalties.consistency(theirs, ours).backward()
    assert (ours.grad.item(), theirs.grad.item()) == (-6.0, 6.0)
    penalties.consistency(theirs.detach(), ours).backward()
    assert theirs.grad.item() == 6.0


def test_the_runner_finds_its_norm():
    """By hand: the gradient of the two squares is 2 (3, 4), of norm 10."""
    output = custom_loss(
        {"teacher": np.zeros(2)},
        np.array([3.0, 4.0]),
        penalties.l1,
        regularizers=[
            RegularizerSpec(partial(penalties.consistency, reference="teacher"), 0.5, "teacher")
        ],
        track_grad_norms=True,
    )
    assert output.regularizers["teacher"].value == 25.0
    assert output.regularizers["teacher"].grad_norm == 10.0


@pytest.mark.parametrize("penalty", COMPARING)
def test_a_reference_that_is_not_there_is_named(penalty):
    for function in (penalty, penalty.grad):
        with pytest.raises(ValueError, match="reference") as caught:
            function({"old": np.ones(2)}, np.ones(2), reference="new")
        assert str(caught.value) == (
            f"{penalty.__name__} got reference='new', which is not in data, a dict with the keys "
            "['old']. reference is a key of data, a function of it, or None for data itself."
        )
    with pytest.raises(ValueError, match=r"reference=0, which is not in data, a NoneType\."):
        penalty(None, np.ones(2), reference=0)


@pytest.mark.parametrize("penalty", COMPARING)
def test_a_reference_of_another_shape_is_named(penalty):
    with pytest.raises(ValueError, match="shapes differ") as caught:
        penalty({"old": np.ones((1, 3))}, np.ones((2, 3)), reference="old")
    assert str(caught.value) == (
        f"{penalty.__name__} compares logprobs with data['old'], but the shapes differ: (1, 3), "
        "where logprobs has (2, 3). Say where in data the reference is with reference=..., a key "
        "or a function of data."
    )
    with pytest.raises(ValueError, match=r"data itself, but the shapes differ: none, where"):
        penalty(None, np.ones(3))
    with pytest.raises(ValueError, match=r"\['b'\] \(2,\), where logprobs has \['a'\] \(2,\)"):
        penalty({"b": np.ones(2)}, {"a": np.ones(2)})


def test_an_unknown_direction_is_refused():
    for function in (penalties.kl_divergence, penalties.kl_divergence.grad):
        with pytest.raises(ValueError, match="direction") as caught:
            function(np.ones(2), np.ones(2), direction="backward")
        assert str(caught.value) == (
            "direction must be one of ('reverse', 'forward'), got 'backward'."
        )


@pytest.mark.parametrize("penalty", COMPARING)
def test_nothing_has_the_penalty_zero(penalty):
    for reduction in ("sum", "mean"):
        assert number(penalty([], [], reduction=reduction)) == 0.0
        assert number(penalty(np.ones((0, 3)), np.ones((0, 3)), reduction=reduction)) == 0.0
