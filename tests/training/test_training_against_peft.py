"""A cell against the loop people write: PEFT, torch's AdamW, transformers' schedule, clipping, on the same batches."""

import copy
import math

import numpy as np
import pytest
import torch
from engine_builders import make_cell, make_engine, of_keys, tiny_base, toy_data
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from torch.nn.functional import cross_entropy
from transformers import get_linear_schedule_with_warmup

from lora_search.adapters import AdapterPack, from_peft_state, to_peft_state
from lora_search.models import trained_parameters
from lora_search.training.batches import batch_order

STEPS, BATCH, EPOCHS = 10, 4, 2
CHOICES = {
    "bert": {"targets": "query+value"},
    "roberta": {"targets": "all-linear", "scaling": "rslora"},
    "gpt2": {"targets": "all-linear", "layers": "top-2"},
    "llama": {"targets": "q_proj,v_proj,down_proj", "layers": "1,2"},
}


def padded(base, data, examples, side="right"):
    """What a data collator makes of the examples."""
    rows, width = [data.input_ids[i] for i in examples], int(data.lengths[examples].max())
    ids = torch.full((len(rows), width), base.model.config.pad_token_id)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(rows):
        part = slice(len(tokens)) if side == "right" else slice(width - len(tokens), width)
        ids[row, part] = torch.from_numpy(tokens)
        mask[row, part] = 1
    return {"input_ids": ids, "attention_mask": mask}


def peft_twin(base, cell):
    """PEFT's model over a copy of the base, with the weights the cell starts from."""
    slot = cell.slot()
    start = AdapterPack(base.model, [slot], base.structure.head_modules, head_deviation=0.2).state(0)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=cell.adapter.rank,
        lora_alpha=cell.adapter.alpha,
        use_rslora=cell.adapter.scaling == "rslora",
        use_dora=cell.adapter.use_dora,
        bias=cell.adapter.bias,
        target_modules=sorted(slot.modules),
        modules_to_save=list(base.structure.modules_to_save),
        fan_in_fan_out=base.model.config.model_type == "gpt2",
    )
    model = get_peft_model(copy.deepcopy(base.model), config).eval()
    own = {ours(name): tensor for name, tensor in model.state_dict().items()}
    for name, value in to_peft_state(start).items():
        own[name].copy_(value)
    return model


def ours(name):
    name = name.replace(".default", "").replace("modules_to_save.", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


def trained_weights(model):
    return from_peft_state({ours(n): p.detach() for n, p in model.named_parameters() if p.requires_grad})


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
    losses = []
    for examples in batch_order(cell.train, BATCH, EPOCHS, cell.order_key):
        logits = model(**padded(base, data, examples, side)).logits
        loss = cross_entropy(logits, torch.from_numpy(data.labels[examples]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


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
    ],
)
def test_a_cell_is_what_the_naive_loop_trains(family, weight_decay, side, variant, ratio):
    base, data = tiny_base(family), toy_data()
    cell = make_cell(base, rank=3, alpha=5.0, first=20, rate=3e-3 / ratio**0.5, **CHOICES[family], **variant)
    model = peft_twin(base, cell)
    trainable = trained_parameters(cell.modules, cell.adapter) + base.structure.head_parameters
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
        logits = model(**padded(base, data, cell.evaluate, side)).logits
    np.testing.assert_allclose(trained.result.probabilities, logits.softmax(-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(
        engine.predict(cell, trained.state, cell.evaluate[::-1]), logits.softmax(-1).numpy()[::-1], atol=1e-5
    )
