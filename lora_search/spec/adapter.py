"""The two halves of a trial: the adapter spec (what is compared) and the nuisance (what makes the comparison fair)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(ge=1)
    alpha: float = Field(gt=0)
    targets: str
    layers: str = "all"
    scaling: Scaling = "lora"
    use_dora: bool = False
    bias: Bias = "none"

    @property
    def scale(self) -> float:
        """The factor in front of B A."""
        return self.alpha / (math.sqrt(self.rank) if self.scaling == "rslora" else self.rank)

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
    return tuple(name for name, has in names.items() if has)


ADAPTER_FIELDS = tuple(AdapterSpec.model_fields)
"""What tells adapters apart; trials that differ in other things are settings of one."""


class Nuisance(BaseModel):
    """Hyperparameters co-tuned with the adapter because a fixed value would favour some ranks over others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
