"""What is refused of functions: a base loss that is awaited, gradients that are none."""

import asyncio
from functools import partial

import numpy as np
import pytest
import torch

from regularizers import RegularizerError, RegularizerSpec, custom_loss


def total(data, logprobs):
    return logprobs.sum()


async def waits(data, logprobs):
    await asyncio.sleep(0)
    return logprobs.sum()


class Waits:
    async def __call__(self, data, logprobs):
        return await waits(data, logprobs)


class Total:
    def __call__(self, data, logprobs):
        return logprobs.sum()


@pytest.mark.parametrize(
    "function", [waits, Waits(), partial(waits), partial(Waits())], ids=lambda f: type(f).__name__
)
def test_a_base_loss_that_is_a_coroutine_function_is_refused(function):
    with pytest.raises(TypeError, match=r"^custom_loss got the coroutine function base_loss_fn="):
        custom_loss(None, np.ones(2), function)


@pytest.mark.parametrize("track", [False, True])
@pytest.mark.parametrize("wrap", [lambda result: result, lambda result: (result, {})])
def test_a_base_loss_that_returns_a_coroutine_is_refused(wrap, track):
    """And the coroutine is closed: that it was never awaited would be a warning, an error here."""
    x = torch.ones(2, requires_grad=True)
    with pytest.raises(TypeError, match=r"^base_loss_fn returned <coroutine .* is not awaited"):
        custom_loss(None, x, lambda d, x: wrap(waits(d, x)), track_grad_norms=track)


def test_what_was_awaited_is_not_awaited_again():
    async def outer(data, logprobs):
        return waits(data, logprobs)

    with pytest.raises(RegularizerError, match=r"'a' returned <coroutine .* is not awaited"):
        custom_loss(None, np.ones(2), total, regularizers=[RegularizerSpec(outer, 1.0, "a")])


def test_an_attribute_grad_that_is_no_function_is_no_gradient():
    base = Total()
    base.grad = np.zeros(2)
    with pytest.raises(ValueError, match="no gradient was given for: base_loss_fn"):
        custom_loss(None, np.ones(2), base, track_grad_norms=True)


def test_a_gradient_of_the_wrong_arity_is_refused():
    base = Total()
    base.grad = lambda logprobs: logprobs
    with pytest.raises(TypeError, match=r"^base_loss_fn got grad=.* signature \(logprobs\)"):
        custom_loss(None, np.ones(2), base, track_grad_norms=True)
    assert custom_loss(None, np.ones(2), base).loss == 2.0
