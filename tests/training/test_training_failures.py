"""What goes wrong in one cell, or for want of memory, and what it may not touch."""

import errno
import functools
import math

import numpy as np
import pytest
import torch
from engine_builders import frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data

from lora_search.adapters import MixedRowsError
from lora_search.training import pack_run as run_module
from lora_search.training.probing import ForwardFacts


def close(ours, theirs):
    for name, value in theirs.state.items():
        torch.testing.assert_close(ours.state[name], value, rtol=1e-5, atol=2e-6, msg=name)
    np.testing.assert_allclose(ours.result.probabilities, theirs.result.probabilities, atol=1e-5)
    assert ours.result.train_loss == pytest.approx(theirs.result.train_loss, rel=1e-5)


# -- a loss that is not a number -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bert", "gpt2", "deberta-v2"])
def test_a_cell_that_diverges_fails_alone(family):
    base, data = tiny_base(family), toy_data()
    sound = [make_cell(base, 0, layers="top-2", rate=1e-3), make_cell(base, 2, layers="top-1", rate=1e-3)]
    wild = make_cell(base, 1, targets="all-linear", layers="top-2", rate=1e30)
    together = make_engine(base, data).train([sound[0], wild, sound[1]], 7)
    without = make_engine(base, data).train(sound, 7)
    close(together[0], without[0])
    close(together[2], without[1])
    failed = together[1].result
    assert failed.state == "failed"
    assert failed.failure is not None
    assert failed.failure.startswith("the loss was nan at step ") or failed.failure.startswith(
        "the loss was inf at step "
    )
    assert failed.failure.endswith(" of 8")
    assert failed.steps < 8
    assert math.isnan(failed.train_loss)
    assert failed.scores == {}
    assert failed.examples.shape == (0,)
    assert failed.probabilities.shape == (0, 3)
    assert [cell.result.pack_cells for cell in together] == [3, 3, 3]


def test_a_pack_of_nothing_but_divergence_ends_early():
    base, data = tiny_base("bert"), toy_data()
    steps = []
    cells = [make_cell(base, trial, targets="all-linear", rate=1e30) for trial in range(2)]
    results = make_engine(base, data, epochs=30).train(cells, 0, listener=steps.append)
    assert [trained.result.state for trained in results] == ["failed", "failed"]
    assert len(steps) < 10
    assert list(steps[0].losses) == [cell.key for cell in cells]


def test_predictions_that_are_not_numbers_fail_the_cell():
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, epochs=1, batch_size=64, warmup_ratio=0.0)
    cells = [make_cell(base, 0, targets="all-linear", rate=1e30), make_cell(base, 1)]
    wild, sound = (trained.result for trained in engine.train(cells, 0))
    assert wild.failure == "the trained model's predictions are not numbers"
    assert wild.state == "failed"
    assert sound.state == "complete"
    assert np.isfinite(sound.probabilities).all()


# -- memory --------------------------------------------------------------------------------------------------------


def limited_base(training, evaluation, error=None):
    """A model with room for so many padded tokens with and without gradients, and the list of what it computed."""
    model = tiny_model("bert")
    plain, computed = model.forward, []

    @functools.wraps(plain)
    def forward(**arguments):
        size = arguments["input_ids"].numel()
        if size > (training if torch.is_grad_enabled() else evaluation):
            raise error or torch.OutOfMemoryError("CUDA out of memory")
        if torch.is_grad_enabled():
            computed.append(size)
        return plain(**arguments)

    model.forward = forward
    return frozen(model), computed


CPU_ERROR = RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")


CUDA_ERROR = RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported")


@pytest.mark.parametrize("error", [None, CPU_ERROR, CUDA_ERROR, MemoryError()])
@pytest.mark.parametrize("evaluation", [400, 200])
def test_out_of_memory_halves_the_budget_and_changes_no_result(error, evaluation):
    data = toy_data()
    base, computed = limited_base(100, evaluation, error)
    engine = make_engine(base, data, token_budget=400, prefix_cache=False)
    plain = make_engine(tiny_base("bert"), data, token_budget=400, prefix_cache=False)
    cells = [
        make_cell(base, 0, rate=1e-3, drop=0.3, everything=True),
        make_cell(base, 1, rate=1e-3, rank=2, targets="all-linear", everything=True),
    ]
    limited, free = engine.train(cells, 0), plain.train(cells, 0)
    for ours, theirs in zip(limited, free, strict=True):
        close(ours, theirs)
    assert engine.memory.token_budget == (100 if evaluation == 400 else 50)
    assert max(computed) <= 100
    assert engine.real_tokens == plain.real_tokens


def test_padding_is_counted_by_what_was_computed_once():
    data = toy_data()
    base, computed = limited_base(10**9, 10**9)
    engine = make_engine(base, data, token_budget=100, epochs=3, prefix_cache=False)
    cells = [make_cell(base, trial, fold=trial) for trial in range(3)]
    results = engine.train(cells, 0)
    assert engine.padded_tokens == sum(computed)
    assert engine.real_tokens == sum(trained.result.tokens for trained in results)
    assert [trained.result.tokens for trained in results] == [3 * int(data.lengths[cell.train].sum()) for cell in cells]
    assert engine.real_tokens < engine.padded_tokens < 1.5 * engine.real_tokens


def test_too_little_memory_for_the_smallest_batch_is_an_error_in_the_end():
    base, _ = limited_base(1, 400)
    with pytest.raises(torch.OutOfMemoryError):
        make_engine(base, toy_data(), prefix_cache=False).train([make_cell(base)], 0)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), OSError(errno.ENOMEM, "no more")])
