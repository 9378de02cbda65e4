"""Ranks by EVA in a study: what they follow from is found once, kept, and told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lora_search.models import module_ranks, ranks_sentence
from lora_search.models.ranks import RHO
from lora_search.spec import EVA, facts
from lora_search.statistics.wording import layers_name
from lora_search.study.preparation import Prepared
from lora_search.training.explained import explained_variance


def with_explained(prepared: Prepared, kept: Mapping[str, Any]) -> Prepared:
    """An experiment with what its ranks by EVA follow from, and notes of what they come to; as it is where it has none.

    Args:
        prepared: the experiment.
        kept: the study's facts; what they do not say is found now.
    """
    search = prepared.experiment.search
    if EVA not in search.rank_pattern or prepared.explained is not None:
        return prepared
    explained = facts.EXPLAINED.of(kept)
    if explained is None:
        modules = {module.name: module for named in prepared.modules.values() for module in named}
        explained = explained_variance(
            prepared.base,
            prepared.data,
            prepared.splits.development,
            list(modules.values()),
            round(max(search.rank) * RHO),
            prepared.device,
            prepared.experiment.seed,
        )
    known = replace(prepared, explained=explained)
    return replace(known, notes=(*known.notes, _note(known)))


def _note(prepared: Prepared) -> str:
    """What EVA makes of the middle rank on the most modules."""
    search = prepared.experiment.search
    targets, layers = max(prepared.modules, key=lambda choice: len(prepared.modules[choice]))
    rank, modules = sorted(search.rank)[len(search.rank) // 2], prepared.modules[targets, layers]
    ranks = module_ranks(modules, search.adapter(rank, 1.0, targets, layers, rank_pattern=EVA), prepared.explained)
    without = sum(not found for found in ranks.values())
    left = f"; {without} of {len(modules)} modules get none" if without else ""
    where = f"{targets} of {layers_name(layers)}"
    return f"by EVA, rank {rank} on {where} becomes {ranks_sentence(modules, ranks)}{left}"
