import math
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
import torch
from hypothesis import given
from hypothesis import strategies as st

from regularizers import custom_loss, penalties
from telemetry.values import to_python

PENALTIES = [
    penalties.l1,
    penalties.l2,
    penalties.elastic_net,
    penalties.entropy,
    partial(penalties.l1, reduction="mean"),
    partial(penalties.l2, reduction="mean"),
    partial(penalties.elastic_net, l1_ratio=0.25, reduction="mean"),
    partial(penalties.entropy, reduction="mean"),
    partial(penalties.entropy, mode="bonus"),
]
LOG_HALF = math.log(0.5)
LOG_QUARTER = math.log(0.25)


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        (penalties.l1, 6.0),
        (partial(penalties.l1, reduction="mean"), 1.5),
        (penalties.l2, 14.0),
        (partial(penalties.l2, reduction="mean"), 3.5),
        (penalties.elastic_net, 0.5 * 6 + 0.25 * 14),
        (partial(penalties.elastic_net, l1_ratio=0.25), 0.25 * 6 + 0.375 * 14),
        (partial(penalties.elastic_net, l1_ratio=1), 6.0),
        (partial(penalties.elastic_net, l1_ratio=0, reduction="mean"), 1.75),
    ],
)
def test_norms_are_the_closed_forms(framework, penalty, expected):
    values = [[1.0, -2.0], [0.0, 3.0]]
    assert to_python(penalty(None, framework.tensor(values))) == pytest.approx(expected)


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
    assert to_python(penalties.entropy(None, logprobs, **options)) == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["penalty", "bonus"])
def test_entropy_of_a_certain_outcome_is_zero_and_not_minus_zero(framework, mode):
    for values in ([0.0, -math.inf], [0.0]):
        entropy = to_python(penalties.entropy(None, framework.tensor(values), mode=mode))
        assert (entropy, math.copysign(1.0, entropy)) == (0.0, 1.0)


def test_an_unlikely_outcome_is_counted(framework):
    """By hand: 0 of the first, 30 exp(-30) of the second, which is about 3e-12."""
    entropy = to_python(penalties.entropy(None, framework.tensor([0.0, -30.0])))
    assert entropy == pytest.approx(30 * math.exp(-30), rel=1e-12, abs=0)


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
    ours = to_python(penalty(None, np.array(values)))
    theirs = to_python(penalty(None, torch.tensor(values, dtype=torch.float64)))
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_a_tree_is_one_long_tensor(framework, penalty):
    rows = [[LOG_HALF, LOG_HALF], [LOG_QUARTER, LOG_HALF], [0.0, -1.0]]
    whole = framework.tensor(rows)
    tree = {"a": [framework.tensor(rows[:1])], "b": (framework.tensor(rows[1:]), None)}
    assert to_python(penalty(None, tree)) == pytest.approx(to_python(penalty(None, whole)))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("empty", [[], {"a": None}, np.ones((0, 3)), torch.ones(0, 3)])
def test_nothing_has_the_penalty_zero(penalty, empty):
    assert to_python(penalty(None, empty)) == 0.0


def test_the_mean_of_one_is_that_one(framework):
    one = framework.tensor([-3.0])
    assert to_python(penalties.l1(None, one, reduction="mean")) == 3.0
    assert to_python(penalties.entropy(None, framework.tensor([0.0, 1.0]), reduction="mean")) == (
        pytest.approx(-math.e)  # no distribution, but exp(0) 0 + exp(1) 1 by hand
    )


@pytest.mark.parametrize("penalty", PENALTIES)
def test_nan_gives_nan(framework, penalty):
    assert math.isnan(to_python(penalty(None, framework.tensor([0.5, math.nan]))))


@pytest.mark.parametrize(
    "penalty",
    [
        penalties.l1,
        penalties.l2,
        penalties.elastic_net,
        partial(penalties.elastic_net, l1_ratio=0),
        partial(penalties.elastic_net, l1_ratio=1),
    ],
)
def test_infinity_gives_infinity(framework, penalty):
    assert to_python(penalty(None, framework.tensor([0.5, -math.inf]))) == math.inf


@pytest.mark.parametrize(("l1_ratio", "slopes"), [(1, [1.0, -1.0, 0.0]), (0, [np.inf, -2.0, 0.0])])
def test_what_counts_nothing_is_not_in_the_gradient_at_infinity(framework, l1_ratio, slopes):
    """By hand: sign(x) alone, and x alone; 0 * infinity would be NaN."""
    logprobs = framework.tensor([math.inf, -2.0, 0.0])
    gradient = penalties.elastic_net.grad(None, logprobs, l1_ratio=l1_ratio)
    assert framework.to_numpy(gradient).tolist() == slopes


@pytest.mark.parametrize("penalty", [penalties.l1, penalties.elastic_net])
def test_the_gradient_at_nan_is_nan(framework, penalty):
    gradient = framework.to_numpy(penalty.grad(None, framework.tensor([math.nan, 2.0])))
    assert np.isnan(gradient).tolist() == [True, False]


