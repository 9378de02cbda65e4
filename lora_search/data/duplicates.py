"""Texts that occur more than once, and the groups that keep their copies on one side of every split.

A copy in training of what is evaluated flatters the score. Copies are texts equal but for case and white space; in
text pairs, both texts must agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lora_search.data.sources import RawExamples


def copies(examples: RawExamples) -> tuple[tuple[int, ...], ...]:
    """The positions of each text that occurs more than once, in order of first appearance."""
    positions: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    pairs = examples.pairs or ("",) * len(examples)
    for position, (text, pair) in enumerate(zip(examples.texts, pairs, strict=True)):
        positions[_normalised(text), _normalised(pair)].append(position)
    return tuple(tuple(found) for found in positions.values() if len(found) > 1)


def fold_groups(count: int, groups: Sequence[str] | None, duplicates: Sequence[Sequence[int]]) -> npt.NDArray[np.int64]:
    """The group of each example that no split may tear apart: the user's groups, joined where they share a text.

    Args:
        count: how many examples, n.
        groups: the user's group of each, if any.
        duplicates: positions of equal texts, as ``copies`` finds them.

    Returns:
        (n,) group numbers from 0, by first appearance.
    """
    parent = list(range(count))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    def join(members: Sequence[int]) -> None:
        for member in members[1:]:
            first, second = sorted((root(members[0]), root(member)))
            parent[second] = first

    by_group: defaultdict[str, list[int]] = defaultdict(list)
    for position, group in enumerate(groups or ()):
        by_group[group].append(position)
    for members in (*by_group.values(), *duplicates):
        join(members)
    # every root is the first member of its group, so that sorting roots sorts groups by first appearance
    _, numbers = np.unique(np.array([root(position) for position in range(count)]), return_inverse=True)
    return numbers.astype(np.int64)


def _normalised(text: str) -> str:
    return " ".join(text.split()).casefold()
