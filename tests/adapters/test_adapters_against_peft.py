"""Our LoRA against PEFT's, from the same weights: logits, every gradient, and ten AdamW steps."""

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch.nn.functional import cross_entropy
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from lora_search.adapters import AdapterPack, Rows, SlotAdapter, from_peft_state, to_peft_state

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 60}
CASES = {
    "bert": (BertForSequenceClassification, BertConfig(**SMALL), ["query", "value"], ["classifier"], ["classifier"]),
    "roberta": (
        RobertaForSequenceClassification,
        RobertaConfig(**SMALL, pad_token_id=1),
        ["query", "key", "value", "dense"],
        ["classifier.dense", "classifier.out_proj"],
        ["classifier"],
    ),
    "gpt2": (
        GPT2ForSequenceClassification,
        GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=60, pad_token_id=0),
        ["c_attn", "c_fc"],
        ["score"],
        ["score"],
    ),
    "llama": (
        LlamaForSequenceClassification,
        LlamaConfig(**SMALL, num_key_value_heads=2, pad_token_id=0),
        ["q_proj", "v_proj", "down_proj"],
        ["score"],
        ["score"],
    ),
}


def build(name, variant="lora"):
    """A tiny model, the pack over it and PEFT's model over a copy, both with the same weights."""
    torch.manual_seed(0)
    model_class, config, targets, head, save = CASES[name]
    model = model_class(config).eval().requires_grad_(False)
    twin = model_class(config).eval()
    twin.load_state_dict(model.state_dict())
    stack = "encoder.layer" if name in ("bert", "roberta") else ("transformer.h" if name == "gpt2" else "model.layers")
    modules = frozenset(
        path for path, _ in model.named_modules() if stack in path and path.rsplit(".", 1)[-1] in targets
    )
    rank, alpha = 3, 5.0
    scale = alpha / (rank**0.5 if variant == "rslora" else rank)
    kind = {"use_dora": variant in ("dora", "dora and biases"), "trains_bias": "biases" in variant}
    pack = AdapterPack(model, [SlotAdapter(modules, rank, scale, key=7, **kind)], head)
    peft_config = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=alpha,
        target_modules=sorted(modules),
        modules_to_save=save,
        use_rslora=variant == "rslora",
        use_dora=kind["use_dora"],
        bias="lora_only" if kind["trains_bias"] else "none",
        fan_in_fan_out=name == "gpt2",
    )
    peft_model = get_peft_model(twin, peft_config).eval()
    state = pack.state(0)
    for key in state:  # a zero B would hide errors in A's gradient
        if key.endswith("lora_B"):
            state[key] = torch.randn_like(state[key]) * 0.1
        if key.endswith(("magnitude_vector", "base_layer.bias")):
            state[key] = state[key] + 0.1 * torch.randn_like(state[key])
    pack.load(0, state)
    own = peft_model.state_dict()
    for key, value in to_peft_state(state).items():
        target = [k for k in own if in_our_words(k) == key]
        assert target, key
        own[target[0]].copy_(value)
    return model, pack, peft_model


def batch():
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 60, (6, 9), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((9, 7, 9, 4, 5, 8)):
        mask[row, length:] = 0
    return ids.masked_fill(mask == 0, 0), mask, torch.tensor([0, 1, 1, 0, 1, 0])


def peft_gradients(peft_model):
    gradients = {n: p.grad for n, p in peft_model.named_parameters() if p.grad is not None}
    return {in_our_words(n): g for n, g in gradients.items()}


def in_our_words(name):
    name = name.replace(".default", "").replace("modules_to_save.", "")
    return name.removesuffix(".weight") if "magnitude" in name else name


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        *((name, variant) for name in CASES for variant in ("lora", "rslora")),
        *((name, variant) for name in ("bert", "gpt2") for variant in ("dora", "biases", "dora and biases")),
        ("llama", "dora"),
    ],
)
def test_logits_and_every_gradient_equal_pefts(name, variant):
    model, pack, peft_model = build(name, variant)
    ids, mask, labels = batch()
    theirs = peft_model(input_ids=ids, attention_mask=mask).logits
    cross_entropy(theirs, labels).backward()
    with pack.attached():
        pack.rows = Rows([0] * 6)
        ours = model(input_ids=ids, attention_mask=mask).logits
        cross_entropy(ours, labels).backward()
    for block in pack.blocks(range(len(pack.adapters))):
        pack.finish_gradients(block)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    expected = peft_gradients(peft_model)
    gradients = to_peft_state(pack.slot_gradients(0))
    assert set(gradients) == set(expected)
    for key, value in gradients.items():
        assert value.abs().max() > 0, key
        torch.testing.assert_close(value, expected[key], atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize(("name", "variant"), [*((name, "lora") for name in CASES), ("bert", "dora and biases")])
def test_state_has_pefts_names_and_survives_a_round_trip(name, variant):
    _, pack, peft_model = build(name, variant)
    state = pack.state(0)
    named = to_peft_state(state)
    assert set(named) == set(get_peft_model_state_dict(peft_model))
    back = from_peft_state(named)
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)
