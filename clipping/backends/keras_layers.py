"""Which layer of Keras each variable belongs to, for ``scope="per_layer"``.

Paths of variables need not be unique: in two functional models inside a third, layers may be called
the same. Then the models they are in tell them apart.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple


class _Owner(NamedTuple):
    layer: int
    path: str


_NOBODY = _Owner(0, "")


def layers_of(variables: Sequence[Any], model: Any) -> list[str]:
    """The name of each variable's layer, "" for the model's own; different layers have different.

    Args:
        variables: In the model's order.
        model: A built model.
    """
    names = [_name(variable.path, model.name) for variable in variables]
    found = dict(_owned(model, (), set()))
    owners = [found.get(id(variable), _NOBODY) for variable in variables]
    sharing: defaultdict[str, set[int]] = defaultdict(set)
    for name, owner in zip(names, owners, strict=True):
        sharing[name].add(owner.layer)
    unique = [
        owner.path if len(sharing[name]) > 1 else name
        for name, owner in zip(names, owners, strict=True)
    ]
    order: defaultdict[str, list[int]] = defaultdict(list)
    for name, owner in zip(unique, owners, strict=True):
        if owner.layer not in order[name]:
            order[name].append(owner.layer)
    return [
        _numbered(name, order[name].index(owner.layer) + 1)
        for name, owner in zip(unique, owners, strict=True)
    ]


def _name(path: str, model: str) -> str:
    owner = path.rpartition("/")[0]
    return "" if owner == model else owner.removeprefix(f"{model}/")


def _owned(layer: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[int, _Owner]]:
    """The variables in a layer, each with the layer that has it and the names down to that."""
    seen.add(id(layer))
    owner = _Owner(id(layer), "/".join(path))
    yield from ((id(variable), owner) for variable in layer.variables)
    named: Counter[str] = Counter()
    for inner in layer._layers:  # noqa: SLF001 -- Keras has no public way to the layers of a layer
        named[inner.name] += 1
        if id(inner) not in seen:
            name = _numbered(inner.name, named[inner.name])
            yield from _owned(inner, (*path, name), seen)  # which know better, and come later


def _numbered(name: str, number: int) -> str:
    """Of the first the name itself; "#" is in no path of Keras's own."""
    return name if number == 1 else f"{name}#{number}"
