"""Names of layers under torch's wrappers, compiled models, and what cannot be clipped."""

import importlib
import warnings

import pytest

import clipping
from telemetry.testing import capture

torch = importlib.import_module("torch")
dist = importlib.import_module("torch.distributed")


def layers(model, inputs=None):
    inputs = torch.ones(2, 3) if inputs is None else inputs
    model(inputs).sum().backward()
    with capture(("smartclip", "clip", "group")) as events:
        clipping.apply(model, clipping.AutoClip(scope="per_layer"))
    assert {event.metadata["key"][0] for event in events} == {"layer"}
    return [event.metadata["key"][1] for event in events]


def net():
    return torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Sequential(torch.nn.Linear(3, 1)))


@pytest.fixture
def group():
    """A process group of one."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_names_are_those_of_the_modules():
    assert layers(net()) == ["0", "1.0"]


def test_what_no_layer_owns_is_the_root():
    assert layers(torch.nn.Linear(3, 1)) == ["root"]


def test_data_parallel_does_not_show():
    assert layers(torch.nn.DataParallel(net())) == ["0", "1.0"]


def test_distributed_data_parallel_does_not_show(group):
    assert layers(torch.nn.parallel.DistributedDataParallel(net())) == ["0", "1.0"]
    part = net()
    part[1] = torch.nn.parallel.DistributedDataParallel(part[1])
    assert layers(part) == ["0", "1.0"]


def test_compiled_model_does_not_show():
    assert layers(torch.compile(net(), backend="eager")) == ["0", "1.0"]
    part = net()
    part[0] = torch.compile(part[0], backend="eager")
    assert layers(part) == ["0", "1.0"]


def test_checkpointed_layer_does_not_show():
    wrap = importlib.import_module(
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper"
    ).checkpoint_wrapper
    model = net()
    model[1] = wrap(model[1])
    assert layers(model) == ["0", "1.0"]


def test_module_that_is_called_module_keeps_its_name():
    """Otherwise its parameters would be taken for those of its parent."""
    model = torch.nn.Sequential()
    model.add_module("a", torch.nn.Sequential())
    model.a.add_module("module", torch.nn.Linear(3, 1))
    assert layers(model) == ["a.module"]


def own(**parts):
    """A module that owns a parameter beside other modules."""
    model = torch.nn.ModuleDict(parts)
    model.register_parameter("weight", torch.nn.Parameter(torch.ones(2)))
    return model


def named(model):
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    clipper = clipping.AutoClip(scope="per_layer")
    clipping.apply(model, clipper)
    return [name for _, name in clipper.state_dict()["keys"]]


def holding(**parts):
    model = torch.nn.Module()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


def test_sole_module_of_the_root_is_wrapped_by_it():
    assert named(holding(module=net())) == ["0", "1.0"]
    assert named(torch.compile(holding(module=net()), backend="eager")) == ["0", "1.0"]


def test_module_beside_others_is_no_wrapped_one():
    fc = torch.nn.Linear(2, 2)
    inner = torch.nn.ModuleDict({"fc": torch.nn.Linear(2, 2)})
    assert named(holding(fc=fc, module=inner)) == ["fc", "module.fc"]
    other = holding(fc=torch.nn.Linear(2, 2), module=holding(a=torch.nn.Linear(2, 2)))
    assert named(other) == ["fc", "module.a"]
    assert named(own(module=torch.nn.Linear(2, 2))) == ["root", "module"]
    assert named(own(module=holding(a=torch.nn.Linear(2, 2)))) == ["root", "module.a"]


def test_layer_called_root_is_not_what_the_model_owns():
    assert named(own(root=torch.nn.Linear(2, 2))) == ["root.", "root"]
    wrapped = torch.nn.DataParallel(own(root=torch.nn.Linear(2, 2)))
    assert named(wrapped) == ["root.", "root"]
    assert named(holding(root=torch.nn.Linear(2, 2))) == ["root"]


def test_layers_whose_names_would_be_one_keep_their_own():
    wrapper = own(_checkpoint_wrapped_module=torch.nn.Linear(2, 2))
    assert named(holding(a=wrapper, b=torch.nn.Linear(2, 2))) == [
        "a",
        "a._checkpoint_wrapped_module",
        "b",
    ]


def test_fabric_does_not_show():
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    assert named(fabric.setup(net())) == ["0", "1.0"]


@pytest.mark.parametrize("original", [False, True])
def test_first_version_of_fsdp_is_refused(group, original):
    fsdp = importlib.import_module("torch.distributed.fsdp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about a world of one
        model = fsdp.FullyShardedDataParallel(
            net(), device_id=torch.device("cpu"), use_orig_params=original
        )
    model(torch.ones(1, 3)).sum().backward()
    before = [p.grad.clone() for p in model.parameters()]
    ways = {
        "FullyShardedDataParallel": lambda: clipping.apply(model, clipping.AutoClip()),
        "a FlatParameter": lambda: clipping.torch.apply_grads(
            model.parameters(), clipping.AutoClip()
        ),
    }
    if original:  # views of the flat parameter, which do not show it
        del ways["a FlatParameter"]
    messages = []
    for clip in ways.values():
        with pytest.raises(TypeError) as refused:
            clip()
        messages.append(str(refused.value))
    assert messages == [
        f"Cannot clip what {what} holds: the first version of FSDP flattens parameters, so that no "
        "rank knows their norms. Allowed: torch.distributed.fsdp.fully_shard(model), the second "
        "version, and DistributedDataParallel. The gradients are untouched."
        for what in ways
    ]
    assert all(p.grad.equal(b) for p, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_model_trains_as_the_plain_one(backend):
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = net()
        run = torch.compile(model, backend=backend) if compiled else model
        optimizer = torch.optim.SGD(run.parameters(), lr=0.1)
        with clipping.clip_context(run, optimizer, clipping.AGC(clipping=0.05)):
            for step in range(3):
                optimizer.zero_grad()
                run(torch.full((2, 3), step + 1.0)).square().sum().backward()
                optimizer.step()
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(a.equal(b) for a, b in zip(*weights, strict=True))


def test_frozen_model_is_refused():
    model = net().requires_grad_(requires_grad=False)
    with pytest.raises(ValueError, match="trainable") as refused:
        clipping.apply(model, clipping.AutoClip())
    assert str(refused.value) == (
        "Cannot clip Sequential: none of its 4 parameters is trainable, all have "
        "requires_grad=False. Call requires_grad_() on those that are to be trained."
    )


def test_model_without_gradients_is_refused():
    with pytest.raises(ValueError, match="None") as refused:
        clipping.apply(net(), clipping.AutoClip())
    assert str(refused.value) == (
        "Cannot clip a model without gradients, got Sequential whose parameters all have .grad "
        "None. Call loss.backward() first."
    )


def test_bare_gradients_have_no_weights():
    grads = [torch.ones(2, 2)]
    with pytest.raises(ValueError, match="bare") as refused:
        clipping.torch.apply_grads(grads, clipping.AGC(clipping=1e-3, scope="per_param"))
    assert str(refused.value) == (
        "AGC holds gradients against weights, and bare gradients have none: give the parameters, "
        "whose .grad is clipped. The gradients are untouched."
    )
    assert grads[0].equal(torch.ones(2, 2))


def test_bare_parameters_have_no_layers():
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.grad = torch.ones(2)
    for given in ([parameter], [parameter.grad]):
        with pytest.raises(ValueError, match="needs the names of the layers"):
            clipping.torch.apply_grads(given, clipping.AutoClip(scope="per_layer"))
    assert parameter.grad.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("scope", ["per_param", "per_unit"])
def test_bare_parameters_have_weights(scope):
    parameter = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    parameter.grad = torch.tensor([[30.0, 40.0]])
    other = torch.nn.Parameter(torch.ones(1, 1))
    clipper = clipping.AGC(clipping=0.1, scope=scope)
    (grad,) = clipping.torch.apply_grads([other, parameter], clipper)
    torch.testing.assert_close(grad, torch.tensor([[0.3, 0.4]]))


def test_mixed_devices_are_refused():
    model = torch.nn.ParameterList([torch.ones(1), torch.ones(1, device="meta")])
    for parameter in model:
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(ValueError, match="must all be on one device, got cpu and meta"):
        clipping.apply(model, clipping.AutoClip())


class Own(torch.nn.Module):
    """Lists one of its two parameters only."""

    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(3, 1), torch.nn.Linear(3, 1)

    def parameters(self, recurse=True):
        return self.a.parameters(recurse)

    def forward(self, x):
        return self.a(x) + self.b(x)


def test_model_that_lists_its_parameters_itself_is_asked():
    assert layers(Own()) == ["a"]


def test_model_that_is_no_module_has_groups_of_parameters():
    class Plain:
        def __init__(self):
            self.weight = torch.nn.Parameter(torch.ones(1))
            self.weight.grad = torch.ones(1)

        def parameters(self):
            return [self.weight, self.weight]

    with capture(("smartclip", "clip", "group")) as events:
        clipping.apply(Plain(), clipping.AutoClip(scope="per_param"))
    assert [event.metadata["key"] for event in events] == [("param", "0")]


def test_model_goes_when_nobody_else_holds_it():
    """A clipper that outlives a model does not keep its parameters."""
    import gc
    import weakref

    clipper = clipping.AutoClip()
    model = net()
    model(torch.ones(1, 3)).sum().backward()
    clipping.apply(model, clipper)
    parameter = weakref.ref(model[0].weight)
    del model
    gc.collect()
    assert parameter() is None


@pytest.mark.parametrize("way", ["apply", "apply_grads"])
def test_model_goes_even_if_a_parameter_refers_to_it(way):
    import gc
    import weakref

    clipper = clipping.AutoClip()
    model = net()
    model[0].weight.owner = model
    model(torch.ones(1, 3)).sum().backward()
    if way == "apply":
        clipping.apply(model, clipper)
    else:
        clipping.torch.apply_grads(model.parameters(), clipper)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
