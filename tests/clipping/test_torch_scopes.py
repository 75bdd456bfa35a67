"""Scopes on torch, held against rules written out in float64 NumPy."""

import importlib

import numpy as np
import pytest

import clipping
from telemetry.testing import capture

torch = importlib.import_module("torch")


def keys_of(model, clipper):
    with capture(("smartclip", "clip", "group")) as events:
        clipping.apply(model, clipper)
    return [event.metadata["key"] for event in events]


def with_grads(model, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator).to(
            parameter.dtype
        )
    return model


def norm(array):
    return np.sqrt(np.sum(np.abs(array.astype(np.complex128)) ** 2))


def arrays(model):
    return [(p.detach().double().numpy(), p.grad.double().numpy()) for p in model.parameters()]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.conv = torch.nn.Conv2d(2, 3, 3)
        self.block = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))


GROUPS = {
    "global": [[0, 1, 2, 3, 4, 5, 6]],
    "per_layer": [[0], [1, 2], [3, 4], [5, 6]],
    "per_param": [[0], [1], [2], [3], [4], [5], [6]],
}


@pytest.mark.parametrize("scope", GROUPS)
def test_history_of_each_group(scope):
    """The second step is cut to the smaller of the two norms of its group."""
    model = with_grads(Net(), seed=1)
    clipper = clipping.AutoClip(
        mode="percentile",
        percentile=1e-9,
        history="window",
        scope=scope,
        warmup_steps=0,
        min_history=1,
    )
    clipping.apply(model, clipper)
    before = [grad for _, grad in arrays(model)]
    now = [grad for _, grad in arrays(with_grads(model, seed=2, scale=1.3))]
    clipping.apply(model, clipper)
    after = [grad for _, grad in arrays(model)]
    for group in GROUPS[scope]:
        least = np.sqrt(sum(norm(before[i]) ** 2 for i in group))
        whole = np.sqrt(sum(norm(now[i]) ** 2 for i in group))
        factor = min(least, whole) / (whole + 1e-8) if whole > least else 1.0
        for i in group:
            np.testing.assert_allclose(after[i], factor * now[i], rtol=1e-5)
    assert any(not np.array_equal(a, n) for a, n in zip(after, now, strict=True))


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("scope", GROUPS)
def test_agc_of_each_group(scope, exclude):
    model = with_grads(Net())
    before = arrays(model)
    clipping.apply(model, clipping.AGC(clipping=0.2, scope=scope, exclude_bias_bn=exclude))
    clipped = 0
    for group in GROUPS[scope]:
        within = [i for i in group if not exclude or before[i][0].ndim > 1]
        weight = np.sqrt(sum(norm(before[i][0]) ** 2 for i in within))
        grad = np.sqrt(sum(norm(before[i][1]) ** 2 for i in within))
        target = 0.2 * max(weight, 1e-3)
        factor = target / max(grad, 1e-6) if grad > target else 1.0
        clipped += factor < 1
        for i in group:
            expected = before[i][1] * (factor if i in within else 1.0)
            np.testing.assert_allclose(arrays(model)[i][1], expected, rtol=1e-5)
    assert clipped > 0


def unitwise_norm(x):
    """The rule of ``timm.utils.agc``: the first axis counts units, unless it is the only one."""
    if x.ndim <= 1:
        return norm(x)
    return np.sqrt(np.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))


def timm_rule(weight, grad, clip, eps):
    most = np.maximum(unitwise_norm(weight), eps) * clip
    grad_norm = unitwise_norm(grad)
    clipped = grad * (most / np.maximum(grad_norm, 1e-6))
    return np.where(grad_norm < most, grad, clipped)


SHAPES = [(), (5,), (4, 6), (300, 200), (1, 7), (6, 1), (3, 2, 5), (4, 3, 3, 3), (2, 2, 2, 2, 2)]


def shaped(dtype=torch.float32):
    torch.manual_seed(3)
    parameters = [torch.nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES]
    return with_grads(torch.nn.ParameterList(parameters), scale=0.5)


def test_per_unit_is_the_rule_of_timm():
    model = shaped()
    model[3].data[2] = 0.0  # below eps, so that eps counts
    before = arrays(model)
    agc = clipping.AGC(clipping=0.4, scope="per_unit", exclude_bias_bn=False)
    clipping.apply(model, agc)
    for (weight, grad), (_, after) in zip(before, arrays(model), strict=True):
        np.testing.assert_allclose(after, timm_rule(weight, grad, 0.4, 1e-3), rtol=2e-6)
    changed = [not np.array_equal(a[1], b[1]) for a, b in zip(before, arrays(model), strict=True)]
    assert sum(changed) > 5


