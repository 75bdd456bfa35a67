"""What torch's tensors and graphs can be like, and what is left of them as it was."""

import math
import weakref
from datetime import timedelta

import pytest
import torch

from regularizers import CustomLoss, RegularizerError, RegularizerSpec, custom_loss, penalties


def tracked(logprobs, base, *specs, **options):
    return custom_loss(None, logprobs, base, regularizers=specs, track_grad_norms=True, **options)


def total(data, x):
    return x.sum()


def squares(data, x):
    return (x * x).sum()


class GivenGradient(torch.autograd.Function):
    """A scalar whose gradient is somebody's own tensor, handed out as it is."""

    @staticmethod
    def forward(ctx, x, gradient):
        ctx.gradient = gradient
        return x.sum()

    @staticmethod
    def backward(ctx, _):
        return ctx.gradient, None


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0)])
def test_gradients_are_summed_without_writing_to_anybodys_tensors(order):
    """By hand: gradients (3, 4), expanded (1, 1) and 2 x = (2, 4), each with weight 1 or 0.5."""
    theirs = torch.tensor([3.0, 4.0])
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    functions = [lambda d, x: GivenGradient.apply(x, theirs), total, squares]
    first, second, third = (functions[index] for index in order)
    specs = [RegularizerSpec(second, 0.5, "second"), RegularizerSpec(third, 0.5, "third")]
    output = tracked(x, first, *specs)
    gradients = [torch.tensor([3.0, 4.0]), torch.ones(2), torch.tensor([2.0, 4.0])]
    a, b, c = (gradients[index] for index in order)
    assert output.total_grad_norm == pytest.approx(float((a + 0.5 * b + 0.5 * c).norm()))
    assert theirs.tolist() == [3.0, 4.0]


def test_variables_may_be_of_several_dtypes_and_shapes():
    """By hand: 2 x is 2 at each of 8 real ones, and |2 z| = 10 at the complex one."""
    variables = {
        "scalar": torch.ones((), requires_grad=True),
        "empty": torch.ones(0, 3, requires_grad=True),
        "half": torch.ones(2, dtype=torch.float16, requires_grad=True),
        "brain": torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
        "double": torch.ones(2, dtype=torch.float64, requires_grad=True),
        "complex": torch.tensor([3 + 4j], requires_grad=True),
        "frozen": torch.ones(5),
        "indices": torch.arange(3),
    }

    def squared_size(data, tree):
        return sum((leaf.abs() ** 2).sum() for leaf in tree.values() if leaf.requires_grad)

    spec = RegularizerSpec(squared_size, 2.0, "twice")
    output = tracked(variables, squared_size, spec)
    norm = math.sqrt(8 * 2**2 + 10**2)
    assert output.base_loss.grad_norm == pytest.approx(norm)
    assert output.total_grad_norm == pytest.approx(3 * norm)


def test_sparse_gradients_of_one_row_looked_up_twice_count_together():
    """By hand: row 0 is used twice, gradient 2 in both columns; row 2 once."""
    table = torch.nn.Embedding(4, 2, sparse=True)
    rows = table(torch.tensor([0, 0, 2]))
    specs = [RegularizerSpec(total, 1.0, "a"), RegularizerSpec(total, 1.0, "b")]
    output = tracked(rows, total, *specs, wrt=table.parameters())
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(2 * 4 + 2 * 1))
    assert output.total_grad_norm == pytest.approx(3 * math.sqrt(10))


def test_a_term_may_depend_on_some_of_the_variables_only():
    a, b, c = (torch.ones(2, requires_grad=True) for _ in range(3))
    output = tracked(
        a,
        lambda d, x: a.sum(),
        RegularizerSpec(lambda d, x: 3 * b.sum(), 2.0, "b"),
        RegularizerSpec(lambda d, x: b.sum() + a.sum(), 1.0, "both"),
        wrt=[a, b, c],
    )
    assert output.regularizers["b"].grad_norm == pytest.approx(3 * math.sqrt(2))
    assert output.total_grad_norm == pytest.approx(math.sqrt(2 * 2**2 + 2 * 7**2))


