"""Gradient checkpointing: the same bits from less memory, where it is asked for or memory is short."""

import numpy as np
import pytest
import torch
from engine_builders import frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data

from lora_search.training import engine as engine_module
from lora_search.training import pack_run as run_module
from lora_search.training.checkpointing import checkpointed
from lora_search.training.memory import activation_bytes, free_bytes

CPU = torch.device("cpu")


def cells_of(base):
    return [
        make_cell(base, 0, targets="all-linear", layers="top-2", rate=1e-3, drop=0.3),
        make_cell(base, 1, rank=2, layers="top-2", rate=1e-3, fold=1),
    ]


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


def test_auto_checkpoints_when_activations_would_fill_the_memory(monkeypatch):
    base, data = tiny_base("bert"), toy_data()
    needed = make_engine(base, data, checkpointing="auto").activation_bytes(checkpointing=False)
    assert needed == activation_bytes(2048, 3, 32, torch.float32, checkpointing=False)
    for free, expected in ((None, False), (2 * needed, False), (2 * needed - 2, True)):
        monkeypatch.setattr(engine_module, "free_bytes", lambda device, free=free: free)
        assert make_engine(base, data, checkpointing="auto").checkpointing is expected
        assert make_engine(base, data, checkpointing=True).checkpointing
        assert not make_engine(base, data, checkpointing=False).checkpointing
    engine = make_engine(base, data, checkpointing="auto")
    note = "memory is short for BertForSequenceClassification: its layers are computed again in each backward,"
    assert engine.notes == (f"{note} which is slower",)
    assert engine.activation_bytes(checkpointing=True) < needed


@pytest.mark.parametrize("choice", ["auto", True, False])
def test_running_out_of_memory_checkpoints_before_it_halves_the_budget(monkeypatch, choice):
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, checkpointing=choice, token_budget=400)
    expected = make_engine(base, data, token_budget=400).train(cells_of(base), 0)
    plain, failures = run_module.F.cross_entropy, iter([True])

    def once(*args, **kwargs):
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*args, **kwargs)

    monkeypatch.setattr(run_module.F, "cross_entropy", once)
    results = engine.train(cells_of(base), 0)
    assert engine.token_budget == (400 if choice == "auto" else 200)
    assert engine.checkpointing is (choice != False)  # noqa: E712 - "auto" is neither
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)


def test_free_memory_is_a_number_of_bytes_where_the_system_says(monkeypatch):
    free = free_bytes(CPU)
    assert free is None or free > 2**20
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (5, 7))
    assert free_bytes(torch.device("cuda")) == 5
