"""L2 norms of torch tensors in fused calls, accumulated in float32 at least."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

HALF: Final = (torch.float16, torch.bfloat16)


def wide(dtype: torch.dtype) -> torch.dtype | None:
    """What to accumulate in, where that is not the dtype itself."""
    return torch.float32 if dtype in HALF else None


def whole_norms(tensors: Sequence[Tensor], dtypes: Collection[torch.dtype]) -> list[Tensor]:
    """The norm of each, 0-d tensors; a sparse one must be coalesced.

    Args:
        tensors: Of any dtypes.
        dtypes: All that occur.
    """
    values = [x.values() if x.is_sparse else x for x in tensors]
    if len(dtypes) == 1:
        return list(torch._foreach_norm(values, 2, dtype=wide(*dtypes)))  # noqa: SLF001 -- as clip_grad_norm_ does
    norms: dict[int, Tensor] = {}
    for dtype in dtypes:
        alike = [index for index, x in enumerate(values) if x.dtype == dtype]
        some = torch._foreach_norm([values[i] for i in alike], 2, dtype=wide(dtype))  # noqa: SLF001 -- as clip_grad_norm_ does
        norms.update(zip(alike, some, strict=True))
    return [norms[index] for index in range(len(values))]


def read(norms: list[Tensor]) -> NDArray[np.float64]:
    """0-d norms on the host."""
    # One by one: that costs less than stacking thousands of scalars.
    return np.array([norm.item() for norm in norms], np.float64)
