"""Reduction over the ranks of ``torch.distributed``."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from datetime import timedelta
from math import inf, nan
from typing import Any, Final

from handlers.errors import DeliveryError
from handlers.rank_groups import (
    WIDTH,
    Found,
    Operation,
    Part,
    found_on_device,
    found_on_host,
    parts,
)

VALUES: Final = slice(0, WIDTH)
PRESENT: Final = slice(WIDTH, 2 * WIDTH)
NANS: Final = slice(2 * WIDTH, 3 * WIDTH)
ASKS, TAG, NEGATED_TAG = range(3 * WIDTH, 3 * WIDTH + 3)


class TorchRanks:
    """All ranks, in a process group of their own.

    A rank that does not come breaks this group, and not the one in which the gradients are. On an
    accelerator nothing is waited for: what is reduced stays there.
    """

    def __init__(self) -> None:
        self._torch: Any = sys.modules["torch"]
        self._dist: Any = sys.modules["torch.distributed"]
        world = self._dist.group.WORLD
        self._world = weakref.ref(world)
        self._device = _device(self._torch, self._dist.get_backend_config())
        self._group = self._dist.new_group(timeout=_timeout(world, self._device))
        self.size: int = self._dist.get_world_size()
        self.nobody_asks = False

    def is_current(self) -> bool:
        """Whether the default process group is still the one it was made from."""
        return self._dist.is_initialized() and self._dist.group.WORLD is self._world()

    def reduce(
        self, operation: Operation, tag: int, columns: Sequence[tuple[Any, int]], *, asks: bool
    ) -> list[Found]:
        """See `RankGroup.reduce`."""
        found: list[Found] = []
        with self._torch.no_grad():
            for part in parts(columns, self._torch.Tensor, _scalar):
                found += self._reduce(operation, tag, part, float(asks))
        return found

    def _reduce(self, operation: Operation, tag: int, part: Part, asks: float) -> list[Found]:
        buffer = self._filled(part, [asks, float(tag), -float(tag)])
        if operation == "max":
            # Of a NaN and a number, backends take either: a NaN is told apart.
            unknown = buffer[VALUES].isnan()
            buffer[NANS] = unknown
            buffer[VALUES].masked_fill_(unknown | (buffer[PRESENT] == 0), -inf)
        how = self._dist.ReduceOp.MAX if operation == "max" else self._dist.ReduceOp.SUM
        self._dist.all_reduce(buffer, op=how, group=self._group)
        if operation == "max":
            buffer[VALUES].masked_fill_(buffer[NANS] > 0, nan)
        times = self.size if operation == "sum" else 1
        if is_host(self._device):
            return self._read(part, buffer.tolist(), float(tag * times))
        agreed = (buffer[TAG] == tag * times) & (buffer[NEGATED_TAG] == -tag * times)
        values = self._torch.where(agreed, buffer[VALUES], nan)
        return found_on_device(part, values, buffer[PRESENT])

    def _filled(self, part: Part, last: list[float]) -> Any:
        """This rank's part of a collective, without waiting for its values."""
        buffer = self._sent([*part.numbers, *part.present, *[0.0] * WIDTH, *last])
        for index, scalar in part.scalars.items():
            buffer[index].copy_(scalar).mul_(part.signs[index])
        return buffer

    def _sent(self, numbers: list[float]) -> Any:
        # Without pinned memory, a copy to a GPU would wait for what the GPU has to do before.
        cpu = {"dtype": self._torch.float64, "device": "cpu"}
        pinned = self._device.type == "cuda"
        host = self._torch.tensor(numbers, pin_memory=pinned, **cpu)
        return host.to(self._device, non_blocking=True)

    def _read(self, part: Part, numbers: list[float], tag: float) -> list[Found]:
        if numbers[TAG] != tag or numbers[NEGATED_TAG] != -tag:
            raise DeliveryError("the ranks reduce different things at the same time")
        self.nobody_asks = numbers[ASKS] == 0
        return found_on_host(part, numbers[VALUES], numbers[PRESENT])


def is_host(device: Any) -> bool:
    """Whether reading from a device waits for nothing."""
    return bool(device.type == "cpu")


def _scalar(tensor: Any) -> Any:
    return tensor.detach() if tensor.ndim == 0 and not tensor.is_complex() else None


def _device(torch: Any, config: str) -> Any:
    """Where the group reduces: on the accelerator, if it has a backend of its own for one.

    Args:
        torch: The module.
        config: Such as ``"cpu:gloo,cuda:nccl"``; the same on every rank, as is the answer.
    """
    for entry in config.split(","):
        kind, _, backend = entry.partition(":")
        accelerator = getattr(torch, kind, None)
        if kind != "cpu" and backend != "gloo" and accelerator and accelerator.is_available():
            return torch.device(kind, accelerator.current_device())
    return torch.device("cpu")


def _timeout(world: Any, device: Any) -> timedelta:
    """Half of what the default process group waits.

    While one rank waits here, the others may wait for it there, where the training would end.
    """
    try:
        patience: timedelta = world._get_backend(device).options._timeout  # noqa: SLF001 -- no public name tells it
    except (AttributeError, RuntimeError):
        patience = timedelta(minutes=10)  # the shortest default of any backend
    return patience / 2
