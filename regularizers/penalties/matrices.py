"""Penalties on matrices."""

from __future__ import annotations

import math
from typing import Any, Final

from regularizers.operations import Array, Operations, Shape
from regularizers.penalties.penalty import with_grad
from regularizers.penalties.sums import Reduction, gradient, total
from regularizers.protocols import Scalar
from regularizers.trees import Tree, shapes, show_path

MATRIX: Final = 2
"""How many axes it has."""


def _orthogonality_grad(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Tree:
    del data
    _check_matrices(logprobs)

    def slope(xp: Operations, x: Array) -> Array:
        excess = _excess(xp, x)
        return 4 * (xp.matmul(excess, x) if _is_wide(xp, x) else xp.matmul(x, excess))

    return gradient("orthogonality", slope, _matrices, reduction, logprobs)


@with_grad(_orthogonality_grad)
def orthogonality(data: Any, logprobs: Tree, *, reduction: Reduction = "sum") -> Scalar:
    """How far matrices are from orthogonal, ``||W^T W - I||_F**2`` over the last two axes.

    0 where the columns of ``W`` are orthonormal. A matrix with more columns than rows cannot have
    such columns, and its rows are asked for instead: ``||W W^T - I||_F**2``.

    The gradient is ``4 W (W^T W - I)``, or ``4 (W W^T - I) W`` for rows.

    Products are rounded as the framework is told to: of float32 TensorFlow makes TF32 on a GPU
    unless ``tf.config.experimental.enable_tensor_float_32_execution(False)`` was called, and torch
    only after ``torch.set_float32_matmul_precision``. On jax they are in float32.

    Args:
        data: Not used.
        logprobs: A tensor of shape (..., m, n), or a tree of them: one matrix, or a stack of them.
            A convolution's kernel is not one; reshape it to (outputs, -1).
        reduction: ``"sum"`` over all matrices, or ``"mean"`` over them.

    Returns:
        A scalar on the tensors' device, at least 0; NaN if an element is NaN or infinite.

    Raises:
        TypeError: A leaf is no tensor or number, or of complex numbers.
        ValueError: A leaf has fewer than two axes, or the last two have no known length in
            compiled code; or the reduction does not exist.

    Example:
        >>> import numpy as np
        >>> float(orthogonality(None, np.array([[0.0, 1.0], [-1.0, 0.0]])))
        0.0
        >>> float(orthogonality(None, np.array([[2.0, 0.0]])))  # (2 * 2 - 1) ** 2
        9.0

    References:
        Bansal, Chen and Wang, "Can We Gain More from Orthogonality Regularizations in Training
        Deep CNNs?", 2018, arXiv:1810.09102 (as soft orthogonality).
        Brock et al., "Neural Photo Editing with Introspective Adversarial Networks", 2017,
        arXiv:1609.07093 (with absolute values in place of the squares).
    """
    del data
    _check_matrices(logprobs)

    def measure(xp: Operations, x: Array) -> Array:
        excess = _excess(xp, x)
        return xp.sum(excess * excess)

    return total("orthogonality", measure, _matrices, reduction, logprobs)


def _excess(xp: Operations, x: Array) -> Array:
    """The smaller Gram matrix, less the identity."""
    turned = xp.transpose(x)
    gram = xp.matmul(x, turned) if _is_wide(xp, x) else xp.matmul(turned, x)
    return gram - xp.identity(gram)


def _is_wide(xp: Operations, x: Array) -> bool:
    rows, columns = xp.shape(x)[-MATRIX:]
    return bool(rows < columns)


def _check_matrices(logprobs: Tree) -> None:
    for path, shape in shapes(logprobs).items():
        if len(shape) < MATRIX or None in shape[-MATRIX:]:
            raise ValueError(
                f"orthogonality got logprobs{show_path(path)} of shape {shape}. It takes matrices, "
                "or stacks of them: tensors of two axes or more, of which the last two have a "
                "known length."
            )


def _matrices(shape: Shape) -> Any:
    return math.prod(shape[:-MATRIX])
