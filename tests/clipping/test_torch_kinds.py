"""Sparse, complex, half-precision and oddly laid out gradients, under every scope."""

import importlib

import numpy as np
import pytest

import clipping

torch = importlib.import_module("torch")

SCOPES = ["global", "per_layer", "per_param", "per_unit"]


def model_of(*pairs):
    """A model of weights and their gradients."""
    model = torch.nn.ParameterList([torch.nn.Parameter(weight) for weight, _ in pairs])
    for parameter, (_, grad) in zip(model, pairs, strict=True):
        parameter.grad = grad
    return model


def factor(weight, grad):
    """What AGC(clipping=0.5) multiplies by."""
    target = 0.5 * max(np.linalg.norm(weight), 1e-3)
    return min(1.0, target / max(np.linalg.norm(grad), 1e-6))


def expected(weight, grad, scope):
    weight, grad = np.asarray(weight), np.asarray(grad)
    if scope != "per_unit":
        return factor(weight, grad) * grad
    return np.stack([factor(w, g) * g for w, g in zip(weight, grad, strict=True)])


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(scope, dtype):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 40, generator=generator).to(dtype)
    grad = (4 * torch.randn(6, 40, generator=generator)).to(dtype)
    model = model_of((weight, grad.clone()))
    clipping.apply(model, clipping.AGC(clipping=0.5, scope=scope))
    # One rounding of the result, none of the factor.
    reference = torch.from_numpy(expected(weight.double(), grad.double(), scope))
    tight = {torch.float64: 1e-12, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    assert model[0].grad.dtype == dtype
    torch.testing.assert_close(model[0].grad.double(), reference, rtol=tight * 1.01, atol=0)


@pytest.mark.parametrize("scope", SCOPES)
def test_complex(scope):
    weight = torch.tensor([[3 + 4j, 0], [0, 1j]])
    grad = torch.tensor([[30j, 40], [0.1j, 0]], dtype=torch.complex64)
    model = model_of((weight, grad.clone()))
    clipping.apply(model, clipping.AGC(clipping=0.5, scope=scope))
    reference = expected(weight.numpy(), grad.numpy(), scope)
    np.testing.assert_allclose(model[0].grad.numpy(), reference, rtol=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "lay",
    [
        lambda x: x.contiguous(memory_format=torch.channels_last),
        lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
        lambda x: torch.stack([x, x], dim=-1)[..., 0],
    ],
    ids=["channels_last", "transposed", "strided"],
)
def test_layouts_in_memory(scope, lay):
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 3, 2, 2, generator=generator)
    grad = 3 * torch.randn(4, 3, 2, 2, generator=generator)
    model = model_of((weight, lay(grad)))
    held, stride = model[0].grad, model[0].grad.stride()
    clipping.apply(model, clipping.AGC(clipping=0.5, scope=scope))
    assert model[0].grad is held
    assert held.stride() == stride
    np.testing.assert_allclose(held.numpy(), expected(weight, grad, scope), rtol=2e-6)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("coalesced", [True, False])
def test_sparse_rows_of_an_embedding(scope, coalesced):
    embedding = torch.nn.Embedding(5, 3, sparse=True)
    embedding(torch.tensor([1, 1, 4])).mul(torch.tensor([[5.0], [4.0], [0.01]])).sum().backward()
    grad = embedding.weight.grad
    assert not grad.is_coalesced()
    if coalesced:
        embedding.weight.grad = grad = grad.coalesce()
    dense = grad.to_dense()
    reference = expected(embedding.weight.detach(), dense, scope)
    clipping.apply(embedding, clipping.AGC(clipping=0.5, scope=scope))
    assert embedding.weight.grad is grad
    np.testing.assert_allclose(grad.to_dense().numpy(), reference, rtol=2e-6)
    assert not np.allclose(reference, dense)


def test_sparse_elements_have_units_too():
    """With two sparse dimensions a unit is what shares the first index."""
    indices = torch.tensor([[0, 0, 2], [1, 3, 0]])
    grad = torch.sparse_coo_tensor(indices, [3.0, 4.0, 0.001], (3, 4), check_invariants=True)
    weight = torch.ones(3, 4)
    model = model_of((weight, grad))
    reference = expected(weight, grad.to_dense(), "per_unit")
    clipping.apply(model, clipping.AGC(clipping=0.5, scope="per_unit"))
    np.testing.assert_allclose(model[0].grad.to_dense().numpy(), reference, rtol=1e-6)


@pytest.mark.parametrize("scope", ["per_param", "per_unit"])
def test_sparse_rows_that_are_not_finite_become_zeros(scope):
    grad = torch.sparse_coo_tensor(
        [[0, 2]], [[1.0, 2.0], [float("nan"), 1.0]], (3, 2), check_invariants=True
    )
    model = model_of((torch.ones(3, 2), grad))
    agc = clipping.AGC(clipping=1e6, scope=scope, on_nonfinite="zero")
    clipping.apply(model, agc)
    kept = [[1.0, 2.0]] if scope == "per_unit" else [[0.0, 0.0]]
    assert grad.to_dense().tolist() == [*kept, [0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize("scope", SCOPES)
def test_dense_and_sparse_and_dtypes_may_be_mixed(scope):
    sparse = torch.sparse_coo_tensor([[1]], [[30.0, 40.0]], (2, 2), check_invariants=True)
    pairs = [
        (torch.ones(2, 2), sparse),
        (torch.ones(2, 2, dtype=torch.float64), torch.full((2, 2), 10.0, dtype=torch.float64)),
        (torch.ones(2, 2, dtype=torch.bfloat16), torch.full((2, 2), 8.0, dtype=torch.bfloat16)),
        (torch.tensor(1.0), torch.tensor(9.0)),
    ]
    model = model_of(*pairs)
    agc = clipping.AGC(clipping=0.5, scope=scope, exclude_bias_bn=False)
    before = [g.to_dense().double() if g.is_sparse else g.double() for _, g in pairs]
    before = [g.clone() for g in before]
    clipping.apply(model, agc)
    after = [p.grad.to_dense().double() for p in model]
    whole = scope in ("global", "per_layer")
    total = np.sqrt(50**2 + 20**2 + 16**2 + 9**2)
    all_of_them = 0.5 * np.sqrt(13) / total
    for index, (weight, _) in enumerate(pairs):
        if whole:
            reference = all_of_them * before[index]
        elif index == 3:
            reference = torch.tensor(0.5, dtype=torch.float64)
        else:
            made = expected(weight.double(), before[index], scope)
            reference = torch.as_tensor(made)
        torch.testing.assert_close(after[index], reference, rtol=2**-8, atol=0)


@pytest.mark.parametrize("scope", SCOPES)
def test_empty_and_0_d_parameters(scope):
    model = model_of(
        (torch.ones(0, 3), torch.ones(0, 3)),
        (torch.ones(3, 0), torch.ones(3, 0)),
        (torch.tensor(2.0), torch.tensor(2.0)),
    )
    agc = clipping.AGC(clipping=0.5, scope=scope, exclude_bias_bn=False)
    clipping.apply(model, agc)
    assert model[2].grad.item() == pytest.approx(1.0)


def test_only_empty_gradients():
    model = model_of((torch.ones(0, 3), torch.ones(0, 3)))
    records = []
    clipping.apply(model, clipping.AutoClip(mode="percentile"), records.append)
    assert [record["grad_norm"] for record in records] == [0.0]
