"""Whether gradients may be written to in place, each by itself."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import torch
from torch import Tensor

_is_sparse = attrgetter("is_sparse")


def writable(tensors: Sequence[Tensor], *, may_be_conjugated: bool) -> list[Tensor]:
    """Gradients, or views of the same memory, in which no conjugation or negation is due.

    Fused calls refuse to write where one is due. A real factor may be applied before it or after.

    Args:
        tensors: The gradients.
        may_be_conjugated: Whether any is complex.

    Raises:
        ValueError: See `check_own_memory`.
    """
    check_own_memory(tensors)
    views = list(tensors)
    if may_be_conjugated:
        views = [x.conj() if x.is_conj() else x for x in views]
    if any(map(Tensor.is_neg, views)):
        views = [x._neg_view() if x.is_neg() else x for x in views]  # noqa: SLF001 -- the only way
    return views


def check_own_memory(tensors: Sequence[Tensor]) -> None:
    """Make sure that scaling one gradient scales no other, and each element once.

    Raises:
        ValueError: One is given twice, or some of its elements lie in the same place.
    """
    if len(set(map(id, tensors))) < len(tensors):
        _refuse_twice(tensors)
    stored = tensors
    if any(map(_is_sparse, tensors)):
        stored = [x._values() if x.is_sparse else x for x in tensors]  # noqa: SLF001 -- may be uncoalesced
    if all(map(Tensor.is_contiguous, stored)):
        return
    overlaps = list(map(torch._debug_has_internal_overlap, stored))  # noqa: SLF001 -- no public name
    if 1 in overlaps:
        index = overlaps.index(1)
        x = stored[index]
        raise ValueError(
            f"Cannot scale gradient {index} of {len(tensors)} in place: several of its elements "
            f"lie in the same place, it has the shape {tuple(x.shape)} and the strides "
            f"{x.stride()}, as after expand(). Give its .clone(), for a parameter: "
            "parameter.grad = parameter.grad.clone(). The gradients are untouched."
        )


def _refuse_twice(tensors: Sequence[Tensor]) -> None:
    seen: dict[int, int] = {}
    for index, x in enumerate(tensors):
        first = seen.setdefault(id(x), index)
        if first != index:
            raise ValueError(
                f"Cannot scale gradient {index} of {len(tensors)} in place: it is the same tensor "
                f"as gradient {first}, which would be scaled twice. Give its .clone(), for a "
                "parameter: parameter.grad = parameter.grad.clone(). The gradients are untouched."
            )
