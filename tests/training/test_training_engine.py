"""Cells as the study sees them: repeatable, independent of history, honestly accounted for."""

import numpy as np
import pytest
import torch
from engine_builders import make_cell, make_engine, tiny_base, tiny_model, toy_data

from lora_search.adapters import Rows, merge_into
from lora_search.metrics import CLASS_METRICS, scores_of
from lora_search.training import pack_run as run_module


def same_bits(ours, theirs):
    assert ours.state.keys() == theirs.state.keys()
    assert all(torch.equal(value, theirs.state[name]) for name, value in ours.state.items())
    assert np.array_equal(ours.result.probabilities, theirs.result.probabilities)
    assert ours.result.train_loss == theirs.result.train_loss
    assert ours.result.scores == theirs.result.scores


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "gpt2", "llama"])
def test_a_cell_alone_repeats_bit_for_bit(family):
    base, data = tiny_base(family), toy_data()
    cell = make_cell(base, layers="top-2", targets="all-linear", drop=0.2)
    once = make_engine(base, data).train([cell], 0)[0]
    np.random.seed(1)  # noqa: NPY002 - nothing may depend on the global generators
    torch.manual_seed(1)
    again = make_engine(base, data)
    same_bits(again.train([cell], 0)[0], once)
    again.train([make_cell(base, 1, layers="top-1"), make_cell(base, 2, fold=2, rank=2, layers="top-1")], 1)
    same_bits(again.train([cell], 2)[0], once)


def test_training_leaves_the_base_as_it_was():
    base, data = tiny_base("bert"), toy_data()
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    modules = dict(base.model.named_modules())
    make_engine(base, data).train([make_cell(base, layers="top-2", targets="all-linear", drop=0.1)], 0)
    after = base.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert dict(base.model.named_modules()) == modules
    assert not base.model.training
    assert all(p.grad is None and not p.requires_grad for p in base.model.parameters())


def test_two_trials_of_a_fold_differ_only_by_what_is_compared():
    base, data = tiny_base("bert"), toy_data()
    cells = [make_cell(base, 0, rank=2), make_cell(base, 5, rank=4), make_cell(base, 0, fold=1, rank=2)]
    engine = make_engine(base, data, epochs=1, batch_size=64, warmup_ratio=0.9)  # one step at a rate of zero
    first, second, elsewhere = (trained.state for trained in engine.train(cells, 0))
    for name, value in first.items():
        other = second[name]
        if name.endswith("lora_A"):
            assert torch.equal(value, other[:2])
        elif not name.endswith("lora_B"):
            assert torch.equal(value, other)
    assert not torch.equal(first["classifier.weight"], elsewhere["classifier.weight"])
    assert list(cells[0].train) == list(cells[1].train)
    assert cells[0].order_key == cells[1].order_key != cells[2].order_key


def test_the_training_loss_is_the_mean_over_the_last_epochs_examples():
    base, data = tiny_base("bert"), toy_data()
    steps = []
    trained = make_engine(base, data, epochs=2, batch_size=8).train([make_cell(base)], 0, listener=steps.append)[0]
    assert [(s.step, s.steps, s.epoch, s.epochs) for s in steps] == [(i + 1, 8, 1 + i // 4, 2) for i in range(8)]
    last = [s.loss for s in steps[4:]]
    assert trained.result.train_loss == pytest.approx((8 * last[0] + 8 * last[1] + 8 * last[2] + 3 * last[3]) / 27)
    assert steps[-1].tokens == trained.result.tokens == 2 * int(data.lengths[make_cell(base).train].sum())


def test_a_result_says_what_was_done():
    base, data = tiny_base("bert"), toy_data()
    cells = [make_cell(base, 3, fold=2), make_cell(base, 4, fold=1, first=10)]
    results = [trained.result for trained in make_engine(base, data).train(cells, pack=9)]
    for cell, result in zip(cells, results, strict=True):
        assert result.key == cell.key
        assert result.state == "complete"
        assert (result.pack, result.pack_cells) == (9, 2)
        assert result.train_examples == len(cell.train)
        assert result.examples.tolist() == cell.evaluate.tolist()
        assert result.probabilities.dtype == np.float32
        np.testing.assert_allclose(result.probabilities.sum(1), 1, rtol=1e-5)
        assert result.scores == scores_of(CLASS_METRICS, data.labels[cell.evaluate], result.probabilities)
    assert [result.steps for result in results] == [8, 4]
    assert results[0].wall_seconds == results[1].wall_seconds
    assert sum(result.seconds for result in results) == pytest.approx(results[0].wall_seconds)
    assert results[0].seconds > results[1].seconds > 0


def test_learning_learns():
    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base, targets="all-linear", rate=5e-3)
    engine = make_engine(base, data, epochs=10)
    trained = engine.train([cell], 0)[0]
    assert trained.result.train_loss < 0.2
    predicted = engine.predict(cell, trained.state, cell.train).argmax(1)
    assert (predicted == data.labels[cell.train]).mean() > 0.95


def test_an_empty_evaluation_has_no_score():
    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base)
    refit = type(cell)(**{**vars(cell), "train": np.arange(36), "evaluate": np.arange(0)})
    result = make_engine(base, data).train([refit], 0)[0].result
    assert result.state == "complete"
    assert np.isnan(list(result.scores.values())).all()
    assert result.probabilities.shape == (0, 3)


