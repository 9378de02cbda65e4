"""How many tokens a model has positions for, and how it counts them.

RoBERTa and its kin (Longformer, MPNet, ESM, ...) count from the padding id on: the first token has position
``padding_idx + 1``, and a token whose id is the padding's has none of its own. That id is fixed when the model is
built. So their positions depend on what the *config* pads with, whatever the tokenizer pads with, and so does their
limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

# as transformers names learned positions: BERT and kin, OPT and BART, GPT-2
_NAMES = ("position_embeddings", "embed_positions", "wpe", "position_embedding")


def position_limit(model: Any) -> int | None:
    """The most tokens of a text the model can read; None where nothing limits them.

    Args:
        model: a model of transformers, with its ``config``.
    """
    config = model.config.get_text_config()
    declared = getattr(config, "max_position_embeddings", None)
    limits = [int(declared)] if isinstance(declared, int) and declared > 0 else []  # XLNet says -1: no limit
    limits += [table.num_embeddings - _first_position(table) for table in _tables(model)]
    return min(limits) if limits else None


def positions_follow_padding(model: nn.Module) -> bool:
    """Whether the padding id a model is built with decides its positions."""
    return any(table.padding_idx is not None for table in _tables(model))


def _first_position(table: nn.Embedding) -> int:
    """Rows of a table of positions before that of a text's first token."""
    if table.padding_idx is not None:
        return table.padding_idx + 1
    offset = getattr(table, "offset", 0)  # OPT and BART leave two rows unused
    return offset if isinstance(offset, int) else 0


def _tables(model: nn.Module) -> Iterator[nn.Embedding]:
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _NAMES:
            yield module
