"""torch: gradients by autograd, everything on the tensors' device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import torch

from regularizers.backends.torch_operations import OPERATIONS
from regularizers.backends.torch_recording import TorchRecording, grad_left_alone, variables
from regularizers.backends.torch_threads import thread_state
from regularizers.protocols import Backend, Gradient, Recording, Scalar
from regularizers.trees import Tree

FLOATS: Final = {torch.float32, torch.float64}


class TorchBackend:
    """See `regularizers.protocols.Backend`."""

    name = "torch"
    differentiates = True
    crosses_threads = True
    xp: Any = OPERATIONS

    def owns(self, kind: type) -> bool:
        """Whether it is a tensor."""
        return issubclass(kind, torch.Tensor)

    def as_float(self, leaf: Any) -> Any:
        """float16, bfloat16 and integers become float32."""
        tensor = torch.as_tensor(leaf)
        if tensor.dtype in FLOATS:
            return tensor
        return tensor.to(torch.promote_types(tensor.dtype, torch.float32))

    def promote(self, left: Scalar, right: Scalar) -> tuple[Scalar, Scalar]:
        """As they are: torch promotes."""
        return left, right

    def add_weighted(self, total: Scalar, weight: Scalar, value: Scalar) -> Scalar:
        """In one operation, if the weight is no tensor, which would be read."""
        if isinstance(weight, torch.Tensor):
            return total + weight * value
        return torch.add(total, value, alpha=weight)

    def snapshot(self, value: Any) -> Any:
        """A copy: a training loop may write to its loss (``loss /= accumulation``)."""
        return value.detach().clone()

    def tracing(self) -> bool:
        """Never: ``torch.compile`` leaves `regularizers.opaque` functions out of its graphs."""
        return False

    def compiling(self, leaves: Iterable[Any]) -> bool:
        """Never, as above."""
        return False

    def is_abstract(self, value: Any) -> bool:
        """Never, as above."""
        return False

    def call_back(self, function: Callable[..., None], leaves: Sequence[Any]) -> None:
        """Not needed, as above."""
        raise NotImplementedError

    def carry(self) -> Callable[[], AbstractContextManager[None]]:
        """Autocast, whether gradients are recorded, and where tensors are made."""
        return thread_state()

    def check_variables(self, logprobs: Tree, wrt: Tree) -> None:
        """Some leaf has to require grad, and gradients have to be recorded."""
        if not torch.is_grad_enabled():
            raise ValueError(
                "track_grad_norms=True, but torch records no gradients here, inside "
                "torch.no_grad() or torch.inference_mode(). Call inside torch.enable_grad(), or "
                "with track_grad_norms=False, as in validation."
            )
        if wrt is not None or not callable(logprobs):
            variables(logprobs if wrt is None else wrt)

    @contextmanager
    def record(self, logprobs: Tree, wrt: Tree) -> Iterator[Recording]:
        """Every ``.grad`` is as before afterwards."""
        by = variables(logprobs if wrt is None else wrt)
        if callable(logprobs):
            logprobs = logprobs(wrt)
        with grad_left_alone(logprobs, by):
            recording = TorchRecording(logprobs, by)
            try:
                yield recording
            finally:
                recording.close()

    def accumulate(self, total: Any, weight: Scalar, array: Any, *, owned: bool) -> Any:
        """In one pass; torch adds sparse to dense, but not the other way round."""
        if total.is_sparse and not array.is_sparse:
            total, owned = total.to_dense(), True
        if isinstance(weight, torch.Tensor):
            array, weight = weight * array, 1.0  # read from its device if it were alpha
        if owned and not total.is_sparse:
            return total.add_(array, alpha=weight)
        return torch.add(total, array, alpha=weight)

    def norm(self, gradient: Gradient) -> Any:
        """In float32 at least; 0.0 if the function depends on none of the variables."""
        arrays = [_dense(array) for array in gradient if array is not None]
        if not arrays:
            return 0.0
        if len(arrays) == 1:
            return torch.linalg.vector_norm(arrays[0])
        norms = _norms(arrays)
        device = norms[0].device
        return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms]))


def _dense(array: torch.Tensor) -> torch.Tensor:
    """What its norm is the norm of."""
    return array.coalesce().values() if array.is_sparse else array


def _norms(arrays: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    if len({array.device for array in arrays}) == 1:
        return torch._foreach_norm(arrays)  # noqa: SLF001 -- as torch.nn.utils.clip_grad_norm_ does
    return [torch.linalg.vector_norm(array) for array in arrays]


BACKEND: Final[Backend] = TorchBackend()