def test_per_unit_events_are_per_parameter_with_a_number_for_each_unit():
    model = shaped()
    with capture(("smartclip", "**")) as events:
        clipping.apply(model, clipping.AGC(clipping=0.4, scope="per_unit"))
    groups, stop = events[1:-1], events[-1]
    # The two parameters of at most one dimension are left out.
    assert [e.metadata["key"] for e in groups] == [("param", str(i)) for i in range(2, 9)]
    units = [len(e.measurements["grad_norm"]) for e in groups]
    assert units == [shape[0] for shape in SHAPES[2:]]
    total = np.sqrt(sum(norm(g) ** 2 for _, g in arrays(shaped())))
    assert stop.measurements["grad_norm"] == pytest.approx(total, rel=1e-6)
    assert stop.measurements["groups"] == 7


@pytest.mark.parametrize("scope", ["global", "per_layer", "per_param", "per_unit"])
def test_only_what_is_scaled_is_written(scope):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.ones_like(parameter))
            parameter.grad = torch.full_like(parameter, 1e-5)
        model[1].weight.grad.fill_(100.0)
    before = [p.grad._version for p in model.parameters()]
    clipping.apply(model, clipping.AGC(scope=scope, exclude_bias_bn=False))
    after = [p.grad._version for p in model.parameters()]
    assert [a > b for a, b in zip(after, before, strict=True)] == {
        "global": [True] * 4,
        "per_layer": [False, False, True, True],
        "per_param": [False, False, True, False],
        "per_unit": [False, False, True, False],
    }[scope]


@pytest.mark.parametrize("scope", ["per_layer", "per_param", "per_unit"])
def test_zeroes_what_is_not_finite_and_nothing_else(scope):
    model = with_grads(Net())
    model.conv.weight.grad[1, 0, 0, 0] = float("nan")
    before = [grad for _, grad in arrays(model)]
    agc = clipping.AGC(clipping=1e6, scope=scope, exclude_bias_bn=False, on_nonfinite="zero")
    with capture(("smartclip", "clip", "nonfinite")) as events:
        clipping.apply(model, agc)
    after = [grad for _, grad in arrays(model)]
    zeroed = {"per_layer": [1, 2], "per_param": [1], "per_unit": []}[scope]
    for index in range(7):
        if index in zeroed:
            assert not after[index].any()
        elif index != 1:
            np.testing.assert_array_equal(after[index], before[index])
    if scope == "per_unit":
        assert not after[1][1].any()
        np.testing.assert_array_equal(after[1][[0, 2]], before[1][[0, 2]])
    key = ("layer", "conv") if scope == "per_layer" else ("param", "1")
    assert events[0].metadata["keys"] == (key,)


@pytest.mark.parametrize("scope", ["per_layer", "per_param", "per_unit"])
def test_skips_a_step_that_is_not_finite(scope):
    model = with_grads(Net())
    model.scale.grad.fill_(float("inf"))
    clipping.apply(model, clipping.AGC(scope=scope))
    assert all(not grad.any() for _, grad in arrays(model))


@pytest.mark.parametrize("scope", ["global", "per_layer", "per_param", "per_unit"])
def test_parameter_without_a_gradient_takes_no_part(scope):
    model = with_grads(Net())
    model.conv.weight.grad = None
    model.block[1].weight.grad = None
    model.block[1].bias.grad = None
    agc = clipping.AGC(clipping=0.1, scope=scope, exclude_bias_bn=False)
    keys = keys_of(model, agc)
    assert (
        keys
        == {
            "global": [("global",)],
            "per_layer": [("layer", "root"), ("layer", "conv"), ("layer", "block.0")],
            "per_param": [("param", i) for i in "0234"],
            "per_unit": [("param", i) for i in "0234"],
        }[scope]
    )
    # The same groups again when the others have gradients.
    clipping.apply(with_grads(model), agc)
    assert agc.state_dict()["steps"] == 2


def test_shared_parameter_counts_once_with_its_first_owner():
    model = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    with_grads(model)
    assert keys_of(model, clipping.AutoClip(scope="per_layer")) == [("layer", "a"), ("layer", "b")]
    assert keys_of(model, clipping.AutoClip(scope="per_param")) == [("param", i) for i in "012"]


