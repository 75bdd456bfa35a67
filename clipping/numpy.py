"""Clipping of NumPy gradients that are not held by a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

import numpy as np

from clipping.backends.numpy import NumpyGradients, check_array, leaf
from clipping.checks import check_clipper
from clipping.clipper import Clipper
from clipping.engine import clip_once
from clipping.groups import arrange
from clipping.records import OnMetrics
from clipping.tree import Path, leaves, locate, rebuild

__all__ = ["apply_grads"]

Tree = TypeVar("Tree")


def apply_grads(
    grads: Tree, params: Any, clipper: Clipper, on_metrics: OnMetrics | None = None
) -> Tree:
    """Clip gradients and return them; nothing is written to what was given.

    Args:
        grads: An array of floating-point or complex numbers, or dictionaries, lists and tuples of
            them, nested at will. None stands for a parameter without a gradient.
        params: The parameters: the same structure and shapes.
        clipper: What decides; it remembers the norms, so use the same one every step.
        on_metrics: Called with a `MetricsRecord` of each group. If it raises, that is announced
            like a failing handler.

    Returns:
        The same structure with new arrays of the same shapes and dtypes. Gradients that are all 0
        have norm 0 and stay as they are; for NaN and infinity see ``on_nonfinite`` of the clipper.

    Raises:
        TypeError: A gradient is no such array, or the clipper is none.
        ValueError: The trees do not match, or hold no gradient.
        FloatingPointError: See ``on_nonfinite`` of the clipper.

    Example:
        >>> import numpy as np
        >>> from clipping import AutoClip
        >>> clipper = AutoClip()
        >>> apply_grads({"w": np.array([3.0, 4.0]), "b": None}, {"w": np.zeros(2), "b": 0}, clipper)
        {'w': array([3., 4.]), 'b': None}
    """
    check_clipper(clipper)
    given, weights = dict(leaves(grads)), dict(leaves(params))
    present = {path: gradient for path, gradient in given.items() if gradient is not None}
    for path, gradient in present.items():
        check_array(gradient, f"The gradient grads{locate(path)}")
    _check_match(given, weights)
    if not present:
        raise ValueError(f"There is no gradient to clip in {grads!r}. Give at least one array.")
    paths = list(given)
    results = given | {path: gradient.copy() for path, gradient in present.items()}

    def store(index: int, array: Any) -> None:
        like = given[paths[index]]
        results[paths[index]] = array if isinstance(like, np.ndarray) else array[()]

    arrays = [None if gradient is None else np.asarray(gradient) for gradient in given.values()]
    owned = [leaf(weights[path], "/".join(map(str, path[:-1]))) for path in paths]
    ordered = [weights[path] for path in paths]
    gradients = NumpyGradients(arrays, ordered, arrange(clipper, owned), store)
    clip_once(gradients, clipper, on_metrics)
    return cast("Tree", rebuild(grads, iter(results.values())))


def _check_match(grads: Mapping[Path, Any], params: Mapping[Path, Any]) -> None:
    if grads.keys() != params.keys():
        only_grads = [locate(path) for path in grads if path not in params]
        only_params = [locate(path) for path in params if path not in grads]
        raise ValueError(
            "The tree of the gradients does not match that of the parameters: only gradients have "
            f"{only_grads!r}, only parameters {only_params!r}. The gradients are untouched."
        )
    for path, gradient in grads.items():
        if gradient is not None and np.shape(gradient) != np.shape(params[path]):
            raise ValueError(
                f"The gradient grads{locate(path)} has shape {np.shape(gradient)}, its parameter "
                f"{np.shape(params[path])}. They must be equal; the gradients are untouched."
            )
