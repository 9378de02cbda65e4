"""Copies of one text, and the groups they join."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_search.data.duplicates import copies, fold_groups, swapped
from lora_search.data.sources import RawExamples


def examples(texts: list[str], pairs: list[str] | None = None) -> RawExamples:
    count = len(texts)
    return RawExamples(
        tuple(texts), None if pairs is None else tuple(pairs), ("x",) * count, None, tuple(range(1, count + 1))
    )


def test_copies_are_equal_but_for_case_and_white_space() -> None:
    texts = ["Good film.", "bad", " good\n film. ", "goodfilm.", "bad", "BAD", "Straße", "STRASSE"]
    assert copies(examples(texts)) == ((0, 2), (1, 4, 5), (6, 7))


def test_copies_are_equal_but_for_unicode_forms_and_what_cannot_be_seen() -> None:
    texts = [
        "gr\u00f6\u00dfer als",
        "gro\u0308\u00dfer als",
        "gr\u00f6\u00dfer\u200b \u200b als",
        "\ufeffgr\u00f6sser\u00a0als",
    ]
    assert copies(examples([*texts, "gr\u00f6\u00dferals", "grosser als"])) == ((0, 1, 2, 3),)


def test_pairs_are_copies_when_both_texts_are() -> None:
    assert copies(examples(["a", "a", "a", "b"], ["x", "y", "X", "x"])) == ((0, 2),)
    assert copies(examples(["a b", "a"], ["c", "b c"])) == ()


def test_pairs_the_other_way_round_are_no_copies_but_known() -> None:
    both = examples(["a", "x", "b", "X", "c", "d", "d"], ["x", "A ", "y", "a", "c", "e", "e"])
    assert copies(both) == ((1, 3), (5, 6))
    assert swapped(both) == ((0, 1, 3),)
    assert swapped(examples(["a", "a"])) == ()
    assert swapped(examples(["a b", "c"], ["c", "b a"])) == ()


def test_without_groups_and_copies_everyone_is_alone() -> None:
    assert fold_groups(4, None, ()).tolist() == [0, 1, 2, 3]


def test_groups_that_share_a_text_become_one() -> None:
    # films a and c share a text at 1 and 4; b stands alone; copies inside b join nothing new
    numbers = fold_groups(7, ["a", "a", "b", "c", "c", "b", "d"], ((1, 4), (2, 5)))
    assert numbers.tolist() == [0, 0, 1, 0, 0, 1, 2]
    assert numbers.dtype == np.int64


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40),
    links=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=20),
)
def test_groups_are_the_connected_components(groups: list[str], links: list[tuple[int, int]]) -> None:
    count = len(groups)
    links = [(one % count, other % count) for one, other in links]
    numbers = fold_groups(count, groups, links)
    # the reference: spread the smallest number along every link until nothing moves
    spread = list(range(count))
    edges = [*links, *((i, j) for i in range(count) for j in range(i) if groups[i] == groups[j])]
    for _ in range(count):
        for one, other in edges:
            spread[one] = spread[other] = min(spread[one], spread[other])
    firsts = sorted(set(spread))
    assert numbers.tolist() == [firsts.index(first) for first in spread]
