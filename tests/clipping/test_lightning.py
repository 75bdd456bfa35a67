import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import clipping
import telemetry
from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from clipping.integrations.lightning import ClipCallback  # noqa: E402 -- needs lightning

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

STOP = ("smartclip", "clip", "stop")
FAILURE = ("telemetry", "handler", "failure")
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
    assert [e.metadata["step"] for e in events] == list(range(BATCHES))
    assert {e.metadata["epoch"] for e in events} == {0}


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


def refused(kind, module, callbacks, **options):
    """The text with which a fit is refused, before any step."""
    before = module.weights
    with pytest.raises(kind) as refusal, capture(("smartclip", "**")) as events:
        trainer(*callbacks, **options).fit(module, loader())
    assert events == []
    np.testing.assert_array_equal(module.weights, before)
    return str(refusal.value)


def test_one_clipper_for_two_optimizers_is_refused():
    assert refused(ValueError, TwoOptimizers(), [ClipCallback(clipper())]) == (
        "ClipCallback has 1 clippers, the model has 2 optimizers (SGD, SGD). Allowed: one for "
        "each, since what one learns is of the parameters that it clips. Give a list in the order "
        "of configure_optimizers: ClipCallback([clipping.AutoClip(), ...])."
    )


def test_gradient_clip_val_is_refused():
    text = refused(ValueError, Regression(), [ClipCallback()], gradient_clip_val=0.5)
    assert text == (
        "Trainer(gradient_clip_val=0.5) would clip again what ClipCallback has clipped. Allowed "
        "beside it: None, which is the default. Leave gradient_clip_val out."
    )


def test_overridden_configure_gradient_clipping_is_refused():
    class Overrides(Regression):
        def configure_gradient_clipping(self, optimizer, **_):
            self.clip_gradients(optimizer, 0.5, "norm")

    assert refused(ValueError, Overrides(), [ClipCallback()]) == (
        "Overrides overrides configure_gradient_clipping, which Lightning calls after ClipCallback "
        "has clipped. Allowed beside it: the method of LightningModule. Remove the override, or "
        "the callback."
    )


def test_lbfgs_is_refused():
    class Lbfgs(Regression):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters())

    assert refused(TypeError, Lbfgs(), [ClipCallback()]) == (
        "ClipCallback cannot clip for LBFGS, which computes several gradients in one step. "
        "Allowed: optimizers that step on one gradient. Use another, or remove the callback."
    )


def test_optimizer_that_a_clip_context_is_active_on_is_refused():
    module = Regression()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    module.configure_optimizers = lambda: optimizer
    with clipping.clip_context(module, optimizer, clipper()):
        text = refused(RuntimeError, module, [ClipCallback()])
    assert text.startswith("A clip_context is active on this SGD, so its gradients would be")


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


def test_optimizer_is_left_as_it_was():
    module = Regression()
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    module.configure_optimizers = lambda: optimizer
    trainer(ClipCallback(), limit_train_batches=2).fit(module, loader())
    optimizer.step()


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


def test_fused_optimizer_under_a_scaler_is_refused():
    class Fused(Regression):
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), fused=True)

    text = refused(ValueError, Fused(torch.float32), [ClipCallback()], **fp16(1024.0))
    assert text == (
        "This fused Adam takes the GradScaler's scale out of the gradients inside its step, where "
        "ClipCallback cannot clip them. Allowed under precision='16-mixed': optimizers that are "
        "not fused. Give Adam(..., fused=False), or precision='bf16-mixed'."
    )


def test_strategies_that_hide_the_gradients_are_refused():
    """Neither runs without a GPU: only the check is given a real strategy."""
    from lightning.pytorch.strategies import FSDPStrategy

    from clipping.integrations.lightning import _check_strategy

    text = (
        "ClipCallback cannot clip under FSDPStrategy: FSDP1 flattens the parameters of several "
        "layers into one. Allowed: one device, DDP, and ModelParallelStrategy (FSDP2). Use one of "
        "these, or the clipping of that strategy without the callback."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        _check_strategy(SimpleNamespace(strategy=FSDPStrategy()))


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


AFTER_ACTING = (
    "An earlier ClipCallback of this trainer has changed the gradients before this one sees them. "
    "Allowed: one ClipCallback that acts, and before it any whose clippers have dry_run=True. "
    "Remove one, or move it forward in callbacks=[...]."
)


def test_callback_after_one_that_acts_is_refused():
    late = ClipCallback(clipper(dry_run=True))
    assert refused(RuntimeError, Regression(), [ClipCallback(clipper()), late]) == AFTER_ACTING


def test_two_that_act_are_refused():
    with pytest.raises(RuntimeError, match="Found more than one stateful callback"):
        trainer(ClipCallback(), ClipCallback())


def test_on_metrics_that_raises_is_announced_and_left_alone_until_the_next_fit():
    heard = []

    def broken(record):
        heard.append(record)
        raise RuntimeError("no disk")

    callback = ClipCallback(clipper(), on_metrics=broken)
    with capture(FAILURE) as failures:
        for _ in range(2):
            trainer(callback, limit_train_batches=3).fit(Regression(), loader())
    assert [record["key"] for record in heard] == [("global",), ("global",)]
    assert len(failures) == 2


def test_step_that_the_caller_says_wins():
    with capture(STOP) as events, telemetry.context(step=7, run_id="r"):
        trainer(ClipCallback(), limit_train_batches=2).fit(Regression(), loader())
    assert [(e.metadata["step"], e.metadata["run_id"], e.metadata["epoch"]) for e in events] == [
        (7, "r", 0),
        (7, "r", 0),
    ]


class Adam(Regression):
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def test_resumed_fit_is_bit_identical(tmp_path):
    def callbacks():
        return [ClipCallback(clipper(dry_run=True)), ClipCallback(clipper())]

    def fit(callbacks, epochs, ckpt_path=None):
        module, of = Adam(), trainer(*callbacks, max_epochs=epochs)
        of.fit(module, loader(), ckpt_path=ckpt_path)
        return module, of

    whole = callbacks()
    straight, _ = fit(whole, 2)
    fit(callbacks(), 1)[1].save_checkpoint(tmp_path / "half.ckpt")
    rest = callbacks()
    with capture(STOP) as events:
        resumed, _ = fit(rest, 2, tmp_path / "half.ckpt")
    assert [e.metadata["step"] for e in events[::2]] == list(range(BATCHES, 2 * BATCHES))
    assert {e.metadata["epoch"] for e in events} == {1}
    np.testing.assert_array_equal(resumed.weights, straight.weights)
    for one, other in zip(rest, whole, strict=True):
        assert one.clippers[0].state_dict() == other.clippers[0].state_dict()
        assert one.clippers[0].state_dict()["steps"] == 2 * BATCHES


def test_checkpoint_of_other_clippers_is_refused():
    state = ClipCallback([clipper(), clipper()]).state_dict()
    text = (
        "The checkpoint has the state of 2 clippers, this ClipCallback has 1. Allowed: as many, in "
        "the same order."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ClipCallback(clipper()).load_state_dict(state)
    state["clippers"][1]["algo"] = "other"
    with pytest.raises(ValueError, match="'algo' is 'other'"):
        ClipCallback([clipper(), clipper()]).load_state_dict(state)


def test_arguments_are_checked_at_once():
    with pytest.raises(TypeError, match=r"^clipper must be a clipper, such as .*, got 0.5 "):
        ClipCallback(0.5)
    with pytest.raises(TypeError, match=r"^on_metrics must be a function of one record, got 3 "):
        ClipCallback(on_metrics=3)


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
