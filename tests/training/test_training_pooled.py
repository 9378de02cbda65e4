"""The pooled token: which of every family's modules it spares, and where every token has to be computed."""

import numpy as np
import pytest
import torch
from engine_builders import frozen, make_cell, make_engine, tiny_base, tiny_model, toy_data

# what drops the other tokens, and before that the modules that give zeros for them: queries, where they have a module
# of their own, and what projects what attention found
SPARED = {
    "bert": ("first", {"attention.output.dense", "intermediate.dense", "output.dense"}, {"attention.self.query"}),
    "distilbert": ("first", {"ffn.lin1", "ffn.lin2"}, {"attention.q_lin", "attention.out_lin"}),
    "modernbert": ("first", {"mlp.Wi", "mlp.Wo"}, {"attn.Wo"}),
    "gpt2": ("last", {"mlp.c_fc", "mlp.c_proj"}, {"attn.c_proj"}),
    "llama": ("last", {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}, {"self_attn.q_proj", "self_attn.o_proj"}),
}
ATTENTION = {
    "bert": "attention.self",
    "distilbert": "attention",
    "modernbert": "attn",
    "gpt2": "attn",
    "llama": "self_attn",
}


@pytest.mark.parametrize("family", SPARED)
def test_what_follows_attention_in_the_last_layer_is_spared(family):
    base = tiny_base(family)
    pooled = make_engine(base, toy_data()).forward.pooled
    position, names, filled = SPARED[family]
    last = f"{base.structure.stack_name}.2."
    assert pooled.position == position
    assert pooled.filled == {last + name for name in filled}
    assert pooled.spared == {last + name for name in names | filled}
    assert pooled.module.startswith(last)
    assert pooled.attention == last + ATTENTION[family]


def test_attention_that_is_not_the_libraries_own_is_computed_in_full():
    assert make_engine(tiny_base("deberta-v2"), toy_data()).forward.pooled.attention is None


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_spared_modules_see_one_token_and_the_others_all(family):
    base, data = tiny_base(family), toy_data()
    engine = make_engine(base, data, prefix_cache=False)
    seen = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: seen.setdefault(name, set()).add(out.shape[1]))
        for name, module in base.model.named_modules()
        if isinstance(module, torch.nn.Linear) and "layer" in name
    ]
    engine.train([make_cell(base)], 0)
    for hook in hooks:
        hook.remove()
    assert {name for name, widths in seen.items() if widths == {1}} == engine.forward.pooled.spared
    assert not any(module._forward_pre_hooks for module in base.model.modules())


def test_a_head_that_averages_over_tokens_needs_them_all():
    base, data = frozen(tiny_model("modernbert", classifier_pooling="mean")), toy_data()
    engine = make_engine(base, data)
    assert engine.forward.pooled is None
    assert engine.train([make_cell(base)], 0)[0].result.state == "complete"


def test_a_text_that_ends_with_the_padding_token_is_read_elsewhere():
    base, data = frozen(tiny_model("llama")), toy_data()
    assert make_engine(base, data).forward.pooled.position == "last"
    data.input_ids[7][-1] = base.model.config.pad_token_id
    assert make_engine(base, data).forward.pooled is None


def test_it_is_not_looked_for_when_it_is_not_wanted():
    base, data = tiny_base("bert"), toy_data()
    engine = make_engine(base, data, pooled_token=False)
    assert engine.forward.pooled is None
    ours, theirs = (e.train([make_cell(base)], 0)[0].result for e in (engine, make_engine(base, data)))
    np.testing.assert_allclose(ours.probabilities, theirs.probabilities, atol=1e-5)