def test_the_gradient_of_l1_at_nan_that_autograd_finds_is_zero_on_torch_alone():
    inputs = torch.tensor([math.nan, 2.0], requires_grad=True)
    penalties.l1(None, inputs).backward()
    assert inputs.grad.tolist() == [0.0, 1.0]
    found = jax.grad(penalties.l1, argnums=1)(None, jnp.array([math.nan, 2.0]))
    assert np.isnan(found).tolist() == [True, False]
    variable = tf.Variable([math.nan, 2.0])
    with tf.GradientTape() as tape:
        value = penalties.l1(None, variable)
    assert np.isnan(tape.gradient(value, variable)).tolist() == [True, False]


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
    assert to_python(partial(penalties.l1, reduction="mean")(None, integers)) == 1.5
    assert to_python(penalties.l1(None, torch.tensor([1, 2]))) == 3.0


@pytest.mark.parametrize(
    "penalty",
    [
        penalties.consistency,
        penalties.elastic_net,
        penalties.entropy,
        penalties.kl_divergence,
        penalties.l1,
        penalties.l2,
        penalties.orthogonality,
    ],
)
def test_an_unknown_reduction_is_refused(penalty):
    for function in (penalty, penalty.grad):
        with pytest.raises(ValueError, match="reduction") as caught:
            function(np.eye(2), np.eye(2), reduction="average")
        assert str(caught.value) == "reduction must be one of ('sum', 'mean'), got 'average'."


@pytest.mark.parametrize("mode", ["reward", ["bonus"], None])
def test_an_unknown_mode_is_refused(mode):
    for function in (penalties.entropy, penalties.entropy.grad):
        with pytest.raises(ValueError, match="mode") as caught:
            function(None, np.ones(2), mode=mode)
        assert str(caught.value) == f"mode must be one of ('penalty', 'bonus'), got {mode!r}."


@pytest.mark.parametrize(
    ("l1_ratio", "error", "shown"),
    [
        ("half", TypeError, "'half' (str)"),
        (True, TypeError, "True (bool)"),
        (1.5, ValueError, "1.5"),
        (-0.1, ValueError, "-0.1"),
        (math.nan, ValueError, "nan"),
        (10**400, ValueError, f"{10**400}"),
        (np.ones(2), TypeError, "numpy.ndarray of shape (2,) and dtype float64"),
    ],
)
def test_an_l1_ratio_that_is_no_share_is_refused(l1_ratio, error, shown):
    for function in (penalties.elastic_net, penalties.elastic_net.grad):
        with pytest.raises(error, match="l1_ratio") as caught:
            function(None, np.ones(2), l1_ratio=l1_ratio)
        assert str(caught.value) == (
            f"elastic_net got l1_ratio={shown}. It takes a number from 0 to 1."
        )


@pytest.mark.parametrize("l1_ratio", [np.float64(0.25), np.float32(0.25), Fraction(1, 4)], ids=repr)
@pytest.mark.parametrize("tensor", [np.array, torch.tensor, jnp.array, tf.constant])
def test_an_l1_ratio_of_any_type_leaves_the_precision_alone(tensor, l1_ratio):
    """By hand: 0.25 * 3 + 0.375 * 5, and (0.25 + 0.75 * 1, -0.25 - 0.75 * 2)."""
    logprobs = tensor([np.float32(1.0), np.float32(-2.0)])
    value = penalties.elastic_net(None, logprobs, l1_ratio=l1_ratio)
    gradient = penalties.elastic_net.grad(None, logprobs, l1_ratio=l1_ratio)
    assert value.dtype == gradient.dtype == logprobs.dtype
    assert (float(value), np.asarray(gradient).tolist()) == (2.625, [1.0, -1.75])


def test_elastic_net_is_the_penalty_of_scikit_learn():
    """Its objective, written out: alpha * l1_ratio * |w| + alpha * (1 - l1_ratio) / 2 * w^2.

    With one feature of ones, the minimum of (1 - w)^2 / 2 + penalty is where the slopes cancel.
    """
    from sklearn.linear_model import ElasticNet

    model = ElasticNet(alpha=0.5, l1_ratio=0.3, fit_intercept=False, tol=1e-12)
    w = model.fit(np.ones((3, 1)), np.ones(3)).coef_
    slope = (w - 1) + 0.5 * penalties.elastic_net.grad(None, w, l1_ratio=0.3)
    assert slope.item() == pytest.approx(0.0, abs=1e-10)


def test_a_leaf_that_is_no_tensor_is_refused():
    with pytest.raises(TypeError, match=r"^Found 'text'"):
        penalties.l1(None, [np.ones(2), "text"])


def test_a_configured_penalty_still_brings_its_gradient():
    """By hand: the mean of (9, 16) has the gradient (3, 4)."""
    mean = partial(penalties.l2, reduction="mean")
    output = custom_loss(None, np.array([3.0, 4.0]), mean, track_grad_norms=True)
    assert (output.base_loss.value, output.base_loss.grad_norm) == (12.5, 5.0)


def test_penalties_say_what_they_are():
    names = [name for name in penalties.__all__ if name != "Penalty"]
    assert len(names) == 8
    for name in names:
        penalty = getattr(penalties, name)
        assert penalty.__name__ == name
        assert "References:" in penalty.__doc__


def test_a_penalty_says_which_it_is():
    assert repr(penalties.l1) == "<Penalty l1>"