def test_memory_that_runs_out_while_a_pack_is_built_trains_half_of_it_at_a_time(monkeypatch, error):
    base, data = tiny_base("bert"), toy_data()
    cells = [make_cell(base, trial, rank=trial + 1, rate=1e-3, drop=0.2) for trial in range(5)]
    expected, engine, built = make_engine(base, data).train(cells, 0), make_engine(base, data), []

    class NarrowPack(run_module.PackedAdamW):
        def __init__(self, pack, *args, **kwargs):
            built.append(len(pack.adapters))
            if len(pack.adapters) > 2:
                raise error
            super().__init__(pack, *args, **kwargs)

    monkeypatch.setattr(run_module, "PackedAdamW", NarrowPack)
    results = engine.train(cells, 7)
    assert built == [5, 2, 3, 1, 2]
    assert [trained.result.key for trained in results] == [cell.key for cell in cells]
    assert [(trained.result.pack, trained.result.pack_cells) for trained in results] == [
        (7, 2), (7, 2), (7, 1), (7, 2), (7, 2),
    ]  # fmt: skip
    for ours, theirs in zip(results, expected, strict=True):
        close(ours, theirs)
    assert type(base.model.bert.encoder.layer[0].attention.self.query) is torch.nn.Linear


@pytest.mark.parametrize("enough", [True, False])
def test_a_cell_alone_is_tried_once_more_without_what_was_cached(monkeypatch, enough):
    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base, layers="top-1")
    expected, engine, free = make_engine(base, data).train([cell], 0), make_engine(base, data), []
    assert engine.forward.prefix.prepare(2)

    class NarrowPack(run_module.PackedAdamW):
        def __init__(self, *args, **kwargs):
            free.append(engine.forward.prefix.bytes_in_memory == 0)
            if not (free[-1] and enough):
                raise torch.OutOfMemoryError("no more")
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(run_module, "PackedAdamW", NarrowPack)
    if enough:
        close(engine.train([cell], 0)[0], expected[0])
    else:
        with pytest.raises(torch.OutOfMemoryError, match="no more"):
            engine.train([cell], 0)
    assert free == [False, True]


def test_any_other_error_is_not_taken_for_want_of_memory():
    base, _ = limited_base(1, 400, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    engine = make_engine(base, toy_data(), prefix_cache=False)
    budgets = engine.budgets
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        engine.train([make_cell(base)], 0)
    assert engine.budgets == budgets
    assert type(base.model.bert.encoder.layer[0].attention.self.query) is torch.nn.Linear  # nothing left attached


# -- models whose rows cannot be mixed ------------------------------------------------------------------------------


def sharing_deberta():
    return frozen(tiny_model("deberta-v2", share_att_key=True))


def test_deberta_with_shared_keys_is_trained_slot_by_slot_with_the_same_result():
    base, data = sharing_deberta(), toy_data()
    cells = [
        make_cell(base, 0, targets="attention", layers="top-2", rate=1e-3, drop=0.3),
        make_cell(base, 1, targets="value_proj", rank=2, layers="top-2", rate=1e-3),
        make_cell(base, 2, targets="all-linear", fold=1, layers="top-1", rate=1e-3, drop=0.5),
    ]
    engine = make_engine(base, data, token_budget=90)
    together = engine.train(cells, 0)
    note = "DebertaV2ForSequenceClassification is trained with one adapter per micro-batch, which is slower"
    assert engine.notes == (note,)
    for ours, cell in zip(together, cells, strict=True):
        alone = make_engine(base, data, token_budget=10**6, prefix_cache=False)
        close(ours, alone.train([cell], 0)[0])
        assert alone.notes == ()


def test_a_pack_that_does_not_adapt_shared_modules_is_mixed():
    base, data = sharing_deberta(), toy_data()
    engine = make_engine(base, data, token_budget=10**6, epochs=1)
    rows = []
    base.model.get_submodule("deberta.encoder.layer.2").register_forward_hook(lambda m, a, o: rows.append(len(a[0])))
    engine.train([make_cell(base, trial, targets="value_proj,intermediate.dense") for trial in range(3)], 0)
    assert max(rows) > 8
    assert engine.notes == ()


def test_rows_that_turn_out_not_to_mix_are_computed_again_apart(monkeypatch):
    base, data = sharing_deberta(), toy_data()
    cells = [make_cell(base, trial, targets="attention", rate=1e-3) for trial in range(2)]
    expected = make_engine(base, data).train(cells, 0)
    blind = make_engine(base, data)
    blind.forward.facts = ForwardFacts(sees_padding=False, shared=frozenset())
    for ours, theirs in zip(blind.train(cells, 0), expected, strict=True):
        close(ours, theirs)
    assert len(blind.notes) == 1
    monkeypatch.setattr(run_module.PackRun, "_within_memory", lambda self, work: work())
    with pytest.raises(MixedRowsError):
        blind.train(cells, 0)


# -- models that see padding ----------------------------------------------------------------------------------------


def test_a_model_that_sees_padding_is_computed_without_any():
    base = frozen(
        tiny_model("fnet", num_hidden_layers=2, hidden_size=32, intermediate_size=48, max_position_embeddings=32)
    )
    data = toy_data(types=True)
    cells = [
        make_cell(base, trial, fold=trial % 2, layers="top-1", targets="all-linear", rate=1e-3) for trial in range(3)
    ]
    engine = make_engine(base, data)
    together = engine.train(cells, 0)
    assert engine.notes == (
        "FNetForSequenceClassification sees padding, so only texts of equal length are computed together,"
        " which is slower",
    )
    assert engine.padded_tokens == engine.real_tokens
    for ours, cell in zip(together, cells, strict=True):
        close(ours, make_engine(base, data, token_budget=30).train([cell], 0)[0])
