"""Packs: every cell once, one depth each, never too many, and a function of the trials alone."""

from __future__ import annotations

from itertools import groupby
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.schedule import GENERATION, PACK_SLOTS, generation_of, packs_of, rungs_of, shares_for

DEPTHS = {"all": 0, "top-1/2": 3, "top-1/3": 4}
LAYERS = 6
PREPARED = SimpleNamespace(
    depth=lambda adapter: DEPTHS[adapter.layers],
    base=SimpleNamespace(structure=SimpleNamespace(layer_count=LAYERS)),
)


TARGETS = ["query+value", "attention", "all-linear"]


def record(number, rank, layers, targets="attention"):
    adapter = AdapterSpec(rank=rank, alpha=rank, targets=targets, layers=layers)
    return TrialRecord(number, adapter, Nuisance(learning_rate=1e-3), 100, 10, "sampler")


trials = st.lists(
    st.tuples(st.sampled_from([1, 2, 4, 8]), st.sampled_from(list(DEPTHS)), st.sampled_from(TARGETS)),
    min_size=1,
    max_size=60,
).map(lambda choices: {number: record(number, *choice) for number, choice in enumerate(choices)})


@given(trials, st.integers(1, 3), st.randoms())
def test_every_cell_is_in_one_pack_with_cells_of_its_depth(records, folds, random):
    keys = [CellKey(trial, 0, fold) for trial in records for fold in range(folds)]
    packs = packs_of(PREPARED, records, keys)
    assert sorted(key for pack in packs for key in pack) == sorted(keys)
    depths = [{DEPTHS[records[key.trial].adapter.layers] for key in pack} for pack in packs]
    assert all(len(depth) == 1 for depth in depths)
    assert [min(depth) for depth in depths] == sorted((min(depth) for depth in depths), reverse=True), "cheapest first"
    assert all(1 <= len(pack) <= PACK_SLOTS for pack in packs)
    shuffled = random.sample(keys, len(keys))
    assert packs_of(PREPARED, records, shuffled) == packs


@given(trials, st.integers(2, 40), st.randoms())
def test_no_pack_is_more_than_its_share_and_the_longest_come_first(records, shares, random):
    keys = [CellKey(trial, 0, 0) for trial in records]
    packs = packs_of(PREPARED, records, keys, shares)
    assert sorted(key for pack in packs for key in pack) == sorted(keys)
    layers = [{LAYERS - DEPTHS[records[key.trial].adapter.layers] for key in pack} for pack in packs]
    assert all(len(depth) == 1 for depth in layers)
    of_each = [min(depth) for depth in layers]
    assert of_each == sorted(of_each, reverse=True)
    share = sum(LAYERS - DEPTHS[record.adapter.layers] for record in records.values()) / shares
    assert all(len(pack) == 1 or cost * len(pack) <= share for pack, cost in zip(packs, of_each, strict=True))
    assert all(len(pack) <= PACK_SLOTS for pack in packs)
    sizes = {cost: [len(pack) for pack, own in zip(packs, of_each, strict=True) if own == cost] for cost in of_each}
    assert all(max(own) - own[-1] < len(own) for own in sizes.values()), "packs of one depth are about equally large"
    assert packs_of(PREPARED, records, random.sample(keys, len(keys)), shares) == packs


def test_one_worker_has_the_packs_it_always_had_and_several_have_enough():
    assert [shares_for(1, device) for device in ("cpu", "cuda")] == [1, 1]
    assert [shares_for(workers, "cpu") for workers in (2, 8)] == [4, 16]
    assert [shares_for(workers, "cuda") for workers in (2, 8)] == [2, 4]


@given(trials)
def test_slots_with_the_same_targets_are_neighbours(records):
    for pack in packs_of(PREPARED, records, [CellKey(trial, 0, fold) for trial in records for fold in range(2)]):
        groups = [group for group, _ in groupby((key.fold, records[key.trial].adapter.targets) for key in pack)]
        assert len(groups) == len(set(groups))


def test_generations_are_of_equal_size():
    assert [generation_of(trial) for trial in (0, GENERATION - 1, GENERATION, 3 * GENERATION)] == [0, 0, 1, 3]


@given(st.integers(0, 3), st.integers(2, 10), st.integers(1, 3))
def test_every_fold_is_in_one_rung_and_looks_begin_when_noise_can_be_known(generation, folds, repeats):
    rungs = rungs_of(generation, folds, repeats)
    columns = [column for rung in rungs for column in rung]
    assert columns == [(repeat, fold) for repeat in range(repeats) for fold in range(folds)]
    assert [len(rung) for rung in rungs] == [2 if generation == 0 else 1, *[1] * (len(rungs) - 1)]
