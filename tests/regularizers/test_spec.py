import dataclasses
import inspect
import pickle
from fractions import Fraction
from functools import partial

import numpy as np
import optax
import pytest
import torch

from regularizers import CustomLoss, RegularizerSpec, custom_loss, penalties, schedules


def two(data, logprobs):
    return 0.0


def one(logprobs):
    return 0.0


def two_and_options(data, logprobs, *, scale=1.0):
    return scale


def two_and_a_need(data, logprobs, *, scale):
    return scale


async def later(data, logprobs):
    return 0.0


class Callable2:
    def __call__(self, data, logprobs):
        return 0.0


@pytest.mark.parametrize(
    "fn",
    [
        two,
        two_and_options,
        partial(two_and_a_need, scale=2.0),
        lambda *arguments: 0.0,
        lambda data, logprobs, extra=None: 0.0,
        Callable2(),
        penalties.l1,
        partial(penalties.entropy, mode="bonus"),
        max,
    ],
)
def test_a_function_of_two_arguments_is_accepted(fn):
    assert RegularizerSpec(fn=fn, weight=1.0, name="a").fn is fn


@pytest.mark.parametrize("weight", [0, 1, 0.5, np.float32(0.5), np.int64(2), Fraction(1, 2)])
def test_a_weight_is_kept_as_a_float(weight):
    spec = RegularizerSpec(two, weight, "a")
    assert type(spec.weight) is float
    assert spec.weight == weight


@pytest.mark.parametrize("weight", ["0.1", None, True, 1j, [0.1]], ids=repr)
def test_a_weight_that_is_no_number_is_refused(weight):
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, weight, "sparsity")
    assert str(caught.value) == (
        f"Regularizer 'sparsity' has the weight {weight!r} ({type(weight).__name__}). "
        "A weight is a number, such as 0.01, or a function of the step that returns one."
    )


@pytest.mark.parametrize(
    ("weight", "shown"),
    [
        (np.ones(1), "numpy.ndarray of shape (1,) and dtype float64"),
        (np.array(0.1), "numpy.ndarray of shape () and dtype float64"),
        (torch.tensor(0.1), "torch.Tensor of shape () and dtype torch.float32"),
        (torch.tensor(0.1, device="meta"), "torch.Tensor of shape () and dtype torch.float32"),
        (np.bool_(1), "numpy.bool of shape () and dtype bool"),
    ],
)
def test_a_weight_that_is_an_array_or_tensor_is_refused_unread(weight, shown):
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, weight, "sparsity")
    assert str(caught.value) == (
        f"Regularizer 'sparsity' has the weight {shown}. "
        "A weight is a number, such as 0.01, or a function of the step that returns one."
    )


@pytest.mark.parametrize(
    "weight",
    [
        lambda step: 0.1,
        lambda step, scale=1.0: scale,
        lambda *arguments: 0.1,
        partial(pow, 2.0),
        schedules.linear_warmup(0.1, 10),
        optax.cosine_decay_schedule(0.1, 10),
        max,
    ],
)
def test_a_function_of_the_step_is_a_weight(weight):
    assert RegularizerSpec(two, weight, "a").weight is weight


def test_a_weight_is_not_called_when_the_spec_is_made():
    RegularizerSpec(two, lambda step: 1 / 0, "a")


@pytest.mark.parametrize(
    ("weight", "signature", "reason"),
    [
        (two, "(data, logprobs)", "missing a required argument: 'logprobs'"),
        (lambda: 0.1, "()", "too many positional arguments"),
        (partial(one, 3), "()", "too many positional arguments"),
    ],
)
def test_a_weight_of_the_wrong_arity_is_refused(weight, signature, reason):
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, weight, "sparsity")
    assert str(caught.value) == (
        f"Regularizer 'sparsity' has the weight {weight!r} with signature {signature}, which "
        f"cannot take the one argument (step): {reason}."
    )


def test_a_class_is_no_weight():
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, float, "sparsity")
    assert str(caught.value) == (
        "Regularizer 'sparsity' has the weight <class 'float'>, a class. A weight is a number, "
        "such as 0.01, or a function of the step that returns one: give an instance."
    )


def test_a_coroutine_function_is_no_weight():
    async def weight(step):
        return 0.1

    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, weight, "sparsity")
    assert str(caught.value) == (
        f"Regularizer 'sparsity' has the weight {weight!r}, a coroutine function, which returns "
        "no number when it is called. A weight is a number, such as 0.01, or a function of the "
        "step that returns one."
    )


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), -1, 10**400])
def test_a_weight_that_is_negative_or_not_finite_is_refused(weight):
    with pytest.raises(ValueError, match="'sparsity'") as caught:
        RegularizerSpec(two, weight, "sparsity")
    assert str(caught.value) == (
        f"Regularizer 'sparsity' has the weight {weight!r}. A weight is finite and at least 0; "
        "to reward a value instead, return its negative from the function."
    )


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(name):
    with pytest.raises(ValueError, match="must not be empty") as caught:
        RegularizerSpec(two, 1.0, name)
    assert str(caught.value) == (
        f"The name of a regularizer must not be empty, got {name!r}. "
        "Write RegularizerSpec(..., name='sparsity')."
    )


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31mred", "a\u2028b", "a\ud800"], ids=ascii)
def test_a_name_with_control_characters_is_refused(name):
    with pytest.raises(ValueError, match="printable") as caught:
        RegularizerSpec(two, 1.0, name)
    assert str(caught.value) == (
        f"The name of a regularizer must be printable, got {name!r}. It stands in lines of logs "
        "and in names of metrics: leave out line breaks and control characters."
    )


