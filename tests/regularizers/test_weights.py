"""Weights that are functions of the step, and what becomes of them in the loss."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorflow as tf
import torch

from regularizers import RegularizerError, RegularizerSpec, custom_loss, penalties, schedules
from telemetry.testing import capture


def zero(data, logprobs):
    return 0.0


def half(step):
    return 0.5


def with_weight(weight, fn=penalties.l1):
    return [RegularizerSpec(fn, weight, "sparsity")]


def weight_of(weight, step=7):
    output = custom_loss([], [1.0, -2.0], zero, regularizers=with_weight(weight), step=step)
    return output.regularizers["sparsity"].weight


class Callable1:
    def __call__(self, step):
        return step / 100


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        (lambda step: step / 10, 0.7),
        (lambda step: 2, 2.0),
        (lambda step: np.float32(0.5), 0.5),
        (lambda step: np.int64(3), 3.0),
        (lambda step: np.array(0.25), 0.25),
        (lambda step, scale=0.1: scale * step, 0.7),
        (lambda *steps: float(steps[0]), 7.0),
        (partial(pow, 2.0), 128.0),
        (Callable1(), 0.07),
        (schedules.linear_warmup(1.0, 10), 0.7),
        (optax.linear_schedule(0.0, 1.0, 10), 0.7),
    ],
)
def test_a_weight_is_what_its_function_says_of_the_step(weight, expected):
    assert weight_of(weight) == pytest.approx(expected, rel=1e-6)


def test_the_function_is_asked_once_for_each_loss():
    asked = []

    def weight(step):
        asked.append(step)
        return 0.5

    custom_loss([], [1.0], zero, regularizers=with_weight(weight), step=3)
    assert asked == [3]


def test_the_weight_in_force_is_in_the_loss_in_the_events_and_in_the_output():
    specs = with_weight(schedules.linear_warmup(0.4, 10))
    with capture() as events:
        output = custom_loss([], [1.0, -2.0], zero, regularizers=specs, step=5)
    # By hand: 0.2 * (1 + 2).
    assert output.loss_total == pytest.approx(0.6)
    assert output.regularizers["sparsity"].weight == 0.2
    of_regularizer = [event for event in events if event.event[0] == "regularizer"]
    assert [event.metadata["weight"] for event in of_regularizer] == [0.2, 0.2]


def test_a_function_of_the_step_needs_one():
    with pytest.raises(ValueError, match="no step") as caught:
        weight_of(half, step=None)
    assert str(caught.value) == (
        f"Regularizer 'sparsity' has the weight {half!r}, a function of the step, but no step was "
        "given. Call with step=..., such as the number of the optimizer step."
    )


def test_a_number_needs_no_step():
    assert weight_of(0.5, step=None) == 0.5


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ("0.1", "'0.1' (str)"),
        (None, "None (NoneType)"),
        (True, "True (bool)"),
        (1j, "1j (complex)"),
        ([0.1], "[0.1] (list)"),
        (np.bool_(True), "numpy.bool of shape () and dtype bool"),  # noqa: FBT003 -- its value
        (np.ones(1), "numpy.ndarray of shape (1,) and dtype float64"),
        (torch.ones(1), "torch.Tensor of shape (1,) and dtype torch.float32"),
        (torch.tensor([True])[0], "torch.Tensor of shape () and dtype torch.bool"),
        (torch.tensor(1j), "torch.Tensor of shape () and dtype torch.complex64"),
    ],
)
def test_a_result_that_is_no_number_is_refused(result, shown):
    with pytest.raises(TypeError) as caught:
        weight_of(lambda step: result)
    assert str(caught.value) == (
        f"Regularizer 'sparsity' at step 7 has the weight {shown}. "
        "A weight is a number, such as 0.01."
    )


@pytest.mark.parametrize("result", [-0.1, math.nan, math.inf, np.float32(-1.0), 10**400])
def test_a_result_that_is_negative_or_not_finite_is_refused(result):
    with pytest.raises(ValueError, match="sparsity") as caught:
        weight_of(lambda step: result)
    assert str(caught.value) == (
        f"Regularizer 'sparsity' at step 7 has the weight {result!r}. A weight is finite and at "
        "least 0; to reward a value instead, return its negative from the function."
    )


def test_a_function_that_raises_is_named_and_nothing_is_emitted():
    def broken(step):
        raise KeyError("phase")

    with capture() as events, pytest.raises(ValueError, match="failed") as caught:
        weight_of(broken)
    assert str(caught.value) == (
        f"Regularizer 'sparsity' at step 7 has the weight {broken!r}, which failed: "
        "KeyError('phase'). It is called with the step, and returns a number, such as 0.01."
    )
    assert isinstance(caught.value.__cause__, KeyError)
    assert events == []


def test_a_step_on_a_device_is_not_read_for_a_message():
    with pytest.raises(ValueError, match=r"at step torch\.Tensor of shape"):
        weight_of(lambda step: -1.0, step=torch.tensor(3, device="meta"))


MAKERS = {
    "torch": lambda values, dtype: torch.tensor(values, dtype=getattr(torch, dtype)),
    "jax": lambda values, dtype: jnp.asarray(values, dtype=dtype),
    "tensorflow": lambda values, dtype: tf.constant(values, dtype=dtype),
}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("name", MAKERS)
def test_a_step_on_the_device_gives_a_weight_on_the_device(name, dtype):
    make = MAKERS[name]
    with jax.enable_x64(dtype == "float64"):
        logprobs = make([3.0, -4.0], dtype)
        if name == "torch":
            logprobs.requires_grad_()
        output = custom_loss(
            [],
            logprobs,
            penalties.l2,
            regularizers=with_weight(schedules.linear_warmup(1.0, 4)),
            step=make(2, "int32"),
            track_grad_norms=True,
        )
        held = vars(output.regularizers["sparsity"])["weight"]
        assert type(held) is type(make(2, "int32"))
        # By hand: 25 + 0.5 * 7; (6, -8) and (1, -1) make (6.5, -8.5).
        assert output.loss_total == 28.5
        assert output.total_grad_norm == pytest.approx(math.hypot(6.5, 8.5), rel=1e-6)
        found = output.regularizers["sparsity"]
        assert [found.value, found.weight, found.contribution] == [7.0, 0.5, 3.5]
        assert found.grad_norm == pytest.approx(math.sqrt(2), rel=1e-6)
        assert found.grad_norm_weighted == pytest.approx(math.sqrt(0.5), rel=1e-6)


@pytest.mark.parametrize("of_weight", MAKERS)
@pytest.mark.parametrize("of_loss", ["torch", "jax", "tensorflow"])
def test_a_weight_of_another_framework_is_read(of_weight, of_loss):
    logprobs = MAKERS[of_loss]([1.0, -2.0], "float32")
    output = custom_loss(
        [],
        logprobs,
        penalties.l2,
        regularizers=with_weight(lambda step: MAKERS[of_weight](0.5, "float32")),
        step=0,
    )
    assert isinstance(output.loss, type(logprobs))
    assert output.loss_total == 6.5


@pytest.mark.parametrize("of_weight", MAKERS)
def test_a_regularizer_that_gives_a_plain_number_takes_a_weight_on_a_device(of_weight):
    weight = MAKERS[of_weight](0.5, "float32")
    specs = with_weight(lambda step: weight, lambda data, logprobs: np.float64(3))
    output = custom_loss([], [1.0], zero, regularizers=specs, step=0)
    assert output.loss_total == 1.5


@pytest.mark.parametrize("weight", [-1.0, math.nan])
def test_a_weight_of_another_framework_is_checked(weight):
    specs = with_weight(lambda step: jnp.asarray(weight))
    with pytest.raises(RegularizerError, match="'sparsity' failed: ValueError") as caught:
        custom_loss([], torch.ones(2), lambda data, x: x.sum(), regularizers=specs, step=0)
    assert str(caught.value.__cause__) == (
        f"Beside torch.Tensor of shape () and dtype torch.float32 it has the weight {weight!r}. "
        "A weight is finite and at least 0; to reward a value instead, return its negative from "
        "the function."
    )


def test_a_weight_of_another_framework_that_cannot_be_read_is_refused():
    specs = with_weight(lambda step: torch.tensor(1.0, device="meta"))
    with pytest.raises(RegularizerError, match=r"torch\.Tensor of shape"):
        custom_loss([], jnp.ones(2), lambda data, x: x.sum(), regularizers=specs, step=0)


def test_a_tensor_is_not_read_so_nothing_is_said_of_its_number():
    specs = with_weight(lambda step: torch.tensor(-1.0, device="meta"))
    logprobs = torch.ones(2, device="meta")
    output = custom_loss([], logprobs, lambda data, x: x.sum(), regularizers=specs, step=0)
    assert output.loss.device.type == "meta"
