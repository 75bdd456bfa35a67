"""A fit on two ranks; each writes what it reported into the folder that is given."""

import json
import os
import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch

from telemetry.integrations.lightning import TelemetryCallback
from telemetry.testing import capture

warnings.simplefilter("ignore")
torch.set_num_threads(1)
FOLDER = Path(sys.argv[1])


class Known(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def loss(self, batch):
        return batch[0].mean() + 0 * self.weight

    def training_step(self, batch, batch_idx):
        self.log("train_all", self.loss(batch), on_epoch=True, on_step=False, sync_dist=True)
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main():
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    rows = torch.utils.data.TensorDataset(torch.tensor([1.0 + rank, 3.0 + rank]))
    batches = torch.utils.data.DataLoader(rows)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        callbacks=[
            TelemetryCallback(without=["git_commit"]),
            pl.callbacks.ModelCheckpoint(FOLDER, filename="saved"),
        ],
    )
    with capture() as events:
        trainer.fit(Known(), batches, batches)
    told = [
        {
            "event": ".".join(event.event),
            "loss": [
                float(event.measurements[key])
                for key in ("loss", "epoch_loss", "epoch_all")
                if key in event.measurements
            ],
            **{key: event.metadata.get(key) for key in ("run_id", "attempt", "step", "world_size")},
        }
        for event in events
    ]
    (FOLDER / f"rank{os.environ.get('LOCAL_RANK', '0')}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
