"""The same modules in the words of PEFT's ``LoraConfig``, for exports, recipes and the reference in tests.

PEFT adapts every module whose dotted name equals a target or ends with ``.target``, in the layers asked for, unless a
module trained whole contains it (``peft.tuners.tuners_utils.check_target_module_exists``). A short name that reads well
may catch too much: ``dense`` is also in the pooler. So a short name is used only where that rule, replayed here over
every module of the model, finds only modules that are meant; otherwise they are named in full.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lora_search.models.structure import LinearModule, ModelStructure

# The first number between dots is the layer, as PEFT reads it.
_LAYER = re.compile(r".*?\.[^.]*\.(\d+)\.")


@dataclass(frozen=True)
class PeftTargets:
    """Fields of ``LoraConfig``; ``layers_to_transform`` is None for all layers."""

    target_modules: tuple[str, ...]
    layers_to_transform: tuple[int, ...] | None
    modules_to_save: tuple[str, ...]


def peft_targets(structure: ModelStructure, modules: Sequence[LinearModule]) -> PeftTargets:
    """What to tell PEFT so that it adapts exactly ``modules``.

    Args:
        structure: the model.
        modules: as ``resolve_targets`` returns them.
    """
    wanted = {module.name for module in modules}
    layers = tuple(sorted({module.layer for module in modules}))
    every = layers == tuple(range(structure.layer_count))
    reach = [
        name
        for name in structure.module_names
        if not _trained_whole(name, structure.modules_to_save) and (every or _layer_of(name) in layers)
    ]
    if not wanted <= set(reach):  # an earlier number in the names hides the layer's from PEFT
        return PeftTargets(tuple(module.name for module in modules), None, structure.modules_to_save)
    chosen: list[str] = []
    for leaf in dict.fromkeys(module.leaf for module in modules):
        short = _shortest(leaf, wanted, reach)
        chosen += [short] if short else [module.name for module in modules if module.leaf == leaf]
    return PeftTargets(tuple(dict.fromkeys(chosen)), None if every else layers, structure.modules_to_save)


def peft_patterns(modules: Sequence[LinearModule], ranks: Mapping[str, int], usual: int) -> dict[str, int]:
    """Keys that find the modules whose rank is not the adapter's, and their rank.

    Args:
        modules: all that are adapted.
        ranks: of modules, by name. usual: the adapter's, and of those that have none there.
    """
    known = {module.name: ranks.get(module.name, usual) for module in modules}
    patterns: dict[str, int] = {}
    for leaf in dict.fromkeys(module.leaf for module in modules):
        other = {m.name: known[m.name] for m in modules if m.leaf == leaf and known[m.name] != usual}
        for rank in dict.fromkeys(other.values()):
            key = _key_of_all(leaf, rank, known)
            patterns |= {name: rank for name in other if other[name] == rank} if key is None else {key: rank}
    return patterns


def _key_of_all(leaf: str, rank: int, ranks: Mapping[str, int]) -> str | None:
    """The shortest end of a leaf that finds modules of this rank alone."""
    parts = leaf.split(".")
    for start in range(len(parts) - 1, -1, -1):
        key = ".".join(parts[start:])
        if {ranks[name] for name in ranks if re.match(rf"(.*\.)?({key})$", name)} == {rank}:
            return key
    return None


def _shortest(leaf: str, wanted: Collection[str], reach: Sequence[str]) -> str | None:
    parts = leaf.split(".")
    for start in range(len(parts) - 1, -1, -1):
        name = ".".join(parts[start:])
        if all(full in wanted for full in reach if full == name or full.endswith(f".{name}")):
            return name
    return None


def _layer_of(name: str) -> int | None:
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def _trained_whole(name: str, modules_to_save: Sequence[str]) -> bool:
    return any(re.match(rf"(^|.*\.){re.escape(saved)}($|\..*)", name) for saved in modules_to_save)
