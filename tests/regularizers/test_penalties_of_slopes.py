import math
from fractions import Fraction
from functools import partial

import jax
import numpy as np
import pytest
import tensorflow as tf
import torch

from regularizers import RegularizerError, RegularizerSpec, custom_loss, penalties


def squares(data, logprobs):
    """Its gradient is 2 x, of norm 2 ||x||."""
    return logprobs * logprobs


def twice(data, logprobs):
    return 2 * logprobs


PENALTY = partial(penalties.gradient_penalty, function=squares)


def of(framework, **options):
    """With the gradient that numpy needs and others do without."""
    return partial(PENALTY, function_grad=twice if framework.name == "numpy" else None, **options)


def number(value):
    return float(value.detach() if hasattr(value, "detach") else value)


def test_the_first_axis_counts_samples(framework):
    """By hand: the norms are 2 * 5 and 2 * 1, so 9^2 and 1^2."""
    points = framework.tensor([[3.0, 4.0], [1.0, 0.0]])
    assert number(of(framework)(None, points)) == pytest.approx(82.0)
    assert number(of(framework, reduction="mean")(None, points)) == pytest.approx(41.0)
    assert number(of(framework, target=2.0)(None, points)) == pytest.approx(64.0)


def test_further_axes_belong_to_the_sample(framework):
    points = framework.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    assert number(of(framework)(None, points)) == pytest.approx(81.0)


def test_numbers_without_axes_are_one_sample(framework):
    """By hand: (2 * 3 - 1)^2; and of each number in a row for itself, 5^2 + 7^2."""
    assert number(of(framework)(None, framework.tensor(3.0))) == pytest.approx(25.0)
    assert number(of(framework)(None, framework.tensor([3.0, 4.0]))) == pytest.approx(74.0)


def test_a_sample_of_a_tree_is_one_of_each_leaf(framework):
    """By hand: the gradient of x^2 + 6 y is (8, 6) at x = 4, of norm 10."""
    tree = {"x": framework.tensor([[4.0]]), "y": framework.tensor([[1.0]])}

    def function(data, logprobs):
        return logprobs["x"] ** 2 + 6 * logprobs["y"]

    def gradient(data, logprobs):
        return {"y": 0 * logprobs["y"] + 6, "x": 2 * logprobs["x"]}

    value = penalties.gradient_penalty(
        None,
        tree,
        function=function,
        function_grad=gradient if framework.name == "numpy" else None,
    )
    assert number(value) == pytest.approx(81.0)


def test_a_function_with_a_gradient_of_its_own_is_not_called(framework):
    def never(data, logprobs):
        raise AssertionError

    points = framework.tensor([[3.0, 4.0]])
    value = penalties.gradient_penalty(None, points, function=never, function_grad=twice)
    assert number(value) == pytest.approx(81.0)


POINTS = [[1.0, 2.0], [0.5, -1.0]]  # the squares are 1, 4, 1/4 and 1
TENSORS = {"torch": torch.tensor, "jax": jax.numpy.array, "tensorflow": tf.constant}
ARGUMENTS = [
    *TENSORS.items(),
    pytest.param("torch", partial(torch.tensor, requires_grad=True), id="torch, with a graph"),
]


@pytest.mark.parametrize(("name", "tensor"), ARGUMENTS)
def test_only_the_argument_is_differentiated_by(name, tensor):
    """What the data, or another leaf, were computed from it with before is a constant.

    By hand: of d * q by q it is d = 2 x, so 4 * 6.25. Of a + b^2 it is 1 and 2 b = 6 x, so
    4 + 36 * 6.25. Of a * b it is b and a, so 2 * 6.25.
    """
    x = tensor(POINTS)
    penalty = partial(penalties.gradient_penalty, target=0.0)
    assert number(penalty(2 * x, x, function=lambda d, q: d * q)) == pytest.approx(25.0)
    tree = {"a": x, "b": 3 * x}
    value = penalty(None, tree, function=lambda _, q: q["a"] + q["b"] ** 2)
    assert number(value) == pytest.approx(229.0)
    value = penalty(None, [x, x], function=lambda _, q: q[0] * q[1])
    assert number(value) == pytest.approx(12.5)


