"""What a penalty refuses of the tensors that it is handed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from regularizers.checks import describe
from regularizers.trees import Tree, flatten, show_path


def check_real(penalty: str, leaves: Iterable[Any]) -> None:
    """Raise TypeError for a tensor of complex numbers."""
    for leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        # torch and TensorFlow say the one, numpy and jax the other.
        if getattr(dtype, "is_complex", False) or getattr(dtype, "kind", None) == "c":
            raise TypeError(
                f"{penalty} got {describe(leaf)}. It takes real numbers; of complex ones hand over "
                "the absolute values, or the real and the imaginary parts."
            )


def check_floats(penalty: str, tree: Tree) -> None:
    """Raise ValueError for a leaf that no framework differentiates by."""
    for path, leaf in flatten(tree).items():
        # Frameworks spell it differently; what is common is the name of the type in it.
        if "float" not in str(getattr(leaf, "dtype", type(leaf).__name__)):
            raise ValueError(
                f"{penalty} got logprobs{show_path(path)}={describe(leaf)}. It differentiates by "
                "logprobs, which takes floats."
            )


def check_distributions(penalty: str, tree: Tree) -> None:
    """Raise ValueError for a leaf without axes, which is one outcome of a distribution."""
    for path, leaf in flatten(tree).items():
        # TensorFlow's shape of an unknown number of axes is equal to none, and not refused.
        if getattr(leaf, "shape", ()) == ():
            raise ValueError(
                f"{penalty} got logprobs{show_path(path)} of shape (). It takes distributions, "
                "or stacks of them: tensors of one axis or more, of which the last has the "
                "outcomes."
            )
