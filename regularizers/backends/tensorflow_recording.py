"""What a tape has recorded, and the gradients that are taken from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

from regularizers.checks import describe
from regularizers.protocols import Computation, Gradient, Value
from regularizers.trees import Tree, flatten


class TensorflowRecording:
    """See `regularizers.protocols.Recording`.

    Args:
        logprobs: What the functions are to be called on.
        variables: What gradients are taken by, watched by the tape.
        tape: Persistent, and recording.
    """

    traces = False

    def __init__(self, logprobs: Tree, variables: list[Any], tape: Any) -> None:
        self.logprobs = logprobs
        self._variables = variables
        self._tape = tape

    def differentiate(self, function: Computation) -> tuple[Value, Gradient]:
        """The tape is kept for the next function."""
        value = function.compute(self.logprobs)
        try:
            gradient = self._gradient(value.scalar)
        except LookupError as error:
            raise ValueError(
                f"track_grad_norms=True, but {function.label} has an operation that TensorFlow "
                f"cannot differentiate: {error}. Do without it, or call with "
                "track_grad_norms=False."
            ) from error
        if gradient is None:
            raise ValueError(
                f"track_grad_norms=True, but {function.label} returned {describe(value.scalar)}, "
                "and TensorFlow has recorded no way to it from the tensors that gradients are "
                "taken by. Compute it from logprobs in the function, without tf.stop_gradient() "
                "and .numpy(). What was computed before the call is not recorded: with wrt=, give "
                "logprobs as a function of it, such as logprobs=lambda variables: model(inputs). A "
                "tensor that the function closes over belongs among logprobs. Or call with "
                "track_grad_norms=False."
            )
        return value, gradient

    def _gradient(self, scalar: Any) -> Gradient | None:
        """In float32 at least; None if nothing that the tape knows leads to the scalar."""
        if not is_tensor(type(scalar)):
            return None
        target = tf.convert_to_tensor(scalar)
        with self._paused():
            # All in one backward pass, which goes back to whatever the tape knows anyway.
            others = self._tape.watched_variables()
            found = self._tape.gradient(target, [*self._variables, *others])
            if all(array is None for array in found):
                return None
            pairs = zip(found, self._variables, strict=False)
            return [_as_constant(array, variable) for array, variable in pairs]

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Neither this tape nor those of the caller record the way back.

        In a graph those of the caller do, while it is traced.
        """
        others = tf.init_scope() if tf.executing_eagerly() else nullcontext()
        with self._tape.stop_recording(), others:
            yield


def is_tensor(kind: type) -> bool:
    """Whether values of this type are tensors or variables; also those of Keras, on TensorFlow."""
    return issubclass(kind, tf.Variable) or hasattr(kind, "__tf_tensor__")


def sources(tree: Tree) -> list[Any]:
    """The leaves that have gradients, each once: tensors and variables of floats.

    Raises:
        ValueError: There are none.
    """
    leaves = flatten(tree).values()
    tensors = [_unwrapped(leaf) for leaf in leaves if is_tensor(type(leaf))]
    found = {id(tensor): tensor for tensor in tensors if tensor.dtype.is_floating}
    if not found:
        raise ValueError(
            "track_grad_norms=True, but of the tensors that gradients would be taken by "
            f"({len(leaves)}) none is a TensorFlow tensor or variable of floats. Give such "
            "logprobs, or the variables: wrt=model.trainable_variables."
        )
    return list(found.values())


def _unwrapped(leaf: Any) -> Any:
    # A tape does not watch the variables of Keras, but what is in them.
    return leaf if isinstance(leaf, tf.Tensor | tf.Variable) else leaf.value


def _as_constant(array: Any, variable: Any) -> Any:
    if array is None:
        return None
    if isinstance(array, tf.IndexedSlices):
        # Not by tf.convert_to_tensor, which warns of large ones.
        rows = tf.shape(variable)[0]
        array = tf.math.unsorted_segment_sum(array.values, array.indices, rows)
    if array.dtype != tf.float64:
        array = tf.cast(array, tf.float32)
    # A graph has the way back on the caller's tapes: they need not look at it.
    return array if tf.executing_eagerly() else tf.stop_gradient(array)