def test_the_gradient_of_the_value_goes_through_what_the_data_were_computed_from():
    """By hand: the value is 4 x^2 with data = 2 x, and its gradient 8 x."""
    x = torch.tensor(POINTS, requires_grad=True)
    penalties.gradient_penalty(2 * x, x, function=lambda d, q: d * q, target=0.0).backward()
    np.testing.assert_allclose(x.grad, 8 * np.array(POINTS), rtol=1e-6)
    found = jax.grad(
        lambda x: penalties.gradient_penalty(2 * x, x, function=lambda d, q: d * q, target=0.0)
    )(jax.numpy.array(POINTS))
    np.testing.assert_allclose(found, 8 * np.array(POINTS), rtol=1e-6)


@pytest.mark.parametrize(("name", "tensor"), ARGUMENTS)
def test_a_function_that_does_not_look_at_its_argument_is_flat(name, tensor):
    """By hand: the norm of each of two samples is 0, and (0 - 1)^2 is 1."""
    x, one = tensor(POINTS), TENSORS[name](1.0)
    options = {"function": lambda data, logprobs: one}
    assert number(penalties.gradient_penalty(None, x, **options)) == 2.0
    assert not np.asarray(penalties.gradient_penalty.grad(None, x, **options)).any()


@pytest.mark.parametrize(("name", "tensor"), ARGUMENTS)
def test_a_flat_function_is_exactly_as_flat_as_is_aimed_for(name, tensor):
    value = PENALTY(None, tensor([[0.0, 0.0]]), target=0)
    assert number(value) == 0.0


def test_a_flat_function_is_exactly_flat_on_numpy():
    assert PENALTY(None, np.zeros((2, 2)), function_grad=twice, target=0) == 0.0


@pytest.mark.parametrize("name", TENSORS)
def test_arrays_of_numpy_among_the_leaves_are_converted(name):
    """By hand: of a * b by (a, b) it is (b, a), of norm 5 at (3, 4)."""
    tree = {"a": TENSORS[name]([[3.0]]), "b": np.array([[4.0]], dtype=np.float32)}
    value = penalties.gradient_penalty(None, tree, function=lambda _, q: q["a"] * q["b"])
    assert number(value) == pytest.approx(16.0)


@pytest.mark.parametrize("name", TENSORS)
def test_numbers_among_the_leaves_are_converted(name):
    tree = [TENSORS[name](3.0), 4.0]
    value = penalties.gradient_penalty(None, tree, function=lambda _, q: q[0] * q[1])
    assert number(value) == pytest.approx(16.0)


@pytest.mark.parametrize("target", [np.float64(0.5), np.float32(0.5), Fraction(1, 2)], ids=repr)
@pytest.mark.parametrize("name", TENSORS)
def test_a_target_of_any_type_leaves_the_precision_alone(name, target):
    value = PENALTY(None, TENSORS[name]([[3.0, 4.0]]), target=target)
    assert "float32" in str(value.dtype)
    assert number(value) == pytest.approx(9.5**2)


def test_where_the_function_is_flat_the_gradient_is_zero():
    """The norm has no derivative at 0; the value is target^2."""
    point = torch.zeros(1, 2, requires_grad=True)
    value = PENALTY(None, point)
    value.backward()
    assert (value.item(), point.grad.tolist()) == (1.0, [[0.0, 0.0]])
    found = jax.grad(PENALTY, argnums=1)(None, jax.numpy.zeros((1, 2)))
    assert np.asarray(found).tolist() == [[0.0, 0.0]]
    found = PENALTY.func.grad(None, tf.zeros((1, 2)), **PENALTY.keywords)
    assert found.numpy().tolist() == [[0.0, 0.0]]


