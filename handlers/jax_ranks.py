"""Reduction over the processes of ``jax.distributed``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from handlers.errors import DeliveryError
from handlers.rank_groups import (
    WIDTH,
    Found,
    Operation,
    Part,
    found_on_device,
    found_on_host,
    jax_run,
    parts,
)

VALUES: Final = slice(0, WIDTH)
PRESENT: Final = slice(WIDTH, 2 * WIDTH)
ASKS, AGREED = range(2 * WIDTH, 2 * WIDTH + 2)


class JaxRanks:
    """All processes, with one device of each.

    On an accelerator nothing is waited for: what is reduced stays there. How long a process waits
    for one that does not come is JAX's to say.
    """

    def __init__(self) -> None:
        self._jax: Any = sys.modules["jax"]
        self._client = jax_run().client
        sharding = self._jax.sharding
        firsts = {device.process_index: device for device in reversed(self._jax.devices())}
        self._device = firsts[self._jax.process_index()]
        self.size = len(firsts)
        self.nobody_asks = False
        mesh = sharding.Mesh(np.array([firsts[rank] for rank in sorted(firsts)]), ("ranks",))
        self._spread = sharding.NamedSharding(mesh, sharding.PartitionSpec("ranks"))
        everywhere = sharding.NamedSharding(mesh, sharding.PartitionSpec())
        self._compiled = self._jax.jit(_reduced, static_argnums=0, out_shardings=everywhere)

    def is_current(self) -> bool:
        """Whether JAX is still connected to the same run."""
        state = jax_run()
        return state is not None and state.client is self._client

    def reduce(
        self, operation: Operation, tag: int, columns: Sequence[tuple[Any, int]], *, asks: bool
    ) -> list[Found]:
        """See `RankGroup.reduce`."""
        found: list[Found] = []
        # Doubles, as Python's floats are, whatever the rest of the program computes with.
        with self._jax.enable_x64(True):  # noqa: FBT003 -- JAX gives its parameter no lasting name
            for part in parts(columns, self._jax.Array, self._scalar):
                found += self._reduce(operation, part, float(tag), float(asks))
        return found

    def _reduce(self, operation: Operation, part: Part, tag: float, asks: float) -> list[Found]:
        host = np.array([*part.numbers, *part.present, asks, tag], np.float64)
        row = self._jax.device_put(host, self._device)
        for index, scalar in part.scalars.items():
            row = row.at[index].set(scalar.astype(np.float64) * part.signs[index])
        whole = self._jax.make_array_from_single_device_arrays(
            (self.size, len(host)), self._spread, [row[None]]
        )
        reduced = self._compiled(operation, whole).addressable_data(0)
        if is_host(self._device):
            return self._read(part, reduced.tolist())
        jnp = self._jax.numpy
        values = jnp.where(reduced[AGREED] > 0, reduced[VALUES], jnp.nan)
        return found_on_device(part, values, reduced[PRESENT])

    def _read(self, part: Part, numbers: list[float]) -> list[Found]:
        if not numbers[AGREED]:
            raise DeliveryError("the ranks reduce different things at the same time")
        self.nobody_asks = numbers[ASKS] == 0
        return found_on_host(part, numbers[VALUES], numbers[PRESENT])

    def _scalar(self, array: Any) -> Any:
        """A JAX scalar as this process holds it; None for what is none, or not known here."""
        if isinstance(array, self._jax.core.Tracer) or array.ndim or array.dtype.kind == "c":
            return None
        if not array.is_fully_replicated:
            return None
        return self._jax.device_put(array.addressable_data(0), self._device)


def is_host(device: Any) -> bool:
    """Whether reading from a device waits for no accelerator."""
    return bool(device.platform == "cpu")


def _reduced(operation: Operation, whole: Any) -> Any:
    """All ranks' rows as one, in compiled code."""
    jnp: Any = sys.modules["jax.numpy"]
    values, present = whole[:, VALUES], whole[:, PRESENT]
    if operation == "sum":
        found, count = values.sum(0), present.sum(0)
    else:
        # Of a NaN and a number, backends take either: a NaN is told apart.
        unknown = jnp.isnan(values)
        most = jnp.where(unknown | (present == 0), -jnp.inf, values).max(0)
        found, count = jnp.where(unknown.any(0), jnp.nan, most), present.max(0)
    tags = whole[:, AGREED]
    agreed = tags.max() == tags.min()
    return jnp.concatenate([found, count, jnp.stack([whole[:, ASKS].max(), agreed])])
