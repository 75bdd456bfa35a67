"""One body for all frameworks: how each makes a tensor and turns it back."""

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


@pytest.fixture(params=[Numpy(), Torch()], ids=lambda framework: framework.name)
def framework(request):
    """Each framework in turn."""
    return request.param