def test_it_trains_the_critic_that_the_function_is_made_of():
    """By hand: of w . x the slope is w, so d/dw (||w|| - 1)^2 = 2 (5 - 1) w / 5."""
    critic = torch.nn.Linear(2, 1, bias=False)
    critic.weight.data = torch.tensor([[3.0, 4.0]])
    value = penalties.gradient_penalty(None, torch.ones(1, 2), function=lambda data, x: critic(x))
    value.backward()
    assert value.item() == pytest.approx(16.0)
    np.testing.assert_allclose(critic.weight.grad, [[4.8, 6.4]], rtol=1e-6)


def test_it_trains_a_critic_in_a_graph_of_tensorflow():
    weight = tf.Variable([[3.0], [4.0]])

    @tf.function
    def step(points):
        with tf.GradientTape() as tape:
            value = penalties.gradient_penalty(None, points, function=lambda _, x: x @ weight)
        return value, tape.gradient(value, weight)

    value, gradient = step(tf.ones((1, 2)))
    assert value.numpy() == pytest.approx(16.0)
    np.testing.assert_allclose(gradient, [[4.8], [6.4]], rtol=1e-6)


def test_it_is_measured_without_gradients_being_recorded():
    points = torch.tensor([[3.0, 4.0]])
    with torch.no_grad():
        value = PENALTY(None, points)
    assert (value.item(), value.requires_grad, points.requires_grad) == (81.0, False, False)


def test_half_precision_is_handed_to_the_function_as_it_is():
    """A critic in bfloat16 takes bfloat16; the norm is computed in float32."""
    critic = torch.nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
    critic.weight.data = torch.tensor([[3.0, 4.0]], dtype=torch.bfloat16)
    points = torch.ones(1, 2, dtype=torch.bfloat16)
    value = penalties.gradient_penalty(None, points, function=lambda data, x: critic(x))
    assert (value.dtype, value.item()) == (torch.float32, 16.0)


def test_the_runner_calls_the_function_once_and_finds_the_norm():
    """By hand: (2 ||x|| - 1)^2 at (3, 4) has the gradient 2 * 9 * 2 x / ||x||, of norm 36."""
    calls = []

    def function(data, logprobs):
        calls.append(data)
        return squares(data, logprobs)

    spec = RegularizerSpec(partial(penalties.gradient_penalty, function=function), 0.1, "slope")
    points = torch.tensor([[3.0, 4.0]], requires_grad=True)
    output = custom_loss("data", points, penalties.l1, regularizers=[spec], track_grad_norms=True)
    assert calls == ["data"]
    assert output.regularizers["slope"].value == pytest.approx(81.0)
    assert output.regularizers["slope"].grad_norm == pytest.approx(36.0)


NO_GRADIENT = (
    "numpy does not differentiate. Give gradient_penalty the gradient of its function as "
    "function_grad=, and for gradient norms give RegularizerSpec that of the penalty itself as "
    "grad_fn=; both are functions of (data, logprobs)."
)


def test_numpy_is_told_what_it_needs():
    for given in (PENALTY, partial(penalties.gradient_penalty.grad, **PENALTY.keywords)):
        with pytest.raises(ValueError, match="numpy") as caught:
            given(None, np.ones((1, 2)))
        assert str(caught.value) == NO_GRADIENT


def test_numpy_tracks_norms_with_the_gradients_given():
    """By hand, as above; without grad_fn the failure names the regularizer."""
    penalty = partial(PENALTY, function_grad=twice)
    points = np.array([[3.0, 4.0]])

    def slope(data, logprobs):
        return 36 * logprobs / 5

    def run(spec):
        return custom_loss(None, points, penalties.l1, regularizers=[spec], track_grad_norms=True)

    output = run(RegularizerSpec(penalty, 0.1, "slope", grad_fn=slope))
    assert output.regularizers["slope"].grad_norm == pytest.approx(36.0)
    with pytest.raises(RegularizerError, match=r"'slope' failed: ValueError.*numpy does not"):
        run(RegularizerSpec(penalty, 0.1, "slope"))


