"""The demo's network in NumPy, its gradients written by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from telemetry.demo.digits import Batch, Images, Labels

Array = npt.NDArray[np.float32]


@dataclass
class Parameter:
    """An array and the gradient of the loss by it."""

    data: Array
    grad: Array


class Network:
    """64 pixels, one hidden layer of rectified units, log-probabilities of 10 digits."""

    def __init__(self, random: np.random.Generator, hidden: int = 64) -> None:
        self._hidden = _layer(random, 64, hidden)
        self._output = _layer(random, hidden, 10)
        self._inputs: tuple[Array, Array, Array]

    def parameters(self) -> list[Parameter]:
        """Weights and biases, input side first."""
        return [*self._hidden, *self._output]

    def forward(self, images: Images) -> Array:
        """Log-probabilities of shape (n, 10); remembers what the backward pass needs."""
        (weight, bias), (out_weight, out_bias) = self._hidden, self._output
        active = np.maximum(images @ weight.data + bias.data, 0)
        logits = active @ out_weight.data + out_bias.data
        logits -= logits.max(axis=1, keepdims=True)
        logprobs: Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        self._inputs = (images, active, logprobs)
        return logprobs

    def backward(self, grad: Array) -> None:
        """Set the gradients, given the gradient of the loss by the log-probabilities."""
        images, active, logprobs = self._inputs
        (weight, bias), (out_weight, out_bias) = self._hidden, self._output
        by_logits = grad - np.exp(logprobs) * grad.sum(axis=1, keepdims=True)
        by_active = (by_logits @ out_weight.data.T) * (active > 0)
        out_weight.grad, out_bias.grad = active.T @ by_logits, by_logits.sum(axis=0)
        weight.grad, bias.grad = images.T @ by_active, by_active.sum(axis=0)


class Momentum:
    """Stochastic gradient descent with momentum."""

    def __init__(self, network: Network, momentum: float = 0.9) -> None:
        self.lr = 0.0
        self._momentum = momentum
        self._parameters = network.parameters()
        self._velocities = [np.zeros_like(parameter.data) for parameter in self._parameters]

    def step(self) -> None:
        """Move the parameters against their gradients."""
        for i, parameter in enumerate(self._parameters):
            self._velocities[i] = self._momentum * self._velocities[i] + parameter.grad
            parameter.data -= self.lr * self._velocities[i]


def negative_log_likelihood(labels: Labels, logprobs: Array) -> Any:
    """The base loss: mean of ``-logprobs[label]``."""
    return -logprobs[np.arange(len(labels)), labels].mean()


def negative_log_likelihood_grad(labels: Labels, logprobs: Array) -> Array:
    """Its gradient by the log-probabilities."""
    grad = np.zeros_like(logprobs)
    grad[np.arange(len(labels)), labels] = -1 / len(labels)
    return grad


def accuracy(network: Network, data: Batch) -> float:
    """Share of the digits that are recognised."""
    return float((network.forward(data.images).argmax(axis=1) == data.labels).mean())


def _layer(random: np.random.Generator, inputs: int, outputs: int) -> tuple[Parameter, Parameter]:
    weight = random.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32)
    bias = np.zeros(outputs, np.float32)
    return Parameter(weight, np.zeros_like(weight)), Parameter(bias, np.zeros_like(bias))
