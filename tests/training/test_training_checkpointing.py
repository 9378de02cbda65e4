"""Gradient checkpointing: the same bits from less memory, where it is asked for or memory is short."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_builders import frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data

from lora_search.adapters.sharing import shared_zeros
from lora_search.spec.experiment import TrainingSpec
from lora_search.tasks.text_classification import ClassObjective
from lora_search.training import Engine, EngineSettings
from lora_search.training import memory as memory_module
from lora_search.training import memory_budget as budget_module
from lora_search.training.checkpointing import checkpointed
from lora_search.training.memory import activation_bytes, free_bytes

CPU = torch.device("cpu")
NOTHING = np.empty(0, dtype=np.int64)


def cells_of(base):
    return [
        make_cell(base, 0, targets="all-linear", layers="top-2", rate=1e-3, drop=0.3),
        make_cell(base, 1, rank=2, layers="top-2", rate=1e-3, fold=1),
    ]


def count_calls(engine):
    """How often each of two lanes calls the module in front of which tokens are dropped; a tensor that grows."""
    calls, leader = shared_zeros(2), os.getpid()

    def note(module, args):
        calls[int(os.getpid() != leader)] += 1

    engine.forward.model.get_submodule(engine.forward.pooled.module).register_forward_pre_hook(note)
    return calls


def saved_bytes(engine, cells):
    """Bytes of the tensors alive between forward and backward, at most, each storage counted once."""
    alive, most = {}, 0

    class Kept:
        def __init__(self, tensor):
            nonlocal most
            self.tensor, self.place = tensor, tensor.untyped_storage().data_ptr()
            size, holders = alive.get(self.place, (tensor.untyped_storage().nbytes(), 0))
            alive[self.place] = (size, holders + 1)
            most = max(most, sum(size for size, _ in alive.values()))

        def __del__(self):
            size, holders = alive.pop(self.place)
            if holders > 1:
                alive[self.place] = (size, holders - 1)

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        results = engine.train(cells, 0)
    return most, results


@pytest.mark.parametrize("family", ["bert", "modernbert", "gpt2", "llama"])
@pytest.mark.parametrize("prefix_cache", [False, True])
def test_less_is_kept_and_not_a_bit_differs(family, prefix_cache):
    base = frozen(tiny_model(family, **({"n_layer": 6} if family == "gpt2" else {"num_hidden_layers": 6})))
    data, settings = toy_data(), {"prefix_cache": prefix_cache, "epochs": 1}
    cells = [make_cell(base, 0, targets="all-linear", layers="top-5", drop=0.3), make_cell(base, 1, layers="top-5")]
    usual, expected = saved_bytes(make_engine(base, data, checkpointing=False, **settings), cells)
    less, results = saved_bytes(make_engine(base, data, checkpointing=True, **settings), cells)
    assert less < usual / 3
    for ours, theirs in zip(results, expected, strict=True):
        assert np.array_equal(ours.result.probabilities, theirs.result.probabilities)
        assert ours.result.train_loss == theirs.result.train_loss
        assert all(torch.equal(ours.state[name], value) for name, value in theirs.state.items())


def test_layers_are_as_they_were_after_the_block():
    layers = [torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)]
    special = layers[1].forward = lambda x: x + 1
    with checkpointed(layers):
        assert vars(layers[0])["forward"] is not special
        assert layers[1].forward is not special
    with pytest.raises(ZeroDivisionError), checkpointed(layers):
        1 / 0  # noqa: B018
    assert "forward" not in vars(layers[0])
    assert layers[1].forward is special


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_every_lane_checkpoints_and_drops_the_same_tokens_again(family):
    data, trained, calls = toy_data(), [], []
    for choice in (False, True):
        base = frozen(tiny_model(family))
        # several micro-batches of different lengths in each lane
        settings = {"lanes": 2, "token_budget": 60, "prefix_cache": False, "epochs": 1}
        engine = make_engine(base, data, checkpointing=choice, **settings)
        assert engine.forward.pooled is not None
        calls.append(count_calls(engine))
        trained.append(engine.train([replace(cell, evaluate=NOTHING) for cell in cells_of(base)], 0))
    assert min(calls[0]) > 4
    assert torch.equal(calls[1], 2 * calls[0])
    for theirs, ours in zip(*trained, strict=True):
        assert ours.result.train_loss == theirs.result.train_loss
        assert all(torch.equal(ours.state[name], value) for name, value in theirs.state.items())


def test_what_is_kept_is_a_micro_batch_in_every_lane_and_no_more_than_a_step():
    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base, layers="top-2")
    longest = int(data.lengths[cell.train].max())
    engine = make_engine(base, data, lanes=2, token_budget=10 * longest)
    of_a_token = activation_bytes(1, 2, 32, torch.float32, checkpointing=False)
    for count, rows in ((1, 8), (2, 16), (3, 20), (9, 20)):
        assert engine.memory.activation_bytes([cell] * count, checkpointing=False) == rows * longest * of_a_token
    assert engine.memory.activation_bytes([cell], checkpointing=True) < 8 * longest * of_a_token


def test_auto_checkpoints_when_activations_would_fill_the_memory(monkeypatch):
    base, data = tiny_base("bert"), toy_data()
    cells = cells_of(base)
    needed = make_engine(base, data).memory.activation_bytes(cells, checkpointing=False)
    for free, expected in ((None, False), (2 * needed, False), (2 * needed - 2, True)):
        monkeypatch.setattr(budget_module, "free_bytes", lambda device, free=free: free)
        for choice, comes_to in (("auto", expected), (True, True), (False, False)):
            engine = make_engine(base, data, checkpointing=choice, epochs=1)
            engine.train(cells, 0)
            assert engine.memory.checkpointing is comes_to
    engine = make_engine(base, data, checkpointing="auto")
    assert engine.notes == ()
    engine.memory.provide_for(cells)
    note = "memory is short for BertForSequenceClassification: its layers are computed again in each backward,"
    assert engine.notes == (f"{note} which is slower",)


def test_what_once_fitted_is_not_asked_for_again(monkeypatch):
    base, data = tiny_base("bert"), toy_data()
    cells = cells_of(base)
    engine = make_engine(base, data, checkpointing="auto")
    needed = engine.memory.activation_bytes(cells, checkpointing=False)
    for free, pack, expected in ((2 * needed, cells, False), (needed, cells, False), (needed, cells * 2, True)):
        monkeypatch.setattr(budget_module, "free_bytes", lambda device, free=free: free)
        engine.memory.provide_for(pack)
        assert engine.memory.checkpointing is expected


@pytest.mark.parametrize("choice", ["auto", True, False])
def test_running_out_of_memory_checkpoints_before_it_halves_the_budget(monkeypatch, choice):
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, checkpointing=choice, token_budget=400)
    expected = make_engine(base, data, token_budget=400).train(cells_of(base), 0)
    plain, failures = ClassObjective.losses, iter([True])

    def once(*args, **kwargs):
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*args, **kwargs)

    monkeypatch.setattr(ClassObjective, "losses", once)
    results = engine.train(cells_of(base), 0)
    assert engine.memory.token_budget == (400 if choice == "auto" else 200)
    assert engine.memory.checkpointing is (choice != False)  # noqa: E712 - "auto" is neither
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)


def test_a_large_budget_is_halved_before_layers_are_computed_twice():
    engine = make_engine(tiny_base("bert"), toy_data(), checkpointing="auto", token_budget=8192)
    steps = []
    for _ in range(4):
        engine.memory.reduce_use(training=True)
        steps.append((engine.memory.token_budget, engine.memory.checkpointing))
    assert steps == [(4096, False), (2048, False), (2048, True), (1024, True)]


@pytest.mark.parametrize(
    ("free", "bytes_per_token", "budget"),
    [(80 * 2**30, 320_000, 65536), (8 * 2**30, 320_000, 4096), (2**30, 320_000, 2048), (80 * 2**30, 3_000_000, 4096)],
)
def test_a_gpu_begins_with_micro_batches_that_take_a_quarter_of_what_is_free(
    monkeypatch, free, bytes_per_token, budget
):
    monkeypatch.setattr(memory_module, "free_bytes", lambda device: free)
    assert memory_module.first_token_budget(torch.device("cuda"), torch.bfloat16, bytes_per_token) == budget
    of_a_cpu = [memory_module.first_token_budget(CPU, t, bytes_per_token) for t in (torch.float32, torch.bfloat16)]
    assert of_a_cpu[0] < of_a_cpu[1] < 4096


@pytest.mark.parametrize(("free", "bytes_"), [(None, 2**31), (2**40, 2**31), (2**30, 2**28)])
def test_cached_states_leave_most_of_a_small_memory_free(monkeypatch, free, bytes_):
    monkeypatch.setattr(memory_module, "free_bytes", lambda device: free)
    assert memory_module.cache_memory() == bytes_


def test_an_engine_begins_with_what_another_found_room_for():
    base, data = tiny_base("bert"), toy_data()
    found = make_engine(base, data, checkpointing="auto", token_budget=400)
    assert found.budgets == {"token_budget": 400, "checkpointing": False}
    while found.memory.reduce_use(training=True):
        pass
    assert found.budgets == {"token_budget": 50, "checkpointing": True}
    settings = EngineSettings(CPU, torch.float32, **found.budgets)
    for choice in ("auto", True, False):
        resumed = Engine(base, data, TrainingSpec(gradient_checkpointing=choice), settings)
        assert resumed.budgets == {"token_budget": 50, "checkpointing": choice is not False}


def test_free_memory_is_a_number_of_bytes_where_the_system_says(monkeypatch):
    free = free_bytes(CPU)
    assert free is None or free > 2**20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 7))
    assert free_bytes(torch.device("cuda")) == 5
