"""Which layer each variable belongs to, for ``scope="per_layer"``.

Names of TensorFlow's variables need not be unique: two layers may be called the same. Then what
owns the variables tells them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf  # type: ignore[import-untyped] # it ships no types


def path_of(variable: Any) -> str:
    """The name of a variable, with those of its owners."""
    path = getattr(variable, "path", None)
    return str(path if path is not None else variable.name.rpartition(":")[0] or variable.name)


def layers_of(model: Any, variables: Sequence[Any]) -> list[str]:
    """The name of each variable's layer, "" for the model's own.

    Args:
        model: A Keras model or layer, a ``tf.Module``, or anything else, of which nothing is known.
        variables: In its order.
    """
    paths = list(map(path_of, variables))
    times = Counter(paths)
    layers = [path.rpartition("/")[0] for path in paths]
    repeated = {layer for layer, path in zip(layers, paths, strict=True) if times[path] > 1} - {""}
    owners = _owners(model, variables)
    numbers = _Numbers()
    for index, (path, variable) in enumerate(zip(paths, variables, strict=True)):
        layer = layers[index]
        if not layer or (layer in repeated and id(variable) in owners):
            layers[index] = owners.get(id(variable), "")
        elif layer in repeated:
            layers[index] = numbers.named(layer, path)
    return layers


class _Numbers:
    """Numbers for layers of one name, told apart by where their first variable comes again."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, set[str]]] = {}

    def named(self, layer: str, path: str) -> str:
        number, seen = self._layers.get(layer, (1, set()))
        if path in seen:
            number, seen = number + 1, set()
        self._layers[layer] = number, seen | {path}
        return _numbered(layer, number)


def _owners(model: Any, variables: Sequence[Any]) -> dict[int, str]:
    if isinstance(model, tf.Module):
        return _attribute_paths(model, variables)
    return dict(_owned(model, (), set())) if hasattr(model, "_layers") else {}


def _attribute_paths(model: Any, variables: Sequence[Any]) -> dict[int, str]:
    """Where in a tf.Module each variable is."""
    wanted = set(map(id, variables))
    found = model._flatten(predicate=lambda v: id(v) in wanted, with_path=True)  # noqa: SLF001 -- for subclasses
    return {id(variable): "/".join(map(str, path[:-1])) for path, variable in found}


def _owned(layer: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[int, str]]:
    """The variables below a layer of Keras, and the path of names to the layer that has each."""
    seen.add(id(layer))
    yield from ((id(variable), "/".join(path)) for variable in layer.trainable_variables)
    named: Counter[str] = Counter()
    for inner in layer._layers:  # noqa: SLF001 -- Keras has no public way to the layers of a layer
        named[inner.name] += 1
        if id(inner) not in seen:
            name = _numbered(inner.name, named[inner.name])
            yield from _owned(inner, (*path, name), seen)  # which know better, and come later


def _numbered(name: str, number: int) -> str:
    """Of the first the name itself; "#" is in no name that TensorFlow or Keras gives."""
    return name if number == 1 else f"{name}#{number}"
