"""A tiny model whose losses are known, a trainer that keeps quiet, and events in short."""

import pytest

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")

from telemetry.integrations.lightning import TelemetryCallback  # noqa: E402 -- needs lightning

IGNORED = (
    "ignore:.*does not have many workers",
    "ignore:.*LeafSpec.* is deprecated:FutureWarning",
    "ignore:.*training_step. returned .None",
    "ignore:.*exists and is not empty",
    "ignore:.*is not resumable",
    "ignore:.*in eval mode at the start of training",
    "ignore:.*saved_models.*|.*pre-optimization state was saved",
    "ignore:.*isinstance.treespec, LeafSpec.*",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if "lightning_fits" in item.nodeid:
            for ignored in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(ignored))


class Known(pl.LightningModule):
    """The loss of a batch is the mean of its items, whatever the weight is."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def loss(self, batch):
        return batch[0].mean() + 0 * self.weight

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Validated(Known):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.loss(batch))

    def predict_step(self, batch, batch_idx):
        return batch[0]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def known():
    return Known


@pytest.fixture
def validated():
    return Validated


@pytest.fixture
def batches():
    """Batches of items that are 1, 2, 3, ..."""

    def make(items, batch_size=1):
        rows = torch.arange(1, items + 1, dtype=torch.float32)
        return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(rows), batch_size)

    return make


@pytest.fixture
def trainer(tmp_path):
    """A trainer with a new TelemetryCallback, unless one is given."""

    def make(*callbacks, **options):
        quiet = {
            "accelerator": "cpu",
            "devices": 1,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": any(isinstance(c, pl.callbacks.Checkpoint) for c in callbacks),
            "max_epochs": 1,
            "num_sanity_val_steps": 0,
            "default_root_dir": tmp_path,
        }
        if not any(isinstance(each, TelemetryCallback) for each in callbacks):
            callbacks = (TelemetryCallback("w", run_id="r", without=["git_commit"]), *callbacks)
        return pl.Trainer(callbacks=list(callbacks), **(quiet | options))

    return make


@pytest.fixture
def lines():
    """Events as lines: name, what it is of, and @ epoch/step; without the times of the steps."""

    def short(events, without=(("training", "timing"),)):
        return [_line(each) for each in events if each.event not in without]

    return short


def _line(event):
    metadata = event.metadata
    words = [".".join(event.event)]
    words += [metadata[key] for key in ("stage", "split", "checkpoint_name") if key in metadata]
    if event.event[0] == "workflow":
        words.append(f"{metadata['workflow']} {metadata['run_id']}/{metadata['attempt']}")
    if "step" in metadata:
        words.append(f"@ {metadata.get('epoch', '?')}/{metadata['step']}")
    return " ".join(words)
