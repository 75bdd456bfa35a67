"""On a device nothing may be read: a fit on torch's `meta` device, where every read fails."""

import pytest

from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from lightning.pytorch.accelerators import CPUAccelerator  # noqa: E402 -- needs lightning
from lightning.pytorch.strategies import SingleDeviceStrategy  # noqa: E402 -- needs lightning

META = torch.device("meta")


class NoDevice(CPUAccelerator):
    def setup_device(self, device):
        """It needs none."""


class OnMeta(SingleDeviceStrategy):
    def teardown(self):
        """Nothing can be brought back to the host."""


@pytest.fixture
def on_meta(trainer):
    strategy = OnMeta(device=META, accelerator=NoDevice())

    def make(*callbacks, **options):
        return trainer(*callbacks, strategy=strategy, accelerator="auto", devices="auto", **options)

    return make


class Stream(torch.utils.data.IterableDataset):
    """Lightning would add up lengths on the device, and read the sum."""

    def __init__(self, rows):
        self._rows = rows

    def __iter__(self):
        return iter([(torch.ones(()),)] * self._rows)


def stream(rows):
    return torch.utils.data.DataLoader(Stream(rows))


class Descent(torch.optim.Optimizer):
    """Reads neither the rate nor a gradient, which torch's own do on `meta`."""

    def step(self, closure):
        loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.data = parameter.data - group["lr"] * parameter.grad
        return loss


class Linear(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1, device=META)
        self.lr = lr

    def training_step(self, batch, batch_idx):
        loss = self.layer(batch[0][:, None]).square().mean()
        return {"loss": loss, "accuracy": loss.detach() + 1}

    def configure_optimizers(self):
        return Descent(self.parameters(), {"lr": self.lr})


def test_reading_from_the_device_fails():
    with pytest.raises(RuntimeError, match=r"meta"):
        torch.zeros((), device=META).item()


@pytest.mark.parametrize("batches_per_step", [1, 3])
def test_a_fit_reads_nothing(on_meta, batches_per_step):
    """70 steps: more than losses are summed up at once."""
    fits = on_meta(accumulate_grad_batches=batches_per_step)
    lr = torch.tensor(0.5, device=META)
    with capture() as events:
        fits.fit(Linear(lr), stream(70 * batches_per_step))
    steps = [event for event in events if event.event == ("training", "step")]
    assert [event.metadata["step"] for event in steps] == list(range(1, 71))
    for event in steps:
        assert {key: value.device for key, value in event.measurements.items()} == {
            "loss": META,
            "accuracy": META,
            "lr": META,
        }
        assert event.measurements["lr"] is not lr  # a scheduler writes to it
    (epoch,) = [event for event in events if event.event == ("training", "epoch")]
    assert epoch.measurements["epoch_loss"].device == META


def test_what_is_handed_over_is_never_written_to(trainer, batches):
    class Writes(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))
            self.seen = torch.zeros(())

        def training_step(self, batch, batch_idx):
            self.seen += 1
            return {"loss": self.weight * 2, "seen": self.seen}

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=torch.tensor(1.0))
            schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    with capture(("training", "step")) as events:
        trainer().fit(Writes(), batches(3))
    told = [{key: float(value) for key, value in e.measurements.items()} for e in events]
    assert told == [
        {"loss": 2.0, "seen": 1.0, "lr": 1.0},
        {"loss": -2.0, "seen": 2.0, "lr": 0.5},
        {"loss": -4.0, "seen": 3.0, "lr": 0.25},
    ]


def test_losses_of_several_devices_have_a_mean(on_meta):
    """A batch is often skipped by returning a zero that was made on the host."""

    class Mixed(Linear):
        def training_step(self, batch, batch_idx):
            if batch_idx % 2:
                return torch.zeros((), requires_grad=True)
            return super().training_step(batch, batch_idx)

    with capture(("training", "epoch")) as events:
        on_meta().fit(Mixed(0.5), stream(70))
    assert events[0].measurements["epoch_loss"].device == META
