"""Resuming from a middle layer: exact, without the layers below, in memory or on disk, and given up where not exact."""

import errno
import functools
import os

import numpy as np
import pytest
import torch
from engine_builders import FAMILIES, frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data
from torch import nn

from lora_search.training.inputs import TokenStorage
from lora_search.training.prefix import PrefixCache

CPU = torch.device("cpu")


def cache_of(base, data, **settings):
    storage = TokenStorage(data, base.model.config.pad_token_id, CPU)
    settings = {"memory_budget": 2**30, "token_budget": 200, **settings}
    leaves = [module.leaf for module in base.structure.linear_modules]
    return PrefixCache(base.model, base.structure.stack_name, leaves, storage, **settings), storage


def lower_modules(base, depth):
    """What must not run: the layers below ``depth`` and the token embeddings."""
    stack = base.model.get_submodule(base.structure.stack_name)
    return [*stack[:depth], base.model.get_input_embeddings()]


def counted_calls(modules):
    calls = []
    hooks = [module.register_forward_hook(lambda m, a, o: calls.append(type(m).__name__)) for module in modules]
    return calls, hooks


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("family", [*FAMILIES, "opt"])
def test_every_family_resumes_from_every_layer(family, depth):
    base, data = tiny_base(family), toy_data(types=family == "bert")
    cache, storage = cache_of(base, data)
    batch = storage.batch(np.array([3, 1, 7]), int(data.lengths.max()) + 2)
    with torch.no_grad():
        full = base.model(**batch.arguments).logits
        assert cache.prepare(depth)
        assert cache.note is None
        calls, hooks = counted_calls(lower_modules(base, depth))
        with cache.resumed(depth):
            cache.feed(depth, batch)
            resumed = base.model(**batch.arguments).logits
        assert calls == []
        after = base.model(**batch.arguments).logits
    for hook in hooks:
        hook.remove()
    assert len(calls) == depth + 1
    torch.testing.assert_close(resumed, full, rtol=1e-5, atol=1e-5)
    assert torch.equal(after, full)


def test_deeper_states_are_computed_from_the_shallower_ones():
    base, data = tiny_base("roberta"), toy_data()
    cache, _ = cache_of(base, data)
    cache.prepare(1)
    calls, hooks = counted_calls(lower_modules(base, 1))
    assert cache.prepare(2)
    for hook in hooks:
        hook.remove()
    # by the look at what comes first in the layer, and by the check against the full forward
    assert sorted(calls) == ["Embedding", "Embedding", "RobertaLayer", "RobertaLayer"]


NARROW, CONVOLVED = {"embedding_size": 16}, {"conv_kernel_size": 3, "conv_act": "gelu"}
DEBERTA_FALLS_BACK = (
    "DebertaV2ForSequenceClassification cannot be resumed from a middle layer with the same result;"
    " its frozen lower layers are computed in full"
)


@pytest.mark.parametrize(
    ("settings", "notes"), [(NARROW, ()), (CONVOLVED, ()), ({**NARROW, **CONVOLVED}, (DEBERTA_FALLS_BACK,))]
)
def test_deberta_gives_the_same_with_a_convolution_and_narrow_embeddings_and_says_where_it_is_slower(settings, notes):
    base = frozen(tiny_model("deberta-v2", **settings))
    data, choices = toy_data(), {"layers": "top-1", "targets": "query_proj,value_proj"}
    cached = make_engine(base, data)
    ours = cached.train([make_cell(base, **choices)], 0)[0]
    theirs = make_engine(base, data, prefix_cache=False).train([make_cell(base, **choices)], 0)[0]
    np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)
    assert cached.notes == notes


def test_states_are_computed_once_and_frozen_layers_never_again():
    base, data = frozen(tiny_model("bert")), toy_data()
    engine = make_engine(base, data, epochs=2, token_budget=100)
    cells = [make_cell(base, 0, layers="top-1"), make_cell(base, 1, fold=1, layers="top-1", rank=2)]
    engine.train(cells, 0)
    calls, hooks = counted_calls(lower_modules(base, 2))
    own, own_hooks = counted_calls([base.model.get_submodule("bert.encoder.layer.2")])
    first = engine.train(cells, 1)
    second = engine.predict(cells[0], first[0].state, cells[0].evaluate)
    assert calls == []
    assert len(own) > 10
    np.testing.assert_allclose(second, first[0].result.probabilities, atol=1e-6)
    engine.train([make_cell(base, 2, layers="top-2")], 2)
    assert len(calls) > 0  # layer 1 is adapted now
    for hook in hooks + own_hooks:
        hook.remove()


def test_a_backward_goes_no_deeper_than_the_lowest_adapted_layer():
    base, data = frozen(tiny_model("bert")), toy_data()
    seen = []
    for index, layer in enumerate(base.model.bert.encoder.layer):
        layer.register_forward_hook(lambda m, a, out, index=index: seen.append((index, out.requires_grad)))
    make_engine(base, data, prefix_cache=False, epochs=1, batch_size=27).train([make_cell(base, layers="1")], 0)
    training = [(index, grad) for index, grad in seen if grad or index == 0]
    assert (0, True) not in training
    assert {(1, True), (2, True)} <= set(training)


# -- where states are kept ----------------------------------------------------------------------------------------


