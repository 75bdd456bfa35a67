"""tensorflow: gradients by a tape around all evaluations, everything on the tensors' device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import tensorflow as tf  # type: ignore[import-untyped] # it ships no types

from regularizers.backends.tensorflow_operations import OPERATIONS
from regularizers.backends.tensorflow_recording import TensorflowRecording, is_tensor, sources
from regularizers.protocols import Backend, Gradient, Recording, Scalar
from regularizers.trees import Tree


class TensorflowBackend:
    """See `regularizers.protocols.Backend`."""

    name = "tensorflow"
    differentiates = True
    crosses_threads = False
    xp: Any = OPERATIONS

    def owns(self, kind: type) -> bool:
        """Whether it is a tensor or a variable; also one of Keras, on TensorFlow."""
        return is_tensor(kind)

    def as_float(self, leaf: Any) -> Any:
        """float16, bfloat16 and integers become float32."""
        tensor = tf.convert_to_tensor(leaf)
        return tensor if tensor.dtype == tf.float64 else tf.cast(tensor, tf.float32)

    def snapshot(self, value: Any) -> Any:
        """What a variable holds now. A tensor is never written to, and its graph is a tape's."""
        if isinstance(value, tf.Tensor) and not tf.is_symbolic_tensor(value):
            return value
        tensor = tf.convert_to_tensor(value)
        return tensor if tf.executing_eagerly() else tf.stop_gradient(tensor)

    def promote(self, left: Any, right: Any) -> tuple[Any, Any]:
        """Tensors become float32, or float64 if one is."""
        dtypes = [value.dtype for value in (left, right) if is_tensor(type(value))]
        widest = tf.float64 if tf.float64 in dtypes else tf.float32
        left, right = (
            tf.cast(value, widest) if is_tensor(type(value)) else value for value in (left, right)
        )
        return left, right

    def add_weighted(self, total: Any, weight: Any, value: Any) -> Any:
        """In two operations."""
        return self.accumulate(total, weight, value, owned=False)

    def tracing(self) -> bool:
        """Whether a graph is being built."""
        return not tf.executing_eagerly()

    def compiling(self, leaves: Iterable[Any]) -> bool:
        """Whether a graph is being built."""
        return not tf.executing_eagerly()

    def is_abstract(self, value: Any) -> bool:
        """Whether it belongs to a graph, finished or not."""
        return bool(tf.is_symbolic_tensor(value))

    def call_back(self, function: Callable[..., None], leaves: Sequence[Any]) -> None:
        """By a Python operation, which XLA cannot compile."""
        tf.py_function(function, leaves, [])

    def carry(self) -> Callable[[], AbstractContextManager[None]]:
        """Nothing: functions stay in the caller's thread, where its tapes are."""
        return nullcontext

    def check_variables(self, logprobs: Tree, wrt: Tree) -> None:
        """Some leaf has to be of floats."""
        sources(logprobs if wrt is None else wrt)

    @contextmanager
    def record(self, logprobs: Tree, wrt: Tree) -> Iterator[Recording]:
        """Knows what is computed from here on, and nothing from before."""
        variables = sources(logprobs if wrt is None else wrt)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(variables)
            if callable(logprobs):
                logprobs = logprobs(wrt)
            yield TensorflowRecording(logprobs, variables, tape)

    def accumulate(self, total: Any, weight: Scalar, array: Any, *, owned: bool) -> Any:
        """Into a new tensor: they are not written to."""
        weight, array = self.promote(weight, array)
        total, array = self.promote(total, weight * array)
        return total + array

    def norm(self, gradient: Gradient) -> Any:
        """In float32 at least; 0.0 if the function depends on none of the variables."""
        halves = [tf.nn.l2_loss(array) for array in gradient if array is not None]
        if not halves:
            return 0.0
        return tf.sqrt(2 * tf.add_n(OPERATIONS.promote(halves)))


BACKEND: Final[Backend] = TensorflowBackend()
