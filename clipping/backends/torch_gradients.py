"""The gradients of torch parameters in one step.

On the CPU the norms are read, decided on in NumPy, and nothing is written where nothing is scaled.
On any other device nothing is ever read: norms, history and factors are tensors there.
"""

from __future__ import annotations

import sys
from itertools import compress
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipping.backends import torch_device_scaling, torch_host_scaling
from clipping.backends.torch_memory import writable
from clipping.backends.torch_norms import read, whole_norms
from clipping.backends.torch_ops import TorchOps
from clipping.backends.torch_plan import Plan
from clipping.backends.torch_units import unit_norms
from clipping.groups import Groups
from clipping.host import HOST
from clipping.records import Array, Decision, Measured, Ops

if TYPE_CHECKING:
    from clipping.backends.torch_sharded import Shards

PLAIN: Final = {Tensor, torch.nn.Parameter}
_dtype = attrgetter("dtype")


class Kinds(NamedTuple):
    """What occurs among some gradients.

    Attributes:
        dtypes: Their dtypes.
        sparse: Whether any is sparse.
    """

    dtypes: set[torch.dtype]
    sparse: bool


class TorchGradients:
    """Gradients in tensors of one device.

    Args:
        gradients: One for each parameter of the plan, None where there is none in this step;
            floating-point or complex, dense or sparse (COO).
        weights: The parameters; None if they are not known.
        plan: How they are grouped.
        kinds: Of the gradients.

    Attributes:
        tensors: The gradients that there are, of distributed ones what this rank holds.
    """

    backend: Final = "torch"

    def __init__(
        self,
        gradients: list[Tensor | None],
        weights: list[Tensor] | None,
        plan: Plan,
        kinds: Kinds,
    ) -> None:
        self.groups: Groups = plan.groups
        self._plan = plan
        self._weights = weights
        self._kinds = kinds
        tensors = [gradient for gradient in gradients if gradient is not None]
        self._here: NDArray[np.bool_] | None = None
        if len(tensors) < len(gradients):
            self._here = np.array([gradient is not None for gradient in gradients])
        self._shards = shards_of(tensors)
        self.tensors = tensors if self._shards is None else self._shards.locals
        device = self.tensors[0].device
        self.ops: Ops = HOST if device.type == "cpu" else plan.ops_on(device)

    def present(self) -> NDArray[np.bool_] | None:
        """Which rows have a gradient, on the host; None if all."""
        return None if self._here is None else self._plan.present(self._here)

    @torch.no_grad()
    def measure(self, *, weights: bool) -> Measured:
        """The norms of every row."""
        norms = self._norms(self.tensors, self._kinds, self._shards)
        if self._here is not None:
            norms = self._spread(norms, self._here)
        weight_norms = None
        if weights and self._weights is not None:
            shards = shards_of(self._weights)
            local = self._weights if shards is None else shards.locals
            kinds = Kinds(set(map(_dtype, local)), sparse=False)
            weight_norms = self.groups.combine(self.ops, self._norms(local, kinds, shards))
        return Measured(
            self.groups.combine(self.ops, norms),
            weight_norms,
            self._placed(self.present()),
            self._placed(self._plan.grouped),
        )

    @torch.no_grad()
    def rescale(self, decision: Decision) -> None:
        """Scale or zero gradients in place.

        Raises:
            ValueError: Some is to be written, and a gradient is the same tensor as another or has
                elements that lie in the same place. Nothing is written then.
        """
        if self.ops.on_host and not (decision.zeroed.any() or (decision.scale != 1).any()):
            return
        is_complex = any(dtype.is_complex for dtype in self._kinds.dtypes)
        tensors = writable(self.tensors, may_be_conjugated=is_complex)
        starts, ends = self._bounds()
        unitwise = self.groups.unitwise
        if isinstance(self.ops, TorchOps):
            axes = self._of_present(self._plan.axes) if unitwise else None
            spans = list(zip(starts.tolist(), ends.tolist(), strict=True))
            torch_device_scaling.rescale(self.ops, tensors, axes, spans, decision)
        elif unitwise:
            axes = self._of_present(self._plan.axes)
            torch_host_scaling.rescale_units(tensors, axes, starts, ends, decision)
        else:
            torch_host_scaling.rescale_whole(tensors, self._kinds, starts, decision)

    def _norms(self, tensors: list[Tensor], kinds: Kinds, shards: Shards | None) -> Array:
        """The norm of each tensor, or of each unit of each."""
        if kinds.sparse:
            tensors = [x.coalesce() if x.is_sparse else x for x in tensors]
        if self.groups.unitwise:
            return self._unit_norms(tensors, kinds, shards)
        parts = whole_norms(tensors, kinds.dtypes)
        if self.ops.on_host:
            norms: Array = read(parts)
        else:
            norms = torch.stack(_alike(parts)).to(torch.float32)
        return norms if shards is None else shards.norms(norms)

    def _unit_norms(self, tensors: list[Tensor], kinds: Kinds, shards: Shards | None) -> Array:
        every = len(tensors) == len(self._plan.within)
        within = self._plan.within if every else self._of_present(self._plan.within)
        packing = self._plan.packing(
            None if every else self._here, tensors, within, kinds, local=shards is not None
        )
        measured = torch.cat(_alike(unit_norms(tensors, within, packing)))
        if self.ops.on_host:
            norms: Array = measured.to(torch.float64).numpy()
            norms = norms if packing.order is None else norms[packing.order]
            if shards is None:
                return norms
            return shards.unit_norms(np.split(norms, np.cumsum(packing.sizes)[:-1]))
        norms = measured.to(torch.float32)
        norms = norms if packing.order is None else norms[self._placed(packing.order)]
        return norms if shards is None else shards.unit_norms(norms.split(packing.sizes))

    def _spread(self, norms: Array, here: NDArray[np.bool_]) -> Array:
        """Put 0 where there is no gradient."""
        flags = self._plan.spread(here)
        if self.ops.on_host:
            every = np.zeros(len(flags))
            every[flags] = norms
            return every
        places = self._plan.ops_on(norms.device).positions(flags)
        return self.ops.full((len(flags),), 0.0).index_put_((places,), norms)

    def _placed(self, x: Any) -> Array:
        """A NumPy array of the plan where the norms are."""
        return self.ops.table(x) if x is not None and isinstance(self.ops, TorchOps) else x

    def _of_present(self, values: list[Any]) -> list[Any]:
        return values if self._here is None else list(compress(values, self._here))

    def _bounds(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The first row of each tensor, and the one after its last: those that are here."""
        starts, ends = self.groups.first, self._plan.ends
        if self._here is not None:
            starts, ends = starts[self._here], ends[self._here]
        if self._shards is None or not self.groups.unitwise:
            return starts, ends
        some = [self._shards.local_rows(index) for index in range(len(starts))]
        pairs = zip(some, ends - starts, strict=True)
        bounds = [(0, n) if rows is None else (rows.start, rows.stop) for rows, n in pairs]
        begin, end = np.array(bounds, np.intp).T
        return starts + begin, starts + end


def shards_of(tensors: list[Tensor]) -> Shards | None:
    """What this rank holds of distributed tensors; None if there is none among them."""
    if set(map(type, tensors)) <= PLAIN or "torch.distributed.tensor" not in sys.modules:
        return None
    from clipping.backends import torch_sharded  # noqa: PLC0415 -- what it imports takes long

    return torch_sharded.shards_of(tensors)


def _alike(norms: list[Tensor]) -> list[Tensor]:
    """Norms of one dtype: the widest of theirs."""
    if len(set(map(_dtype, norms))) == 1:
        return norms
    widest = max(map(_dtype, norms), key=lambda dtype: dtype.itemsize)
    return [norm.to(widest) for norm in norms]