def test_past_the_memory_budget_states_go_to_a_file_that_leaves_no_trace(tmp_path):
    base, data = tiny_base("bert"), toy_data()
    cells = [make_cell(base, 0, layers="top-1"), make_cell(base, 1, layers="top-2")]
    room_for_one = int(data.lengths.sum()) * 32 * 4
    in_memory = make_engine(base, data)
    mixed = make_engine(base, data, cache_memory=room_for_one, cache_folder=tmp_path)
    on_disk = make_engine(base, data, cache_memory=0, cache_folder=tmp_path)
    results = [[engine.train([cell], 0)[0] for cell in cells] for engine in (in_memory, mixed, on_disk)]
    assert in_memory.forward.prefix.bytes_in_memory == 2 * 4 * room_for_one  # states, queries, keys and values
    assert mixed.forward.prefix.bytes_in_memory == room_for_one
    assert on_disk.forward.prefix.bytes_in_memory == 0
    for other in results[1:]:
        for kept, expected in zip(other, results[0], strict=True):
            assert all(torch.equal(kept.state[name], value) for name, value in expected.state.items())
            assert np.array_equal(kept.result.probabilities, expected.result.probabilities)
    assert list(tmp_path.iterdir()) == []
    assert on_disk.notes == mixed.notes == ()


def test_a_full_disk_costs_time_and_not_the_study(tmp_path, monkeypatch):
    def full(file, offset, length):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base, layers="top-1")
    engine = make_engine(base, data, cache_memory=0, cache_folder=tmp_path)
    ours = engine.train([cell], 0)[0]
    theirs = make_engine(base, data, prefix_cache=False).train([cell], 0)[0]
    np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)
    assert engine.notes == (
        "the states of BertForSequenceClassification found no room on disk (No space left on device);"
        " its frozen lower layers are computed in full",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_memory_to_fill_in_is_run_in_full_and_says_so(monkeypatch):
    def full(cache, depth):
        raise torch.OutOfMemoryError("no more")

    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base, layers="top-1")
    engine = make_engine(base, data)
    monkeypatch.setattr(PrefixCache, "_fill", full)
    ours = engine.train([cell], 0)[0]
    theirs = make_engine(base, data, prefix_cache=False).train([cell], 0)[0]
    assert np.array_equal(ours.result.probabilities, theirs.result.probabilities)
    assert engine.notes == (
        "the states of BertForSequenceClassification found no room in memory;"
        " its frozen lower layers are computed in full",
    )


def test_states_that_find_no_memory_go_to_the_disk(tmp_path, monkeypatch):
    base, data = tiny_base("bert"), toy_data()
    cache, storage = cache_of(base, data, folder=tmp_path)
    allocate = torch.empty

    def full(*shape, **kind):
        if shape == ((storage.tokens, 32),):
            raise MemoryError
        return allocate(*shape, **kind)

    monkeypatch.setattr(torch, "empty", full)
    assert cache.prepare(2)
    monkeypatch.undo()
    assert cache.bytes_in_memory == 0
    expected, _ = cache_of(base, data)
    expected.prepare(2)
    assert list(cache._kept[2]) == [""]
    assert torch.equal(cache._kept[2][""], expected._kept[2][""])


# -- where resuming is not exact -----------------------------------------------------------------------------------

FALLS_BACK = (
    "BertForSequenceClassification cannot be resumed from a middle layer with the same result;"
    " its frozen lower layers are computed in full"
)


def looking_back():
    """A model whose last layer looks at the embeddings again."""
    model = tiny_model("bert")
    memory = {}
    model.bert.encoder.register_forward_pre_hook(lambda m, args: memory.update(embedded=args[0]))
    model.bert.encoder.layer[2].register_forward_hook(lambda m, args, out: out + memory["embedded"])
    return model


def choosy():
    """A model that fails when a layer is not its own."""
    model = tiny_model("bert")
    own = type(model.bert.encoder.layer[0])

    def check(module, args):
        if not all(isinstance(layer, own) for layer in module.layer):
            raise TypeError("strangers in the stack")

    model.bert.encoder.register_forward_pre_hook(check)
    return model


def turned():
    """A model whose layers see (tokens, rows, features)."""
    model = tiny_model("bert")

    class Turned(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.inner = layer

        def forward(self, hidden, *args, **kwargs):
            return self.inner(hidden.transpose(0, 1), *args, **kwargs).transpose(0, 1)

    layers = model.bert.encoder.layer
    for index in range(3):
        layers[index] = Turned(layers[index])
    layers[0].register_forward_pre_hook(lambda m, args: (args[0].transpose(0, 1), *args[1:]))
    layers[2].register_forward_hook(lambda m, args, out: out.transpose(0, 1))
    return model


@pytest.mark.parametrize("build", [looking_back, choosy, turned])
def test_a_model_that_cannot_be_resumed_is_run_in_full_and_says_so(build):
    base, data = frozen(build()), toy_data()
    cell = make_cell(
        base, targets="query,value" if build is not turned else "inner.attention.self.query", layers="top-1"
    )
    engine = make_engine(base, data)
    ours = engine.train([cell], 0)[0]
    theirs = make_engine(base, data, prefix_cache=False).train([cell], 0)[0]
    assert engine.notes == (FALLS_BACK,)
    assert all(torch.equal(ours.state[name], value) for name, value in theirs.state.items())
    assert np.array_equal(ours.result.probabilities, theirs.result.probabilities)
    assert engine.forward.prefix.bytes_in_memory == 0


def test_filling_out_of_memory_goes_on_with_smaller_batches():
    model = tiny_model("bert")
    plain = model.forward

    @functools.wraps(plain)
    def limited(**arguments):
        if arguments["input_ids"].numel() > 100:
            raise torch.OutOfMemoryError("no more")
        return plain(**arguments)

    model.forward = limited
    base, data = frozen(model), toy_data()
    cache, _ = cache_of(base, data, token_budget=600)
    assert cache.prepare(2)
    assert cache.token_budget < 200
    expected, _ = cache_of(tiny_base("bert"), data)
    expected.prepare(2)
    torch.testing.assert_close(cache._kept[2], expected._kept[2], rtol=1e-5, atol=1e-5)
