"""A rule of thumb: has an adapter room for what the data ask of it?

Networks hold about two bits in a parameter (Allen-Zhu and Li 2024, "Physics of Language Models: Part 3.3"). What a
dataset asks for is at most what its answers tell who does not know them; where that is more than an adapter holds, LoRA
falls behind full fine-tuning, elsewhere it does not (Schulman et al. 2025, "LoRA Without Regret"). This bounds what a
rank may be needed for; what it is good for, the study measures.
"""

from __future__ import annotations

import math

import numpy as np

from lora_search.study.preparation import Prepared
from lora_search.tasks import Standardises, task_of

BITS_PER_PARAMETER = 2.0
BITS_PER_TOKEN = 1.0
"""Which a trained language model finds in text that it goes on with (Schulman et al. 2025)."""


def information(prepared: Prepared) -> float | None:
    """Bits that the answers of all examples in the folds hold at most, for who knows how often each occurs; None of
    numbers, which hold as many as they are exact."""
    task = task_of(prepared.experiment.model.task)
    objective = task.objective(prepared.data)
    if isinstance(objective, Standardises):
        return None
    examples = np.asarray(prepared.splits.development)
    if prepared.base.head.frozen:
        return BITS_PER_TOKEN * float(objective.units[examples].sum())
    # the loss of several labels is their mean
    answers = len(prepared.data.label_names) if task.on_words == "labels" else 1
    return answers * float(objective.losses_of_nothing(examples)[examples].sum()) / math.log(2)


def rule_of_thumb(bits: float, smallest: int, largest: int) -> str:
    """What that asks of an adapter, in a sentence.

    Args:
        bits: of the data.
        smallest, largest: adapter parameters in the space.
    """
    needed = max(1, round(bits / BITS_PER_PARAMETER))
    if needed <= smallest:
        found = "the smallest adapter has as many, so room is no reason for a larger one"
    elif needed > largest:
        found = "the largest adapter has fewer, so larger ones than are searched may score higher"
    else:
        found = "smaller adapters may have no room for all of it"
    return (
        f"the answers hold at most {bits:,.0f} bits, a parameter about 2, so {needed:,} parameters have room: {found}"
    )
