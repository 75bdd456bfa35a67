"""Regularizers in threads see what torch keeps by thread as the caller set it."""

import threading
import time
from contextlib import nullcontext

import pytest
import torch

from regularizers import RegularizerError, RegularizerSpec, custom_loss


def state(data, x):
    """What a function sees, as metrics; the value depends on the dtype that a product is in."""
    product = x @ torch.full((3, 3), 1 / 3)
    return product.sum().float(), {
        "main": threading.current_thread() is threading.main_thread(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "cache": torch.is_autocast_cache_enabled(),
        "half": product.dtype == torch.float16,
        "brain": product.dtype == torch.bfloat16,
        "differentiable": product.requires_grad,
        "meta": torch.get_default_device().type == "meta",
    }


MODES = {
    "none": nullcontext,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "enabled again": lambda: torch.set_grad_enabled(True),
    "bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", dtype=torch.float16, cache_enabled=False),
    "autocast off": lambda: torch.autocast("cpu", enabled=False),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_thread_has_the_callers_modes(mode):
    torch.manual_seed(0)
    x = torch.randn(4, 3, requires_grad=True)
    specs = [RegularizerSpec(state, 0.5, name) for name in "abc"]
    with MODES[mode]():
        here, there = (
            custom_loss(None, x, lambda d, x: x.sum(), regularizers=specs, parallel=parallel)
            for parallel in (False, True)
        )
    for one, other in zip(here.regularizers.values(), there.regularizers.values(), strict=True):
        assert (one.custom["main"], other.custom["main"]) == (1.0, 0.0)
        assert {**one.custom, "main": None} == {**other.custom, "main": None}
        assert one.value == other.value
    assert here.loss_total == there.loss_total


def test_a_thread_makes_tensors_where_the_caller_does():
    x = torch.ones(2)
    spec = RegularizerSpec(lambda d, x: torch.zeros(()), 1.0, "zero")
    with torch.device("meta"):
        output = custom_loss(
            None,
            x,
            lambda d, x: x.sum(),
            regularizers=[
                spec,
            ],
            parallel=True,
        )
    assert vars(output.regularizers["zero"])["value"].device.type == "meta"


def test_a_thread_leaves_the_callers_modes_alone():
    x = torch.ones(2, 3, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        custom_loss(
            None,
            x,
            lambda d, x: x.sum(),
            regularizers=[RegularizerSpec(state, 1.0, "a")],
            parallel=True,
        )
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_passes_through_a_shared_graph_come_one_at_a_time():
    """A hook in it, which need not be made for several threads, is never entered twice at once."""
    x = torch.ones(2, requires_grad=True)
    shared = x * 2
    inside, most = 0, 0

    def hook(grad):
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1

    shared.register_hook(hook)
    specs = [RegularizerSpec(lambda d, y: (y * y).sum(), 1.0, name) for name in "abcd"]
    options = {"regularizers": specs, "track_grad_norms": True, "parallel": True}
    custom_loss(None, shared, lambda d, y: y.sum(), **options, wrt=[x])
    assert most == 1


def test_gradients_through_one_graph_in_several_threads_are_those_in_one():
    """Bit for bit: the same passes, summed in the same order."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.Tanh(), torch.nn.Linear(32, 8))
    logprobs = model(torch.randn(64, 8)).log_softmax(-1)
    logprobs.retain_grad()
    barrier = threading.Barrier(4, timeout=60)

    def powers(power, wait):
        def penalty(data, x):
            if wait:
                barrier.wait()  # so that they are under way together
            return (x**power).mean()

        return penalty

    outputs = []
    for parallel in (False, True):
        specs = [RegularizerSpec(powers(n, parallel), 0.3 * n, f"{n}") for n in range(1, 5)]
        outputs.append(
            custom_loss(
                None,
                logprobs,
                lambda d, x: -x[:, 0].mean(),
                regularizers=specs,
                track_grad_norms=True,
                parallel=parallel,
                wrt=model.parameters(),
            )
        )
        assert logprobs.grad is None
        assert all(parameter.grad is None for parameter in model.parameters())
    here, there = outputs
    assert there.to_dict() == here.to_dict()
    there.loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    assert there.total_grad_norm == pytest.approx(norm.item(), rel=1e-5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_thread_that_was_given_up_writes_to_no_grad():
    logprobs = torch.ones(3, requires_grad=True) * 1.0
    logprobs.retain_grad()
    threads, begun = [], threading.Event()

    def slow(data, x):
        threads.append(threading.current_thread())
        begun.set()
        time.sleep(0.2)
        return x.sum()

    with pytest.raises(RegularizerError, match="TimeoutError"):
        custom_loss(
            None,
            logprobs,
            lambda d, x: x.sum(),
            regularizers=[RegularizerSpec(slow, 1.0, "slow")],
            track_grad_norms=True,
            parallel=True,
            timeout=0.02,
        )
    assert begun.wait(60)
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert logprobs.grad is None
