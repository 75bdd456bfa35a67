import importlib
import subprocess
import sys
import warnings

import numpy as np
import pytest

import clipping
from telemetry.testing import capture

torch = importlib.import_module("torch")


def parameter(grad, **options):
    made = torch.nn.Parameter(torch.zeros(len(grad)), **options)
    made.grad = torch.tensor(grad)
    return made


def test_parameters_are_clipped_by_their_grad(halving):
    given = [parameter([2.0]), torch.nn.Parameter(torch.ones(1))]
    (clipped,) = clipping.torch.apply_grads(iter(given), halving)
    assert clipped is given[0].grad
    assert given[0].grad.tolist() == pytest.approx([1.0])
    assert [p.item() for p in given] == [0.0, 1.0]


def test_gradients_are_clipped_in_place(halving):
    given = [torch.tensor([2.0]), torch.zeros(3)]
    clipped = clipping.torch.apply_grads(given, halving)
    assert [c is g for c, g in zip(clipped, given, strict=True)] == [True, True]
    assert given[0].tolist() == pytest.approx([1.0])


def test_plain_leaf_that_requires_gradients_is_a_parameter(halving):
    weight = torch.ones(1, requires_grad=True)
    (2 * weight).backward()
    clipping.torch.apply_grads(weight, halving)
    assert weight.item() == 1.0
    assert weight.grad.item() == pytest.approx(1.0)


def test_gradients_of_a_graph_are_gradients(halving):
    weight = torch.ones(1, requires_grad=True)
    (grad,) = torch.autograd.grad(weight**2, weight, create_graph=True)
    clipping.torch.apply_grads([grad], halving)
    assert grad.item() == pytest.approx(1.0)
    assert weight.item() == 1.0


def test_parameter_that_is_given_twice_counts_once(halving):
    shared = parameter([2.0])
    clipping.torch.apply_grads([shared, shared], halving)
    assert shared.grad.item() == pytest.approx(1.0)


def test_frozen_parameters_are_never_taken_for_gradients(halving):
    frozen = torch.nn.Parameter(torch.full((1,), 50.0), requires_grad=False)
    clipping.torch.apply_grads([frozen, parameter([2.0])], halving)
    assert frozen.item() == 50.0


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            [np.zeros(1)],
            TypeError,
            (
                "params_or_grads must be torch tensors, got array([0.]) (ndarray) among them. "
                "Give model.parameters() or gradients."
            ),
        ),
        (
            [torch.zeros(1), parameter([2.0])],
            ValueError,
            (
                "params_or_grads must be parameters or gradients, got 1 parameters among 2 "
                "tensors. The gradients are untouched; clip parameters in one call, gradients in "
                "another."
            ),
        ),
        (
            [],
            ValueError,
            (
                "There is no gradient to clip: got 0 tensors, none of which is a gradient or has a "
                ".grad. Call loss.backward() first."
            ),
        ),
        (
            [torch.nn.Parameter(torch.zeros(1))],
            ValueError,
            (
                "There is no gradient to clip: got 1 tensors, none of which is a gradient or has a "
                ".grad. Call loss.backward() first."
            ),
        ),
        (
            [torch.zeros(1, dtype=torch.int64), torch.zeros(1)],
            TypeError,
            (
                "Cannot clip gradients of dtype torch.int64. Allowed: torch.bfloat16 and "
                "torch.complex128 and torch.complex64 and torch.float16 and torch.float32 and "
                "torch.float64. The gradients are untouched."
            ),
        ),
        (
            [torch.zeros(1), torch.zeros(1, device="meta")],
            ValueError,
            (
                "Gradients must all be on one device, got cpu and meta. The gradients are "
                "untouched. Clip those of each device by themselves, with a clipper of their own."
            ),
        ),
    ],
    ids=["array", "mixed", "empty", "no grad", "integers", "devices"],
)
def test_what_cannot_be_clipped_is_refused(given, error, message):
    with pytest.raises(error) as refused:
        clipping.torch.apply_grads(given, clipping.AutoClip())
    assert str(refused.value) == message


