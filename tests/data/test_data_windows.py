"""Windows over a long sentence: every word once, and in the middle where that can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lora_search.data.windows import Window, windows

pieces_of_words = st.lists(st.integers(0, 6), min_size=1, max_size=40)


@given(pieces=pieces_of_words, room=st.integers(1, 20))
def test_every_word_is_answered_once_in_order_by_a_window_that_has_it(pieces: list[int], room: int) -> None:
    found = windows(pieces, room)
    answered = [word for window in found for word in range(window.first, window.last)]
    assert answered == list(range(len(pieces)))
    assert all(window.start <= window.first <= window.last <= window.stop for window in found)


@given(pieces=pieces_of_words, room=st.integers(1, 20))
def test_a_window_has_room_for_its_tokens_but_for_a_single_word(pieces: list[int], room: int) -> None:
    for window in windows(pieces, room):
        assert sum(pieces[window.start : window.stop]) <= room or window.stop == window.start + 1


@given(pieces=pieces_of_words)
def test_what_fits_is_one_window(pieces: list[int]) -> None:
    assert windows(pieces, max(1, sum(pieces))) == (Window(0, len(pieces), 0, len(pieces)),)


def test_half_of_a_window_is_around_its_words() -> None:
    assert windows([1] * 12, 8) == (Window(0, 8, 0, 6), Window(4, 12, 6, 12))
    middle = windows([1] * 100, 8)[5]
    assert middle.first - middle.start == middle.stop - middle.last == 2
