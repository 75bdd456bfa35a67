import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regularizers import RegularizerSpec, custom_loss, penalties
from telemetry.values import to_python

# By hand, for base = -sum(d * x), l1 = sum|x| with weight 0.1, l2 = sum(x**2) with weight 0.01:
# the values are 7.5, 3.5 and 5.25, the total is 7.5 + 0.35 + 0.0525,
# the gradients are (-1, -2, 3), (1, -1, 1) and (1, -2, 4), the total's is below.
DATA = [1.0, 2.0, -3.0]
LOGPROBS = [0.5, -1.0, 2.0]
TOTAL_GRADIENT = [-0.89, -2.12, 3.14]
SPECS = [
    RegularizerSpec(fn=penalties.l1, weight=0.1, name="sparsity"),
    RegularizerSpec(fn=penalties.l2, weight=0.01, name="decay"),
]


def weighted_nll(data, logprobs):
    return -sum(data * logprobs)  # TensorFlow's tensors have no .sum()


def weighted_nll_grad(data, logprobs):
    return -data


def fixed(value):
    return lambda data, logprobs: value


def run(framework, **options):
    data, logprobs = framework.tensor(DATA), framework.tensor(LOGPROBS)
    options = {"regularizers": SPECS, "base_grad_fn": weighted_nll_grad, **options}
    return logprobs, custom_loss(data, logprobs, weighted_nll, **options)


def test_values_are_the_closed_forms(framework):
    _, output = run(framework)
    assert output.loss_total == pytest.approx(7.9025)
    assert to_python(output.loss) == output.loss_total
    assert output.base_loss.value == pytest.approx(7.5)
    assert output.base_loss.custom == {}
    assert output.regularizer_total == pytest.approx(0.4025)
    assert list(output.regularizers) == ["sparsity", "decay"]
    sparsity, decay = output.regularizers.values()
    assert (sparsity.name, sparsity.weight, sparsity.value) == ("sparsity", 0.1, 3.5)
    assert sparsity.contribution == pytest.approx(0.35)
    assert (decay.name, decay.weight, decay.value) == ("decay", 0.01, 5.25)
    assert decay.contribution == pytest.approx(0.0525)


def test_gradient_norms_are_the_closed_forms(framework):
    _, output = run(framework, track_grad_norms=True)
    sparsity, decay = output.regularizers.values()
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(14))
    assert sparsity.grad_norm == pytest.approx(math.sqrt(3))
    assert sparsity.grad_norm_weighted == pytest.approx(0.1 * math.sqrt(3))
    assert decay.grad_norm == pytest.approx(math.sqrt(21))
    assert decay.grad_norm_weighted == pytest.approx(0.01 * math.sqrt(21))
    assert output.total_grad_norm == pytest.approx(math.sqrt(15.1461))


def test_gradient_norms_are_none_when_not_tracked(framework):
    _, output = run(framework)
    assert output.total_grad_norm is None
    assert output.base_loss.grad_norm is None
    assert [r.grad_norm for r in output.regularizers.values()] == [None, None]
    assert [r.grad_norm_weighted for r in output.regularizers.values()] == [None, None]


def torch_output(**options):
    data = torch.tensor(DATA, dtype=torch.float64)
    logprobs = torch.tensor(LOGPROBS, dtype=torch.float64, requires_grad=True)
    return custom_loss(data, logprobs, weighted_nll, **{"regularizers": SPECS, **options})


@pytest.mark.parametrize("track", [False, True])
def test_the_loss_differentiates_to_the_gradient_of_the_total(track):
    logprobs = torch.tensor(LOGPROBS, dtype=torch.float64, requires_grad=True)
    data = torch.tensor(DATA, dtype=torch.float64)
    output = custom_loss(data, logprobs, weighted_nll, regularizers=SPECS, track_grad_norms=track)
    assert logprobs.grad is None
    output.loss.backward()
    np.testing.assert_allclose(logprobs.grad, TOTAL_GRADIENT)


def test_on_numpy_the_output_has_the_gradient_of_the_total():
    data, logprobs = np.array(DATA), {"a": [np.array(LOGPROBS)], "b": None}
    output = custom_loss(
        data,
        logprobs,
        lambda data, tree: weighted_nll(data, tree["a"][0]),
        regularizers=SPECS,
        track_grad_norms=True,
        base_grad_fn=lambda data, tree: {"a": [-data], "b": None},
    )
    assert output.grad.keys() == {"a", "b"}
    assert output.grad["b"] is None
    np.testing.assert_allclose(output.grad["a"][0], TOTAL_GRADIENT)