@pytest.mark.parametrize("given", [torch.nn.Linear(1, 1), torch.nn.Sequential(), None])
def test_what_is_no_iterable_of_tensors_is_refused(given):
    with pytest.raises(TypeError) as refused:
        clipping.torch.apply_grads(given, clipping.AutoClip())
    assert str(refused.value) == (
        "params_or_grads must be a torch tensor or an iterable of them, got "
        f"{type(given).__name__}. Give model.parameters() or gradients; of a whole model: "
        "clipping.apply(model, clipper)."
    )


def test_parameter_list_is_an_iterable_of_parameters(halving):
    given = torch.nn.ParameterList([parameter([2.0])])
    clipping.torch.apply_grads(given, halving)
    assert given[0].grad.item() == pytest.approx(1.0)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_is_refused(dtype):
    with pytest.raises(TypeError, match=f"gradients of dtype {dtype}. Allowed: torch.bfloat16"):
        clipping.torch.apply_grads(torch.ones(3).to(dtype), clipping.AutoClip())


def test_unknown_layout_is_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about a beta feature
        grad = torch.eye(2).to_sparse_csr()
    with pytest.raises(TypeError) as refused:
        clipping.torch.apply_grads([grad], clipping.AutoClip())
    assert str(refused.value) == (
        "Cannot clip gradients of layout torch.sparse_csr. Allowed: torch.sparse_coo and "
        "torch.strided. The gradients are untouched."
    )


def sparse(indices, values):
    return torch.sparse_coo_tensor([indices], values, (4,), check_invariants=True)


@pytest.mark.parametrize("coalesced", [False, True])
def test_sparse_gradient_has_the_norm_of_its_sums(halving, coalesced):
    grad = sparse([1, 1, 3], [1.0, 0.2, 1.6])
    grad = grad.coalesce() if coalesced else grad
    with capture(("smartclip", "clip", "stop")) as events:
        clipping.torch.apply_grads([grad, torch.zeros(1)], halving)
    assert events[0].measurements["grad_norm"] == pytest.approx(2.0)
    assert grad.to_dense().tolist() == pytest.approx([0.0, 0.6, 0.0, 0.8])


def test_sparse_gradient_that_is_not_finite_becomes_zeros():
    grad = sparse([1, 1], [1.0, float("inf")])
    clipping.torch.apply_grads([grad], clipping.AutoClip())
    assert grad.to_dense().tolist() == [0.0] * 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_norms_are_accumulated_in_float32(dtype):
    clipper = clipping.AutoClip(mode="percentile")
    clipping.torch.apply_grads([torch.ones(1000, dtype=dtype)], clipper)
    # In bfloat16 it would be 31.625, in float16 31.62.
    assert clipper.threshold_any() == pytest.approx(np.sqrt(1000), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64])
def test_dtypes_may_be_mixed(halving, dtype):
    grads = [torch.tensor([1.2]), torch.tensor([1.6], dtype=dtype)]
    clipping.torch.apply_grads(grads, halving)
    assert grads[0].item() == pytest.approx(0.6, rel=1e-2)
    assert grads[1].item() == pytest.approx(0.8, rel=1e-2)
    assert grads[1].dtype == dtype


def test_float16_is_scaled_by_factors_below_its_own_range():
    clipper = clipping.AutoClip(mode="percentile", percentile=1e-9, warmup_steps=0, min_history=1)
    clipping.torch.apply_grads(torch.tensor([1e-6], dtype=torch.float64), clipper)
    (clipped,) = clipping.torch.apply_grads([torch.tensor([100.0], dtype=torch.float16)], clipper)
    assert clipped.item() == np.float16(1e-6) > 0


def test_nothing_is_written_on_the_cpu_when_nothing_is_clipped():
    grad = torch.ones(3)
    clipping.torch.apply_grads([grad], clipping.AutoClip())
    assert grad._version == 0


def test_torch_that_is_not_installed_is_said_to_be():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import clipping\n"
        "try: clipping.torch\n"
        "except ImportError as error: print(error); print(repr(error.__cause__))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    message, cause = done.stdout.splitlines()
    assert message == (
        "clipping.torch needs the module 'torch', which cannot be imported. "
        "Install it with: pip install 'trainbus[torch]'"
    )
    assert cause.startswith("ModuleNotFoundError")
