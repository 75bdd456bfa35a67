"""The demo's network in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from telemetry.demo.digits import Batch
from telemetry.extras import import_extra

torch: Any = import_extra("torch", extra="torch", feature="telemetry demo --backend torch")


def make_network(random: np.random.Generator, hidden: int = 64) -> Any:
    """64 pixels, one hidden layer of rectified units, log-probabilities of 10 digits."""
    torch.manual_seed(int(random.integers(2**31)))
    return torch.nn.Sequential(
        torch.nn.Linear(64, hidden),
        torch.nn.ReLU(),
        torch.nn.Linear(hidden, 10),
        torch.nn.LogSoftmax(dim=1),
    )


def tensors(batch: Batch) -> tuple[Any, Any]:
    """Images and labels as tensors."""
    return torch.from_numpy(batch.images), torch.from_numpy(batch.labels)


def negative_log_likelihood(labels: Any, logprobs: Any) -> Any:
    """The base loss: mean of ``-logprobs[label]``."""
    return torch.nn.functional.nll_loss(logprobs, labels)


def accuracy(network: Any, data: Batch) -> float:
    """Share of the digits that are recognised."""
    images, labels = tensors(data)
    with torch.no_grad():
        return float((network(images).argmax(dim=1) == labels).double().mean())
