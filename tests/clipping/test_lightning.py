import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import clipping
from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from clipping.integrations.lightning import ClipCallback  # noqa: E402 -- needs lightning

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

STOP = ("smartclip", "clip", "stop")
BATCHES, LR, Q = 30, 0.005, 60.0
INPUTS = np.random.default_rng(1).normal(size=(BATCHES, 8, 4))
TARGETS = np.random.default_rng(0).standard_t(2, size=(BATCHES, 8, 3))


@pytest.fixture(autouse=True)
def _one_thread():
    """More only get in each other's way in models this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def clipper(**options):
    """A percentile of the last ten norms, from the fourth step on."""
    defaults = {"percentile": Q, "window_size": 10, "warmup_steps": 3, "min_history": 2}
    return clipping.AutoClip(mode="percentile", history="window", **(defaults | options))


def reference(gradient_of, steps, weights):
    """The same in NumPy: weights, norms, and how many steps were clipped."""
    norms, clipped = [], 0
    for step in range(steps):
        gradient = gradient_of(weights, step)
        norms.append(np.sqrt((gradient**2).sum()))
        threshold = np.percentile(norms[-10:], Q)
        if step >= 3 and norms[-1] > threshold:
            gradient = gradient * threshold / (norms[-1] + 1e-8)
            clipped += 1
        weights = weights - LR * gradient
    return weights, norms, clipped


def gradient_of_batch(weights, batch):
    """Of the summed squared error."""
    return 2 * INPUTS[batch].T @ (INPUTS[batch] @ weights - TARGETS[batch])


class Regression(pl.LightningModule):
    def __init__(self, dtype=torch.float64):
        super().__init__()
        self.linear = torch.nn.Linear(4, 3, bias=False, dtype=dtype)
        torch.nn.init.zeros_(self.linear.weight)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        return ((self.linear(inputs[0]) - targets[0]) ** 2).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=LR)

    @property
    def weights(self):
        return self.linear.weight.detach().double().numpy().T.copy()


def loader(dtype=torch.float64):
    data = torch.utils.data.TensorDataset(
        torch.tensor(INPUTS, dtype=dtype), torch.tensor(TARGETS, dtype=dtype)
    )
    return torch.utils.data.DataLoader(data)


def trainer(*callbacks, **options):
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 1,
    }
    return pl.Trainer(callbacks=list(callbacks), **(quiet | options))


def test_thirty_steps_equal_a_hand_written_loop():
    expected, norms, clipped = reference(gradient_of_batch, BATCHES, np.zeros((4, 3)))
    assert clipped > 5
    module = Regression()
    with capture(STOP) as events:
        trainer(ClipCallback(clipper())).fit(module, loader())
    np.testing.assert_allclose(module.weights, expected, rtol=1e-9)
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in events], norms, rtol=1e-9)
    assert [e.metadata["step"] for e in events] == list(range(1, BATCHES + 1))
    assert {e.metadata["epoch"] for e in events} == {1}


def test_accumulated_gradients_are_clipped_once_when_they_step():
    def gradient_of(weights, step):
        return sum(gradient_of_batch(weights, 3 * step + i) for i in range(3)) / 3

    expected, norms, clipped = reference(gradient_of, BATCHES // 3, np.zeros((4, 3)))
    assert clipped > 2
    module = Regression()
    with capture(STOP) as events:
        trainer(ClipCallback(clipper()), accumulate_grad_batches=3).fit(module, loader())
    np.testing.assert_allclose(module.weights, expected, rtol=1e-9)
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in events], norms, rtol=1e-9)


class HeadOnly(Regression):
    """An optimizer of one layer, beside another whose gradient grows with every step."""

    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(4, 1, bias=False, dtype=torch.float64)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + self.backbone(batch[0][0]).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.linear.parameters(), lr=LR)


def test_gradients_that_the_optimizer_does_not_step_are_left_alone():
    expected, norms, clipped = reference(gradient_of_batch, BATCHES, np.zeros((4, 3)))
    assert clipped > 5
    module = HeadOnly()
    with capture(STOP) as events:
        trainer(ClipCallback(clipper())).fit(module, loader())
    np.testing.assert_allclose([e.measurements["grad_norm"] for e in events], norms, rtol=1e-9)
    np.testing.assert_allclose(module.weights, expected, rtol=1e-9)
    summed = INPUTS.sum(axis=(0, 1))[None]
    np.testing.assert_allclose(module.backbone.weight.grad, summed, rtol=1e-9)


class TwoOptimizers(Regression):
    """Two layers that learn one target each, from one loss: every gradient is always there."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.second = torch.nn.Linear(4, 3, bias=False, dtype=torch.float64)
        torch.nn.init.zeros_(self.second.weight)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        first, second = self.optimizers()
        first.zero_grad()
        second.zero_grad()
        loss = ((self.linear(inputs[0]) - targets[0]) ** 2).sum()
        loss = loss + ((self.second(inputs[0]) + 3 * targets[0]) ** 2).sum()
        self.manual_backward(loss)
        first.step()
        second.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(layer.parameters(), lr=LR) for layer in (self.linear, self.second)]


