"""Every penalty in every framework, eager and compiled, against formulas in numpy and scipy."""

from functools import partial

import jax
import numpy as np
import pytest
import tensorflow as tf
import torch
from scipy.special import log_softmax, rel_entr

from regularizers import penalties

SEED = np.random.default_rng(4)
LOGPROBS = log_softmax(SEED.normal(size=(4, 3)), axis=-1)
DATA = {"reference": log_softmax(SEED.normal(size=(4, 3)), axis=-1)}
TOLERANCE = {"float32": 1e-6, "float64": 1e-12}


def cube(data, logprobs):
    """Its gradient by x is x**2, and the Hessian is 2 x on the diagonal."""
    return logprobs**3 / 3


def square(data, logprobs):
    return logprobs**2


def elastic_net(data, x):
    return 0.2 * np.abs(x).sum() + 0.4 * (x**2).sum()


def kl(data, x):
    return rel_entr(np.exp(x), np.exp(data["reference"])).sum()


def forward_kl(data, x):
    return rel_entr(np.exp(data["reference"]), np.exp(x)).sum()


def orthogonality(data, x):
    """W^T W has the squares of the singular values of W as its eigenvalues."""
    return ((np.linalg.svd(x, compute_uv=False) ** 2 - 1) ** 2).sum()


def gradient_penalty(data, x):
    return ((np.sqrt((x**4).sum(axis=-1)) - 0.5) ** 2).sum()


CASES = {
    "l1": (penalties.l1, lambda data, x: np.abs(x).sum(), 12),
    "l2": (penalties.l2, lambda data, x: (x**2).sum(), 12),
    "elastic_net": (partial(penalties.elastic_net, l1_ratio=0.2), elastic_net, 12),
    "entropy": (penalties.entropy, lambda data, x: -(np.exp(x) * x).sum(), 4),
    "kl": (partial(penalties.kl_divergence, reference="reference"), kl, 4),
    "forward_kl": (
        partial(penalties.kl_divergence, reference="reference", direction="forward"),
        forward_kl,
        4,
    ),
    "consistency": (
        partial(penalties.consistency, reference="reference"),
        lambda data, x: ((x - data["reference"]) ** 2).sum(),
        12,
    ),
    "orthogonality": (penalties.orthogonality, orthogonality, 1),
    "gradient_penalty": (
        partial(penalties.gradient_penalty, function=cube, function_grad=None, target=0.5),
        gradient_penalty,
        4,
    ),
}


def grad_of(penalty):
    return partial(penalty.func.grad, **penalty.keywords)


def in_numpy(penalty, data, x):
    if penalty.func is penalties.gradient_penalty:
        penalty = partial(penalty, function_grad=square)
        return penalty(data, x), None, None
    return penalty(data, x), grad_of(penalty)(data, x), None


def in_torch(penalty, data, x):
    x = torch.tensor(x, requires_grad=True)
    data = {key: torch.tensor(value) for key, value in data.items()}
    value = penalty(data, x)
    (found,) = torch.autograd.grad(value, x)
    assert value.dtype == x.dtype
    return value.detach(), found, grad_of(penalty)(data, x).detach()


def in_jax(penalty, data, x, *, compiled=False):
    with jax.enable_x64(x.dtype == np.float64):
        functions = jax.value_and_grad(penalty, argnums=1), grad_of(penalty)
        both, grad = map(jax.jit, functions) if compiled else functions
        arguments = jax.tree.map(jax.numpy.asarray, (data, x))
        value, found = both(*arguments)
        assert value.dtype == x.dtype
        return value, found, grad(*arguments)


def in_tensorflow(penalty, data, x, *, compiled=False):
    def compute(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = penalty(data, x)
        return value, tape.gradient(value, x), grad_of(penalty)(data, x)

    data = {key: tf.constant(value) for key, value in data.items()}
    rows = 4 if penalty.func is penalties.orthogonality else None  # None: any number of them
    signature = [tf.TensorSpec([rows, x.shape[1]], x.dtype)]
    value, found, grad = (
        tf.function(compute, input_signature=signature)(tf.constant(x))
        if compiled
        else compute(tf.constant(x))
    )
    assert value.dtype == x.dtype
    return value, found, grad


MODES = {
    "numpy": in_numpy,
    "torch": in_torch,
    "jax": in_jax,
    "jax-jit": partial(in_jax, compiled=True),
    "tensorflow": in_tensorflow,
    "tf.function": partial(in_tensorflow, compiled=True),
}


def finite_differences(function, x, step=1e-6):
    slopes = np.zeros_like(x)
    for place in np.ndindex(x.shape):
        shift = np.zeros_like(x)
        shift[place] = step
        slopes[place] = (function(x + shift) - function(x - shift)) / (2 * step)
    return slopes


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient_are_those_of_the_formula(name, mode, reduction, dtype):
    penalty, formula, count = CASES[name]
    divisor = count if reduction == "mean" else 1
    logprobs = LOGPROBS.astype(dtype)
    data = {"reference": DATA["reference"].astype(dtype)}
    value, found, grad = MODES[mode](partial(penalty, reduction=reduction), data, logprobs)
    expected = formula(DATA, LOGPROBS) / divisor
    assert float(value) == pytest.approx(expected, rel=TOLERANCE[dtype], abs=TOLERANCE[dtype])
    slopes = finite_differences(partial(formula, DATA), LOGPROBS) / divisor
    for gradient in (found, grad):
        if gradient is not None:
            np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-6)
    if found is not None and grad is not None:
        tolerance = 10 * TOLERANCE[dtype]
        np.testing.assert_allclose(found, grad, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("direction", "expected", "slopes"),
    [
        # By hand, x = log (1/2, 1/2, 0, 0) and r = log (1/4, 1/2, 1/4, 0).
        ("reverse", 0.5 * np.log(2), [0.5 * (np.log(2) + 1), 0.5, 0, 0]),
        ("forward", np.inf, [-0.25, -0.5, -0.25, 0]),
    ],
)
def test_impossible_outcomes(mode, direction, expected, slopes):
    with np.errstate(divide="ignore"):
        logprobs = np.log([[0.5, 0.5, 0.0, 0.0]])
        data = {"reference": np.log([[0.25, 0.5, 0.25, 0.0]])}
    penalty = partial(penalties.kl_divergence, reference="reference", direction=direction)
    value, found, grad = MODES[mode](penalty, data, logprobs)
    assert float(value) == pytest.approx(expected)
    for gradient in (found, grad):
        if gradient is not None:
            np.testing.assert_allclose(np.asarray(gradient)[0], slopes, atol=1e-15)
