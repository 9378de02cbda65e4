"""What is found in a model by looking at it: the stack, the targetable modules, the head."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import KNOWN, structure_from, tiny_config, tiny_model
from torch import nn
from transformers import AutoConfig

from lora_search.errors import ModelError
from lora_search.models.peft_targets import peft_targets
from lora_search.models.structure import inspect_model
from lora_search.models.targets import adapter_parameters, resolve_targets

GROUPS = ("query+value", "attention", "mlp", "all-linear")


@pytest.mark.parametrize("model_type", KNOWN)
def test_the_stack_its_groups_and_the_head_are_found(model_type):
    known = KNOWN[model_type]
    structure = structure_from(tiny_config(model_type))
    assert structure.stack_name == known.stack
    assert structure.layer_count == 4
    assert structure.hidden_size == 32
    assert structure.head_modules == known.head
    assert structure.modules_to_save == known.saved
    expected = {"query+value": known.query_value, "attention": known.attention, "mlp": known.mlp}
    for group, leaves in expected.items():
        chosen = resolve_targets(structure, group, "2")
        assert tuple(module.leaf for module in chosen) == leaves
        assert {module.name for module in chosen} == {f"{known.stack}.2.{leaf}" for leaf in leaves}
    everything = resolve_targets(structure, "all-linear", "all")
    assert everything == structure.linear_modules
    assert len(everything) == 4 * len(known.attention + known.mlp)


@pytest.mark.parametrize("model_type", KNOWN)
def test_shapes_are_those_of_the_weights(model_type):
    model = tiny_model(model_type, device="meta")
    structure = inspect_model(model)
    for module in structure.linear_modules:
        shape = tuple(model.get_submodule(module.name).weight.shape)
        expected = (module.out_features, module.in_features)
        assert shape == (expected if module.kind == "linear" else expected[::-1])
    assert {module.kind for module in structure.linear_modules} == {"conv1d" if model_type == "gpt2" else "linear"}


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("qwen3", {"head_dim": 4}),
        ("gemma2", {"hidden_size": 32, "head_dim": 4, "num_attention_heads": 4, "num_hidden_layers": 2}),
        ("t5", {"d_model": 32, "d_kv": 4, "num_heads": 4, "num_layers": 2, "num_decoder_layers": 1}),
        ("electra", {"embedding_size": 16, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}),
    ],
)
def test_the_hidden_size_is_what_goes_from_layer_to_layer(model_type, settings):
    """Attention that is narrower inside, and embeddings that are, do not change it."""
    assert structure_from(tiny_config(model_type, **settings)).hidden_size == 32


def test_a_hidden_size_that_no_module_reads_is_not_believed():
    """Nor is one needed: a config of somebody's own may call it anything."""
    model = tiny_model("bert", device="meta")
    model.config.hidden_size = 33
    assert inspect_model(model).hidden_size == 32
    del model.config
    assert inspect_model(model).hidden_size == 32


@pytest.mark.parametrize("layers", ["all", "top-1/2", "0,2"])
@pytest.mark.parametrize("targets", GROUPS)
@pytest.mark.parametrize("model_type", KNOWN)
def test_peft_trains_the_same_parameters(model_type, targets, layers):
    model = tiny_model(model_type)
    structure = inspect_model(model)
    modules = resolve_targets(structure, targets, layers)
    words = peft_targets(structure, modules)
    peft_model = get_peft_model(model, _lora_config(words, rank=4, fan_in_fan_out=model_type == "gpt2"))
    adapted = {
        name.removeprefix("base_model.model.").removesuffix(".lora_A.default.weight")
        for name, parameter in peft_model.named_parameters()
        if parameter.requires_grad and "lora_A" in name
    }
    assert adapted == {module.name for module in modules}
    trainable = adapter_parameters(modules, 4) + structure.head_parameters
    assert peft_model.get_nb_trainable_parameters()[0] == trainable


def _lora_config(words, rank, fan_in_fan_out=False):
    layers = words.layers_to_transform
    return LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        target_modules=list(words.target_modules),
        layers_to_transform=None if layers is None else list(layers),
        modules_to_save=list(words.modules_to_save),
        fan_in_fan_out=fan_in_fan_out,
    )