def test_each_of_two_optimizers_has_a_clipper_and_its_own_parameters():
    def gradient_of_second(weights, batch):
        return 2 * INPUTS[batch].T @ (INPUTS[batch] @ weights + 3 * TARGETS[batch])

    expected, norms, _ = reference(gradient_of_batch, BATCHES, np.zeros((4, 3)))
    expected2, norms2, clipped2 = reference(gradient_of_second, BATCHES, np.zeros((4, 3)))
    assert clipped2 > 5
    module, clippers = TwoOptimizers(), [clipper(), clipper()]
    with capture(STOP) as events:
        trainer(ClipCallback(clippers)).fit(module, loader())
    seen = [e.measurements["grad_norm"] for e in events]
    np.testing.assert_allclose(seen[::2], norms, rtol=1e-9)
    np.testing.assert_allclose(seen[1::2], norms2, rtol=1e-9)
    np.testing.assert_allclose(module.weights, expected, rtol=1e-9)
    second = module.second.weight.detach().numpy().T
    np.testing.assert_allclose(second, expected2, rtol=1e-9)
    assert [each.state_dict()["steps"] for each in clippers] == [BATCHES, BATCHES]


def test_groups_of_two_optimizers_are_named_in_the_whole_model():
    clippers = [clipper(scope="per_layer"), clipper(scope="per_layer")]
    with capture((*STOP[:2], "group")) as events:
        trainer(ClipCallback(clippers), limit_train_batches=2).fit(TwoOptimizers(), loader())
    assert [e.metadata["key"] for e in events] == [("layer", "linear"), ("layer", "second")] * 2


def test_step_that_lightning_is_not_told_of_is_an_error():
    class Bare(TwoOptimizers):
        def optimizers(self):
            return super().optimizers(use_pl_optimizer=self.global_step < 4)

    callback = ClipCallback([clipper(), clipper()])
    with pytest.raises(RuntimeError) as refusal:
        trainer(callback).fit(Bare(), loader())
    assert callback.clippers[1].state_dict()["steps"] == 2
    assert str(refusal.value) == (
        "SGD has stepped without ClipCallback being asked, so this step was not clipped. Allowed: "
        "stepping what self.optimizers() returns. Leave out use_pl_optimizer=False, and in an "
        "overridden optimizer_step call optimizer.step(closure=optimizer_closure)."
    )
    trainer(callback, limit_train_batches=2).fit(TwoOptimizers(), loader())
    assert callback.clippers[1].state_dict()["steps"] == 4


def fp16(init_scale):
    """Float16 under a GradScaler: Lightning offers it on the CPU only as a plugin."""
    from lightning.pytorch.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


@pytest.mark.parametrize("options", [fp16(64.0), {"precision": "bf16-mixed"}], ids=["fp16", "bf16"])
def test_mixed_precision_clips_unscaled_gradients(options):
    expected, norms, _ = reference(gradient_of_batch, BATCHES, np.zeros((4, 3)))
    module = Regression(torch.float32)
    with capture(STOP) as events:
        trainer(ClipCallback(clipper()), **options).fit(module, loader(torch.float32))
    seen = [e.measurements["grad_norm"] for e in events]
    np.testing.assert_allclose(seen, norms, rtol=0.03)
    np.testing.assert_allclose(module.weights, expected, atol=0.02)