def test_there_is_no_gradient_where_it_is_not_tracked_or_torch_finds_it():
    assert custom_loss(None, np.ones(2), penalties.l1).grad is None
    assert torch_output(track_grad_norms=True).grad is None


@pytest.mark.parametrize("track", [False, True])
def test_each_function_is_called_once(framework, track):
    calls = []

    def base(data, logprobs):
        calls.append("base")
        return weighted_nll(data, logprobs)

    def first(data, logprobs):
        calls.append("first")
        return sum(logprobs * logprobs)

    def second(data, logprobs):
        calls.append("second")
        return sum(3 * logprobs)

    specs = [
        RegularizerSpec(first, 1.0, "first", grad_fn=lambda data, logprobs: 2 * logprobs),
        RegularizerSpec(second, 1.0, "second", grad_fn=lambda data, logprobs: 0 * logprobs + 3),
    ]
    custom_loss(
        framework.tensor(DATA),
        framework.tensor(LOGPROBS),
        base,
        regularizers=specs,
        track_grad_norms=track,
        base_grad_fn=weighted_nll_grad,
    )
    assert calls == ["base", "first", "second"]


def test_without_regularizers_the_total_is_the_base_loss(framework):
    _, output = run(framework, regularizers=(), track_grad_norms=True)
    assert output.loss_total == pytest.approx(7.5)
    assert output.regularizer_total == 0.0
    assert output.regularizers == {}
    assert output.total_grad_norm == output.base_loss.grad_norm == pytest.approx(math.sqrt(14))


def test_metrics_that_functions_return_are_custom(framework):
    spec = RegularizerSpec(lambda d, x: (sum(x), {"largest": max(x), "size": 3}), 2.0, "sum")
    output = custom_loss(
        framework.tensor(DATA),
        framework.tensor(LOGPROBS),
        lambda d, x: (weighted_nll(d, x), {"perplexity": x[0] * 2}),
        regularizers=[spec],
    )
    assert output.base_loss.custom == {"perplexity": 1.0}
    assert output.regularizers["sum"].custom == {"largest": 2.0, "size": 3}
    assert output.regularizers["sum"].contribution == 3.0


def test_logprobs_can_be_a_tree(framework):
    """By hand: l2 over (3) and (0, 4) is 25, its gradient (6), (0, 8) has the norm 10."""
    tree = {"w": [framework.tensor([3.0])], "b": (framework.tensor([0.0, 4.0]), None)}
    spec = RegularizerSpec(penalties.l2, 0.5, "decay")
    output = custom_loss(None, tree, penalties.l1, regularizers=[spec], track_grad_norms=True)
    assert output.regularizers["decay"].value == 25.0
    assert output.regularizers["decay"].grad_norm == pytest.approx(10.0)
    # sign: (1), (0, 1); half of l2's: (3), (0, 4)
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(2))
    assert output.total_grad_norm == pytest.approx(math.sqrt(16 + 25))


def test_gradients_can_be_taken_by_other_parameters():
    """By hand: w = (2, 3), x = (1, -1), logprobs = w x; l1 has the slope sign(w x) x = (1, 1)."""
    w = torch.tensor([2.0, 3.0], requires_grad=True)
    frozen = torch.tensor([1.0])
    logprobs = w * torch.tensor([1.0, -1.0])
    output = custom_loss(
        None,
        logprobs,
        lambda data, logprobs: (logprobs * logprobs).sum(),  # by w: 2 w = (4, 6)
        regularizers=[RegularizerSpec(penalties.l1, 2.0, "l1")],
        track_grad_norms=True,
        wrt=iter([w, frozen]),
    )
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(52))
    assert output.regularizers["l1"].grad_norm == pytest.approx(math.sqrt(2))
    assert output.total_grad_norm == pytest.approx(10.0)  # (6, 8)
    assert w.grad is None


