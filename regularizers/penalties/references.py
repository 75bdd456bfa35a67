"""Trees that are compared with ``logprobs``, leaf by leaf."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from regularizers.backends import backend_for
from regularizers.trees import Tree, flatten, refill, shapes, show_shapes

Reference: TypeAlias = Callable[[Any], Tree] | str | int | None
"""Where something is in ``data``: a function of it, a key or index, or None for all of it."""


def find_reference(penalty: str, data: Any, reference: Reference, logprobs: Tree) -> Tree:
    """What ``logprobs`` is compared with, its leaves in the same order.

    Raises:
        TypeError: What is there is of another framework, or ``reference`` is True or False.
        ValueError: ``data`` has no such key, or what is there is of another shape.
    """
    if isinstance(reference, bool):  # which would be an index
        raise TypeError(
            f"{penalty} got reference={reference!r} (bool). reference is a key of data, a function "
            "of it, or None for data itself."
        )
    if reference is None:
        found, place = data, "data itself"
    elif callable(reference):
        found, place = reference(data), "what reference(data) returned"
    else:
        found, place = _look_up(penalty, data, reference), f"data[{reference!r}]"
    return aligned(
        found,
        logprobs,
        f"{penalty} compares logprobs with {place}",
        "Say where in data the reference is with reference=..., a key or a function of data.",
    )


def aligned(tree: Tree, logprobs: Tree, what: str, remedy: str) -> Tree:
    """A tree with its leaves in the order of those of ``logprobs``.

    Raises:
        TypeError: They are of another framework than those of ``logprobs``, and not of numpy.
        ValueError: The leaves are at other places, or of other shapes.
    """
    leaves = flatten(tree)
    given, wanted = shapes(tree), shapes(logprobs)
    if given.keys() != wanted.keys() or any(
        _differ(given[path], shape) for path, shape in wanted.items()
    ):
        raise ValueError(
            f"{what}, but the shapes differ: {show_shapes(given)}, where logprobs has "
            f"{show_shapes(wanted)}. {remedy}"
        )
    theirs, ours = (backend_for(one.values()).name for one in (leaves, flatten(logprobs)))
    if theirs not in {ours, "numpy"}:
        raise TypeError(
            f"{what}, but the frameworks differ: {theirs}, where logprobs has {ours}. Convert it "
            "first; no gradient flows from one framework to another."
        )
    return refill(logprobs, (leaves[path] for path in wanted))


def _look_up(penalty: str, data: Any, key: str | int) -> Tree:
    try:
        return data[key]
    except (LookupError, TypeError) as error:
        keys = f" with the keys {list(data)!r}" if hasattr(data, "keys") else ""
        raise ValueError(
            f"{penalty} got reference={key!r}, which is not in data, a "
            f"{type(data).__name__}{keys}. reference is a key of data, a function of it, or None "
            "for data itself."
        ) from error


def _differ(shape: tuple[int | None, ...], other: tuple[int | None, ...]) -> bool:
    if len(shape) != len(other):
        return True
    return any(m != n and None not in {m, n} for m, n in zip(shape, other, strict=True))
