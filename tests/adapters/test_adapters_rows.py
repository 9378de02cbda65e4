"""Rows of several slots as runs, and what a module's input is taken for."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora_search.adapters import MixedRowsError, Rows

COUNTS = st.lists(st.integers(0, 4), min_size=1, max_size=7).filter(sum)


def slots_of(counts):
    return [slot for slot, count in enumerate(counts) for _ in range(count)]


@given(COUNTS, st.sets(st.integers(0, 6)))
def test_runs_cover_the_rows_of_the_members_once_and_no_others(counts, members):
    slots = slots_of(counts)
    covered = []
    for run in Rows(slots).runs(frozenset(members)):
        for position in range(run.slots):
            start = run.first_row + position * run.rows
            covered += [(row, run.first_slot + position) for row in range(start, start + run.rows)]
    assert covered == [(row, slot) for row, slot in enumerate(slots) if slot in members]


@given(COUNTS, st.sets(st.integers(0, 6)))
def test_no_two_neighbouring_runs_could_be_one(counts, members):
    runs = Rows(slots_of(counts)).runs(frozenset(members))
    for before, after in pairwise(runs):
        adjacent = before.stop_row == after.first_row and before.first_slot + before.slots == after.first_slot
        assert not (adjacent and before.rows == after.rows)


def test_slots_of_equal_size_are_one_run_and_an_absent_member_breaks_none():
    rows = Rows([0, 0, 1, 1, 2, 2])
    (run,) = rows.runs(frozenset({0, 1, 2, 5}))
    assert (run.slot_slice(), run.row_slice(), run.rows) == (slice(0, 3), slice(0, 6), 2)
    first, last = rows.runs(frozenset({0, 2}))
    assert (first.row_slice(), last.row_slice()) == (slice(0, 2), slice(4, 6))


@given(COUNTS, st.integers(2, 5), st.sets(st.integers(0, 6)))
def test_flattened_tokens_belong_to_their_rows(counts, width, members):
    slots = slots_of(counts)
    rows = Rows(slots, width=width)
    covered = [
        (index, run.first_slot + position)
        for run in rows.runs_for(torch.zeros(len(slots) * width, 3), frozenset(members))
        for position in range(run.slots)
        for index in range(run.first_row + position * run.rows, run.first_row + (position + 1) * run.rows)
    ]
    tokens = [slot for slot in slots for _ in range(width)]
    assert covered == [(index, slot) for index, slot in enumerate(tokens) if slot in members]


@pytest.mark.parametrize("shape", [(1, 8, 3), (5, 3), (7, 2, 3), (24, 3)])
def test_a_shared_input_is_refused_while_slots_are_mixed(shape):
    rows = Rows([0, 0, 1, 1], width=2)
    with pytest.raises(MixedRowsError, match=r"does not hold one entry per row; the micro-batch has 4"):
        rows.runs_for(torch.zeros(shape), frozenset({0}))


def test_a_shared_input_is_the_one_slots_own_when_no_other_is_present():
    rows = Rows([3, 3], width=4)
    (run,) = rows.runs_for(torch.zeros(1, 16, 5), frozenset({3}))
    assert (run.slot_slice(), run.row_slice()) == (slice(3, 4), slice(0, 1))
    assert rows.runs_for(torch.zeros(1, 16, 5), frozenset({2})) == ()


def test_a_single_row_is_told_from_a_shared_input_by_its_width():
    rows = Rows([0], width=4)
    assert rows.holds_one_entry_per_row(torch.zeros(1, 4, 5))
    assert not rows.holds_one_entry_per_row(torch.zeros(1, 16, 5))
    assert rows.holds_one_entry_per_row(torch.zeros(1, 5))
    assert not rows.flattens(torch.zeros(1, 5))
    assert rows.flattens(torch.zeros(4, 5))
