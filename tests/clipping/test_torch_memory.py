"""Gradients that share memory, are lazily conjugated, or are made under another default device."""

import importlib

import numpy as np
import pytest

import clipping

torch = importlib.import_module("torch")

from clipping.backends import torch as backend  # noqa: E402 -- torch may be absent
from clipping.engine import clip  # noqa: E402 -- torch may be absent

SCOPES = ["global", "per_layer", "per_param", "per_unit"]
PLACES = ["host", "device"]


def apply(model, clipper, place):
    """On the host, or as if the gradients were on a device."""
    gradients = backend.gradients_of(model, clipper)
    if place == "device":
        gradients.ops = gradients._plan.ops_on(torch.device("cpu"))
    clip(gradients, clipper)


def model_of(*grads):
    model = torch.nn.ParameterList([torch.nn.Parameter(torch.ones_like(g)) for g in grads])
    for parameter, grad in zip(model, grads, strict=True):
        parameter.grad = grad
    return model


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("bad", [False, True])
def test_lazily_conjugated_gradients(scope, place, bad):
    weight = torch.nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
    inputs = torch.full((3, 2), 3 + 4j)
    inputs[0, 0] = float("nan") if bad else 3 + 4j
    (weight.conj() * inputs).real.sum().backward()
    assert weight.grad.is_conj()
    model = torch.nn.ParameterList([weight])
    apply(model, clipping.AGC(clipping=0.1, scope=scope, on_nonfinite="zero"), place)
    assert model[0].grad.is_conj()
    # A weight of 1s against gradients of 5s: each is scaled to 0.1 of (3 + 4j) / 5.
    expected = np.full((3, 2), (0.06 + 0.08j))
    if bad:
        expected[: 1 if scope == "per_unit" else None] = 0
    np.testing.assert_allclose(weight.grad.resolve_conj().numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("size", [3, 300])
def test_lazily_negated_gradients(scope, place, size):
    first, second = (torch.ones(size, 256, requires_grad=True) for _ in range(2))
    loss = (torch.complex(first, second).conj() * torch.full((size, 256), 3 + 4j)).real.sum()
    _, grad = torch.autograd.grad(loss, [first, second])
    assert grad.is_neg()
    model = model_of(torch.ones(size, 256))
    model[0].grad = grad
    apply(model, clipping.AGC(clipping=0.1, scope=scope), place)
    assert model[0].grad.is_neg()
    torch.testing.assert_close(model[0].grad.resolve_neg(), torch.full((size, 256), 0.1))


def test_bare_gradient_that_is_given_twice_is_refused():
    first, second = (torch.ones(3, requires_grad=True) for _ in range(2))
    grads = torch.autograd.grad(((first + second) ** 2).sum(), [first, second])
    assert grads[0] is grads[1]
    clipper = clipping.AutoClip(mode="percentile")
    with pytest.raises(ValueError, match="twice") as refused:
        clipping.torch.apply_grads(grads, clipper)
    assert str(refused.value) == (
        "Cannot scale gradient 1 of 2 in place: it is the same tensor as gradient 0, which would "
        "be scaled twice. Give its .clone(), for a parameter: parameter.grad = "
        "parameter.grad.clone(). The gradients are untouched."
    )
    clipped = clipping.torch.apply_grads([g.clone() for g in grads], clipper)
    assert len(clipped) == 2
    assert clipper.threshold_any() == pytest.approx(4 * np.sqrt(6))


def test_bare_gradient_whose_elements_share_memory_is_refused():
    """Even if nothing would be scaled, and before anything is."""
    weight = torch.ones(3, 2, requires_grad=True)
    (expanded,) = torch.autograd.grad(weight.sum(), weight)
    other = torch.ones(5)
    clipper = clipping.AutoClip(mode="percentile")
    with pytest.raises(ValueError, match="same place") as refused:
        clipping.torch.apply_grads([other, expanded], clipper)
    assert str(refused.value) == (
        "Cannot scale gradient 1 of 2 in place: several of its elements lie in the same place, it "
        "has the shape (3, 2) and the strides (0, 0), as after expand(). Give its .clone(), for a "
        "parameter: parameter.grad = parameter.grad.clone(). The gradients are untouched."
    )
    assert clipper.state_dict()["steps"] == 0


def test_sparse_gradient_whose_values_share_memory_is_refused():
    values = torch.ones(1).expand(2)
    grad = torch.sparse_coo_tensor([[0, 2]], values, (3,), check_invariants=True)
    with pytest.raises(ValueError, match=r"gradient 0 of 1 .* same place"):
        clipping.torch.apply_grads([grad], clipping.AutoClip())
    clipping.torch.apply_grads([grad.clone()], clipping.AutoClip())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("shared", ["same object", "expanded"])
def test_parameters_gradients_that_share_memory_are_refused_before_any_is_written(
    scope, place, shared
):
    grads = [torch.full((2, 2), 7.0) for _ in range(2)]
    last = grads[1] if shared == "same object" else torch.full((1,), 7.0).expand(2, 2)
    model = model_of(*grads, last)
    model[0].grad = None
    with pytest.raises(ValueError, match="Cannot scale gradient 1 of 2 in place"):
        apply(model, clipping.AGC(scope=scope), place)
    assert [g.tolist() for g in (*grads, last)] == [[[7.0, 7.0], [7.0, 7.0]]] * 3


def test_parameters_gradients_that_share_memory_may_stay_as_they_are():
    model = model_of(torch.full((1,), 7.0).expand(2, 2))
    clipper = clipping.AutoClip(mode="percentile")
    clipping.apply(model, clipper)
    assert clipper.threshold_any() == pytest.approx(14.0)


@pytest.fixture
def meta_by_default():
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scope", SCOPES)
def test_default_device_does_not_matter(scope, place, meta_by_default):
    model = model_of(*(torch.full((2, 2), 9.0, device="cpu") for _ in range(3)))
    model[1].grad = None
    for _ in range(2):
        apply(model, clipping.AGC(clipping=0.1, scope=scope, exclude_bias_bn=False), place)
    # Weights of 1s, of which a third has no gradient: it counts within a group of all.
    size = 0.1 * np.sqrt(3 / 2) if scope in ("global", "per_layer") else 0.1
    for index in (0, 2):
        np.testing.assert_allclose(model[index].grad.numpy(), np.full((2, 2), size), rtol=1e-6)
