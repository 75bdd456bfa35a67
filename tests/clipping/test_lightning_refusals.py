"""What the Lightning callback refuses, before any step."""

import re
from types import SimpleNamespace

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


def clipper(**options):
    return clipping.AutoClip(mode="percentile", **options)


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        self.batches = 0

    def training_step(self, batch, batch_idx):
        self.batches += 1
        return (self.linear(batch[0]) ** 2).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    @property
    def weights(self):
        return self.linear.weight.detach().numpy().copy()


def loader():
    rows = torch.randn((6, 2), generator=torch.Generator().manual_seed(0))
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows))


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


def refused(kind, module, callbacks, **options):
    """The text with which a fit is refused, before any batch."""
    before = module.weights
    with pytest.raises(kind) as refusal, capture(("smartclip", "**")) as events:
        trainer(*callbacks, **options).fit(module, loader())
    assert (events, module.batches) == ([], 0)
    np.testing.assert_array_equal(module.weights, before)
    return str(refusal.value)


class TwoOptimizers(Regression):
    automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD([parameter], lr=0.01) for parameter in self.parameters()]


def test_one_clipper_for_two_optimizers_is_refused():
    assert refused(ValueError, TwoOptimizers(), [ClipCallback()]) == (
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
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    module.configure_optimizers = lambda: optimizer
    with clipping.clip_context(module, optimizer, clipper()):
        text = refused(RuntimeError, module, [ClipCallback()])
    assert text.startswith("A clip_context is active on this SGD, so its gradients would be")


def test_fused_optimizer_under_a_scaler_is_refused():
    """Lightning offers float16 on the CPU only as a plugin."""
    from lightning.pytorch.plugins import MixedPrecision

    class Fused(Regression):
        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), fused=True)

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    text = refused(ValueError, Fused(), [ClipCallback()], plugins=[plugin])
    assert text == (
        "This fused Adam takes the GradScaler's scale out of the gradients inside its step, where "
        "ClipCallback cannot clip them. Allowed under precision='16-mixed': optimizers that are "
        "not fused. Give Adam(..., fused=False), or precision='bf16-mixed'."
    )


def test_strategies_that_hide_the_gradients_are_refused():
    """Neither runs without a GPU: only the check is given a real strategy."""
    from lightning.pytorch.strategies import FSDPStrategy

    from clipping.integrations.lightning_checks import check_strategy

    text = (
        "ClipCallback cannot clip under FSDPStrategy: FSDP1 flattens the parameters of several "
        "layers into one. Allowed: one device, DDP, and ModelParallelStrategy (FSDP2). Use one of "
        "these, or the clipping of that strategy without the callback."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check_strategy(SimpleNamespace(strategy=FSDPStrategy()))


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


def test_parameters_that_are_not_the_modules_are_refused():
    class LossOutside(Regression):
        def configure_optimizers(self):
            outside = torch.nn.Linear(3, 2)
            return torch.optim.SGD([*self.parameters(), *outside.parameters()], lr=0.01)

    assert refused(ValueError, LossOutside(), [ClipCallback()]) == (
        "SGD steps 2 of its 4 parameters without ClipCallback seeing their gradients: they are not "
        "in LossOutside.parameters(). Allowed: parameters of the LightningModule. Make what holds "
        "them an attribute of LossOutside, or leave them out of SGD."
    )


def test_parameters_that_join_an_optimizer_later_are_refused_too():
    class Joins(Regression):
        def on_train_batch_end(self, *_):
            if self.global_step == 3:
                outside = torch.nn.Parameter(torch.ones(1))
                self.optimizers().optimizer.add_param_group({"params": [outside]})

    mine = clipper()
    with pytest.raises(ValueError, match=r"^SGD steps 1 of its 3 parameters without ClipCallback"):
        trainer(ClipCallback(mine)).fit(Joins(), loader())
    assert mine.state_dict()["steps"] == 3


def test_no_clipper_is_refused_at_once():
    text = (
        "ClipCallback needs a clipper, got an empty sequence. Allowed: one for each optimizer. "
        "Leave the argument out for a new AutoClip()."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ClipCallback([])


def test_the_same_clipper_twice_is_refused_at_once():
    text = (
        "ClipCallback was given the same clipper more than once, among 3. Allowed: one for each "
        "optimizer, since what one learns is of the parameters that it clips. Give as many "
        "different ones: ClipCallback([clipping.AutoClip(), ...])."
    )
    mine = clipper()
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        ClipCallback([mine, clipper(), mine])


def test_arguments_are_checked_at_once():
    with pytest.raises(TypeError, match=r"^clipper must be a clipper, such as .*, got 0.5 "):
        ClipCallback(0.5)
    with pytest.raises(TypeError, match=r"^on_metrics must be a function of one record, got 3 "):
        ClipCallback(on_metrics=3)