def test_a_term_that_does_not_depend_on_logprobs_has_norm_zero():
    w = torch.tensor([3.0], requires_grad=True)
    logprobs = torch.tensor([2.0], requires_grad=True)
    output = custom_loss(
        None,
        logprobs,
        lambda data, logprobs: (w * w).sum(),
        regularizers=[
            RegularizerSpec(lambda d, x: (x * x).sum(), 0.5, "a"),
            RegularizerSpec(lambda d, x: (w * 5).sum(), 1.0, "b"),
        ],
        track_grad_norms=True,
    )
    assert output.base_loss.grad_norm == 0.0
    assert output.regularizers["b"].grad_norm == 0.0
    assert output.regularizers["a"].grad_norm == 4.0
    assert output.total_grad_norm == 2.0


def test_a_tensor_given_twice_counts_once():
    x = torch.tensor([3.0, 4.0], requires_grad=True)
    output = custom_loss(None, x, penalties.l2, track_grad_norms=True, wrt=[x, {"tied": x}])
    assert output.base_loss.grad_norm == pytest.approx(10.0)


def test_retained_grads_are_left_alone():
    """autograd.grad writes to .grad of a tensor that retain_grad() was called on."""
    source = torch.tensor(LOGPROBS, dtype=torch.float64, requires_grad=True)
    logprobs = source * 1.0
    logprobs.retain_grad()
    data = torch.tensor(DATA, dtype=torch.float64)
    for wrt in (None, [source]):
        output = custom_loss(
            data, logprobs, weighted_nll, regularizers=SPECS, track_grad_norms=True, wrt=wrt
        )
        assert logprobs.grad is None
    output.loss.backward()
    np.testing.assert_allclose(logprobs.grad, TOTAL_GRADIENT)
    np.testing.assert_allclose(source.grad, TOTAL_GRADIENT)


def test_what_was_reported_does_not_change_when_the_loss_is_written_to():
    output = torch_output(regularizers=())
    loss = output.loss
    loss /= 4
    assert loss.item() == pytest.approx(7.5 / 4)
    assert output.loss_total == output.base_loss.value == pytest.approx(7.5)


def test_a_buffer_that_a_function_writes_to_again_is_reported_as_it_was():
    buffer = torch.zeros(())

    def counting(data, logprobs):
        buffer.add_(1)
        return logprobs.sum(), {"calls": buffer}

    x = torch.ones(2)
    first, second = (custom_loss(None, x, counting) for _ in range(2))
    assert (first.base_loss.custom, second.base_loss.custom) == ({"calls": 1.0}, {"calls": 2.0})


def test_numbers_stay_plain_where_functions_return_plain_ones():
    spec = RegularizerSpec(fixed(3), 0.5, "three")
    output = custom_loss([], [], fixed(2.0), regularizers=[spec])
    assert (output.loss, output.loss_total, output.regularizers["three"].contribution) == (
        3.5,
        3.5,
        1.5,
    )


def test_plain_numbers_add_to_tensors():
    x = torch.tensor([2.0], requires_grad=True)
    specs = [RegularizerSpec(fixed(1.0), 0.5, "constant"), RegularizerSpec(penalties.l1, 1, "l1")]
    output = custom_loss(None, x, fixed(np.float64(3.0)), regularizers=specs)
    output.loss.backward()
    assert (output.loss_total, x.grad.tolist()) == (5.5, [1.0])


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_is_not_finite_is_passed_on(framework, value):
    spec = RegularizerSpec(lambda d, x: sum(x) * value, 0.0, "bad")
    with np.errstate(invalid="ignore"):  # numpy says what it thinks of 0 * inf
        output = custom_loss(
            None, framework.tensor([1.0]), lambda d, x: sum(x), regularizers=[spec]
        )
    assert str(output.regularizers["bad"].value) == str(value)
    assert math.isnan(output.regularizers["bad"].contribution)
    assert math.isnan(output.loss_total)


def test_half_precision_gradients_are_measured_in_float32():
    """65536 gradients of 256 have the norm 65536, which float16 has no number for."""
    x = torch.ones(65536, dtype=torch.float16, requires_grad=True)
    output = custom_loss(None, x, lambda d, x: (x.float() * 256).sum(), track_grad_norms=True)
    assert output.base_loss.grad_norm == pytest.approx(65536.0)


