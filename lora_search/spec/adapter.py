"""The two halves of a trial: the adapter spec (what is compared) and the nuisance (what makes the comparison fair)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lora_search.spec.names import EVA, UNIFORM, rank_factors

Scaling = Literal["lora", "rslora"]
Bias = Literal["none", "lora_only"]


class AdapterSpec(BaseModel):
    """Everything that defines one LoRA, by name; a model turns the names into modules.

    Attributes:
        rank: the inner dimension r of B A.
        alpha: numerator of the scale in front of B A.
        targets: a group (``query+value``, ``attention``, ``mlp``, ``all-linear``) or module names joined by commas.
        layers: ``all``, ``top-2``, ``top-1/3`` or layer indices joined by commas, counted from 0 at the input.
        scaling: ``lora`` (alpha / rank, Hu et al. 2021) or ``rslora`` (alpha / sqrt(rank), Kalajdzievski 2023).
        use_dora: whether it is a DoRA, which learns the magnitudes of the rows of W + B A as well (Liu et al. 2024).
        bias: ``lora_only`` trains the biases of the adapted modules too.
        rank_pattern: ``uniform``; or whose rank is another, that times a factor, by kind of module
            (``attention:2,mlp:0.5``); or ``eva``, which spreads the ranks of all modules anew, by what the data ask of
            each (see ``models.ranks``). The scale is the adapter's on all of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: str
    layers: str = "all"
    scaling: Scaling = "lora"
    use_dora: bool = False
    bias: Bias = "none"
    rank_pattern: str = UNIFORM

    @property
    def scale(self) -> float:
        """The factor in front of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.scaling == "rslora" else self.rank)

    def alpha_at(self, rank: int) -> float:
        """The alpha with which a module of another rank has this adapter's scale."""
        if self.scaling == "rslora":
            return self.alpha * math.sqrt(rank / self.rank)
        return self.alpha * rank / self.rank

    def uniform_at(self, rank: int) -> AdapterSpec:
        """The same adapter with one rank, this one, on all its modules, and the same scale."""
        return self.model_copy(update={"rank": rank, "alpha": self.alpha_at(rank), "rank_pattern": UNIFORM})

    def __str__(self) -> str:
        layers = "all layers" if self.layers == "all" else f"layers {self.layers}"
        variants = "".join(f", {name}" for name in variants_of(self.model_dump()))
        return f"r={self.rank}, alpha={self.alpha:g}, {self.targets}, {layers}{variants}"


def variants_of(adapter: Mapping[str, Any]) -> tuple[str, ...]:
    """How an adapter differs from a plain LoRA, in the names of the field; of its fields, some of which may lack."""
    names = {
        "rsLoRA": adapter.get("scaling") == "rslora",
        "DoRA": bool(adapter.get("use_dora")),
        "biases": adapter.get("bias") == "lora_only",
    }
    ranks = rank_pattern_words(str(adapter.get("rank_pattern", UNIFORM)))
    return *(name for name, has in names.items() if has), *([f"ranks {ranks}"] if ranks else [])


def rank_pattern_words(pattern: str) -> str:
    """``"attention:2,mlp:0.5"`` -> "attention x 2, mlp x 0.5", ``"eva"`` -> "by EVA"; nothing of ``"uniform"``."""
    if pattern == EVA:
        return "by EVA"
    return ", ".join(f"{kind} x {factor:g}" for kind, factor in rank_factors(pattern).items())


ADAPTER_FIELDS = tuple(AdapterSpec.model_fields)
"""What tells adapters apart; trials that differ in other things are settings of one."""


class Nuisance(BaseModel):
    """Hyperparameters co-tuned with the adapter because a fixed value would favour some ranks over others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