def test_a_short_name_that_peft_would_match_elsewhere_is_written_longer():
    model = tiny_model("bert")
    structure = inspect_model(model)
    attention = peft_targets(structure, resolve_targets(structure, "attention", "all"))
    # "dense" and "output.dense" would take the feed-forward and the pooler along
    assert attention.target_modules == ("query", "key", "value", "attention.output.dense")
    assert attention.layers_to_transform is None
    feed_forward = peft_targets(structure, resolve_targets(structure, "mlp", "top-1/2"))
    assert feed_forward.layers_to_transform == (2, 3)
    assert feed_forward.target_modules == (
        "intermediate.dense",
        "bert.encoder.layer.2.output.dense",
        "bert.encoder.layer.3.output.dense",
    )


def test_peft_finds_many_full_names_too():
    # from 20 names on PEFT shortens the list by itself
    model = tiny_model("bert", num_hidden_layers=24)
    structure = inspect_model(model)
    modules = resolve_targets(structure, "output.dense", "top-23")
    words = peft_targets(structure, [module for module in modules if module.role.part == "mlp"])
    assert len(words.target_modules) == 23
    peft_model = get_peft_model(model, _lora_config(words, rank=1))
    assert peft_model.get_nb_trainable_parameters()[0] == 23 * (48 + 32) + structure.head_parameters


def test_a_number_before_the_layer_keeps_peft_on_full_names():
    model = _Classifier([_Block(), _Block()], nn.Linear(8, 2))
    model.base = nn.ModuleDict({"part": nn.Sequential(model.base)})
    structure = inspect_model(model)
    assert structure.stack_name == "base.part.0.layers"
    words = peft_targets(structure, resolve_targets(structure, "up", "1"))
    assert (words.target_modules, words.layers_to_transform) == (("base.part.0.layers.1.up",), None)


def _config(name, **settings):
    return AutoConfig.for_model(name, num_labels=settings.pop("num_labels", 2), **settings)


# Counts that were published, or printed by PEFT: adapter, then head.
@pytest.mark.parametrize(
    ("config", "targets", "layers", "rank", "adapter", "head"),
    [
        (_config("distilbert"), "q_lin,v_lin", "all", 8, 147_456, 592_130),
        (_config("bert"), "query+value", "all", 8, 294_912, 1_538),
        (
            _config("roberta", vocab_size=50265, max_position_embeddings=514, type_vocab_size=1),
            "query+value",
            "all",
            8,
            294_912,
            592_130,
        ),
        (
            _config("opt", hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, ffn_dim=4096,
                    word_embed_proj_dim=512, do_layer_norm_before=False),
            "query+value",
            "0,1,2",
            16,
            196_608,
            1_024,
        ),
        (_config("distilbert", num_labels=6), "q_lin,v_lin,ffn.lin1,ffn.lin2", "all", 2, 129_024, 595_206),
    ],
    ids=["distilbert", "bert-base", "roberta-base", "opt-350m", "distilbert-emotions"],
)  # fmt: skip
def test_published_parameter_counts(config, targets, layers, rank, adapter, head):
    structure = structure_from(config)
    assert adapter_parameters(resolve_targets(structure, targets, layers), rank) == adapter
    assert structure.head_parameters == head


def test_a_pooler_the_checkpoint_lacks_is_trained():
    model = tiny_model("bert")
    fresh = {"bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"}
    structure = inspect_model(model, fresh)
    assert structure.head_modules == ("bert.pooler.dense", "classifier")
    assert structure.modules_to_save == ("pooler", "classifier")
    assert structure.head_parameters == 32 * 32 + 32 + 32 * 3 + 3
    modules = resolve_targets(structure, "all-linear", "all")
    peft_model = get_peft_model(model, _lora_config(peft_targets(structure, modules), rank=2))
    expected = adapter_parameters(modules, 2) + structure.head_parameters
    assert peft_model.get_nb_trainable_parameters()[0] == expected


def test_a_head_the_checkpoint_brought_with_the_base_stays_frozen():
    model = tiny_model("modernbert", device="meta")
    structure = inspect_model(model, {"classifier.weight", "classifier.bias"})
    assert structure.head_modules == ("classifier",)
    assert structure.modules_to_save == ("classifier",)


