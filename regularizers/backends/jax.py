"""jax: gradients by ``jax.vjp``, in eager code and inside transformations, all on the device.

An output is a pytree, so that transformed functions can return it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey, register_pytree_with_keys

from regularizers.backends.jax_operations import OPERATIONS
from regularizers.backends.jax_recording import JaxRecording
from regularizers.backends.jax_state import (
    in_eager_code,
    in_vmap,
    is_abstract,
    without_graph,
)
from regularizers.backends.jax_variables import Leaves
from regularizers.packing import Skeleton, pack, unpack
from regularizers.protocols import Backend, Gradient, Recording, Scalar
from regularizers.records import CustomLossOutput
from regularizers.trees import Tree

SETTINGS: Final = (
    "enable_x64",
    "default_device",
    "default_matmul_precision",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "default_prng_impl",
    "threefry_partitionable",
    "transfer_guard_host_to_device",
    "transfer_guard_device_to_device",
    "transfer_guard_device_to_host",
    "disable_jit",
    "debug_nans",
    "debug_infs",
)
"""What JAX keeps by thread, each under its name the context manager that sets it."""

ZERO: Final = np.float32(0)


class JaxBackend:
    """See `regularizers.protocols.Backend`."""

    name = "jax"
    differentiates = True
    crosses_threads = True
    xp: Any = OPERATIONS

    def owns(self, kind: type) -> bool:
        """Whether it is an array or a tracer."""
        return issubclass(kind, jax.Array | jax.core.Tracer)

    def as_float(self, leaf: Any) -> Any:
        """float16, bfloat16 and integers become float32."""
        return _wide(leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf))

    def snapshot(self, value: Any) -> Any:
        """The array itself, which nothing can write to; in eager code it is never a tracer."""
        return without_graph(value)

    def promote(self, left: Scalar, right: Scalar) -> tuple[Scalar, Scalar]:
        """As they are: jax promotes."""
        return left, right

    def add_weighted(self, total: Scalar, weight: Scalar, value: Scalar) -> Scalar:
        """In two operations."""
        return total + weight * value

    def tracing(self) -> bool:
        """Inside ``jit``, ``grad``, ``vmap`` and the rest."""
        return not in_eager_code()

    def compiling(self, leaves: Iterable[Any]) -> bool:
        """Under ``jit``, ``scan``, ``vmap`` and the rest, but not in eager ``grad``."""
        if any(map(is_abstract, leaves)):
            return True
        # Under jit an operation on constants is staged too. Under vmap it is not.
        return self.tracing() and (in_vmap() or is_abstract(jnp.negative(ZERO)))

    def is_abstract(self, value: Any) -> bool:
        """Also of a member of a batch, which is one of many."""
        return is_abstract(value)

    def call_back(self, function: Callable[..., None], leaves: Sequence[Any]) -> None:
        """By ``jax.debug.callback``, with numpy's arrays."""
        jax.debug.callback(lambda *numbers: function(*map(np.asarray, numbers)), *leaves)

    def carry(self) -> Callable[[], AbstractContextManager[None]]:
        """What is set of `SETTINGS`, and the mesh of ``jax.set_mesh``."""
        values = {name: getattr(jax.config, f"jax_{name}") for name in SETTINGS}
        mesh = jax.sharding.get_mesh()

        @contextmanager
        def same() -> Iterator[None]:
            with ExitStack() as stack:
                for name, value in values.items():
                    stack.enter_context(getattr(jax, name)(value))
                if not mesh.empty:
                    stack.enter_context(jax.set_mesh(mesh))
                yield

        return same

    def check_variables(self, logprobs: Tree, wrt: Tree) -> None:
        """Some leaf has to be of floating-point or complex numbers."""
        if wrt is not None and not callable(logprobs):
            raise ValueError(
                "wrt= was given JAX arrays, but logprobs is not a function of them, and JAX keeps "
                "no graph of how it was computed. Write it as a function, which is called once: "
                "logprobs=lambda params: ..., wrt=params."
            )
        leaves = Leaves.of(logprobs if wrt is None else wrt)
        if not leaves.variables:
            raise ValueError(
                "track_grad_norms=True, but of the arrays that gradients would be taken by "
                f"({len(leaves.others)}) none is of floating-point or complex numbers. Give "
                "logprobs, or a function of the parameters and these: "
                "logprobs=lambda params: ..., wrt=params."
            )

    @contextmanager
    def record(self, logprobs: Tree, wrt: Tree) -> Iterator[Recording]:
        """Each function has to be traced, because JAX keeps no graph of what was computed."""
        yield JaxRecording.begin(logprobs, wrt)

    def accumulate(self, total: Any, weight: Scalar, array: Any, *, owned: bool) -> Any:
        """In float32 at least, in one pass."""
        return _accumulate(total, without_graph(weight), array)

    def norm(self, gradient: Gradient) -> Any:
        """In float32 at least."""
        return _norm(list(gradient))


def _wide(array: Any) -> Any:
    dtype = jnp.promote_types(array.dtype, jnp.float32)
    return array if array.dtype == dtype else array.astype(dtype)


@jax.jit
def _accumulate(total: Any, weight: Any, array: Any) -> Any:
    return _wide(total) + weight * _wide(array)


@jax.jit
def _norm(arrays: list[Any]) -> Any:
    return jnp.sqrt(sum(jnp.sum(jnp.square(jnp.abs(_wide(array)))) for array in arrays))


def _flatten(output: CustomLossOutput) -> tuple[Sequence[tuple[GetAttrKey, Any]], Skeleton]:
    (totals, base, regularizers), skeleton = pack(output)
    names = (*skeleton.totals, "base_loss", "regularizers")  # for the messages of jax
    branches = zip(names, (*totals, base, regularizers), strict=True)
    return [(GetAttrKey(name), branch) for name, branch in branches], skeleton


def _unflatten(skeleton: Skeleton, branches: Iterable[Any]) -> CustomLossOutput:
    *totals, base, regularizers = branches
    return unpack((totals, base, regularizers), skeleton)


register_pytree_with_keys(CustomLossOutput, _flatten, _unflatten)

BACKEND: Final[Backend] = JaxBackend()
