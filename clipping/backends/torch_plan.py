"""How torch parameters are grouped; found out once, and remembered with the clipper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter, call, is_
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary, ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipping import units
from clipping.backends.torch_ops import TorchOps
from clipping.backends.torch_parameters import layers_of, refuse_fsdp1
from clipping.backends.torch_units import Packing, Within, packing
from clipping.clipper import Clipper
from clipping.groups import Leaf, arrange

if TYPE_CHECKING:
    from clipping.backends.torch_gradients import Kinds

MOST_REMEMBERED: Final = 64

Made = TypeVar("Made")

_shape = attrgetter("shape")
_dtype = attrgetter("dtype")


class Plan:
    """How some parameters are grouped, and what follows from that in every step.

    Args:
        clipper: Whose scope it is.
        parameters: Those that take part, or bare gradients, each once.
        layers: The name of each one's layer; None where nothing tells.

    Attributes:
        groups: The grouping.
        within: For each parameter the dimensions within a unit; None if it is a single one.
        axes: For each in how many dimensions its factors are to be laid out; see `aligned`.
        ends: For each the row after its (last) one.
        grouped: Which rows belong to a group; None if all.
        shapes: That of each parameter when the plan was made.
    """

    def __init__(
        self, clipper: Clipper, parameters: Sequence[Tensor], layers: Sequence[str | None]
    ) -> None:
        # Weak, since a clipper may outlive a model, and a parameter may refer to one.
        self._parameters = list(map(ref, parameters))
        self._by_shape = clipper.weighs or clipper.scope == "per_unit"
        self.shapes = list(map(_shape, parameters))
        inner = [units.first_axis(shape) for shape in self.shapes]
        sizes = [units.count(*pair) for pair in zip(self.shapes, inner, strict=True)]
        leaves = zip(self.shapes, layers, sizes, strict=True)
        self.groups = arrange(clipper, [Leaf(tuple(s), layer, n) for s, layer, n in leaves])
        pairs = list(zip(inner, map(len, self.shapes), strict=True))
        self.within: list[Within] = [d if len(d) < axes else None for d, axes in pairs]
        self.axes = [axes if len(d) < axes else min(axes, 1) for d, axes in pairs]
        self.ends = self.groups.first + np.array(sizes if self.groups.unitwise else 1, np.intp)
        self.grouped = self.groups.grouped
        self._ops: dict[torch.device, TorchOps] = {}
        self._known: dict[Any, Any] = {}

    def is_of(self, parameters: list[Tensor]) -> bool:
        """Whether it is of these very objects, and of their shapes where those matter."""
        known = self._parameters
        if len(known) != len(parameters) or not all(map(is_, map(call, known), parameters)):
            return False
        return not self._by_shape or self.shapes == list(map(_shape, parameters))

    def ops_on(self, device: torch.device) -> TorchOps:
        """The operations of a device, which keep tables for this plan."""
        return self._ops.setdefault(device, TorchOps(device))

    def present(self, here: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
        """Which rows have a gradient if some parameters have; the same array every time."""
        return self._once(("present", here.tobytes()), lambda: self.groups.present(here))

    def spread(self, here: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Where the norms of some parameters, or of their units, are among those of all."""
        if not self.groups.unitwise:
            return here
        sizes = self.ends - self.groups.first
        return self._once(("spread", here.tobytes()), lambda: np.repeat(here, sizes))

    def packing(
        self,
        here: NDArray[np.bool_] | None,
        tensors: list[Tensor],
        within: Sequence[Within],
        kinds: Kinds,
        *,
        local: bool,
    ) -> Packing:
        """In which calls the units of some tensors are measured.

        Args:
            here: Of which parameters they are; None if of all.
            tensors: The gradients or weights.
            within: For each the dimensions within a unit.
            kinds: What occurs among them.
            local: Whether they are parts of distributed ones, of shapes of their own.
        """
        if kinds.sparse:
            return packing(tensors, within)
        key = (
            None if here is None else here.tobytes(),
            tuple(kinds.dtypes) if len(kinds.dtypes) == 1 else tuple(map(_dtype, tensors)),
            tuple(map(_shape, tensors)) if local else (),
        )
        return self._once(key, lambda: packing(tensors, within))

    def _once(self, key: Any, make: Callable[[], Made]) -> Made:
        if key not in self._known:
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = make()
        made: Made = self._known[key]
        return made


_of_modules: WeakKeyDictionary[torch.nn.Module, WeakKeyDictionary[Clipper, Plan]]
_of_modules = WeakKeyDictionary()
_of_shapes: WeakKeyDictionary[Clipper, Plan] = WeakKeyDictionary()


def plan_of_module(module: torch.nn.Module, clipper: Clipper, parameters: list[Tensor]) -> Plan:
    """The plan of a module, of which these are the parameters that take part.

    Raises:
        TypeError: It is wrapped in the first version of FSDP.
        ValueError: The clipper's scope does not fit it.
    """
    plans = _of_modules.get(module)
    if plans is None:
        plans = _of_modules.setdefault(module, WeakKeyDictionary())
    plan = plans.get(clipper)
    if plan is None or not plan.is_of(parameters):
        layers = layers_of(module)
        plan = Plan(clipper, parameters, [layers.get(id(p), "") for p in parameters])
        plans[clipper] = plan
    return plan


def plan_of_tensors(tensors: list[Tensor], clipper: Clipper) -> Plan:
    """The plan of parameters or gradients without a module.

    Raises:
        TypeError: One is a flat parameter of the first version of FSDP.
        ValueError: The clipper's scope needs the names of layers.
    """
    plan = _of_shapes.get(clipper)
    if plan is None or plan.shapes != list(map(_shape, tensors)):
        if any(getattr(tensor, "_is_flat_param", False) for tensor in tensors):
            refuse_fsdp1("a FlatParameter")
        plan = Plan(clipper, tensors, [None] * len(tensors))
        _of_shapes[clipper] = plan
    return plan
