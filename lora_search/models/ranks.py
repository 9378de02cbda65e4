"""Ranks that differ by module: an adapter's rank times a factor by kind of module, or spread anew by EVA.

EVA (Paischer et al. 2024, "Parameter Efficient Fine-tuning via Explained Variance Adaptation") takes the ranks of
all modules as one budget, and gives it to the principal components of the modules' inputs that explain the
largest share of their own module's variance; no module gets more than ``RHO`` times the adapter's rank, and one whose
components all explain too little gets none. PEFT does so too (``peft.tuners.lora.eva``). Only its ranks are taken: A
begins as in any other LoRA, and not with the components, so adapters of a study begin alike.

The scale in front of B A is the adapter's on every module, so alpha follows the rank, as where PEFT adjusts it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from lora_search.models.structure import LinearModule
from lora_search.models.targets import target_groups
from lora_search.spec import EVA, UNIFORM, AdapterSpec
from lora_search.spec.names import rank_factors

RHO = 2.0
"""So many times the adapter's rank a module gets at most by EVA: PEFT's default."""

Explained = Mapping[str, Sequence[float]]
"""By module, the shares of its inputs' variance that their first principal components explain, falling."""


def module_ranks(
    modules: Sequence[LinearModule], adapter: AdapterSpec, explained: Explained | None = None
) -> dict[str, int]:
    """The rank of each module, by name; 0 of one that EVA leaves as it is.

    Args:
        modules: that the adapter names.
        adapter: whose ranks are asked for.
        explained: what EVA goes by; wanted for nothing else.
    """
    if adapter.rank_pattern != EVA:
        factors = rank_factors(adapter.rank_pattern)
        return {module.name: _scaled(adapter.rank, _factor(module, factors)) for module in modules}
    if explained is None:
        raise ValueError("EVA needs to know what the inputs of the modules explain")
    most = round(adapter.rank * RHO)
    shares = [(share, module.name) for module in modules for share in explained[module.name][:most]]
    # of equal shares, as of modules with one input, those that the model declares first
    largest = sorted(shares, key=lambda pair: -pair[0])[: adapter.rank * len(modules)]
    counts = Counter(name for _, name in largest)
    return {module.name: counts[module.name] for module in modules}


def ranked_modules(
    modules: Sequence[LinearModule], adapter: AdapterSpec, explained: Explained | None = None
) -> tuple[tuple[LinearModule, ...], dict[str, int]]:
    """The modules that an adapter adapts, and their ranks by name; none of an adapter that has one rank.

    Args:
        modules, adapter, explained: as for ``module_ranks``.
    """
    if adapter.rank_pattern == UNIFORM:
        return tuple(modules), {}
    ranks = {name: rank for name, rank in module_ranks(modules, adapter, explained).items() if rank}
    return tuple(module for module in modules if module.name in ranks), ranks


def ranks_sentence(modules: Sequence[LinearModule], ranks: Mapping[str, int]) -> str:
    """``attention.self.query 3 to 7, output.dense 2``: the ranks of modules of each name, 0 where there is none."""
    by_leaf: dict[str, list[int]] = {}
    for module in modules:
        by_leaf.setdefault(module.leaf, []).append(ranks.get(module.name, 0))
    return ", ".join(
        f"{leaf} {min(found)}" if min(found) == max(found) else f"{leaf} {min(found)} to {max(found)}"
        for leaf, found in by_leaf.items()
    )


def _factor(module: LinearModule, factors: Mapping[str, float]) -> float:
    return next((factors[group] for group in target_groups(module) if group in factors), 1.0)


def _scaled(rank: int, factor: float) -> int:
    """Half a rank is rounded up, and none is left without."""
    return max(1, math.floor(rank * factor + 0.5))
