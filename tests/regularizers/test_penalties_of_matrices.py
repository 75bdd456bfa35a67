import math

import numpy as np
import pytest
import torch

from regularizers import penalties


def number(value):
    return float(value.detach() if hasattr(value, "detach") else value)


def test_rotations_have_the_penalty_zero(framework):
    angle = 0.3
    rotation = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    assert number(penalties.orthogonality(None, framework.tensor(rotation))) < 1e-30


def test_a_tall_and_a_wide_matrix_can_both_reach_zero(framework):
    """Orthonormal columns of the one are orthonormal rows of the other."""
    tall = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    for matrix in (tall, tall.T):
        assert number(penalties.orthogonality(None, framework.tensor(matrix))) == 0.0
        gradient = penalties.orthogonality.grad(None, framework.tensor(matrix))
        assert not framework.to_numpy(gradient).any()


def test_a_wide_matrix_is_measured_by_its_rows(framework):
    """By hand: W W^T - I = (3, 1; 1, 0), so 9 + 1 + 1, and 4 (W W^T - I) W."""
    wide = framework.tensor([[2.0, 0.0, 0.0], [0.5, math.sqrt(0.75), 0.0]])
    assert number(penalties.orthogonality(None, wide)) == pytest.approx(11.0)
    gradient = framework.to_numpy(penalties.orthogonality.grad(None, wide))
    expected = 4 * np.array([[6.5, math.sqrt(0.75), 0.0], [2.0, 0.0, 0.0]])
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_a_stack_of_matrices_is_as_many_matrices(framework):
    """By hand: (4 - 1)^2 twice in the first, (9 - 1)^2 twice in the second."""
    stack = framework.tensor(np.stack([2 * np.eye(2), 3 * np.eye(2)]))
    assert number(penalties.orthogonality(None, stack)) == 2 * 9 + 2 * 64
    assert number(penalties.orthogonality(None, stack, reduction="mean")) == 9 + 64
    leaves = {"a": framework.tensor(2 * np.eye(2)), "b": framework.tensor(3 * np.eye(2))}
    assert number(penalties.orthogonality(None, leaves, reduction="mean")) == 9 + 64


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 2, 2)])
def test_nothing_has_the_penalty_zero(framework, shape, reduction):
    empty = framework.tensor(np.ones(shape))
    assert number(penalties.orthogonality(None, empty, reduction=reduction)) == 0.0


def test_what_is_no_matrix_is_named():
    for function in (penalties.orthogonality, penalties.orthogonality.grad):
        with pytest.raises(ValueError, match="orthogonality") as caught:
            function(None, {"w": np.eye(2), "b": [np.ones(3)]})
        assert str(caught.value) == (
            "orthogonality got logprobs['b'][0] of shape (3,). It takes matrices, or stacks of "
            "them: tensors of two axes or more, of which the last two have a known length."
        )


def test_a_matrix_of_unknown_shape_is_named_in_a_graph():
    import tensorflow as tf

    function = tf.function(
        lambda x: penalties.orthogonality(None, x),
        input_signature=[tf.TensorSpec([None, 3], tf.float32)],
    )
    with pytest.raises(ValueError, match=r"orthogonality got logprobs of shape \(None, 3\)"):
        function(tf.eye(3))


def test_autocast_does_not_round_the_product():
    """1.001 squared is 1.002001; bfloat16 would have 1.0 of both."""
    matrix = torch.tensor([[1.001]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = penalties.orthogonality(None, matrix)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(0.002001**2, rel=1e-3)
