"""Manual optimization: the module steps itself, with one optimizer or several."""

import pytest

import telemetry
from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

STEP = ("training", "step")
TIMING = ("training", "timing")
LOOK = ("look",)


def numbers(events):
    return [(".".join(each.event), each.metadata["step"]) for each in events]


class Manual(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weights = torch.nn.ParameterList([torch.zeros(()), torch.zeros(())])

    def look(self, at):
        telemetry.execute(LOOK, {"at": at})

    def update(self, index, loss, **options):
        optimizers = self.optimizers(**options)
        optimizer = optimizers[index] if isinstance(optimizers, list) else optimizers
        optimizer.zero_grad()
        self.manual_backward(loss + self.weights[index])
        optimizer.step()

    def configure_optimizers(self):
        return [torch.optim.SGD([w], lr=0.1 + i) for i, w in enumerate(self.weights)], []


def test_two_optimizers_make_two_steps_in_a_batch(trainer, batches):
    """What comes before and after each has its number; the second has the loss that is returned."""

    class Both(Manual):
        def training_step(self, batch, batch_idx):
            self.look(0)
            self.update(0, batch[0].mean())
            self.look(1)
            self.update(1, batch[0].mean())
            self.look(2)
            return {"loss": batch[0].mean(), "margin": 3.0}

    class Looks(pl.Callback):
        def on_train_batch_end(self, *_):
            telemetry.execute(LOOK, {"at": 3})

    with capture(LOOK, STEP, TIMING) as events:
        trainer(Looks()).fit(Both(), batches(2))
    assert numbers(events) == [
        ("look", 1),
        ("look", 2),
        ("training.step", 1),
        ("look", 3),
        ("training.step", 2),
        ("training.timing", 2),
        ("look", 2),
        ("look", 3),
        ("look", 4),
        ("training.step", 3),
        ("look", 5),
        ("training.step", 4),
        ("training.timing", 4),
        ("look", 4),
    ]
    told = [dict(event.measurements) for event in events if event.event == STEP]
    assert told == [
        {"lr": 0.1},
        {"loss": 1.0, "margin": 3.0, "lr": 1.1},
        {"lr": 0.1},
        {"loss": 2.0, "margin": 3.0, "lr": 1.1},
    ]
    assert not any("total_steps" in event.metadata for event in events)


def test_accumulation_by_hand(trainer, batches):
    class Accumulates(Manual):
        def training_step(self, batch, batch_idx):
            self.look(batch_idx)
            if batch_idx % 3 == 2:
                self.update(1, batch[0].mean())
            return batch[0].mean()

    with capture(LOOK, STEP, TIMING) as events:
        trainer(max_steps=2, max_epochs=-1).fit(Accumulates(), batches(6))
    first = [*[("look", 1)] * 3, ("training.step", 1), ("training.timing", 1)]
    second = [*[("look", 2)] * 3, ("training.step", 2), ("training.timing", 2)]
    assert numbers(events) == first + second
    assert [float(e.measurements["loss"]) for e in events if e.event == STEP] == [2.0, 5.0]
    assert [e.metadata["total_steps"] for e in events if e.event == STEP] == [2, 2]
    assert [e.measurements["batch_size"] for e in events if e.event == TIMING] == [3, 3]


def test_a_training_step_that_returns_nothing_has_no_loss(trainer, batches):
    class Silent(Manual):
        def training_step(self, batch, batch_idx):
            self.update(0, batch[0].mean())

    with capture(STEP, ("training", "epoch")) as events:
        trainer().fit(Silent(), batches(2))
    assert [dict(event.measurements) for event in events] == [{"lr": 0.1}, {"lr": 0.1}, {}]


def test_steps_that_lightning_is_not_told_of_are_not_reported(trainer, batches):
    class Bypasses(Manual):
        def training_step(self, batch, batch_idx):
            self.update(0, batch[0].mean(), use_pl_optimizer=False)

    fitted = trainer()
    with capture(STEP) as events:
        fitted.fit(Bypasses(), batches(2))
    assert events == []
    assert fitted.global_step == 0


@pytest.mark.parametrize("fails", [False, True])
def test_the_optimizers_are_left_as_they_were(trainer, batches, fails):
    class Once(Manual):
        def training_step(self, batch, batch_idx):
            self.update(0, batch[0].mean())
            if fails:
                raise ZeroDivisionError

    module = Once()
    optimizers = module.configure_optimizers()[0]
    module.configure_optimizers = lambda: (optimizers, [])
    try:
        trainer().fit(module, batches(1))
    except ZeroDivisionError:
        assert fails
    assert not any(optimizer._optimizer_step_post_hooks for optimizer in optimizers)


def test_a_step_that_a_grad_scaler_leaves_out_is_counted_as_lightning_does(trainer, batches):
    """Lightning's count says so; the optimizer has not stepped."""

    class LeavesOut(Manual):
        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()[0]
            optimizer._on_before_step()
            self.trainer.strategy.precision_plugin._after_closure(self, optimizer._optimizer)
            optimizer._on_after_step()
            return batch[0].mean()

    with capture(STEP) as events:
        trainer().fit(LeavesOut(), batches(2))
    assert numbers(events) == [("training.step", 1), ("training.step", 2)]
    assert [float(event.measurements["loss"]) for event in events] == [1.0, 2.0]


class NoTorch:
    """An optimizer as Lightning takes it, which is none of torch's."""

    def __init__(self, parameters, lr):
        self.param_groups = [{"params": parameters, "lr": lr}]
        self.defaults = {}
        self.state = {}

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        """There is none."""

    def zero_grad(self):
        """Nothing to do."""

    def step(self, closure=None):
        return closure() if closure else None


def test_steps_of_an_optimizer_that_is_none_of_torchs_are_told_when_the_batch_ends(
    trainer, batches
):
    class Foreign(Manual):
        def training_step(self, batch, batch_idx):
            self.update(0, batch[0].mean())
            self.update(1, batch[0].mean())
            return batch[0].mean()

        def configure_optimizers(self):
            return [NoTorch([w], lr=0.1 + i) for i, w in enumerate(self.weights)], []

    with capture(STEP) as events:
        trainer().fit(Foreign(), batches(2))
    assert numbers(events) == [("training.step", step) for step in (1, 2, 3, 4)]
    assert [dict(event.measurements) for event in events] == [
        {"lr": 0.1},
        {"lr": 1.1, "loss": 1.0},
        {"lr": 0.1},
        {"lr": 1.1, "loss": 2.0},
    ]


def test_the_loss_may_be_of_integers_and_of_any_shape(trainer, batches):
    class Counts(Manual):
        def training_step(self, batch, batch_idx):
            self.update(0, batch[0].mean())
            return torch.tensor([1, 2]) if batch_idx else torch.tensor(3)

    with capture(STEP, ("training", "epoch")) as events:
        trainer().fit(Counts(), batches(2))
    assert [float(event.measurements["loss"]) for event in events[:2]] == [3.0, 1.5]
    assert float(events[2].measurements["epoch_loss"]) == 2.25


def test_the_module_may_write_to_the_loss_that_it_has_returned(trainer, batches):
    class Reuses(Manual):
        def __init__(self):
            super().__init__()
            self.kept = torch.zeros(())

        def training_step(self, batch, batch_idx):
            self.update(0, batch[0].mean())
            return self.kept.fill_(batch_idx)

    with capture(STEP, ("training", "epoch")) as events:
        trainer().fit(Reuses(), batches(3))
    assert [float(event.measurements["loss"]) for event in events[:3]] == [0.0, 1.0, 2.0]
    assert float(events[3].measurements["epoch_loss"]) == 1.0


def test_steps_of_a_batch_that_fails_after_them_are_told(trainer, batches):
    class Fails(Manual):
        def training_step(self, batch, batch_idx):
            self.update(0, batch[0].mean())
            self.update(1, batch[0].mean())
            if batch_idx == 1:
                raise ZeroDivisionError
            return batch[0].mean()

    with capture(STEP, ("stage", "run", "exception")) as events:
        fitted = trainer()
        with pytest.raises(ZeroDivisionError):
            fitted.fit(Fails(), batches(3))
    assert fitted.global_step == 4
    assert numbers(events[:4]) == [("training.step", step) for step in (1, 2, 3, 4)]
    assert [dict(event.measurements) for event in events[2:4]] == [{"lr": 0.1}, {"lr": 1.1}]
    assert events[4].event == ("stage", "run", "exception")
