"""Gradients of functions that JAX runs through once each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp

from regularizers.backends.jax_state import without_graph
from regularizers.backends.jax_variables import Leaves
from regularizers.checks import describe
from regularizers.protocols import Computation, Gradient, Scalar, Value
from regularizers.trees import Tree


class JaxRecording:
    """See `regularizers.protocols.Recording`.

    Args:
        logprobs: What the functions are called on.
        pull: Takes a gradient by the logprobs back to what they are a function of.
    """

    traces = True

    def __init__(self, logprobs: Tree, pull: Callable[[Gradient], Gradient] | None = None) -> None:
        self.logprobs = logprobs
        self._leaves = Leaves.of(logprobs)
        self._pull = pull

    @classmethod
    def begin(cls, logprobs: Tree, wrt: Tree) -> Self:
        """Compute the logprobs, if they are a function of ``wrt``."""
        if wrt is None:
            return cls(logprobs)
        given = Leaves.of(wrt)
        found: list[Leaves] = []

        def compute(variables: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            leaves = Leaves.of(logprobs(given.tree(variables)))
            if not _depends(leaves.variables):
                raise ValueError(
                    f"track_grad_norms=True, but logprobs={logprobs!r} returned arrays through "
                    "which JAX cannot differentiate by wrt. Compute them from its argument, "
                    "without stop_gradient."
                )
            found.append(leaves)
            return leaves.variables, leaves.others

        variables, pull, others = jax.vjp(compute, given.variables, has_aux=True)
        (leaves,) = found
        tree = leaves._replace(others=others).tree(variables)
        return cls(tree, lambda gradient: _detached(pull)(list(gradient))[0])

    def differentiate(self, function: Computation) -> tuple[Value, Gradient]:
        """By ``jax.vjp``. The gradient has no part in a differentiation around this one."""
        names: list[str] = []

        def compute(variables: Sequence[Any]) -> tuple[Scalar, tuple[Scalar, ...]]:
            value = function.compute(self._leaves.tree(variables))
            _check_differentiable(function.label, value.scalar)
            names.extend(value.custom)
            return value.scalar, tuple(value.custom.values())

        scalar, pull, custom = jax.vjp(compute, self._leaves.variables, has_aux=True)
        gradient: Gradient = _detached(pull)(jnp.ones_like(without_graph(scalar)))[0]
        if self._pull is not None:
            gradient = self._pull(gradient)
        return Value(scalar, dict(zip(names, custom, strict=True))), gradient


def _detached(pull: Any) -> Any:
    # A pullback is a pytree of its residuals. If a transformation around this one differentiates,
    # they are its tracers, and it would differentiate the backward pass as well.
    return jax.tree_util.tree_map(without_graph, pull)


def _check_differentiable(label: str, scalar: Scalar) -> None:
    is_real = isinstance(scalar, jax.Array) and jnp.issubdtype(scalar.dtype, jnp.floating)
    if not is_real or not _depends([scalar]):
        raise ValueError(
            f"track_grad_norms=True, but {label} returned {describe(scalar)}, through which JAX "
            "cannot differentiate. Return a real number computed from logprobs, without "
            "stop_gradient, rounding or float(), or call with track_grad_norms=False."
        )


def _depends(values: Sequence[Any]) -> bool:
    """Whether any of them depends on what is being differentiated by, here or further out."""
    seen: list[bool] = []

    @jax.custom_jvp
    def witness(values: Sequence[Any]) -> Sequence[Any]:
        return values

    def rule(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
        seen.append(True)
        return primals[0], tangents[0]

    # JAX calls the rule where a tangent is not zero by the very structure of the computation.
    witness.defjvp(rule)
    witness(values)
    return bool(seen)
