import contextlib
import importlib

import numpy as np
import pytest

import clipping

torch = importlib.import_module("torch")


def trained(optimizer_class=torch.optim.SGD, **options):
    model = torch.nn.Linear(2, 1)
    return model, optimizer_class(model.parameters(), **({"lr": 0.1} | options))


def test_hook_is_removed_on_exit():
    model, optimizer = trained()
    with contextlib.suppress(ZeroDivisionError), clipping.clip_context(model, optimizer):
        assert len(optimizer._optimizer_step_pre_hooks) == 1
        raise ZeroDivisionError
    assert len(optimizer._optimizer_step_pre_hooks) == 0


def test_hook_of_somebody_else_stays():
    model, optimizer = trained()
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append(1))
    with clipping.clip_context(model, optimizer):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    optimizer.step()
    assert calls == [1, 1]


@pytest.mark.parametrize("by_keyword", [False, True])
def test_closure_is_refused(by_keyword):
    model, optimizer = trained()
    weights = model.weight.detach().clone()
    closure = lambda: 0.0  # noqa: E731 -- the usual name for it

    with clipping.clip_context(model, optimizer), pytest.raises(RuntimeError) as refused:
        optimizer.step(closure=closure) if by_keyword else optimizer.step(closure)
    assert str(refused.value) == (
        "SGD.step(closure) computes new gradients after clip_context has clipped. Call the "
        "closure yourself and then optimizer.step(), or call clipping.apply(model, clipper) at "
        "the end of the closure, outside clip_context."
    )
    assert model.weight.equal(weights)


def test_closure_of_none_is_no_closure():
    model, optimizer = trained()
    model(torch.ones(1, 2)).sum().backward()
    with clipping.clip_context(model, optimizer) as clipper:
        optimizer.step(None)
        optimizer.step(closure=None)
    assert clipper.state_dict()["steps"] == 2


def scaled_step(optimizer, model, scaler, *, unscale):
    scaler.scale(model(torch.ones(1, 2)).sum()).backward()
    if unscale:
        scaler.unscale_(optimizer)
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("unscale", [False, True])
def test_unscaled_gradients_are_clipped_under_a_scaler(unscale):
    model, optimizer = trained()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    clipper = clipping.AutoClip(mode="percentile")
    with clipping.clip_context(model, optimizer, clipper):
        scaled_step(optimizer, model, scaler, unscale=unscale)
    # The gradient of the sum is (1, 1) for the weights and 1 for the bias.
    assert clipper.threshold_any() == pytest.approx(np.sqrt(3.0))


def test_fused_optimizer_with_scaled_gradients_is_refused():
    model, optimizer = trained(torch.optim.Adam, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    weights = model.weight.detach().clone()
    with clipping.clip_context(model, optimizer), pytest.raises(RuntimeError) as refused:
        scaled_step(optimizer, model, scaler, unscale=False)
    assert str(refused.value) == (
        "The gradients of this fused Adam are still multiplied by the GradScaler's scale, so a "
        "threshold means nothing. Call scaler.unscale_(optimizer) before scaler.step(optimizer)."
    )
    assert model.weight.equal(weights)


def test_fused_optimizer_with_unscaled_gradients_is_clipped():
    model, optimizer = trained(torch.optim.Adam, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    clipper = clipping.AutoClip(mode="percentile")
    with clipping.clip_context(model, optimizer, clipper):
        scaled_step(optimizer, model, scaler, unscale=True)
    assert clipper.threshold_any() == pytest.approx(np.sqrt(3.0))


def test_schedulers_that_wrap_step_still_work():
    model, optimizer = trained()
    with clipping.clip_context(model, optimizer) as clipper:
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert clipper.state_dict()["steps"] == 1


def test_gradients_accumulate_to_one_step():
    model, optimizer = trained()
    clipper = clipping.AutoClip(mode="percentile")
    with clipping.clip_context(model, optimizer, clipper):
        for _ in range(4):
            model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    assert clipper.state_dict()["steps"] == 1
    assert clipper.threshold_any() == pytest.approx(4 * np.sqrt(3.0))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own use of it
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_step_clips_as_the_plain_one(backend):
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model, optimizer = trained()
        with clipping.clip_context(model, optimizer, clipping.AGC(clipping=0.05)) as clipper:
            step = torch.compile(optimizer.step, backend=backend) if compiled else optimizer.step
            for size in (1.0, 2.0):
                optimizer.zero_grad()
                model(torch.full((1, 2), size)).square().sum().backward()
                step()
        assert clipper.state_dict()["steps"] == 2
        weights.append(model.weight.detach().clone())
    assert weights[0].equal(weights[1])


class Wrapper(torch.optim.Optimizer):
    """Delegates, and has no hooks of its own."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    param_groups = property(lambda self: self.optimizer.param_groups)

    def step(self, closure=None):
        return self.optimizer.step(closure)


def accelerated(optimizer, model):
    accelerate = pytest.importorskip("accelerate")
    return accelerate.Accelerator(cpu=True).prepare(model, optimizer)[1]


def fabricated(optimizer, model):
    fabric = pytest.importorskip("lightning.fabric").Fabric(accelerator="cpu", devices=1)
    return fabric.setup(model, optimizer)[1]


WRAPPERS = {
    "wrapper": lambda optimizer, _: Wrapper(optimizer),
    "wrapper of one": lambda optimizer, _: Wrapper(Wrapper(optimizer)),
    "accelerate": accelerated,
    "fabric": fabricated,
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_step_of_a_wrapper_clips_once(wrap):
    model, optimizer = trained()
    wrapper = wrap(optimizer, model)
    clipper = clipping.AutoClip(mode="percentile")
    with clipping.clip_context(model, wrapper, clipper):
        model(torch.ones(1, 2)).sum().backward()
        wrapper.step()
    wrapper.step()
    assert clipper.state_dict()["steps"] == 1
    assert clipper.threshold_any() == pytest.approx(np.sqrt(3.0))


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
@pytest.mark.parametrize("inner_first", [False, True])
def test_wrapper_and_what_it_wraps_have_one_context(wrap, inner_first):
    model, optimizer = trained()
    first, second = wrap(optimizer, model), optimizer
    if inner_first:
        first, second = second, first
    refused = pytest.raises(RuntimeError, match="A clip_context is active on this")
    with clipping.clip_context(model, first):
        with refused, clipping.clip_context(model, second):
            pass
        with refused:
            clipping.step(model, second, clipping.AutoClip())
    with clipping.clip_context(model, second):
        pass


def test_accelerate_skips_while_it_accumulates():
    accelerate = pytest.importorskip("accelerate")
    model, optimizer = trained()
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(model, optimizer)
    clipper = clipping.AutoClip(mode="percentile")
    with clipping.clip_context(model, optimizer, clipper):
        for _ in range(4):
            with accelerator.accumulate(model):
                accelerator.backward(model(torch.ones(1, 2)).sum())
                optimizer.step()
                optimizer.zero_grad()
    assert clipper.state_dict()["steps"] == 2
    assert clipper.threshold_any() == pytest.approx(np.sqrt(3.0))


def test_wrapper_of_what_has_no_hooks_is_refused():
    model, _ = trained()
    with pytest.raises(TypeError) as refused:
        clipping.clip_context(model, Wrapper(None))
    assert str(refused.value) == (
        "optimizer must be a torch.optim.Optimizer with hooks or a wrapper of one, got Wrapper, "
        "which has no hooks and whose .optimizer is NoneType. Call clipping.apply(model, clipper) "
        "before its steps."
    )