@pytest.mark.parametrize("name", ["sparsity", "l1.encoder", "KL 1/2", "Glätte", "平滑"])
def test_a_name_may_have_any_characters_that_print(name):
    assert RegularizerSpec(two, 1.0, name).name == name


def test_a_name_that_is_no_string_is_refused():
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, 1.0, 3)
    assert str(caught.value) == (
        "The name of a regularizer must be a string, got 3 (int). "
        "Write RegularizerSpec(..., name='sparsity')."
    )


def test_a_function_that_cannot_be_called_is_refused():
    with pytest.raises(TypeError) as caught:
        RegularizerSpec("l1", 1.0, "a")
    assert str(caught.value) == (
        "Regularizer 'a' got fn='l1' (str), which cannot be called. "
        "fn is a function of (data, logprobs)."
    )


@pytest.mark.parametrize(
    ("fn", "signature", "reason"),
    [
        (one, "(logprobs)", "too many positional arguments"),
        (two_and_a_need, "(data, logprobs, *, scale)", "missing a required argument: 'scale'"),
        (partial(two, 1), "(logprobs)", "too many positional arguments"),
    ],
)
def test_a_function_of_the_wrong_arity_is_refused(fn, signature, reason):
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(fn, 1.0, "a")
    assert str(caught.value).replace("only ", "") == (
        f"Regularizer 'a' got fn={fn!r} with signature {signature}, which cannot take "
        f"the two arguments (data, logprobs): {reason}."
    )


@pytest.mark.parametrize(
    ("fn", "reason"),
    [
        (partial(penalties.l1, reductoin="mean"), "got an unexpected keyword argument 'reductoin'"),
        (partial(two_and_options, size=2.0), "got an unexpected keyword argument 'size'"),
        (partial(two, 1, 2, 3), "too many positional arguments"),
    ],
)
def test_an_option_that_the_function_does_not_have_is_refused(fn, reason):
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(fn, 1.0, "a")
    assert str(caught.value) == (
        f"Regularizer 'a' got fn={fn!r}, of a function with signature "
        f"{inspect.signature(fn.func)}, which does not take these arguments: {reason}."
    )


def test_a_penalty_without_an_option_that_it_needs_is_refused():
    with pytest.raises(TypeError, match=r"cannot take .* argument: 'function'\.$"):
        RegularizerSpec(penalties.gradient_penalty, 1.0, "a")


def test_a_misspelt_option_is_found_before_the_base_loss_is_evaluated():
    evaluated = []
    with pytest.raises(TypeError, match=r"^custom_loss got base_loss_fn=functools\.partial\(<Pen"):
        custom_loss(None, [1.0], partial(penalties.l1, reductoin="mean"))
    with pytest.raises(TypeError, match="'reductoin'"):
        custom_loss(
            None,
            [1.0],
            lambda data, logprobs: evaluated.append(logprobs),
            regularizers=[RegularizerSpec(partial(penalties.l2, reductoin="mean"), 1.0, "a")],
        )
    assert evaluated == []


def test_a_penalty_of_a_builtin_function_is_accepted():
    """Which does not tell its signature."""
    biggest = penalties.Penalty(max, two)
    assert RegularizerSpec(biggest, 1.0, "a").fn is biggest


def test_a_gradient_function_of_the_wrong_arity_is_refused():
    with pytest.raises(TypeError, match=r"^Regularizer 'a' got grad_fn=<function one"):
        RegularizerSpec(two, 1.0, "a", grad_fn=one)


def test_a_coroutine_function_is_accepted():
    assert RegularizerSpec(later, 1.0, "a").fn is later


def test_a_coroutine_function_is_no_gradient():
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, 1.0, "a", grad_fn=later)
    assert str(caught.value) == (
        f"Regularizer 'a' got the coroutine function grad_fn={later!r}, which returns no value "
        "when it is called. grad_fn is a plain function of (data, logprobs)."
    )


def test_a_spec_is_frozen():
    spec = RegularizerSpec(two, 1.0, "a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.weight = 2.0


def test_specs_with_the_same_parts_are_equal():
    weight = schedules.linear_warmup(0.1, 10)
    assert RegularizerSpec(two, weight, "a") == RegularizerSpec(two, weight, "a")
    assert RegularizerSpec(two, 1, "a") == RegularizerSpec(two, 1.0, "a")
    assert RegularizerSpec(two, 1.0, "a") != RegularizerSpec(two, 1.0, "b")
    assert len({RegularizerSpec(two, weight, "a"), RegularizerSpec(two, weight, "a")}) == 1


@pytest.mark.parametrize("fn", [two, later, penalties.l1], ids=["two", "later", "l1"])
def test_a_spec_can_be_pickled(fn):
    spec = RegularizerSpec(fn, schedules.cosine_warmup(0.1, 10), "a", grad_fn=two)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301 -- our own bytes


def test_a_spec_of_a_penalty_with_options_can_be_pickled():
    spec = RegularizerSpec(partial(penalties.l1, reduction="mean"), 1.0, "a")
    copied = pickle.loads(pickle.dumps(spec))  # noqa: S301 -- our own bytes
    assert copied.fn(None, [1.0, -3.0]) == 2.0


def test_a_name_used_twice_is_refused():
    specs = [RegularizerSpec(two, 1.0, "a"), RegularizerSpec(two_and_options, 2.0, "a")]
    with pytest.raises(ValueError, match="two regularizers") as caught:
        CustomLoss(two, specs)
    assert str(caught.value) == (
        "custom_loss got two regularizers with the name 'a'. "
        "Each needs a name of its own, because the output is keyed by it."
    )