def test_no_samples_have_the_penalty_zero(framework):
    for empty in ([], framework.tensor(np.ones((0, 3)))):
        for reduction in ("sum", "mean"):
            assert number(of(framework, reduction=reduction)(None, empty)) == 0.0


def test_nan_gives_nan(framework):
    assert math.isnan(number(of(framework)(None, framework.tensor([[0.5, math.nan]]))))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"function": 3}, TypeError, r"^gradient_penalty got function=3 \(int\), which cannot be"),
        ({"function_grad": len}, TypeError, "^gradient_penalty got function_grad=<built-in"),
        ({"target": "1"}, TypeError, r"target='1' \(str\)\. It takes a number of at least 0\.$"),
        ({"target": -1.0}, ValueError, r"target=-1.0\. It takes a number of at least 0\.$"),
        ({"target": 10**400}, ValueError, r"0000\. It takes a number of at least 0\.$"),
        ({"target": math.nan}, ValueError, r"target=nan\. It takes a number of at least 0\.$"),
        ({"reduction": "max"}, ValueError, r"^reduction must be one of \('sum', 'mean'\)"),
    ],
)
def test_what_cannot_be_is_refused(options, error, message):
    for function in (penalties.gradient_penalty, penalties.gradient_penalty.grad):
        with pytest.raises(error, match=message):
            function(None, torch.ones(1, 2), **{"function": squares, **options})


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (("a",), "('a',) (tuple)"),
        (1.0, "1.0 (float)"),
        (np.ones(2), "numpy.ndarray of shape (2,) and dtype float64"),
    ],
)
@pytest.mark.parametrize("name", TENSORS)
def test_a_function_that_returns_no_tensor_of_the_framework_is_named(name, result, shown):
    def function(data, x):
        return result

    with pytest.raises(TypeError) as caught:
        penalties.gradient_penalty(None, TENSORS[name]([1.0, 2.0]), function=function)
    assert str(caught.value) == (
        f"gradient_penalty got {shown} from function={function!r}. It returns a tensor of {name}, "
        "as logprobs is, of any shape."
    )


@pytest.mark.parametrize("name", TENSORS)
def test_whole_numbers_are_refused(name):
    with pytest.raises(ValueError, match=r"^gradient_penalty got logprobs\['a'\]=.*takes floats"):
        PENALTY(None, {"a": TENSORS[name]([[1, 2]])})
    value = PENALTY(None, TENSORS[name]([[3, 4]]), function_grad=twice)
    assert number(value) == pytest.approx(81.0)


def test_inference_mode_is_refused():
    message = r"^torch does not differentiate inside torch\.inference_mode\(\)\. Call inside torch"
    for function in (PENALTY, partial(penalties.gradient_penalty.grad, function=squares)):
        with torch.inference_mode(), pytest.raises(ValueError, match=message):
            function(None, torch.ones(1, 2))


def test_a_gradient_of_another_shape_is_named():
    with pytest.raises(ValueError, match=r"one tensor for each of logprobs, but the shapes differ"):
        penalties.gradient_penalty(
            None, np.ones((2, 3)), function=squares, function_grad=lambda data, x: x[0]
        )


def test_leaves_with_different_numbers_of_samples_are_refused():
    points = [torch.ones(2, 3), torch.ones(4, 3)]
    with pytest.raises(ValueError, match="samples") as caught:
        penalties.gradient_penalty(None, points, function=lambda data, x: x[0].sum() + x[1].sum())
    assert str(caught.value) == (
        "gradient_penalty got tensors with different numbers of samples: [2, 4]. The first axis "
        "of all tensors in logprobs counts the same samples."
    )
