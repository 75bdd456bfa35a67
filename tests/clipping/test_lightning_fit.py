"""What the Lightning callback does at the beginning and end of a fit, and from one to the next."""

import re

import numpy as np
import pytest

import clipping
import telemetry
from clipping import deferred
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


def clipper(**options):
    """Cuts what is above the median so far, from the third step on."""
    defaults = {"percentile": 50.0, "warmup_steps": 2, "min_history": 1}
    return clipping.AutoClip(mode="percentile", history="window", **(defaults | options))


class Regression(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)
        torch.nn.init.ones_(self.linear.weight)
        torch.nn.init.ones_(self.linear.bias)

    def training_step(self, batch, batch_idx):
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


class Raises(pl.Callback):
    """Interrupts a fit after its second step."""

    def __init__(self, error):
        self._error = error

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 2:
            raise self._error


class Underway:
    """A value of a device that arrives only for who waits."""

    def ready(self):
        return False

    def value(self):
        return "settled"


@pytest.fixture
def module():
    """One whose optimizer is known outside."""
    module = Regression()
    module.optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    module.configure_optimizers = lambda: module.optimizer
    return module


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_optimizer_is_left_as_it_was(module, epochs):
    """Also by a fit that has nothing to do, which has no end of training."""
    trainer(ClipCallback(), max_epochs=epochs).fit(module, loader())
    module.optimizer.step()


def test_optimizer_is_left_as_it_was_by_a_fit_that_resumes_a_finished_one(module, tmp_path):
    finished = trainer(ClipCallback())
    finished.fit(module, loader())
    finished.save_checkpoint(tmp_path / "end.ckpt")
    trainer(ClipCallback()).fit(module, loader(), ckpt_path=tmp_path / "end.ckpt")
    module.optimizer.step()


def test_optimizer_is_left_as_it_was_by_a_fit_that_fails(module):
    callbacks = [ClipCallback(), Raises(RuntimeError("no disk"))]
    with pytest.raises(RuntimeError, match=r"^no disk$"):
        trainer(*callbacks).fit(module, loader())
    module.optimizer.step()


def test_optimizer_is_left_as_it_was_by_a_fit_that_a_tuner_leaves(module):
    """Lightning calls neither the end of training nor `on_exception`."""
    from lightning.pytorch.utilities.exceptions import _TunerExitException

    mine = clipper()
    trainer(ClipCallback(mine), Raises(_TunerExitException())).fit(module, loader())
    assert mine.state_dict()["steps"] == 2
    module.optimizer.step()


def test_what_is_underway_is_sent_before_later_callbacks_end():
    settled, seen = [], []

    class Late(pl.Callback):
        def on_train_start(self, *_):
            deferred.when_known(Underway(), settled.append)

        def on_train_batch_end(self, *_):
            seen.append(list(settled))

        def on_train_end(self, *_):
            seen.append(list(settled))

    trainer(ClipCallback(), Late(), limit_train_batches=2).fit(Regression(), loader())
    assert seen == [[], [], ["settled"]]


def test_what_is_underway_is_sent_when_a_fit_fails():
    settled = []
    deferred.when_known(Underway(), settled.append)
    with pytest.raises(RuntimeError, match=r"^no disk$"):
        trainer(ClipCallback(), Raises(RuntimeError("no disk"))).fit(Regression(), loader())
    assert settled == ["settled"]


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
        (7, "r", 1),
        (7, "r", 1),
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
    assert any(e.measurements["scale"] < 1 for e in events[1::2])
    assert [e.metadata["step"] for e in events[::2]] == list(range(7, 13))
    assert {e.metadata["epoch"] for e in events} == {2}
    np.testing.assert_array_equal(resumed.weights, straight.weights)
    for one, other in zip(rest, whole, strict=True):
        assert one.clippers[0].state_dict() == other.clippers[0].state_dict()
        assert one.clippers[0].state_dict()["steps"] == 12


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


def test_state_of_which_one_clipper_is_another_changes_none():
    fits, other = clipper(), clipper(scope="per_param")
    clipping.torch.apply_grads([torch.ones(1)], fits)
    loaded = ClipCallback([fits, other]).state_dict()
    with pytest.raises(ValueError, match=r"'scope' is 'per_param', it must be 'global' here"):
        ClipCallback(mine := [clipper(), clipper()]).load_state_dict(loaded)
    assert [each.state_dict()["steps"] for each in mine] == [0, 0]
