"""All that one optimizer step emits carries the same run, attempt, epoch and step."""

import pytest

import clipping
from clipping.integrations.lightning import ClipCallback
from regularizers import CustomLoss, RegularizerSpec, penalties
from telemetry.integrations.lightning import TelemetryCallback
from telemetry.testing import capture

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

KINDS = {
    "custom_loss.stop": 2,
    "regularizer.compute.stop": 2,
    "smartclip.clip.stop": 1,
    "smartclip.clip.group": 1,
    "training.step": 1,
    "training.timing": 1,
}
"""How many of each an optimizer step of two batches emits."""


class Composed(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)
        spec = RegularizerSpec(penalties.l2, 0.01, "size")
        self.loss = CustomLoss(lambda data, logprobs: -logprobs.mean(), [spec])

    def training_step(self, batch, batch_idx):
        return self.loss(batch[0], self.layer(batch[0][:, None]).log_softmax(-1)).loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("first", ["ours", "clipping"])
def test_one_look_up_joins_a_step(trainer, batches, first):
    both = [TelemetryCallback(run_id="r", attempt=3), ClipCallback(clipping.AutoClip())]
    if first == "clipping":
        both.reverse()
    with capture() as events:
        trainer(*both, accumulate_grad_batches=2, max_epochs=2).fit(Composed(), batches(4))
    for step in range(1, 5):
        epoch = 1 if step < 3 else 2
        joined = {}
        for event in events:
            name = ".".join(event.event)
            if name in KINDS and event.metadata["step"] == step:
                assert (event.metadata["run_id"], event.metadata["attempt"]) == ("r", 3)
                assert event.metadata["epoch"] == epoch
                joined[name] = joined.get(name, 0) + 1
        assert joined == KINDS
