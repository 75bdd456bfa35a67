import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regularizers import custom_loss, penalties

PENALTIES = [
    penalties.l1,
    penalties.l2,
    penalties.entropy,
    partial(penalties.l1, reduction="mean"),
    partial(penalties.l2, reduction="mean"),
    partial(penalties.entropy, reduction="mean"),
    partial(penalties.entropy, mode="bonus"),
]
LOG_HALF = math.log(0.5)
LOG_QUARTER = math.log(0.25)


def number(value):
    return value.item() if hasattr(value, "item") else value


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (penalties.l1, 6.0),
        (partial(penalties.l1, reduction="mean"), 1.5),
        (penalties.l2, 14.0),
        (partial(penalties.l2, reduction="mean"), 3.5),
    ],
)
def test_norms_are_the_closed_forms(framework, penalty, expected):
    values = [[1.0, -2.0], [0.0, 3.0]]
    assert number(penalty(None, framework.tensor(values))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2.5 * math.log(2)),  # log 2 of the fair coin, 3/2 log 2 of (1/2, 1/4, 1/4)
        ({"mode": "bonus"}, -2.5 * math.log(2)),
        ({"reduction": "mean"}, 1.25 * math.log(2)),
    ],
)
def test_entropy_is_the_closed_form(framework, options, expected):
    logprobs = framework.tensor(
        [[LOG_HALF, LOG_HALF, -math.inf], [LOG_HALF, LOG_QUARTER, LOG_QUARTER]]
    )
    assert number(penalties.entropy(None, logprobs, **options)) == pytest.approx(expected)


def test_entropy_of_a_certain_outcome_is_zero(framework):
    logprobs = framework.tensor([0.0, -math.inf])
    assert number(penalties.entropy(None, logprobs)) == 0.0


def test_an_impossible_outcome_has_the_gradient_zero():
    """By hand: -exp(x) (x + 1) is -1 at x = 0; at -inf its limit is 0."""
    logprobs = torch.tensor([0.0, -math.inf], requires_grad=True)
    penalties.entropy(None, logprobs).backward()
    assert logprobs.grad.tolist() == [-1.0, 0.0]
    assert penalties.entropy.grad(None, np.array([0.0, -np.inf])).tolist() == [-1.0, 0.0]


@pytest.mark.parametrize("penalty", PENALTIES)
@given(values=st.lists(st.lists(st.floats(-4, 4), min_size=2, max_size=2), min_size=1, max_size=3))
def test_the_gradient_is_the_one_that_autograd_finds(penalty, values):
    grad = (
        partial(penalty.func.grad, **penalty.keywords)
        if isinstance(penalty, partial)
        else penalty.grad
    )
    tensor = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    penalty(None, tensor).backward()
    np.testing.assert_allclose(grad(None, np.array(values)), tensor.grad, atol=1e-12)
    np.testing.assert_allclose(grad(None, tensor.detach()), tensor.grad, atol=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
@given(values=st.lists(st.floats(-4, 4), min_size=1, max_size=6))
def test_frameworks_agree(penalty, values):
    ours = number(penalty(None, np.array(values)))
    theirs = number(penalty(None, torch.tensor(values, dtype=torch.float64)))
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_tree_is_one_long_tensor(framework, penalty):
    rows = [[LOG_HALF, LOG_HALF], [LOG_QUARTER, LOG_HALF], [0.0, -1.0]]
    whole = framework.tensor(rows)
    tree = {"a": [framework.tensor(rows[:1])], "b": (framework.tensor(rows[1:]), None)}
    assert number(penalty(None, tree)) == pytest.approx(number(penalty(None, whole)))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("empty", [[], {"a": None}, np.ones((0, 3)), torch.ones(0, 3)])
def test_nothing_has_the_penalty_zero(penalty, empty):
    assert number(penalty(None, empty)) == 0.0


def test_the_mean_of_one_is_that_one(framework):
    one = framework.tensor([-3.0])
    assert number(penalties.l1(None, one, reduction="mean")) == 3.0
    assert number(penalties.entropy(None, framework.tensor([0.0, 1.0]), reduction="mean")) == (
        pytest.approx(-math.e)  # no distribution, but exp(0) 0 + exp(1) 1 by hand
    )


@pytest.mark.parametrize("penalty", PENALTIES)
def test_nan_gives_nan(framework, penalty):
    assert math.isnan(number(penalty(None, framework.tensor([0.5, math.nan]))))


@pytest.mark.parametrize("penalty", [penalties.l1, penalties.l2])
def test_infinity_gives_infinity(framework, penalty):
    assert number(penalty(None, framework.tensor([0.5, -math.inf]))) == math.inf


def test_the_gradient_of_l1_at_zero_is_zero():
    assert penalties.l1.grad(None, np.array([-2.0, 0.0, 3.0])).tolist() == [-1.0, 0.0, 1.0]


def test_the_gradient_has_the_shape_of_the_tree():
    tree = {"w": [np.array([1.0, 2.0])], "b": None}
    gradient = penalties.l2.grad(None, tree, reduction="mean")
    assert gradient["w"][0].tolist() == [1.0, 2.0]
    assert gradient["b"] is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    """512 squared overflows float16, and bfloat16 has no 262145."""
    value = penalties.l2(None, torch.tensor([512.0, 1.0], dtype=dtype))
    assert (value.dtype, value.item()) == (torch.float32, 262145.0)


def test_numpy_half_precision_is_computed_in_float32():
    value = penalties.l2(None, np.array([512.0, 1.0], dtype=np.float16))
    assert (value.dtype, value.item()) == (np.float32, 262145.0)


def test_whole_numbers_are_taken_as_floats(framework):
    integers = framework.to_numpy(framework.tensor([1.0, 2.0])).astype(np.int64)
    assert number(partial(penalties.l1, reduction="mean")(None, integers)) == 1.5
    assert number(penalties.l1(None, torch.tensor([1, 2]))) == 3.0


@pytest.mark.parametrize("penalty", [penalties.l1, penalties.l2, penalties.entropy])
def test_an_unknown_reduction_is_refused(penalty):
    for function in (penalty, penalty.grad):
        with pytest.raises(ValueError, match="reduction") as caught:
            function(None, np.ones(2), reduction="average")
        assert str(caught.value) == "reduction must be one of ('sum', 'mean'), got 'average'."


def test_an_unknown_mode_is_refused():
    for function in (penalties.entropy, penalties.entropy.grad):
        with pytest.raises(ValueError, match="mode") as caught:
            function(None, np.ones(2), mode="reward")
        assert str(caught.value) == "mode must be one of ('penalty', 'bonus'), got 'reward'."


def test_a_leaf_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"^Found 'text'"):
        penalties.l1(None, [np.ones(2), "text"])


def test_a_configured_penalty_still_brings_its_gradient():
    """By hand: the mean of (9, 16) has the gradient (3, 4)."""
    mean = partial(penalties.l2, reduction="mean")
    output = custom_loss(None, np.array([3.0, 4.0]), mean, track_grad_norms=True)
    assert (output.base_loss.value, output.base_loss.grad_norm) == (12.5, 5.0)


def test_penalties_say_what_they_are():
    for name in ("l1", "l2", "entropy"):
        penalty = getattr(penalties, name)
        assert penalty.__name__ == name
        assert "References:" in penalty.__doc__


def test_a_penalty_says_which_it_is():
    assert repr(penalties.l1) == "<Penalty l1>"