def test_a_head_alone_can_be_trained():
    base, data = tiny_base("roberta"), toy_data()
    cell = make_cell(base)
    head_only = type(cell)(**{**vars(cell), "modules": ()})
    beside = make_engine(base, data).train([head_only, make_cell(base, 1, layers="top-2")], 0)[0]
    alone = make_engine(base, data, prefix_cache=False).train([head_only], 0)[0]
    assert set(alone.state) == {f"classifier.{m}.{k}" for m in ("dense", "out_proj") for k in ("weight", "bias")}
    for name, value in alone.state.items():
        torch.testing.assert_close(beside.state[name], value, rtol=1e-5, atol=1e-6)


# -- inputs ---------------------------------------------------------------------------------------------------------


def test_token_types_reach_a_model_that_takes_them():
    base, typed, untyped = tiny_base("bert"), toy_data(types=True), toy_data()
    cell = make_cell(base, layers="top-1")
    with_types, without = (make_engine(base, data).train([cell], 0)[0] for data in (typed, untyped))
    assert np.abs(with_types.result.probabilities - without.result.probabilities).max() > 0.01

    merged = tiny_model("bert")
    merge_into(merged, with_types.state, cell.adapter.scale)
    for row, example in enumerate(cell.evaluate):
        logits = merged(
            input_ids=torch.from_numpy(typed.input_ids[example])[None],
            token_type_ids=torch.from_numpy(typed.token_type_ids[example])[None],
        ).logits
        np.testing.assert_allclose(with_types.result.probabilities[row], logits.softmax(-1).numpy()[0], atol=1e-5)


def test_token_types_are_kept_from_a_model_that_has_none():
    base = tiny_base("distilbert")
    cell = make_cell(base, layers="top-1")
    typed, untyped = (make_engine(base, toy_data(types=types)).train([cell], 0)[0] for types in (True, False))
    same_bits(typed, untyped)


# -- dropout --------------------------------------------------------------------------------------------------------


def test_predictions_are_made_without_dropout():
    base, data = tiny_base("bert"), toy_data()
    cell = make_cell(base, targets="all-linear", drop=0.5)
    trained = make_engine(base, data).train([cell], 0)[0]
    merged = tiny_model("bert")
    merge_into(merged, trained.state, cell.adapter.scale)
    for row, example in enumerate(cell.evaluate):
        logits = merged(input_ids=torch.from_numpy(data.input_ids[example])[None]).logits
        np.testing.assert_allclose(trained.result.probabilities[row], logits.softmax(-1).numpy()[0], atol=1e-5)


def test_masks_change_with_step_example_and_fold_and_not_with_the_trial(monkeypatch):
    keys = {}

    class Recording(Rows):
        def __init__(self, slots, row_keys=None, **more):
            super().__init__(slots, row_keys, **more)
            if row_keys is not None:
                seen.append((slots, row_keys.tolist(), more["shared_key"]))

    monkeypatch.setattr(run_module, "Rows", Recording)
    base, data = tiny_base("bert"), toy_data()
    for name, trial, fold in (("cell", 0, 0), ("other trial", 1, 0), ("other fold", 0, 1)):
        seen = []
        engine = make_engine(base, data, epochs=2, batch_size=64, token_budget=10**6)
        engine.train([make_cell(base, trial, fold, drop=0.1)], 0)
        keys[name] = seen
    rows = {name: [key for _, row_keys, _ in seen for key in row_keys] for name, seen in keys.items()}
    shared = {key for _, _, key in keys["cell"]}
    assert len(rows["cell"]) == 2 * 27  # two epochs of one step
    assert len({*rows["cell"], *shared}) == 2 * 27 + 2
    assert keys["other trial"] == keys["cell"]
    assert not {*rows["cell"]} & {*rows["other fold"]}
