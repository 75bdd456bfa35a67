# ruff: noqa: D102 -- the methods are documented on clipping.records.Ops
"""The array operations in torch, on a device that is not to be waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class TorchOps:
    """`clipping.records.Ops` in float32 tensors; all but ``to_host`` and ``from_host`` queue only.

    Args:
        device: Where the tensors are.
    """

    on_host: ClassVar[bool] = False

    device: torch.device

    def full(self, shape: tuple[int, ...], value: float) -> Tensor:
        return torch.full(shape, value, dtype=torch.float32, device=self.device)

    def zero_counts(self, shape: tuple[int, ...]) -> Tensor:
        return torch.zeros(shape, dtype=torch.int64, device=self.device)

    def slots(self, size: int) -> Tensor:
        return torch.arange(size, device=self.device)

    def real(self, x: Tensor) -> Tensor:
        return x.to(torch.float32)

    def where(self, condition: Tensor, then: Tensor | float, otherwise: Tensor | float) -> Tensor:
        return torch.where(condition, self._placed(then), self._placed(otherwise))

    def isfinite(self, x: Tensor) -> Tensor:
        return torch.isfinite(x)

    def sqrt(self, x: Tensor) -> Tensor:
        return torch.sqrt(x)

    def exp(self, x: Tensor) -> Tensor:
        return torch.exp(x)

    def sum(self, x: Tensor) -> Tensor:
        return torch.sum(x, dim=-1, keepdim=True)

    def sum_before(self, x: Tensor) -> Tensor:
        return pad(torch.cumsum(x[..., :-1], dim=-1), (1, 0))

    def argsort(self, x: Tensor) -> Tensor:
        return torch.argsort(x, dim=-1)

    def take(self, x: Tensor, index: Tensor) -> Tensor:
        return torch.gather(x, -1, index)

    def min(self, x: Tensor) -> Tensor:
        return torch.min(x)

    def any(self, x: Tensor) -> Tensor:
        return torch.any(x)

    def norm(self, x: Tensor) -> Any:
        return torch.linalg.vector_norm(x)

    def export(self, x: Tensor) -> Any:
        return list(x.unbind()) if x.dim() else x

    def to_host(self, x: Tensor) -> Any:
        return x.cpu().numpy()

    def from_host(self, x: Any) -> Tensor:
        dtype = torch.float32 if x.dtype.kind == "f" else torch.int64
        return torch.as_tensor(x, dtype=dtype).to(self.device)

    def _placed(self, x: Tensor | float) -> Tensor:
        # A bare number would become a tensor on the CPU, whose copy waits for the device.
        return x if isinstance(x, Tensor) else self.full((), x)