def test_sparse_and_dense_gradients_add_up():
    """By hand: row 1 of an embedding is used, gradient (1, 1); l2 adds 2 w = 2 everywhere."""
    embedding = torch.nn.Embedding(3, 2, sparse=True)
    torch.nn.init.ones_(embedding.weight)
    rows = torch.tensor([1])
    output = custom_loss(
        rows,
        embedding(rows),
        lambda data, logprobs: logprobs.sum(),
        regularizers=[
            RegularizerSpec(lambda d, x: (x * x).sum(), 1.0, "sparse"),
            RegularizerSpec(lambda d, x: (embedding.weight**2).sum(), 1.0, "dense"),
        ],
        track_grad_norms=True,
        wrt=embedding.parameters(),
    )
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(2))
    assert output.regularizers["sparse"].grad_norm == pytest.approx(math.sqrt(8))
    assert output.regularizers["dense"].grad_norm == pytest.approx(math.sqrt(24))
    assert output.total_grad_norm == pytest.approx(math.sqrt(2 * 25 + 4 * 4))


def test_nothing_is_read_from_the_device():
    """On the meta device any read of a value would fail."""
    x = torch.ones(4, 3, device="meta", requires_grad=True)
    specs = [*SPECS, RegularizerSpec(penalties.entropy, 1.0, "entropy")]
    output = custom_loss(
        x, x, lambda d, x: (x.sum(), {"m": x.max()}), regularizers=specs, track_grad_norms=True
    )
    output.loss.backward()
    assert output.loss.device.type == "meta"
    assert x.grad.shape == (4, 3)


vectors = st.lists(st.floats(-3, 3).filter(lambda x: abs(x) > 1e-3), min_size=1, max_size=5)


def smooth(data, x):
    return (x * x * x).sum() * 0.1


@given(values=vectors, weights=st.tuples(st.floats(0, 5), st.floats(0, 5)))
def test_gradient_norms_agree_with_finite_differences(values, weights):
    specs = [
        RegularizerSpec(smooth, weights[0], "smooth"),
        RegularizerSpec(penalties.l1, weights[1], "l1"),
    ]

    def norm_of(function):
        h = 1e-5
        steps = h * np.eye(len(values))
        x = np.array(values)
        slopes = [(function(x + step) - function(x - step)) / (2 * h) for step in steps]
        return np.linalg.norm(slopes)

    def base(data, x):
        return (x * x).sum()

    def total(x):
        return base(None, x) + weights[0] * smooth(None, x) + weights[1] * np.abs(x).sum()

    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    output = custom_loss(None, x, base, regularizers=specs, track_grad_norms=True)
    near = {"rel": 1e-5, "abs": 1e-5}
    assert output.base_loss.grad_norm == pytest.approx(norm_of(lambda x: base(None, x)), **near)
    assert output.regularizers["smooth"].grad_norm == pytest.approx(
        norm_of(lambda x: smooth(None, x)), **near
    )
    assert output.total_grad_norm == pytest.approx(norm_of(total), **near)


@given(values=vectors, weights=st.lists(st.floats(0, 10), max_size=4))
def test_the_total_is_the_weighted_sum_and_its_norm_is_bounded(values, weights):
    """The triangle inequality holds for norms; contributions add up to the total."""
    specs = [
        RegularizerSpec([penalties.l1, penalties.l2][i % 2], weight, str(i))
        for i, weight in enumerate(weights)
    ]
    output = custom_loss(
        None, np.array(values), penalties.l2, regularizers=specs, track_grad_norms=True
    )
    parts = list(output.regularizers.values())
    assert output.regularizer_total == pytest.approx(
        sum(w * r.value for w, r in zip(weights, parts, strict=True))
    )
    assert output.loss_total == pytest.approx(output.base_loss.value + output.regularizer_total)
    bound = output.base_loss.grad_norm + sum(r.grad_norm_weighted for r in parts)
    assert output.total_grad_norm <= bound * (1 + 1e-12)


@given(values=vectors)
def test_numpy_and_torch_agree(values):
    specs = [*SPECS, RegularizerSpec(penalties.entropy, 0.3, "entropy")]
    x = torch.tensor(values, dtype=torch.float64, requires_grad=True)
    ours, theirs = (
        custom_loss(None, logprobs, penalties.l2, regularizers=specs, track_grad_norms=True)
        for logprobs in (np.array(values), x)
    )
    for name in ("loss_total", "regularizer_total", "total_grad_norm"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=1e-9)


def test_outputs_are_frozen():
    output = torch_output()
    with pytest.raises(dataclasses.FrozenInstanceError):
        output.loss_total = 0.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        output.regularizers["sparsity"].value = 0.0
