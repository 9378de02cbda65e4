"""Lanes: what is dealt to them, what they tell each other, and that none outlives the training it was started for."""

import multiprocessing
import os
import signal
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from engine_builders import make_cell, make_engine, tiny_base, toy_data
from hypothesis import given
from hypothesis import strategies as st

from lora_search.adapters.sharing import shared_zeros
from lora_search.errors import MachineError
from lora_search.training import lanes as lanes_module
from lora_search.training.batches import MicroBatchPlanner, micro_batch_overhead
from lora_search.training.lanes import Team, lanes_of, possible_lanes, started_team

CPU = torch.device("cpu")
lengths_of = st.lists(st.integers(1, 40), min_size=1, max_size=24)
forks = pytest.mark.skipif(possible_lanes(2, CPU) == 1, reason="processes are not forked here")


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


def test_a_micro_batch_of_few_layers_costs_more_of_its_tokens():
    costs = [micro_batch_overhead(layers, pooled=True) for layers in (1, 2, 6, 12)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 4 * costs[-1]
    assert micro_batch_overhead(1, pooled=False) < costs[0]


@given(st.integers(1, 9), st.integers(1, 20))
def test_every_slot_is_updated_in_one_lane(size, slots):
    teams = [Team(lane, size) for lane in range(size)]
    for slot in range(slots):
        assert sum(team.owns(slot, slots) for team in teams) == 1


def test_one_lane_talks_to_itself():
    with started_team(1, pytest.fail) as team:
        assert team.share("what") == ["what"]
        team.meet()
    assert multiprocessing.active_children() == []


@forks
def test_lanes_tell_each_other_everything_and_write_where_all_read():
    written, threads = shared_zeros(3, 2), torch.get_num_threads()

    def work(team):
        values = team.share(10 * team.lane)
        written[team.lane] = torch.tensor([float(sum(values)), torch.get_num_threads()])
        team.meet()
        return values

    with started_team(3, work) as team:
        assert work(team) == [0, 10, 20]
        assert written.tolist() == [[30.0, 1.0]] * 3
    assert torch.get_num_threads() == threads


@forks
@pytest.mark.parametrize("kind", [ZeroDivisionError, EOFError, ConnectionError])
def test_the_error_of_a_lane_is_raised_with_its_traceback(kind):
    def work(team):
        if team.lane:
            raise kind("in a lane")
        return team.share(None)

    with pytest.raises(RuntimeError, match=rf"(?s)failed:.*in work.*{kind.__name__}: in a lane"):  # noqa: SIM117
        with started_team(2, work) as team:
            work(team)
    assert multiprocessing.active_children() == []


@forks
def test_a_lane_that_is_ended_from_outside_is_missed():
    def work(team):
        if team.lane:
            os.kill(os.getpid(), signal.SIGKILL)
        return team.share(None)

    with pytest.raises(MachineError, match="was ended from outside, as a system does that runs out of memory"):  # noqa: SIM117
        with started_team(2, work) as team:
            work(team)
    assert multiprocessing.active_children() == []


@forks
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_is_for_lane_0_and_lanes_end_with_it(number):
    pids = shared_zeros(2)

    def work(team):
        if team.lane:
            pids[1] = os.getpid()
            if number == signal.SIGINT:
                os.kill(os.getpid(), number)
        team.meet()
        while team.lane:
            time.sleep(0.01)

        if not team.lane:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with started_team(2, work) as team:
            work(team)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pids[1]), 0)


@forks
def test_lanes_end_when_lane_0_is_gone():
    pids = shared_zeros(1)

    def lead():
        def work(team):
            if team.lane:
                pids[0] = os.getpid()
            team.meet()
            if not team.lane:
                os.kill(os.getpid(), signal.SIGKILL)
            team.meet()

        with started_team(2, work) as team:
            work(team)

    leader = multiprocessing.get_context("fork").Process(target=lead)
    leader.start()
    leader.join()
    for _ in range(500):
        try:
            os.kill(int(pids[0]), 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    pytest.fail("the lane goes on")


@forks
def test_lanes_end_with_the_training_however_it_ends():
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, lanes=2)
    threads = torch.get_num_threads()

    def interrupt(step):
        assert len(multiprocessing.active_children()) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.train([make_cell(base)], 0, interrupt)
    assert multiprocessing.active_children() == []
    assert torch.get_num_threads() == threads
    assert type(base.model.bert.encoder.layer[0].attention.self.query) is torch.nn.Linear
    again = engine.train([make_cell(base)], 0)
    assert again[0].result.state == "complete"


@forks
@pytest.mark.parametrize("failing", [0, 1])
def test_out_of_memory_in_a_lane_halves_the_budget_and_changes_nothing(failing):
    base, data = tiny_base("bert"), toy_data()
    cells = [make_cell(base, trial, rank=trial + 1) for trial in range(4)]
    expected = make_engine(base, data, lanes=2).train(cells, 0)
    engine = make_engine(base, data, lanes=2, token_budget=10**4)
    plain, leader = engine.forward.model.forward, os.getpid()

    def limited(**arguments):
        training = torch.is_grad_enabled()
        if training and (os.getpid() != leader) == failing and arguments["input_ids"].numel() > 150:
            raise torch.OutOfMemoryError("no more")
        return plain(**arguments)

    engine.forward.model.forward = limited
    try:
        results = engine.train(cells, 0)
    finally:
        del engine.forward.model.forward
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)
    assert engine.memory.token_budget < 10**4


@forks
def test_memory_that_is_never_enough_is_an_error_of_all_lanes():
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, lanes=2)
    leader = os.getpid()

    def never(**arguments):
        assert os.getpid() != leader, "only the other lane has too little"
        raise torch.OutOfMemoryError("no more")

    plain = engine.forward.model.forward
    engine.forward.model.forward = lambda **arguments: (plain if os.getpid() == leader else never)(**arguments)
    try:
        with pytest.raises(torch.OutOfMemoryError, match="no more"):
            engine.train([make_cell(base)], 0)
    finally:
        del engine.forward.model.forward
    assert multiprocessing.active_children() == []


def test_lanes_are_as_many_as_threads_where_a_process_can_be_forked(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert lanes_of(torch.device("cuda")) == 1
    for threads, lanes in [(1, 1), (2, 2), (8, 8), (64, 16)]:
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert lanes_of(CPU) == lanes
    assert possible_lanes(2, CPU) == 2
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert possible_lanes(2, CPU) == 1
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    monkeypatch.setattr(lanes_module.multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert possible_lanes(2, CPU) == 1
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert possible_lanes(2, CPU) == 1