def test_parameters_are_counted_over_the_trainable_ones():
    model = with_grads(Net())
    model.scale.requires_grad_(requires_grad=False)
    model.scale.grad = None
    assert keys_of(model, clipping.AutoClip(scope="per_param")) == [("param", i) for i in "012345"]


def test_frozen_parameter_that_holds_a_gradient_is_clipped_too():
    """An optimizer would apply it."""
    model = with_grads(Net())
    model.scale.requires_grad_(requires_grad=False)
    assert len(keys_of(model, clipping.AutoClip(scope="per_param"))) == 7


def test_new_parameters_are_new_groups():
    model = with_grads(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)))
    clipper = clipping.AGC(clipping=0.1)
    assert keys_of(model, clipper) == [("layer", "0"), ("layer", "1")]
    model[1] = with_grads(torch.nn.Linear(2, 3))
    assert keys_of(model, clipping.AGC()) == [("layer", "0"), ("layer", "1")]
    model[1].weight.grad.fill_(100.0)
    clipping.apply(model, clipper)
    weight, grad = arrays(model[1])[0]
    assert norm(grad) == pytest.approx(0.1 * norm(weight), rel=1e-5)


def rule(model, layers):
    """What AGC(clipping=0.1, scope="per_layer") makes of the gradients."""
    made = []
    for layer in layers:
        within = arrays(layer)
        weight = np.sqrt(sum(norm(w) ** 2 for w, _ in within))
        grad = np.sqrt(sum(norm(g) ** 2 for _, g in within))
        made += [min(1.0, 0.1 * weight / grad) * g for _, g in within]
    assert len(made) == len(list(model.parameters()))
    return made


def test_layers_in_another_order_are_grouped_anew():
    """There are as many parameters as before, of the same shapes, but others belong together."""
    pair = torch.nn.ParameterList([torch.ones(2, 2), torch.full((2, 2), 3.0)])
    model = torch.nn.Sequential(pair, torch.nn.ParameterList([torch.full((2, 2), 9.0)]))
    agc = clipping.AGC(clipping=0.1, scope="per_layer", exclude_bias_bn=False)
    clipping.apply(with_grads(model), agc)
    model[0], model[1] = model[1], model[0]
    expected = rule(with_grads(model, seed=1), model)
    clipping.apply(model, agc)
    for (_, grad), wanted in zip(arrays(model), expected, strict=True):
        np.testing.assert_allclose(grad, wanted, rtol=1e-5)


def test_layer_of_other_units_is_measured_anew():
    model = with_grads(torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.Linear(4, 6)))
    agc = clipping.AGC(clipping=0.1, scope="per_unit", exclude_bias_bn=False)
    clipping.apply(model, agc)
    model[0] = torch.nn.Linear(4, 5)
    check_units(model, agc)


@pytest.mark.parametrize("scope", ["per_param", "per_unit"])
def test_data_of_another_shape_may_make_other_groups(scope):
    """A vector is left out of AGC, a matrix is not."""
    model = torch.nn.ParameterList([torch.ones(4), torch.ones(4, 3)])
    agc = clipping.AGC(clipping=0.1, scope=scope)
    clipping.apply(with_grads(model), agc)
    for parameter, shape in zip(model, [(2, 3), (5, 3)], strict=True):
        parameter.grad = None
        parameter.data = torch.ones(shape)
    with pytest.raises(ValueError, match=r"history is of the groups .*\('param', '1'\)"):
        clipping.apply(with_grads(model), agc)


def test_rows_that_were_added_to_data_are_clipped():
    model = torch.nn.ParameterList([torch.ones(4, 3)])
    agc = clipping.AGC(clipping=0.1, scope="per_unit")
    clipping.apply(with_grads(model), agc)
    model[0].grad = None
    model[0].data = torch.ones(6, 3)
    check_units(model, agc)


def check_units(model, agc):
    before = arrays(with_grads(model, seed=1))
    clipping.apply(model, agc)
    for (weight, grad), (_, after) in zip(before, arrays(model), strict=True):
        np.testing.assert_allclose(after, timm_rule(weight, grad, 0.1, 1e-3), rtol=2e-6)


def test_gradient_of_the_former_shape_is_refused():
    model = with_grads(torch.nn.ParameterList([torch.ones(4, 3)]))
    model[0].data = torch.ones(2, 3)
    with pytest.raises(ValueError, match="of shape") as refused:
        clipping.apply(model, clipping.AGC(scope="per_unit"))
    assert str(refused.value) == (
        "The gradient of parameter 0 is of shape (4, 3), the parameter itself of (2, 3). "
        "Set .grad to None when you change .data. The gradients are untouched."
    )
