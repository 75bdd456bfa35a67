# ruff: noqa: D102 -- the methods are documented on clipping.records.Ops
"""The array operations in torch, on a device that is not to be waited for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from clipping.records import Later, Window
from clipping.window import quantile

MOST_TABLES: Final = 256

Made = TypeVar("Made")


@dataclass(frozen=True)
class TorchOps:
    """`clipping.records.Ops` in float32 tensors; all but ``to_host`` queue only.

    Args:
        device: Where the tensors are.
    """

    on_host: ClassVar[bool] = False

    device: torch.device
    _tables: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)

    def remembered(self, key: Any, make: Callable[[], Made]) -> Made:
        """A table of indices on the device: what was made for this key, or is made now."""
        if key not in self._tables:
            if len(self._tables) >= MOST_TABLES:
                self._tables.clear()
            self._tables[key] = make()
        made: Made = self._tables[key]
        return made

    def table(self, x: Any) -> Tensor:
        """A NumPy array that is the same object in every step and never written to."""
        _, on_device = self.remembered(id(x), lambda: (x, self.from_host(x)))  # x keeps its id
        return on_device

    def positions(self, flags: Any) -> Tensor:
        """The indices of what is True in a NumPy array."""
        return self.remembered(flags.tobytes(), lambda: self.from_host(flags.nonzero()[0]))

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
        return torch.argsort(x, dim=-1, stable=True)

    def take(self, x: Tensor, index: Tensor) -> Tensor:
        return torch.gather(x, -1, index)

    def maximum(self, x: Tensor, least: float) -> Tensor:
        return torch.clamp(x, min=least)

    def segment_norms(self, x: Tensor, segments: Any, count: int) -> Tensor:
        # Accumulated by index_put_, which sorts: unlike index_add_ it gives every rank the same.
        index = self.table(segments)
        return torch.sqrt(self.full((count,), 0.0).index_put_((index,), x * x, accumulate=True))

    def quantile(self, window: Window, q: float, decay: float) -> Any:
        return quantile(self, window, q, decay)

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

    def later(self, x: Tensor) -> Later | None:
        if x.device.type == "cuda":
            return FromCuda(x)
        return Known(x) if x.device.type == "cpu" else None

    def from_host(self, x: Any) -> Tensor:
        kinds = {"f": torch.float32, "b": torch.bool}
        made = torch.as_tensor(x, dtype=kinds.get(x.dtype.kind, torch.int64), device="cpu")
        if self.device.type == "cuda":  # a copy from memory that is not pinned waits
            return made.pin_memory().to(self.device, non_blocking=True)
        return made.to(self.device, copy=True)

    def _placed(self, x: Tensor | float) -> Tensor:
        # A bare number would become a tensor on the CPU, whose copy waits for the device.
        return x if isinstance(x, Tensor) else self.full((), x)


class FromCuda:
    """A copy on its way into pinned memory of the host.

    Args:
        x: The tensor.
    """

    def __init__(self, x: Tensor) -> None:
        self._here = torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=True)
        self._here.copy_(x, non_blocking=True)
        self._arrived: Any = torch.cuda.Event()  # type: ignore[no-untyped-call] # torch has no types for it
        self._arrived.record(torch.cuda.current_stream(x.device))

    def ready(self) -> bool:
        return bool(self._arrived.query())

    def value(self) -> Any:
        self._arrived.synchronize()
        return self._here.numpy()


class Known:
    """A value that is on the host already.

    Args:
        x: The tensor.
    """

    def __init__(self, x: Tensor) -> None:
        self._value = x.numpy().copy()

    def ready(self) -> bool:
        return True

    def value(self) -> Any:
        return self._value
