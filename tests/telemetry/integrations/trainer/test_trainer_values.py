"""What the callback of transformers keeps of losses, logs and metrics."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from telemetry.integrations.transformers_step import StepLosses  # noqa: E402 -- after the skips
from telemetry.integrations.transformers_values import evaluated  # noqa: E402 -- as above


def test_losses_of_a_device_are_not_read():
    """Nothing can be read of `meta`."""
    losses = StepLosses()
    for _ in range(100):
        losses.add(torch.ones((), device="meta"))
        losses.add(torch.ones((), device="meta"))
        assert losses.step().device.type == "meta"
    assert losses.epoch().device.type == "meta"


def test_a_loss_of_a_device_is_copied_so_that_a_compiled_model_can_write_to_it():
    losses, loss = StepLosses(), torch.ones((), device="meta")
    losses.add(loss)
    assert losses.step() is not loss


def test_losses_of_half_precision_are_summed_in_single_precision():
    """256 + 1 is 256 in bfloat16."""
    losses = StepLosses()
    for value in (256.0, 1.0):
        losses.add(torch.tensor(value, dtype=torch.bfloat16))
    assert losses.step().item() == 257.0


def test_a_loss_is_kept_without_its_graph():
    losses = StepLosses()
    losses.add(torch.ones((), requires_grad=True) * 2)
    assert not losses.step().requires_grad


def test_the_mean_of_an_epoch_is_that_of_all_its_steps():
    """Of 1, 2, ..., 1000, and then of 7 alone."""
    losses = StepLosses()
    for value in range(1, 1001):
        losses.add(torch.tensor(float(value), dtype=torch.float64))
        losses.step()
    assert losses.epoch().item() == 500.5
    losses.add(torch.tensor(7.0))
    losses.step()
    assert losses.epoch().item() == 7.0
    assert losses.epoch() is None


def test_losses_that_are_plain_numbers():
    losses = StepLosses()
    for _ in range(100):
        losses.add(1.0)
        losses.add(2.0)
        assert losses.step() == 3.0
    assert losses.epoch() == 3.0


def test_state_does_not_grow_with_the_epoch():
    losses = StepLosses()
    for _ in range(10_000):
        losses.add(1.0)
        losses.step()
    assert len(losses._chunk) <= 64


def test_metrics_that_end_like_the_runtime_do_not_confuse_the_split():
    metrics = {"eval_a_runtime": 0.1, "eval_a_tool_runtime": 5.0, "eval_a_loss": 1.0}
    assert evaluated(metrics) == ("a", {"runtime": 0.1, "tool_runtime": 5.0, "loss": 1.0})


def test_metrics_without_a_runtime_are_of_eval():
    assert evaluated({"eval_loss": 1.0, "f1": 0.5}) == ("eval", {"loss": 1.0, "f1": 0.5})
