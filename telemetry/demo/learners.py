"""One learner per framework: the part of the training loop that differs between them."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Protocol

import numpy as np

from regularizers import CustomLossOutput, RegularizerSpec, custom_loss, penalties
from telemetry.demo import numpy_network
from telemetry.demo.digits import Batch

MODEL_ID: Final = "digits-mlp"

REGULARIZERS: Final = (
    RegularizerSpec(
        fn=partial(penalties.entropy, mode="bonus", reduction="mean"),
        weight=0.05,
        name="confidence",
    ),
    RegularizerSpec(fn=partial(penalties.l2, reduction="mean"), weight=0.002, name="shrinkage"),
)


class Learner(Protocol):
    """What the training loop needs of a framework."""

    network: Any
    optimizer: Any

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""

    def loss(self, batch: Batch) -> CustomLossOutput:
        """Forward pass and composed loss of a batch."""

    def backward(self, output: CustomLossOutput) -> None:
        """Set the gradients of the parameters."""

    def accuracy(self, data: Batch) -> float:
        """Share of the digits that are recognised."""


class NumpyLearner:
    """Gradients by hand, from the gradient of the total loss that `custom_loss` has found."""

    def __init__(self, random: np.random.Generator) -> None:
        self.network = numpy_network.Network(random)
        self.optimizer = numpy_network.Momentum(self.network)

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        self.optimizer.lr = lr

    def loss(self, batch: Batch) -> CustomLossOutput:
        """Forward pass and composed loss of a batch."""
        return custom_loss(
            batch.labels,
            self.network.forward(batch.images),
            numpy_network.negative_log_likelihood,
            regularizers=REGULARIZERS,
            model_id=MODEL_ID,
            track_grad_norms=True,
            base_grad_fn=numpy_network.negative_log_likelihood_grad,
        )

    def backward(self, output: CustomLossOutput) -> None:
        """Set the gradients of the parameters."""
        self.network.backward(output.grad)

    def accuracy(self, data: Batch) -> float:
        """Share of the digits that are recognised."""
        return numpy_network.accuracy(self.network, data)


class TorchLearner:
    """Gradients by autograd."""

    def __init__(self, random: np.random.Generator) -> None:
        from telemetry.demo import torch_network  # noqa: PLC0415 -- torch is optional

        self._torch = torch_network
        self.network = torch_network.make_network(random)
        self.optimizer = torch_network.torch.optim.SGD(
            self.network.parameters(), lr=0.0, momentum=0.9
        )

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the next step."""
        self.optimizer.param_groups[0]["lr"] = lr

    def loss(self, batch: Batch) -> CustomLossOutput:
        """Forward pass and composed loss of a batch."""
        images, labels = self._torch.tensors(batch)
        return custom_loss(
            labels,
            self.network(images),
            self._torch.negative_log_likelihood,
            regularizers=REGULARIZERS,
            model_id=MODEL_ID,
            track_grad_norms=True,
        )

    def backward(self, output: CustomLossOutput) -> None:
        """Set the gradients of the parameters."""
        self.optimizer.zero_grad()
        output.loss.backward()

    def accuracy(self, data: Batch) -> float:
        """Share of the digits that are recognised."""
        return self._torch.accuracy(self.network, data)


LEARNERS: Final[dict[str, type[NumpyLearner | TorchLearner]]] = {
    "numpy": NumpyLearner,
    "torch": TorchLearner,
}
