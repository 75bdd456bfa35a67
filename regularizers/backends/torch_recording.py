"""Gradients of several functions by the same tensors, through graphs that stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock

import torch

from regularizers.checks import describe
from regularizers.protocols import Computation, Gradient, Value
from regularizers.trees import Tree, flatten


class TorchRecording:
    """See `regularizers.protocols.Recording`."""

    traces = False

    def __init__(self, logprobs: Tree, by: list[torch.Tensor]) -> None:
        self.logprobs = logprobs
        self._variables = by
        self._turn = Lock()
        self._closed = False

    def differentiate(self, function: Computation) -> tuple[Value, Gradient]:
        """The graph is kept, because the caller's own ``backward()`` comes later.

        One pass at a time: threads share the graph behind ``logprobs``, and what hooks and
        ``retain_grad()`` do in it is not safe in several at once.
        """
        value = function.compute(self.logprobs)
        if not getattr(value.scalar, "requires_grad", False):
            raise ValueError(
                f"track_grad_norms=True, but {function.label} returned {describe(value.scalar)}, "
                "through which torch cannot differentiate. Return a tensor computed from "
                "tensors that require grad, without detach(), item() or torch.no_grad(), "
                "or call with track_grad_norms=False."
            )
        with self._turn:
            if self._closed:
                raise RuntimeError(f"The call that evaluated {function.label} is over.")
            gradient: Sequence[torch.Tensor | None] = torch.autograd.grad(
                value.scalar, self._variables, retain_graph=True, allow_unused=True
            )
        return value, [None if array is None else _at_least_float32(array) for array in gradient]

    def close(self) -> None:
        """Refuse what threads that were given up still ask for: it could write to a ``.grad``.

        A pass that runs is waited for.
        """
        with self._turn:
            self._closed = True


def variables(tree: Tree) -> list[torch.Tensor]:
    """The leaves that require grad, each once.

    Raises:
        ValueError: None does.
    """
    tensors = _tensors(tree)
    found = {id(tensor): tensor for tensor in tensors if tensor.requires_grad}
    if not found:
        raise ValueError(
            "track_grad_norms=True, but of the tensors that gradients would be taken by "
            f"({len(tensors)}) none requires grad. Call logprobs.requires_grad_() before the "
            "call, or give the parameters: wrt=model.parameters()."
        )
    return list(found.values())


@contextmanager
def grad_left_alone(logprobs: Tree, by: Iterable[torch.Tensor]) -> Iterator[None]:
    """Put every ``.grad`` back.

    ``autograd.grad`` writes to none but those of tensors that ``retain_grad()`` was called on.
    """
    before = [(one, one.grad) for one in (*_tensors(logprobs), *by) if one.retains_grad]
    try:
        yield
    finally:
        for tensor, grad in before:
            tensor.grad = grad


def _tensors(tree: Tree) -> list[torch.Tensor]:
    return [leaf for leaf in flatten(tree).values() if isinstance(leaf, torch.Tensor)]


def _at_least_float32(array: torch.Tensor) -> torch.Tensor:
    if array.dtype in (torch.float32, torch.float64):
        return array
    return array.to(torch.promote_types(array.dtype, torch.float32))
