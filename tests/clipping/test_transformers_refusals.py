"""What the callback for the Trainer of transformers refuses."""

import re

import numpy as np
import pytest

import clipping
from telemetry.testing import capture

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from clipping.integrations.transformers import ClipCallback  # noqa: E402 -- needs transformers


def clipper(**options):
    return clipping.AutoClip(mode="percentile", **options)


class Regression(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.seen = []

    def forward(self, inputs):
        self.seen.append(inputs)
        return {"loss": (self.linear(inputs) ** 2).sum()}


def trainer(model, tmp_path, *callbacks, kind=transformers.Trainer, **options):
    quiet = {
        "max_grad_norm": 0.0,
        "max_steps": 3,
        "per_device_train_batch_size": 1,
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    arguments = transformers.TrainingArguments(str(tmp_path), **(quiet | options))
    steps = torch.optim.SGD(model.parameters(), lr=0.01)
    return kind(
        model,
        arguments,
        train_dataset=[{"inputs": torch.ones(2)}] * 3,
        callbacks=list(callbacks),
        optimizers=(steps, torch.optim.lr_scheduler.ConstantLR(steps, 1.0)),
    )


def refused(kind, tmp_path, *callbacks, **options):
    """The text with which a training is refused, before any step."""
    model = Regression()
    training = trainer(model, tmp_path, *callbacks, **options)
    with pytest.raises(kind) as refusal, capture(("smartclip", "**")) as events:
        training.train()
    assert (events, model.seen) == ([], [])
    return str(refusal.value)


def test_max_grad_norm_is_refused(tmp_path):
    assert refused(ValueError, tmp_path, ClipCallback(), max_grad_norm=1.0) == (
        "TrainingArguments(max_grad_norm=1.0) clips before ClipCallback does; the default is 1.0. "
        "Allowed beside it: 0.0. Give max_grad_norm=0.0."
    )


def test_replacing_the_callback_on_resume_is_refused(tmp_path):
    options = {"restore_callback_states_from_checkpoint": True}
    assert refused(ValueError, tmp_path, ClipCallback(), **options) == (
        "TrainingArguments(restore_callback_states_from_checkpoint=True) replaces the ClipCallback "
        "that was given, and its clipper, by a new one. Allowed beside it: False. Leave it out: "
        "ClipCallback restores its clipper on every resume."
    )


def test_optimizer_that_steps_during_the_backward_pass_is_refused(tmp_path):
    assert refused(ValueError, tmp_path, ClipCallback(), optim="galore_adamw_layerwise") == (
        "TrainingArguments(optim='galore_adamw_layerwise') updates each parameter during the "
        "backward pass, before ClipCallback is asked. Allowed: optimizers that step after it. Use "
        "another, or remove the callback."
    )


def test_deepspeed_is_refused(tmp_path):
    """Its package is not needed to be told that it is in use."""
    training = trainer(Regression(), tmp_path, ClipCallback())
    training.args.deepspeed_plugin = object()
    text = (
        "ClipCallback cannot clip under DeepSpeed: the gradients are inside its engine. Allowed: "
        "one device, DDP, and FSDP2. Use one of these, or gradient_clipping of DeepSpeed's "
        "configuration without the callback."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        training.train()


def test_optimizer_that_a_clip_context_is_active_on_is_refused(tmp_path):
    model = Regression()
    training = trainer(model, tmp_path, ClipCallback())
    with (
        clipping.clip_context(model, training.optimizer, clipper()),
        pytest.raises(RuntimeError, match=r"^A clip_context is active on this SGD, so its grad"),
    ):
        training.train()
    assert model.seen == []


@pytest.mark.parametrize("dry_run", [False, True])
def test_callback_after_one_that_acts_is_refused(tmp_path, dry_run):
    late = ClipCallback(clipper(dry_run=dry_run))
    assert refused(RuntimeError, tmp_path, ClipCallback(clipper()), late) == (
        "An earlier ClipCallback of this trainer has changed the gradients before this one sees "
        "them. Allowed: one ClipCallback that acts, and before it any whose clippers have "
        "dry_run=True. Remove one, or move it forward in callbacks=[...]."
    )


def test_arguments_are_checked_at_once():
    with pytest.raises(TypeError, match=r"^clipper must be a clipper, such as .*, got 0.5 "):
        ClipCallback(0.5)
    with pytest.raises(TypeError, match=r"^on_metrics must be a function of one record, got 3 "):
        ClipCallback(on_metrics=3)


def test_max_grad_norm_that_the_trainer_cannot_compare_is_refused(tmp_path):
    assert refused(ValueError, tmp_path, ClipCallback(), max_grad_norm=None) == (
        "TrainingArguments(max_grad_norm=None) is an error in the Trainer's first step, which "
        "compares it with 0. Allowed beside ClipCallback: 0.0. Give max_grad_norm=0.0."
    )


def test_two_dry_runs_of_equal_options_are_refused(tmp_path):
    callbacks = [ClipCallback(clipper(dry_run=True)) for _ in range(2)]
    text = refused(ValueError, tmp_path, *callbacks, ClipCallback(clipper()))
    assert text.startswith("Two dry runs of this trainer have equal options, AutoClip(scope=")
    assert text.endswith(
        ", so a checkpoint could not tell their states apart. Allowed: dry runs that differ. "
        "Remove one, or change an option of it."
    )


@pytest.fixture
def process_group():
    """A group of this process alone."""
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")
def test_fsdp1_is_refused_when_training_starts(tmp_path):
    """Accelerate wraps in it only on a GPU; what the callback gets is the same."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    inner = Regression()
    model = FullyShardedDataParallel(inner, device_id=torch.device("cpu"))
    with pytest.raises(TypeError) as refusal:
        trainer(model, tmp_path, ClipCallback()).train()
    assert inner.seen == []
    assert str(refusal.value).startswith(
        "Cannot clip what FullyShardedDataParallel holds: the first version of FSDP flattens"
    )


class Measures(transformers.Trainer):
    """Looks at no gradient before the callbacks are asked."""

    def _get_grad_norm(self, model, grad_norm=None):
        return grad_norm


@pytest.mark.parametrize("enabled", [True, False])
def test_gradients_that_the_trainer_has_not_unscaled_are_refused(tmp_path, monkeypatch, enabled):
    """Accelerate uses a scaler only on a GPU, so it is handed one."""
    model, mine = Regression(), clipper()
    before = model.linear.weight.detach().clone()
    training = trainer(model, tmp_path, ClipCallback(mine), kind=Measures)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, enabled=enabled)
    monkeypatch.setattr(training.accelerator, "scaler", scaler)
    monkeypatch.setattr(training.accelerator, "native_amp", True)
    monkeypatch.setattr(training.accelerator.state, "_mixed_precision", "fp16")
    if not enabled:
        training.train()
        assert mine.state_dict()["steps"] == 3
        return
    with pytest.raises(RuntimeError) as refusal:
        training.train()
    np.testing.assert_array_equal(model.linear.weight.detach(), before)
    assert mine.state_dict()["steps"] == 0
    assert str(refusal.value) == (
        "The gradients of this SGD are still multiplied by the GradScaler's scale, so a threshold "
        "means nothing: this Trainer has not unscaled them. Allowed: gradients on one mesh, whose "
        "norm transformers.Trainer measures. Use bf16=True, or call "
        "accelerator.unscale_gradients() in an overridden _get_grad_norm."
    )
