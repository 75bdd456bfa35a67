"""Torch: gradients in tensors, measured and scaled in fused calls.

On the CPU the norms are read, decided on in NumPy, and nothing is written when nothing is scaled.
On any other device nothing is ever read: norms, history and factors are tensors there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from clipping.backends.torch_ops import TorchOps
from clipping.host import HOST
from clipping.records import GLOBAL, Array, Decision, Key, Ops

LAYOUTS: Final = {torch.strided, torch.sparse_coo}
HALF: Final = (torch.float16, torch.bfloat16)
BITS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class TorchGradients:
    """Gradients in tensors of one device, each a different one.

    Args:
        tensors: Floating-point or complex, dense or sparse (COO), at least one.
        dtypes: All that occur.
        sparse: Whether any is sparse.
    """

    backend: Final = "torch"
    keys: Sequence[Key] = GLOBAL

    def __init__(self, tensors: list[Tensor], dtypes: set[torch.dtype], *, sparse: bool) -> None:
        device = tensors[0].device
        self.ops: Ops = HOST if device.type == "cpu" else TorchOps(device)
        self._tensors = tensors
        self._dtypes = dtypes
        self._sparse = sparse

    @torch.no_grad()
    def norms(self) -> Array:
        """The norm of all of them, in float64 on the CPU and float32 elsewhere."""
        summands = self._by_dtype(self._dense(_summands))
        if self.ops.on_host:
            # One by one: that costs less than stacking thousands of scalars.
            read = [norm.item() for alike in summands for norm in _norms(alike)]
            with np.errstate(over="ignore"):
                return np.linalg.norm(read, axis=0, keepdims=True)
        parts = [torch.stack(_norms(alike)).to(torch.float32) for alike in summands]
        return torch.linalg.vector_norm(torch.cat(parts), keepdim=True)

    @torch.no_grad()
    def rescale(self, decision: Decision) -> None:
        """Scale or zero them in place."""
        if not self.ops.on_host:
            for alike in self._by_dtype(self._dense(_stored)):
                _rescale_unread(alike, decision)
        elif decision.zeroed[0]:
            torch._foreach_zero_(self._dense(_stored))
        elif decision.scale[0] != 1:
            # A tensor: as a number it would be rounded to the precision of the gradients first.
            torch._foreach_mul_(self._dense(_stored), torch.from_numpy(decision.scale)[0])

    def _dense(self, dense: Callable[[Tensor], Tensor]) -> list[Tensor]:
        if not self._sparse:
            return self._tensors
        return [dense(tensor) if tensor.is_sparse else tensor for tensor in self._tensors]

    def _by_dtype(self, tensors: list[Tensor]) -> list[list[Tensor]]:
        if len(self._dtypes) == 1:
            return [tensors]
        return [[tensor for tensor in tensors if tensor.dtype == kind] for kind in self._dtypes]


def recognises(parameter: object) -> bool:
    """Whether a parameter is a tensor."""
    return isinstance(parameter, Tensor)


def gradients_of(model: Any) -> TorchGradients:
    """The gradients of a model: of every parameter that has one.

    Raises:
        TypeError: A gradient is of a layout or dtype that has no norm.
        ValueError: There is none, or they are on several devices.
    """
    tensors = [gradient for p in model.parameters() if (gradient := p.grad) is not None]
    if not tensors:
        raise ValueError(
            f"Cannot clip a model without gradients, got {type(model).__name__} whose parameters "
            "all have .grad None. Call loss.backward() first."
        )
    return checked(tensors)


def checked(tensors: list[Tensor]) -> TorchGradients:
    """Gradients that are known to be of one device, and of kinds that can be clipped.

    Raises:
        TypeError: One is of a layout or dtype that has no norm.
        ValueError: They are on several devices.
    """
    layouts = set(map(attrgetter("layout"), tensors))
    if not layouts <= LAYOUTS:
        raise TypeError(
            f"Cannot clip gradients of layout {_names(layouts - LAYOUTS)}. "
            f"Allowed: {_names(LAYOUTS)}. The gradients are untouched."
        )
    dtypes = set(map(attrgetter("dtype"), tensors))
    exact = {dtype for dtype in dtypes if not (dtype.is_floating_point or dtype.is_complex)}
    if exact:
        raise TypeError(
            f"Cannot clip gradients of dtype {_names(exact)}. "
            "Allowed: floating-point and complex dtypes. The gradients are untouched."
        )
    devices = set(map(attrgetter("device"), tensors))
    if len(devices) > 1:
        raise ValueError(
            f"Gradients must all be on one device, got {_names(devices)}. The gradients are "
            "untouched. Clip those of each device by themselves, with a clipper of their own."
        )
    return TorchGradients(tensors, dtypes, sparse=torch.sparse_coo in layouts)


def check_optimizer(optimizer: object) -> None:
    """Raise TypeError for what is no ``torch.optim.Optimizer``."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(
            f"optimizer must be a torch.optim.Optimizer, got {optimizer!r} "
            f"({type(optimizer).__name__}). The order is clip_context(model, optimizer, clipper)."
        )


def before_step(optimizer: Optimizer, act: Callable[[], None]) -> Callable[[], None]:
    """Register a hook that torch calls before every step; returns what removes it."""

    def hook(hooked: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        _check_step(hooked, args[1:], kwargs)
        act()

    return optimizer.register_step_pre_hook(hook).remove


def _check_step(optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    name = type(optimizer).__name__
    if (args[0] if args else kwargs.get("closure")) is not None:
        raise RuntimeError(
            f"{name}.step(closure) computes new gradients after clip_context has clipped. "
            "Call the closure yourself and then optimizer.step(), or call "
            "clipping.apply(model, clipper) at the end of the closure, outside clip_context."
        )
    if getattr(optimizer, "grad_scale", None) is not None:
        raise RuntimeError(
            f"The gradients of this fused {name} are still multiplied by the GradScaler's scale, "
            "so a threshold means nothing. Call scaler.unscale_(optimizer) before "
            "scaler.step(optimizer)."
        )


def _names(kinds: Iterable[object]) -> str:
    return " and ".join(sorted(map(str, kinds)))


def _norms(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """The norm of each of some tensors of one dtype, accumulated in float32 at least."""
    wide = torch.float32 if tensors[0].dtype in HALF else None
    return torch._foreach_norm(tensors, 2, dtype=wide)  # noqa: SLF001 -- as torch.nn.utils does


def _summands(sparse: Tensor) -> Tensor:
    """A dense tensor with the same norm."""
    return sparse.coalesce().values()


def _stored(sparse: Tensor) -> Tensor:
    """What its summands lie in: scaling them scales their sums."""
    return sparse._values()  # noqa: SLF001 -- values() refuses what is not coalesced


def _rescale_unread(alike: list[Tensor], decision: Decision) -> None:
    # No factor turns NaN into 0, so what is zeroed is multiplied by 0 as integers.
    numbers = [torch.view_as_real(x) for x in alike] if alike[0].is_complex() else alike
    bits = BITS[numbers[0].dtype.itemsize]
    torch._foreach_mul_([x.view(bits) for x in numbers], (~decision.zeroed[0]).to(bits))
    torch._foreach_mul_(numbers, decision.scale[0])
