import dataclasses
from fractions import Fraction
from functools import partial

import numpy as np
import pytest

from regularizers import RegularizerSpec, penalties


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


@pytest.mark.parametrize("weight", ["0.1", None, True, 1j, [0.1], np.ones(1)], ids=repr)
def test_a_weight_that_is_no_number_is_refused(weight):
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(two, weight, "sparsity")
    assert str(caught.value) == (
        f"Regularizer 'sparsity' has the weight {weight!r} ({type(weight).__name__}). "
        "A weight is a number, such as 0.01."
    )


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), -1])
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


def test_a_gradient_function_of_the_wrong_arity_is_refused():
    with pytest.raises(TypeError, match=r"^Regularizer 'a' got grad_fn=<function one"):
        RegularizerSpec(two, 1.0, "a", grad_fn=one)


def test_a_coroutine_function_is_refused():
    with pytest.raises(TypeError) as caught:
        RegularizerSpec(later, 1.0, "a")
    assert str(caught.value) == (
        f"Regularizer 'a' got the coroutine function fn={later!r}, which returns no value when it "
        "is called. fn is a plain function of (data, logprobs)."
    )


def test_a_spec_is_frozen():
    spec = RegularizerSpec(two, 1.0, "a")
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.weight = 2.0
