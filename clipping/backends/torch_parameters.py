"""The parameters of a torch module, and which of its layers they are in."""

from __future__ import annotations

import sys
from collections import Counter
from operator import is_
from typing import Final
from weakref import WeakKeyDictionary

from torch import Tensor
from torch.nn import Module
from torch.nn.parallel import DataParallel, DistributedDataParallel

from clipping.groups import ROOT

WRAPPERS: Final = {
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
}
"""Names under which wrappers of torch and Fabric hold what they wrap; nobody else uses them."""

_walkable: WeakKeyDictionary[Module, bool] = WeakKeyDictionary()


def parameters_of(module: Module) -> list[Tensor]:
    """What ``list(module.parameters())`` gives, in a fraction of its time.

    A module that has its own idea of its parameters is asked in every step.
    """
    walkable = _walkable.get(module)
    if walkable is None:
        walked, listed = _walk(module), list(module.parameters())
        _walkable[module] = len(walked) == len(listed) and all(map(is_, walked, listed))
    return _walk(module) if walkable else list(module.parameters())


def _walk(module: Module) -> list[Tensor]:
    found: list[Tensor | None] = []
    seen: set[Module] = set()
    waiting: list[Module | None] = [module]
    while waiting:
        part = waiting.pop()
        if part is None or part in seen:
            continue
        seen.add(part)
        if part._parameters:  # noqa: SLF001 -- parameters(recurse=False) is slow
            found.extend(part._parameters.values())  # noqa: SLF001 -- as above
        if part._modules:  # noqa: SLF001 -- as above
            waiting.extend([*part._modules.values()][::-1])  # noqa: SLF001 -- as above
    parameters = [parameter for parameter in found if parameter is not None]
    if len(set(map(id, parameters))) == len(parameters):
        return parameters
    return list({id(parameter): parameter for parameter in parameters}.values())


def layers_of(module: Module) -> dict[int, str]:
    """From the ids of parameters to the names of their layers; the first owner counts.

    Raises:
        TypeError: A part is wrapped in the first version of FSDP.
    """
    fsdp = sys.modules.get("torch.distributed.fsdp")
    parts: dict[str, Module] = {}
    names: dict[str, str] = {}
    owners: dict[int, str] = {}
    for path, part in module.named_modules():
        if fsdp and isinstance(part, fsdp.FullyShardedDataParallel):
            refuse_fsdp1(type(part).__name__)
        parts[path] = part
        names[path] = _name(path, names, parts)
        for parameter in part._parameters.values():  # noqa: SLF001 -- as in _walk
            if parameter is not None:
                owners.setdefault(id(parameter), path)
    told_apart = _told_apart({path: names[path] for path in owners.values()})
    return {parameter: told_apart[path] for parameter, path in owners.items()}


def _name(path: str, names: dict[str, str], parts: dict[str, Module]) -> str:
    """The name of a module without the parts that wrappers add."""
    parent, _, own = path.rpartition(".")
    above = names.get(parent, "")
    if own in WRAPPERS or (own == "module" and _is_wrapper(parts[parent], outermost=not above)):
        return above
    return f"{above}.{own}" if above else own


def _is_wrapper(part: Module, *, outermost: bool) -> bool:
    """Whether what a module holds as ``module`` is all that it is."""
    if isinstance(part, DataParallel | DistributedDataParallel):
        return True
    return outermost and len(part._modules) == 1 and not part._parameters  # noqa: SLF001 -- as in _walk


def _told_apart(names: dict[str, str]) -> dict[str, str]:
    """From the paths of layers to their names: the path itself where two would share a name."""
    shared = {name for name, times in Counter(names.values()).items() if times > 1}
    told = {path: path if name in shared else name for path, name in names.items()}
    if ROOT in told.values():  # what the model itself owns is called so too
        told = {path: name or f"{ROOT}." for path, name in told.items()}
    return told


def refuse_fsdp1(what: str) -> None:
    """Raise the TypeError for what the first version of FSDP made."""
    raise TypeError(
        f"Cannot clip what {what} holds: the first version of FSDP flattens parameters, so that "
        "no rank knows their norms. Allowed: torch.distributed.fsdp.fully_shard(model), the second "
        "version, and DistributedDataParallel. The gradients are untouched."
    )