def test_a_learned_weight_is_differentiated_but_not_reported_with_its_graph():
    """By hand: d(base + w l2)/dw = l2 = 5, and by x it is 1 + 2 w x = (4, 7) for w = 1.5."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    w = torch.tensor(1.5, requires_grad=True)
    spec = RegularizerSpec(penalties.l2, lambda step: w * 1, "decay")
    output = CustomLoss(
        total, [spec, RegularizerSpec(total, 0.0, "nothing")], track_grad_norms=True
    )(None, x)
    assert not vars(output.regularizers["decay"])["weight"].requires_grad
    assert not vars(output.regularizers["decay"])["contribution"].requires_grad
    assert not vars(output)["total_grad_norm"].requires_grad
    assert output.regularizers["decay"].contribution == pytest.approx(7.5)
    assert output.total_grad_norm == pytest.approx(math.sqrt(16 + 49))
    output.loss.backward()
    assert (w.grad.item(), x.grad.tolist()) == (5.0, [4.0, 7.0])


def test_on_the_meta_device_nothing_can_be_read_and_all_works():
    """Neither a sum of several gradients, nor a weight that is a tensor, nor several variables."""
    x = torch.ones(4, 3, device="meta", requires_grad=True)
    w = torch.ones(3, 2, device="meta", requires_grad=True)
    specs = [
        RegularizerSpec(penalties.entropy, 0.1, "entropy"),
        RegularizerSpec(squares, lambda step: torch.ones((), device="meta"), "squares"),
        RegularizerSpec(lambda d, x: (x.sum(), {"most": x.max()}), 0.3, "sum"),
    ]
    output = tracked(x @ w, squares, *specs, wrt=[x, w], step=0)
    held = [vars(output)["total_grad_norm"], vars(output.regularizers["squares"])["contribution"]]
    assert [number.device.type for number in held] == ["meta", "meta"]
    output.loss.backward()
    assert (x.grad.shape, w.grad.shape) == ((4, 3), (3, 2))


def test_no_grad_of_a_model_is_touched_and_its_graph_is_freed_as_usual():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    inputs = torch.randn(5, 3)
    specs = [RegularizerSpec(penalties.l2, 0.1, "decay"), RegularizerSpec(total, 0.2, "sum")]
    earlier = [torch.full_like(p, 7.0) for p in model.parameters()]
    for parameter, grad in zip(model.parameters(), earlier, strict=True):
        parameter.grad = grad
    output = tracked(model(inputs), squares, *specs, wrt=model.parameters())
    for parameter, grad in zip(model.parameters(), earlier, strict=True):
        assert parameter.grad is grad
        assert (grad == 7.0).all()
    expected = [p.grad for p in _backward_by_hand(model, inputs)]
    norm = torch.linalg.vector_norm(torch.cat([grad.flatten() for grad in expected]))
    assert output.total_grad_norm == pytest.approx(norm.item(), rel=1e-6)

    for parameter in model.parameters():
        parameter.grad = None
    output.loss.backward()
    for parameter, grad in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, grad)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        output.loss.backward()


def _backward_by_hand(model, inputs):
    copy = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    copy.load_state_dict(model.state_dict())
    y = copy(inputs)
    ((y * y).sum() + 0.1 * (y * y).sum() + 0.2 * y.sum()).backward()
    return list(copy.parameters())


def test_logprobs_may_be_a_function_of_the_parameters_which_is_called_once():
    """By hand: x = w**2 = (1, 4), base = sum(x), by w it is 2 w = (2, 4)."""
    calls = []

    def logprobs(params):
        calls.append(params)
        return params["w"] ** 2

    params = {"w": torch.tensor([1.0, 2.0], requires_grad=True)}
    output = tracked(logprobs, total, wrt=params)
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(20))
    assert len(calls) == 1
    output.loss.backward()
    assert params["w"].grad.tolist() == [2.0, 4.0]


def test_the_loss_can_be_differentiated_twice():
    """By hand: base + 2 sum(x**3), by x 2 x + 6 x**2; the sum of that again 2 + 12 x."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    output = tracked(x, squares, RegularizerSpec(lambda d, x: (x**3).sum(), 2.0, "cubes"))
    (first,) = torch.autograd.grad(output.loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.tolist() == [8.0, 28.0]
    assert second.tolist() == [14.0, 26.0]


def test_hooks_on_logprobs_see_and_may_change_each_gradient():
    """By hand: doubled by the hook, (1, 1) becomes (2, 2), and 2 x = (2, 4) becomes (4, 8)."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    seen = []

    def double(grad):
        seen.append(grad.tolist())
        return 2 * grad

    x.register_hook(double)
    output = tracked(x, total, RegularizerSpec(squares, 1.0, "squares"))
    assert seen == [[1.0, 1.0], [2.0, 4.0]]
    assert output.base_loss.grad_norm == pytest.approx(math.sqrt(8))
    assert output.total_grad_norm == pytest.approx(math.sqrt(6**2 + 10**2))


def test_autocast_functions_are_measured_in_float32():
    """By hand: x w is 2 at 6 places; by each of the 4 in x its sum has the slope 3."""
    x, w = torch.ones(2, 2, requires_grad=True), torch.ones(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = tracked(
            x,
            lambda d, x: (x @ w).sum(),
            RegularizerSpec(lambda d, x: (x @ w).square().mean(), 1.0, "squares"),
        )
    held = vars(output)
    assert output.base_loss.value == 12.0
    assert output.regularizers["squares"].value == 4.0
    assert held["total_grad_norm"].dtype == torch.float32
    assert output.base_loss.grad_norm == pytest.approx(6.0)
    # d/dx of the mean of (x w)**2 over 6 elements: 2 * 2 * 3 / 6 = 2 each
    assert output.total_grad_norm == pytest.approx(10.0)
    output.loss.backward()
    assert x.grad.tolist() == [[5.0, 5.0], [5.0, 5.0]]


def test_a_gradient_is_let_go_when_it_has_been_added():
    """Each may be as large as the model; only their sum is kept until the end."""
    x = torch.ones(3, requires_grad=True)
    gradients = []

    def remember(grad):
        own = grad.clone()
        gradients.append(weakref.ref(own))
        return own

    x.register_hook(remember)
    alive = []

    def counting(data, x):
        alive.append(sum(gradient() is not None for gradient in gradients))
        return squares(data, x)

    specs = [RegularizerSpec(counting, 0.5, name) for name in "abc"]
    tracked(x, squares, *specs)
    assert len(gradients) == 4
    assert alive == [1, 0, 0]  # before anything is added to it, the base loss's is the sum


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_tracking_is_refused_where_torch_records_nothing(mode):
    x = torch.ones(2, requires_grad=True)
    with mode():
        assert custom_loss(None, x, total).loss_total == 2.0
        with pytest.raises(ValueError, match="records no gradients here, inside") as caught:
            tracked(x, total)
        if mode is torch.no_grad:
            with torch.enable_grad():
                assert tracked(x, total).base_loss.grad_norm == pytest.approx(math.sqrt(2))
    assert "track_grad_norms=False, as in validation" in str(caught.value)


def test_a_penalty_of_no_tensors_is_a_plain_number_and_cannot_be_tracked():
    w = torch.ones(2, requires_grad=True)
    spec = RegularizerSpec(penalties.l1, 1.0, "nothing")
    assert custom_loss(None, {}, lambda d, x: 1.0, regularizers=[spec]).loss_total == 1.0
    with pytest.raises(RegularizerError, match=r"'nothing' returned 0.0 \(float\), through which"):
        tracked({}, lambda d, x: w.sum(), spec, wrt=[w])


def test_checkpointed_layers_are_recomputed_for_each_gradient():
    from torch.utils.checkpoint import checkpoint

    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Tanh())
    inputs = torch.randn(4, 3)
    specs = [RegularizerSpec(total, 0.5, "sum")]
    plain = tracked(layer(inputs), squares, *specs, wrt=layer.parameters())
    again = tracked(
        checkpoint(layer, inputs, use_reentrant=False), squares, *specs, wrt=layer.parameters()
    )
    assert again.to_dict() == plain.to_dict()


def test_under_distributed_data_parallel_the_reducer_runs_once_in_the_callers_backward(tmp_path):
    torch.manual_seed(0)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{tmp_path / 'store'}",
        rank=0,
        world_size=1,
        timeout=timedelta(seconds=60),
    )
    try:
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 2))
        specs = [RegularizerSpec(total, 0.5, "sum")]
        for _ in range(2):  # the reducer complains of a pass that it missed or saw twice
            model.zero_grad()
            output = tracked(model(torch.ones(4, 3)), squares, *specs, wrt=model.parameters())
            assert all(p.grad is None for p in model.parameters())
            output.loss.backward()
            norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
            assert output.total_grad_norm == pytest.approx(norm.item(), rel=1e-6)
    finally:
        torch.distributed.destroy_process_group()
