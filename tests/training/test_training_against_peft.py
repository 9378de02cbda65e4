"""A cell against the loop people write: PEFT, torch's AdamW, transformers' schedule, clipping, on the same batches."""

import math

import numpy as np
import pytest
import torch
from engine_builders import make_cell, make_engine, of_keys, tiny_base, toy_data
from peft.optimizers import create_loraplus_optimizer
from peft_loop import losses_of_steps, padded_batch, peft_twin, trained_weights
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup

from lora_search.models import trained_parameters

STEPS, BATCH, EPOCHS = 10, 4, 2
CHOICES = {
    "bert": {"targets": "query+value"},
    "roberta": {"targets": "all-linear", "scaling": "rslora"},
    "gpt2": {"targets": "all-linear", "layers": "top-2"},
    "llama": {"targets": "q_proj,v_proj,down_proj", "layers": "1,2"},
}


def decays(name, parameter):
    """As in transformers' Trainer."""
    return parameter.dim() > 1 or "magnitude" in name


def naive_loop(model, base, data, cell, weight_decay, side, loraplus_lr_ratio):
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in named if decays(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not decays(name, p)], "weight_decay": 0.0},
    ]
    rate, plus = cell.nuisance.learning_rate, {"loraplus_lr_ratio": loraplus_lr_ratio}
    optimizer = torch.optim.AdamW(groups, lr=rate)
    if loraplus_lr_ratio != 1:
        optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=rate, loraplus_weight_decay=weight_decay, weight_decay=0.0, **plus
        )
    schedule = get_linear_schedule_with_warmup(optimizer, math.ceil(STEPS * 0.1), STEPS)

    def loss_of(examples):
        logits = model(**padded_batch(base, data, examples, side)).logits
        return cross_entropy(logits, torch.from_numpy(data.labels[examples]))

    return losses_of_steps(model, cell, loss_of, optimizer, schedule, epochs=EPOCHS, batch_size=BATCH)


@pytest.mark.parametrize(
    ("family", "weight_decay", "side", "variant", "ratio"),
    [
        ("bert", 0.0, "right", {}, 1),
        ("roberta", 0.1, "right", {}, 1),
        ("gpt2", 0.0, "right", {}, 1),
        ("llama", 0.1, "left", {}, 1),
        ("bert", 0.1, "right", {"bias": "lora_only"}, 16),
        ("gpt2", 0.0, "right", {"use_dora": True, "bias": "lora_only"}, 1),
        ("llama", 0.1, "right", {"use_dora": True, "scaling": "rslora"}, 4),
        ("llama", 0.1, "right", {"rank_pattern": "query+value:2,mlp:0.4", "scaling": "rslora"}, 1),
        ("gpt2", 0.1, "right", {"rank_pattern": "mlp:0.4", "use_dora": True}, 1),
    ],
)
def test_a_cell_is_what_the_naive_loop_trains(family, weight_decay, side, variant, ratio):
    base, data = tiny_base(family), toy_data()
    cell = make_cell(base, rank=3, alpha=5.0, first=20, rate=3e-3 / ratio**0.5, **CHOICES[family], **variant)
    model = peft_twin(base, cell)
    trainable = trained_parameters(cell.modules, cell.adapter, cell.ranks) + base.structure.head_parameters
    assert model.get_nb_trainable_parameters()[0] == trainable
    initial = {name: value.clone() for name, value in trained_weights(model).items()}
    losses = naive_loop(model, base, data, cell, weight_decay, side, ratio)
    assert len(losses) == STEPS

    steps = []
    engine = make_engine(
        base,
        data,
        epochs=EPOCHS,
        batch_size=BATCH,
        weight_decay=weight_decay,
        loraplus_lr_ratio=ratio,
        token_budget=64,
    )
    trained = engine.train([cell], pack=0, listener=steps.append)[0]

    np.testing.assert_allclose([step.loss for step in steps], losses, rtol=1e-5)
    assert trained.result.train_loss == pytest.approx(np.mean(losses[-STEPS // EPOCHS :]), rel=1e-5)
    theirs = trained_weights(model)
    assert trained.state.keys() == theirs.keys()
    for name, value in trained.state.items():
        value[of_keys(name)] = theirs[name][of_keys(name)]
        assert (theirs[name] - initial[name]).abs().max() > 1e-3 / ratio, name
        torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-4, msg=name)
    with torch.no_grad():
        logits = model(**padded_batch(base, data, cell.evaluate, side)).logits
    np.testing.assert_allclose(trained.result.probabilities, logits.softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(
        engine.predict(cell, trained.state, cell.evaluate[::-1]), logits.softmax(-1).numpy()[::-1], atol=1e-5
    )
