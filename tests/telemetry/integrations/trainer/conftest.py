"""A ``Trainer`` whose losses and gradients are known beforehand."""

from types import SimpleNamespace

import pytest

VALUES = tuple(float(value) for value in range(1, 11))
"""Batches of two: 1.5, 3.5, 5.5, 7.5 and 9.5 on average."""


def small_trainer(torch, transformers, directory, *callbacks, kind=None, **options):
    """Trains on `VALUES` in order; see `model` below."""
    quiet = {
        "learning_rate": 0.6,
        "max_grad_norm": 0.0,
        "optim": "sgd",
        "per_device_train_batch_size": 2,
        "train_sampling_strategy": "sequential",
        "use_cpu": True,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    parts = {
        "train_dataset": [{"x": torch.tensor(value)} for value in VALUES],
        "eval_dataset": [{"x": torch.tensor(value)} for value in (10.0, 20.0)],
        "model": model(torch),
    }
    parts |= {name: options.pop(name) for name in (*parts, "compute_metrics") if name in options}
    arguments = transformers.TrainingArguments(str(directory), **(quiet | options))
    kind = transformers.Trainer if kind is None else kind
    return kind(args=arguments, callbacks=list(callbacks), **parts)


def model(torch):
    """Its loss is the mean of the batch, and its gradient 1, whatever its only weight."""

    class Mean(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))
            self.hook = None

        def forward(self, x, return_loss=True):
            if self.hook is not None:
                self.hook(x)
            return {"loss": x.mean() + self.weight - self.weight.detach(), "logits": x}

    return Mean()


@pytest.fixture(autouse=True)
def _one_thread():
    """More only get in each other's way in models this small."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def make(tmp_path):
    """Make a `small_trainer`."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def make(*callbacks, **options):
        return small_trainer(torch, transformers, tmp_path, *callbacks, **options)

    return make


@pytest.fixture
def hook():
    """Make a callback that calls a function in one of its hooks."""
    transformers = pytest.importorskip("transformers")

    def hook(name, function):
        kind = type("Hooked", (transformers.TrainerCallback,), {})

        def call(self, args, state, control, **kwargs):
            function(SimpleNamespace(args=args, state=state, control=control, **kwargs))

        setattr(kind, name, call)
        return kind()

    return hook


@pytest.fixture
def lines():
    """Events in short: their name, step and epoch, and what else is asked for."""

    def lines(events, *more):
        return [
            (".".join(event.event), *(event.metadata.get(key) for key in ("step", "epoch", *more)))
            for event in events
        ]

    return lines
