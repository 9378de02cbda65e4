"""What each linear module of a transformer block is for: query, key, value, the rest of attention, or the MLP.

Found in two steps. The *component* (the block's own child a module sits in) is attention if a module in it projects to
the query; that is read from the module's own name, in any of the field's spellings (``query``, ``q_proj``, ``q_lin``,
``query_key_value``, ``Wqkv``). Where no name says so (GPT-2's ``c_attn``), the component called attention is taken,
and in it a projection that widens its input carries query, key and value at once. The rest of the block counts as MLP.
There a module that gives twice what one beside it takes computes a gate and what it gates (Phi-3's ``gate_up_proj``).

This module sees names and shapes only; it knows nothing of torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Projection = Literal["query", "key", "value"]
Part = Literal["attention", "mlp"]

_LETTERS: Mapping[str, Projection] = {"q": "query", "k": "key", "v": "value"}
_ALL: tuple[Projection, ...] = ("query", "key", "value")


@dataclass(frozen=True)
class Role:
    """What a module is for.

    Attributes:
        part: of the block.
        projects: which of query, key and value it computes; more than one where it is fused.
        gated: whether it computes a gate together with what goes through it, as ``gate_up_proj`` does.
    """

    part: Part
    projects: tuple[Projection, ...] = ()
    gated: bool = False


def block_roles(shapes: Mapping[str, tuple[int, int]]) -> dict[str, Role]:
    """The role of every linear module of one block.

    Args:
        shapes: dotted path inside the block -> (in_features, out_features).

    Returns:
        The same keys, each with its role.
    """
    named = {leaf: projections_of(leaf.rpartition(".")[2]) for leaf in shapes}
    attention = {_component(leaf) for leaf, projects in named.items() if "query" in projects}
    if attention:
        found = {leaf: projects for leaf, projects in named.items() if _component(leaf) in attention}
    else:
        found = {
            leaf: _ALL if out_features > in_features else ()
            for leaf, (in_features, out_features) in shapes.items()
            if "att" in _component(leaf).lower()
        }
    return {
        leaf: Role("attention", found[leaf])
        if leaf in found
        else Role("mlp", gated=_is_gated(leaf, [other for other in shapes if other not in found], shapes))
        for leaf in shapes
    }


def _is_gated(leaf: str, rest: Sequence[str], shapes: Mapping[str, tuple[int, int]]) -> bool:
    """Whether what a module gives is halved before the module after it: one half gates the other."""
    beside = leaf.rpartition(".")[0]
    given = {shapes[other][0] for other in rest if other != leaf and other.rpartition(".")[0] == beside}
    return shapes[leaf][1] in {2 * width for width in given if width != shapes[leaf][0]}


def _component(leaf: str) -> str:
    """The block's own child; of a list of such (T5's ``layer.0.SelfAttention.q``) the entry."""
    first, _, rest = leaf.partition(".")
    number = rest.partition(".")[0]
    return f"{first}.{number}" if number.isdecimal() else first


def projections_of(name: str) -> tuple[Projection, ...]:
    """``"q_proj"`` -> query; ``"Wqkv"`` and ``"query_key_value"`` -> all three; ``"c_attn"`` -> none."""
    found: set[Projection] = set()
    for word in re.findall(r"[a-z]+", name.lower()):
        letters = word[1:] if len(word) > 1 and word[0] == "w" else word
        if set(letters) <= _LETTERS.keys():
            found.update(_LETTERS[letter] for letter in letters)
        found.update(projection for projection in _ALL if word == projection)
    return tuple(projection for projection in _ALL if projection in found)