def test_overflow_of_the_scaler_stays_out_of_weights_and_history():
    module, mine = Regression(torch.float32), clipper()
    with capture(STOP) as events:
        trainer(ClipCallback(mine), **fp16(2.0**24)).fit(module, loader(torch.float32))
    finite = [bool(np.isfinite(e.measurements["grad_norm"])) for e in events]
    assert finite[0] is False
    assert finite[-1] is True
    assert np.isfinite(module.weights).all()
    assert mine.state_dict()["counts"] == [sum(finite)]


@pytest.mark.filterwarnings("ignore:.*`training_step` returned `None`")
def test_batch_that_is_left_out_is_no_step():
    class LeavesOut(Regression):
        def training_step(self, batch, batch_idx):
            return None if batch_idx % 3 == 0 else super().training_step(batch, batch_idx)

    taken = [batch for batch in range(BATCHES) if batch % 3]
    expected, _, _ = reference(
        lambda weights, step: gradient_of_batch(weights, taken[step]), len(taken), np.zeros((4, 3))
    )
    module, mine = LeavesOut(), clipper()
    trainer(ClipCallback(mine)).fit(module, loader())
    np.testing.assert_allclose(module.weights, expected, rtol=1e-9)
    assert mine.state_dict()["steps"] == len(taken)


def test_dry_runs_before_the_one_that_acts_measure_the_same_gradients():
    expected, norms, _ = reference(gradient_of_batch, BATCHES, np.zeros((4, 3)))
    module = Regression()
    dry = [ClipCallback(clipper(dry_run=True, percentile=q)) for q in (10.0, 90.0)]
    with capture(STOP) as events:
        trainer(*dry, ClipCallback(clipper())).fit(module, loader())
    np.testing.assert_allclose(module.weights, expected, rtol=1e-9)
    for first in range(3):
        seen = [e.measurements["grad_norm"] for e in events[first::3]]
        np.testing.assert_allclose(seen, norms, rtol=1e-9)


RANKS = """
    import sys, warnings
    warnings.simplefilter("ignore")  # the vendors'
    sys.path.insert(0, sys.argv[1])
    import json, torch
    import test_lightning as shared
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy
    from telemetry.testing import capture
    from torch.distributed.fsdp import fully_shard

    halves = [torch.tensor(x).reshape(60, 4, -1) for x in (shared.INPUTS, shared.TARGETS)]
    data = torch.utils.data.TensorDataset(*halves)


    class Half(shared.Regression):
        def configure_model(self):
            if sys.argv[3] == "fsdp2":
                fully_shard(self.linear, mesh=self.device_mesh["data_parallel"])

        def train_dataloader(self):
            mine = range(self.global_rank, 60, 2)
            return torch.utils.data.DataLoader(torch.utils.data.Subset(data, mine))


    class Report(shared.pl.Callback):
        def on_train_end(self, trainer, module):
            weight = module.linear.weight.detach()
            weight = weight.full_tensor() if sys.argv[3] == "fsdp2" else weight
            norms = [event.measurements["grad_norm"] for event in events]
            with open(f"{sys.argv[2]}/rank{trainer.global_rank}.json", "w") as file:
                json.dump([weight.T.tolist(), [float(norm) for norm in norms]], file)


    if sys.argv[3] == "fsdp2":
        strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    else:
        strategy = DDPStrategy()
    options = {"strategy": strategy, "devices": 2, "use_distributed_sampler": False}
    with capture(shared.STOP) as events:
        callbacks = [shared.ClipCallback(shared.clipper()), Report()]
        shared.trainer(*callbacks, **options).fit(Half())
"""


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_ranks_see_the_norms_of_the_whole_batch(tmp_path, strategy):
    """Each has half of every batch, and the two sums are averaged."""
    script = tmp_path / "ranks.py"
    script.write_text(textwrap.dedent(RANKS))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        [sys.executable, *launch, str(Path(__file__).parent), str(tmp_path), strategy],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected, norms, _ = reference(
        lambda weights, batch: gradient_of_batch(weights, batch) / 2, BATCHES, np.zeros((4, 3))
    )
    for rank in range(2):
        weights, seen = json.loads((tmp_path / f"rank{rank}.json").read_text())
        np.testing.assert_allclose(seen, norms, rtol=1e-9)
        np.testing.assert_allclose(weights, expected, rtol=1e-9)
