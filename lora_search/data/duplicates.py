"""Texts that occur more than once, and the groups that keep their copies on one side of every split.

A copy in training of what is evaluated flatters the score. Copies are texts equal but for case, white space, invisible
characters and ways to write a letter in Unicode; in text pairs, both texts must agree. A pair the other way round is no
copy, since it may have another label, but it is known all the same, and stays in the same fold. Texts that a tokenizer
makes the same of, by cutting them or for want of their characters, are copies to the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lora_search.data.labels import plain_text
from lora_search.data.sources import RawExamples


def copies(examples: RawExamples) -> tuple[tuple[int, ...], ...]:
    """The positions of each text that occurs more than once, in order of first appearance."""
    pairs = examples.pairs or (None,) * len(examples)
    return _alike(text_key(text, pair) for text, pair in zip(examples.texts, pairs, strict=True))


def swapped(examples: RawExamples) -> tuple[tuple[int, ...], ...]:
    """The positions of each text pair that occurs both ways round, its copies too, in order of first appearance."""
    if examples.pairs is None:
        return ()
    keys = [text_key(text, pair) for text, pair in zip(examples.texts, examples.pairs, strict=True)]
    both_ways = _alike(min(key, key[::-1]) for key in keys)
    return tuple(found for found in both_ways if len({keys[position] for position in found}) > 1)


def _alike(keys: Iterable[Hashable]) -> tuple[tuple[int, ...], ...]:
    """The positions of each key that occurs more than once."""
    positions: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        positions[key].append(position)
    return tuple(tuple(found) for found in positions.values() if len(found) > 1)


def encoded_copies(
    input_ids: Sequence[npt.NDArray[np.int64]], token_type_ids: Sequence[npt.NDArray[np.int64]] | None
) -> tuple[tuple[int, ...], ...]:
    """The positions of examples that are the same to the model, token for token, in order of first appearance."""
    types = (b"",) * len(input_ids) if token_type_ids is None else [each.tobytes() for each in token_type_ids]
    return _alike((ids.tobytes(), kind) for ids, kind in zip(input_ids, types, strict=True))


def fold_groups(
    count: int, groups: Sequence[Hashable] | None, duplicates: Sequence[Sequence[int]]
) -> npt.NDArray[np.int64]:
    """The group of each example that no split may tear apart: the user's groups, joined where they share a text.

    Args:
        count: how many examples, n.
        groups: the user's group of each, if any; or those that an earlier call made.
        duplicates: positions of equal examples, as ``copies``, ``swapped`` or ``encoded_copies`` finds them.

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

    by_group: defaultdict[Hashable, list[int]] = defaultdict(list)
    for position, group in enumerate(() if groups is None else groups):
        by_group[group].append(position)
    for members in (*by_group.values(), *duplicates):
        join(members)
    # every root is the first member of its group, so that sorting roots sorts groups by first appearance
    _, numbers = np.unique(np.array([root(position) for position in range(count)]), return_inverse=True)
    return numbers.astype(np.int64)


def text_key(text: str, pair: str | None) -> tuple[str, str]:
    """Equal for texts, or text pairs, that are copies of each other."""
    return plain_text(text), plain_text(pair or "")
