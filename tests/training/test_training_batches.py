"""Which examples a step sees, and how its rows are cut: nothing lost, budget kept, padding least."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_search.training.batches import MicroBatchPlanner, batch_order, step_count

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=24).map(np.array)


@st.composite
def problems(draw):
    lengths = draw(LENGTHS)
    slots = draw(st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True))
    subsets = st.lists(st.integers(0, len(lengths) - 1), max_size=len(lengths), unique=True)
    same = draw(st.booleans())
    shared = draw(subsets)
    batches = [(slot, np.array(shared if same else draw(subsets), dtype=np.int64)) for slot in sorted(slots)]
    return lengths, batches, draw(st.integers(1, 300)), draw(st.integers(0, 60))


@settings(max_examples=150)
@given(problems(), st.booleans())
def test_every_row_is_in_one_micro_batch_within_the_budget(problem, pads):
    lengths, batches, budget, overhead = problem
    planned = MicroBatchPlanner(lengths, budget, overhead, pads=pads).plan(batches)
    rows = [(slot, int(e)) for part in planned for slot, e in zip(part.slots, part.examples, strict=True)]
    assert sorted(rows) == sorted((slot, int(e)) for slot, examples in batches for e in examples)
    assert len(set(rows)) == len(rows)
    for part in planned:
        assert list(part.slots) == sorted(part.slots)
        assert part.width == lengths[part.examples].max()
        assert part.padded_tokens == len(part.slots) * part.width
        assert part.padded_tokens <= budget or len(part.slots) == 1
        if pads:
            assert len({part.slots.count(slot) for slot in part.slots}) == 1  # one run of rows, see adapters.rows
        else:
            assert set(lengths[part.examples]) == {part.width}


def cost(widths, cuts, slots, overhead):
    edges = [0, *cuts, len(widths)]
    pieces = list(pairwise(edges))
    return sum(slots * (stop - start) * max(widths[start:stop]) + overhead for start, stop in pieces), pieces


@given(
    st.lists(st.integers(1, 20), min_size=1, max_size=7).map(sorted),
    st.integers(1, 3),
    st.integers(20, 150),
    st.integers(0, 40),
)
def test_no_other_cut_of_the_sorted_rows_costs_less(lengths, slots, budget, overhead):
    budget = max(budget, slots * max(lengths))  # all slots together, so that the cuts are all there is to choose
    batches = [(slot, np.arange(len(lengths))) for slot in range(slots)]
    planned = MicroBatchPlanner(np.array(lengths), budget, overhead).plan(batches)
    best = min(
        total
        for size in range(len(lengths))
        for cuts in combinations(range(1, len(lengths)), size)
        for total, pieces in [cost(lengths, cuts, slots, overhead)]
        if all(slots * (stop - start) * max(lengths[start:stop]) <= budget for start, stop in pieces)
    )
    assert sum(part.padded_tokens + overhead for part in planned) == best


def test_a_plan_worked_out_by_hand():
    # sorted lengths 2, 2, 9, 10: one batch costs 40 + 5; {2, 2} and {9, 10} cost 4 + 20 + 2 * 5 = 34
    planned = MicroBatchPlanner(np.array([10, 2, 9, 2]), 100, overhead=5).plan([(3, np.array([0, 1, 2, 3]))])
    assert [(part.slots, part.examples.tolist(), part.width) for part in planned] == [
        ((3, 3), [1, 3], 2),
        ((3, 3), [2, 0], 10),
    ]
    # an overhead of 30 makes one batch the cheaper
    assert len(MicroBatchPlanner(np.array([10, 2, 9, 2]), 100, overhead=30).plan([(3, np.array([0, 1, 2, 3]))])) == 1


def test_slots_of_one_fold_are_cut_at_the_same_rows():
    examples = np.arange(6)
    planned = MicroBatchPlanner(np.array([3, 8, 3, 8, 3, 8]), 60, overhead=1).plan([(0, examples), (2, examples)])
    assert [part.slots for part in planned] == [(0, 0, 0, 2, 2, 2), (0, 0, 0, 2, 2, 2)]
    assert [part.examples.tolist() for part in planned] == [[0, 2, 4, 0, 2, 4], [1, 3, 5, 1, 3, 5]]


def test_nothing_asked_nothing_planned():
    assert MicroBatchPlanner(np.array([3]), 60).plan([]) == []
    assert MicroBatchPlanner(np.array([3]), 60).plan([(0, np.array([], dtype=np.int64))]) == []


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**63))
def test_every_epoch_sees_every_example_once(count, batch_size, epochs, key):
    train = np.arange(100, 100 + 3 * count, 3)
    batches = list(batch_order(train, batch_size, epochs, key))
    assert len(batches) == step_count(count, batch_size, epochs)
    per_epoch = len(batches) // epochs
    for epoch in range(epochs):
        part = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
        assert sorted(np.concatenate(part).tolist()) == train.tolist()
        assert [len(batch) for batch in part[:-1]] == [batch_size] * (per_epoch - 1)


def test_the_order_depends_on_the_key_and_the_epoch_alone():
    train = np.arange(20)
    once, again, other = ([b.tolist() for b in batch_order(train, 6, 2, key)] for key in (5, 5, 6))
    assert once == again
    assert once != other
    assert once[:4] != once[4:]
    assert once[0] == [18, 3, 7, 1, 0, 10]  # the same on every machine and in every process
    longer = [b.tolist() for b in batch_order(train, 6, 3, 5)]
    assert longer[:8] == once


@pytest.mark.parametrize(
    ("examples", "batch_size", "epochs", "steps"), [(27, 8, 5, 20), (16, 16, 3, 3), (17, 16, 1, 2)]
)
def test_steps_are_counted(examples, batch_size, epochs, steps):
    assert step_count(examples, batch_size, epochs) == steps


def test_slots_of_several_folds_are_cut_apart_where_that_pads_less():
    lengths = np.array([4, 4, 4, 30, 4, 30, 30, 30])
    short, long = np.array([0, 1, 2, 3]), np.array([4, 5, 6, 7])
    planned = MicroBatchPlanner(lengths, 500, overhead=1).plan([(0, short), (1, short), (2, long), (3, long)])
    assert sum(part.padded_tokens for part in planned) == sum(lengths[part.examples].sum() for part in planned)
    assert {part.slots for part in planned} == {(0, 0, 0, 1, 1, 1), (0, 1), (2, 3), (2, 2, 2, 3, 3, 3)}
    # one more micro-batch may cost more than the padding it saves
    together = MicroBatchPlanner(lengths, 500, overhead=200).plan([(0, short), (1, short), (2, long), (3, long)])
    assert [part.slots for part in together] == [(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)]
