"""One body for all frameworks: how each makes a tensor and turns it back."""

import contextlib
import importlib
from typing import Any, NamedTuple

import numpy as np
import pytest


class Numpy(NamedTuple):
    name: str = "numpy"

    def tensor(self, values: Any) -> Any:
        return np.array(values, dtype=np.float64)

    def to_numpy(self, tensor: Any) -> Any:
        return np.asarray(tensor)


class Torch(NamedTuple):
    name: str = "torch"

    def tensor(self, values: Any) -> Any:
        torch = importlib.import_module("torch")
        return torch.tensor(values, dtype=torch.float64, requires_grad=True)

    def to_numpy(self, tensor: Any) -> Any:
        return tensor.detach().numpy() if hasattr(tensor, "detach") else np.asarray(tensor)


class Jax(NamedTuple):
    name: str = "jax"

    def tensor(self, values: Any) -> Any:
        jax = importlib.import_module("jax")
        return jax.numpy.array(values, dtype=jax.numpy.float64)

    def to_numpy(self, tensor: Any) -> Any:
        return np.asarray(tensor)

    def precision(self) -> Any:
        return importlib.import_module("jax").enable_x64(True)  # noqa: FBT003 -- its only argument


class Tensorflow(NamedTuple):
    name: str = "tensorflow"

    def tensor(self, values: Any) -> Any:
        tf = importlib.import_module("tensorflow")
        return tf.constant(values, tf.float64)

    def to_numpy(self, tensor: Any) -> Any:
        return np.asarray(tensor)


@pytest.fixture(
    params=[Numpy(), Torch(), Jax(), Tensorflow()], ids=lambda framework: framework.name
)
def framework(request):
    """Each framework in turn."""
    with getattr(request.param, "precision", contextlib.nullcontext)():
        yield request.param
