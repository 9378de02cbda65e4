"""Full fine-tuning, BitFit and the hidden-state adapter: transformers' own numbers, repeatable, the base untouched."""

import copy
import math

import numpy as np
import pytest
import torch
from engine_builders import frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data
from transformers import get_linear_schedule_with_warmup

from lora_search.training import footprint
from lora_search.training.batches import batch_order
from lora_search.training.whole import HiddenStateCorrections, WholeModel, has_biases

KINDS = ("full", "bitfit", "hidden-state")


def padded(data, examples):
    width = int(data.lengths[examples].max())
    ids, mask = np.zeros((2, len(examples), width), dtype=np.int64)
    for row, example in enumerate(examples):
        ids[row, : data.lengths[example]] = data.input_ids[example]
        mask[row, : data.lengths[example]] = 1
    labels = torch.from_numpy(data.labels[examples])
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "labels": labels}


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_full_fine_tuning_is_what_a_plain_loop_over_transformers_does(family, epochs):
    """One step, and ten: losses, weights and predictions to 1e-5."""
    base, data = tiny_base(family), toy_data()
    batch_size = 32 if epochs == 1 else 6
    warmup = 0.0 if epochs == 1 else 0.2
    engine = make_engine(
        base, data, epochs=epochs, batch_size=batch_size, warmup_ratio=warmup, weight_decay=0.01, token_budget=90
    )
    cell = make_cell(base, rate=1e-3)
    whole = WholeModel(engine, "full")
    heard = []
    result = whole.train(cell, heard.append)

    whole_again = WholeModel(engine, "full")
    whole_again.reset(cell)
    model = copy.deepcopy(whole_again.model)
    decays = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW([{"params": decays}, {"params": others, "weight_decay": 0.0}], lr=1e-3)
    optimizer.param_groups[0]["weight_decay"] = 0.01
    steps = math.ceil(len(cell.train) / batch_size) * epochs
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(steps * warmup), steps)
    losses = []
    for batch in batch_order(cell.train, batch_size, epochs, cell.order_key):
        loss = model(**padded(data, batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert result.steps == steps == len(losses)
    assert np.allclose([step.loss for step in heard], losses, atol=1e-5)
    for (name, ours), theirs in zip(whole.model.named_parameters(), model.parameters(), strict=True):
        # a gradient that is nothing but rounding (softmax does not see a key's bias) is made large by Adam
        moved = optimizer.state[theirs]["exp_avg_sq"].sqrt() > 1e-7
        assert torch.allclose(ours[moved], theirs[moved], atol=1e-5), name
        assert torch.allclose(ours, theirs, atol=3e-3 * epochs), name
        assert moved.any() or name.endswith("key.bias"), name
    with torch.no_grad():
        probabilities = model(**padded(data, cell.evaluate)).logits.softmax(-1).numpy()
    assert np.allclose(result.probabilities, probabilities, atol=1e-5)
    assert result.scores["accuracy"] == pytest.approx(np.mean(probabilities.argmax(1) == data.labels[cell.evaluate]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_training_repeats_bit_for_bit_whatever_came_before(kind, family):
    base, data = tiny_base(family), toy_data(types=family == "bert")
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    engine = make_engine(base, data)
    whole = WholeModel(engine, kind)
    first = whole.train(make_cell(base, rate=3e-3))
    whole.train(make_cell(base, fold=1, rate=1e-2))
    again = whole.train(make_cell(base, rate=3e-3))
    other = WholeModel(make_engine(base, data), kind).train(make_cell(base, rate=3e-3))
    for result in (again, other):
        assert np.array_equal(result.probabilities, first.probabilities)
        assert result.train_loss == first.train_loss
    assert all(torch.equal(value, before[name]) for name, value in base.model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_and_nothing_else(kind):
    base, data = tiny_base("bert"), toy_data()
    whole = WholeModel(make_engine(base, data, weight_decay=0.1), kind)
    cell = make_cell(base, rate=1e-2)
    whole.train(cell)
    frozen = dict(base.model.named_parameters())
    changed = {name for name, value in whole.model.named_parameters() if not torch.equal(value, frozen[name])}
    head = {name for name in frozen if name.rpartition(".")[0] in base.structure.head_modules}
    biases = {name for name in frozen if name.endswith(".bias")}
    if kind == "full":
        assert changed >= {name for name in frozen if ".layer." in name and name.endswith("weight")} | head
        assert whole.trainable_parameters == sum(value.numel() for value in frozen.values())
    elif kind == "bitfit":
        assert head <= changed <= biases | head
        assert len(changed & biases) > 10
        assert whole.trainable_parameters == sum(frozen[name].numel() for name in biases | head)
    else:
        assert changed == head
        assert whole.trainable_parameters == 2 * 2 * 8 * 32 + sum(frozen[name].numel() for name in head)
        assert all(bool(b.any()) for b in whole.corrections.lora_B)


def test_the_corrections_by_hand():
    corrections = HiddenStateCorrections(3, rank=1)
    with torch.no_grad():
        for a, b, rows in zip(corrections.lora_A, corrections.lora_B, ([1.0, 0, 0], [0, 1.0, 1.0]), strict=True):
            a.copy_(torch.tensor([rows]))
            b.copy_(torch.tensor([[0.0], [2.0], [0.5]]))
    h = torch.tensor([[[1.0, 2.0, 3.0]]])  # A1 h = 1, A2 h = 5
    assert torch.equal(corrections(h), torch.tensor([[[1.0, 14.0, 6.0]]]))


def test_corrections_that_are_still_zero_are_the_head_alone():
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, epochs=1, batch_size=64)  # one step at a rate of zero
    cell = make_cell(base)
    alone = engine.train([make_cell(base)], 0)[0].result
    corrected = WholeModel(engine, "hidden-state").train(cell)
    assert np.allclose(corrected.probabilities, alone.probabilities, atol=1e-6)


def test_the_hidden_state_adapter_is_the_same_with_and_without_its_cache():
    base, data = tiny_base("bert"), toy_data(types=True)
    cached = WholeModel(make_engine(base, data), "hidden-state").train(make_cell(base, rate=1e-2))
    plain = WholeModel(make_engine(base, data, prefix_cache=False), "hidden-state").train(make_cell(base, rate=1e-2))
    assert np.allclose(cached.probabilities, plain.probabilities, atol=1e-5)


def test_hidden_states_are_corrected_where_attention_is_narrower_than_they_are():
    base, data = frozen(tiny_model("qwen3", head_dim=4)), toy_data()
    whole = WholeModel(make_engine(base, data), "hidden-state")
    assert whole.train(make_cell(base, rate=1e-2)).state == "complete"
    assert {tuple(b.shape) for b in whole.corrections.lora_B} == {(32, 8)}
    assert all(bool(b.any()) for b in whole.corrections.lora_B)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bf16_every_step_and_the_score_are_of_the_weights_as_they_are(kind):
    """Autocast keeps its copies of weights for as long as it lasts, if it may: here for longer than a step."""
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, epochs=8, batch_size=6, dtype=torch.bfloat16)
    cell = make_cell(base, rate=1e-2)
    whole, heard = WholeModel(engine, kind), []
    result = whole.train(cell, heard.append)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        probabilities = whole.model(**padded(data, cell.evaluate)).logits.float().softmax(-1).numpy()
    assert np.allclose(result.probabilities, probabilities, atol=0.02)
    plain = []
    WholeModel(make_engine(base, data, epochs=8, batch_size=6), kind).train(cell, plain.append)
    apart = [abs(step.loss - other.loss) for step, other in zip(heard, plain, strict=True)]
    assert np.median(apart) < 0.02


def test_a_training_that_diverges_has_failed():
    base, data = tiny_base("bert"), toy_data()
    result = WholeModel(make_engine(base, data), "full").train(make_cell(base, rate=1e30))
    assert result.state == "failed"
    assert result.failure.startswith("the loss was nan at step 3 of ")
    assert result.steps == 3
    assert len(result.probabilities) == 0


def test_memory_that_runs_out_is_worked_around(monkeypatch):
    base, data = tiny_base("bert"), toy_data()
    expected = WholeModel(make_engine(base, data), "full").train(make_cell(base, rate=1e-3))
    engine = make_engine(base, data)
    whole = WholeModel(engine, "full")
    plain, failures = whole._gradients, iter([True, True])

    def twice(*arguments):
        if next(failures, False):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(*arguments)

    whole._gradients = twice
    result = whole.train(make_cell(base, rate=1e-3))
    assert whole.memory.token_budget == engine.memory.token_budget // 4
    assert np.allclose(result.probabilities, expected.probabilities, atol=1e-5)


def test_models_without_biases_have_nothing_for_bitfit():
    assert has_biases(tiny_base("bert"))
    assert not has_biases(tiny_base("llama"))


# -- what a step holds ---------------------------------------------------------------------------------------------


def test_what_a_step_holds_grows_with_what_is_trained():
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data)
    frozen = sum(value.nbytes for value in base.model.state_dict().values())
    head = base.structure.head_parameters
    cell = make_cell(base)
    lora = engine.step_bytes(cell)
    deeper, shallower = (
        engine.step_bytes(make_cell(base, layers="all")),
        engine.step_bytes(make_cell(base, layers="top-1")),
    )
    held = {kind: WholeModel(engine, kind).step_bytes(cell) for kind in KINDS}
    assert lora == deeper > shallower > frozen + 16 * head
    assert held["full"] > held["bitfit"] > lora
    assert held["hidden-state"] < lora
    whole = WholeModel(engine, "full")
    weights = sum(parameter.nbytes for parameter in whole.model.parameters())
    assert held["full"] > 4 * weights
    assert lora == engine.step_bytes(cell), "nothing is left behind"


def test_a_batch_too_large_to_be_measured_at_once_is_counted_by_the_rule_of_three(monkeypatch):
    base, data = tiny_base("bert"), toy_data()
    engine, cell = make_engine(base, data, batch_size=27), make_cell(base)
    whole = WholeModel(engine, "full")
    at_once = engine.step_bytes(cell), whole.step_bytes(cell)
    monkeypatch.setattr(footprint, "_MOST_TOKENS", 80)
    in_parts = engine.step_bytes(cell), whole.step_bytes(cell)
    assert in_parts == pytest.approx(at_once, rel=0.02)