def test_a_classifier_the_checkpoint_brought_whole_is_trained_anew():
    structure = inspect_model(tiny_model("bert", device="meta"), {"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    assert structure.head_modules == ("bert.pooler.dense", "classifier")


def test_a_checkpoint_without_weights_for_its_layers_is_refused():
    with pytest.raises(ModelError, match=r"must bring the weights of its layers, the checkpoint lacks 1 of them"):
        inspect_model(tiny_model("bert", device="meta"), {"bert.encoder.layer.1.output.dense.weight"})


def test_missing_embeddings_are_refused():
    with pytest.raises(ModelError, match=r"got none for bert.embeddings.word_embeddings \(Embedding\)"):
        inspect_model(tiny_model("bert", device="meta"), {"bert.embeddings.word_embeddings.weight"})


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("albert", {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 48},
         r"runs 4 layers on 1 set\(s\) of weights; an adapter of ALBERT or its kin is one on all layers at once"),
        ("funnel", {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 48}, r"must have layers of one kind"),
        ("xlm", {"emb_dim": 32, "n_layers": 2, "n_heads": 4}, r"transformer.attentions, transformer.ffns"),
    ],
    ids=["albert", "funnel", "xlm"],
)  # fmt: skip
def test_models_without_one_stack_of_own_weights_are_refused(model_type, settings, message):
    with pytest.raises(ModelError, match=message):
        structure_from(tiny_config(model_type, **settings))


_MIXTURE = {
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)
        self.up = nn.Linear(8, 16)


class _OtherBlock(_Block):
    pass


class _Classifier(nn.Module):
    base_model_prefix = "base"

    def __init__(self, blocks, head):
        super().__init__()
        self.base = nn.ModuleDict({"layers": nn.ModuleList(blocks)})
        self.head = head


def test_modules_that_are_never_called_are_no_targets():
    structure = inspect_model(_Classifier([_Block(), _Block()], nn.Linear(8, 2)))
    assert {module.leaf for module in structure.linear_modules} == {"up"}


def test_a_linear_subclass_is_a_target_only_where_it_computes_a_linear_map():
    phi = structure_from(tiny_config("phimoe", **_MIXTURE))  # its router returns three tensors
    assert {module.leaf for module in phi.linear_modules} == {
        f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj")
    }
    falcon = structure_from(tiny_config("falcon", num_hidden_layers=2, num_attention_heads=4, hidden_size=32))
    assert {module.leaf for module in falcon.linear_modules} == {
        "self_attention.query_key_value",
        "self_attention.dense",
        "mlp.dense_h_to_4h",
        "mlp.dense_4h_to_h",
    }


def test_an_encoder_decoder_is_adapted_in_its_encoder():
    sizes = {"d_model": 32, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4, "d_ff": 48, "d_kv": 8}
    config = tiny_config("t5", **sizes, feed_forward_proj="gated-gelu", decoder_start_token_id=0)
    structure = structure_from(config)
    assert (structure.stack_name, structure.layer_count) == ("transformer.encoder.block", 2)
    assert structure.decoder_name == "transformer.decoder.block"
    assert structure.modules_to_save == ("classification_head",)
    feed_forward = ["layer.1.DenseReluDense.wi_0", "layer.1.DenseReluDense.wi_1", "layer.1.DenseReluDense.wo"]
    assert [module.leaf for module in resolve_targets(structure, "mlp", "0")] == feed_forward
    words = peft_targets(structure, resolve_targets(structure, "query+value", "all"))
    assert "transformer.encoder.block.1.layer.0.SelfAttention.q" in words.target_modules


def test_layers_of_several_kinds_are_refused():
    with pytest.raises(ModelError, match=r"layers of one kind, _Classifier has _Block, _OtherBlock in base.layers"):
        inspect_model(_Classifier([_Block(), _OtherBlock()], nn.Linear(8, 2)))


def test_one_block_used_twice_is_refused():
    block = _Block()
    with pytest.raises(ModelError, match=r"runs 2 layers on 1 set"):
        inspect_model(_Classifier([block, block], nn.Linear(8, 2)))


def test_a_head_that_is_not_linear_is_refused():
    with pytest.raises(ModelError, match=r"got none for head \(Conv1d\)"):
        inspect_model(_Classifier([_Block()], nn.Conv1d(8, 2, 1)))


def test_a_model_without_layers_or_base_or_head_is_refused():
    with pytest.raises(ModelError, match=r"must have a stack of transformer layers, Linear has none"):
        inspect_model(nn.Linear(2, 2))
    with pytest.raises(ModelError, match=r"must have a classification head, _Classifier has none"):
        inspect_model(_Classifier([_Block()], nn.Identity()))
    bare = nn.Sequential(nn.ModuleList([_Block()]))
    with pytest.raises(ModelError, match=r"must keep its base apart from its head, Sequential does not"):
        inspect_model(bare)


def test_inspection_needs_no_memory_for_weights():
    with torch.device("meta"):
        model = tiny_model("llama", device="meta")
    assert inspect_model(model).layer_count == 4
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
