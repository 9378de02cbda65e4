"""Lanes: what is dealt to them, that they share weights, and that none outlives the training it was started for."""

import threading

import numpy as np
import pytest
import torch
from engine_builders import make_cell, make_engine, tiny_base, toy_data
from hypothesis import given
from hypothesis import strategies as st

from lora_search.training.batches import MicroBatchPlanner
from lora_search.training.lanes import lanes_of, started_lanes, twin

lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=24)


def rows_of(parts):
    return sorted(
        (slot, int(example)) for part in parts for slot, example in zip(part.slots, part.examples, strict=True)
    )


@given(lengths_of, st.integers(1, 4), st.integers(1, 3), st.integers(20, 400))
def test_every_row_is_dealt_once(lengths, slots, lanes, budget):
    planner = MicroBatchPlanner(np.array(lengths), budget)
    everyone = np.arange(len(lengths))
    batches = [(slot, everyone) for slot in range(slots)]
    shares = planner.plan_lanes(batches, lanes)
    assert len(shares) == lanes
    parts = [part for share in shares for part in share]
    assert rows_of(parts) == rows_of(planner.plan(batches))
    for part in parts:
        assert part.width == max(lengths[example] for example in part.examples)
        assert part.padded_tokens <= max(budget, max(lengths) * slots)


def test_a_step_is_cut_so_that_lanes_have_about_as_much_to_do():
    planner = MicroBatchPlanner(np.full(16, 20), token_budget=2048)
    batches = [(slot, np.arange(16)) for slot in range(8)]
    assert [len(planner.plan(batches)), *map(len, planner.plan_lanes(batches, 2))] == [2, 1, 1]
    one, other = ([part.padded_tokens for part in share] for share in planner.plan_lanes(batches, 2))
    assert sum(one) == sum(other) == 8 * 16 * 20 // 2


def test_one_lane_computes_what_is_planned_and_nothing_makes_no_work():
    planner = MicroBatchPlanner(np.array([3, 5, 9]), token_budget=30)
    batches = [(0, np.arange(3)), (1, np.arange(2))]
    (alone,) = planner.plan_lanes(batches, 1)
    assert rows_of(alone) == rows_of(planner.plan(batches))
    assert planner.plan_lanes([(0, np.empty(0, dtype=np.int64))], 2) == [[], []]


def test_a_twin_is_another_tree_over_the_same_weights():
    model = tiny_base("bert").model
    other = twin(model)
    assert other is not model
    assert [*map(id, other.parameters())] == [*map(id, model.parameters())]
    assert [*map(id, other.buffers())] == [*map(id, model.buffers())]
    assert not {*map(id, other.modules())} & {*map(id, model.modules())}


def test_an_error_in_one_lane_is_raised_when_all_have_ended():
    ended = threading.Event()
    failing = threading.Event()

    def fail():
        failing.set()
        raise RuntimeError("one lane")

    def work():
        failing.wait(10)
        ended.set()

    with started_lanes(2) as lanes, pytest.raises(RuntimeError, match="one lane"):
        lanes.run([fail, work])
    assert ended.is_set()


def test_lanes_end_with_the_training_however_it_ends():
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, lanes=2)
    before, threads = set(threading.enumerate()), torch.get_num_threads()

    def interrupt(step):
        assert len(set(threading.enumerate()) - before) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.train([make_cell(base)], 0, interrupt)
    assert set(threading.enumerate()) == before
    assert torch.get_num_threads() == threads
    assert type(base.model.bert.encoder.layer[0].attention.self.query) is torch.nn.Linear
    again = engine.train([make_cell(base)], 0)
    assert again[0].result.state == "complete"


def test_out_of_memory_in_a_lane_halves_the_budget_and_changes_nothing():
    base, data = tiny_base("bert"), toy_data()
    cells = [make_cell(base, trial, rank=trial + 1) for trial in range(4)]
    expected = make_engine(base, data, lanes=2).train(cells, 0)
    engine = make_engine(base, data, lanes=2, token_budget=10**4)
    plain = engine.models[1].forward

    def limited(**arguments):
        if arguments["input_ids"].numel() > 150:
            raise torch.OutOfMemoryError("no more")
        return plain(**arguments)

    engine.models[1].forward = limited
    for ours, theirs in zip(engine.train(cells, 0), expected, strict=True):
        np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)
    assert engine.token_budget < 10**4


def test_a_gpu_is_kept_busy_by_one_lane(monkeypatch):
    assert lanes_of(torch.device("cuda")) == 1
    for threads, lanes in [(1, 1), (2, 2), (16, 2)]:
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert lanes_of(torch.device("cpu")) == lanes
