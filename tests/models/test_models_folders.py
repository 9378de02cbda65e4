"""Folders that look like models and are not, or not such as can be used: one line each, and no code of theirs runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import head_of, tiny_config, tiny_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertForMultipleChoice, BertModel, PreTrainedTokenizerFast

from lora_search.errors import ModelError
from lora_search.models.base import load_base, load_structure
from lora_search.spec import ModelSpec


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a BERT and its tokenizer."""
    folder = tmp_path_factory.mktemp("saved") / "bert"
    torch.manual_seed(1)
    BertModel(tiny_config("bert")).save_pretrained(folder)
    words = {name: index for index, name in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "word"))}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    return folder


@pytest.fixture
def bert(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "bert"))


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def mistake_of(folder: Path, **settings: str) -> str:
    """The same for loading all of a model and for looking at its structure."""
    spec = ModelSpec(base=str(folder), **settings)
    sentences = []
    for load in (lambda: load_base(spec, head_of("no", "yes")), lambda: load_structure(spec, head_of("0", "1"))):
        with pytest.raises(ModelError) as caught:
            load()
        sentences.append(caught.value.mistakes)
    assert sentences[0] == sentences[1]
    (sentence,) = sentences[0]
    return sentence.replace(str(folder), "FOLDER")


def save_adapter(model: torch.nn.Module, folder: Path, home: str) -> None:
    get_peft_model(model, LoraConfig(r=2, target_modules=["query"])).save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=home)


def test_an_adapter_beside_a_model(bert: Path) -> None:
    save_adapter(tiny_model("bert"), bert, "somebody/bert")
    assert mistake_of(bert) == (
        "model.base: must be a model without an adapter, got 'FOLDER', which has adapter_config.json beside its"
        " weights; merge that adapter and save the model alone, or name the model it was made for"
    )


@pytest.mark.parametrize("with_config", [True, False])
def test_an_adapter_alone(tmp_path: Path, with_config: bool) -> None:
    save_adapter(tiny_model("bert"), tmp_path, "somebody/bert")
    if with_config:
        tiny_config("bert").save_pretrained(tmp_path)
    assert mistake_of(tmp_path) == (
        "model.base: must be a model, got 'FOLDER', which is an adapter; name the model it was made for:"
        " 'somebody/bert'"
    )


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8"])
def test_quantized_weights(bert: Path, method: str) -> None:
    edit(bert / "config.json", quantization_config={"quant_method": method, "bits": 4})
    assert mistake_of(bert) == (
        "model.base: must have its weights as floating-point numbers, in 4 bits of bitsandbytes or in a GGUF file, got"
        f" 'FOLDER', quantized with {method}; name the model it was made from"
    )


@pytest.mark.parametrize("top", ['{"__version__": "0.3.9"}', None])
def test_a_model_one_folder_down(bert: Path, tmp_path: Path, top: str | None) -> None:
    outer = tmp_path / "sentences"
    shutil.copytree(bert, outer / "0_Transformer")
    (outer / "1_Pooling").mkdir()
    (outer / "1_Pooling" / "config.json").write_text('{"word_embedding_dimension": 32}')
    if top is not None:
        (outer / "config.json").write_text(top)
    lacks = "config.json" if top is None else "model_type in its config.json"
    assert mistake_of(outer) == (
        f"model.base: must be the folder of a model, got 'FOLDER', which has no {lacks}; the model is one folder down:"
        " 'FOLDER/0_Transformer'"
    )


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_what_git_lfs_has_yet_to_fetch_is_told(bert: Path, name: str) -> None:
    (bert / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert mistake_of(bert) == (
        f"model.base: must be fetched, got 'FOLDER/{name}', a pointer of Git LFS; run git lfs pull where it was cloned"
    )


class Bomb:
    """What a pickle can do when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "model.ckpt"])
def test_pickled_weights_are_not_read(bert: Path, tmp_path: Path, name: str) -> None:
    (bert / "model.safetensors").unlink()
    torch.save({"weight": Bomb(tmp_path / "ran")}, bert / name)
    assert mistake_of(bert) == (
        f"model.base: must have its weights in safetensors files, got 'FOLDER', which has only '{name}', a pickle,"
        " which could run code and is not read; save_pretrained of transformers writes them"
    )
    assert not (tmp_path / "ran").exists()


def test_a_pickle_beside_safetensors_is_passed_over(bert: Path, tmp_path: Path) -> None:
    torch.save({"weight": Bomb(tmp_path / "ran")}, bert / "pytorch_model.bin")
    load_base(ModelSpec(base=str(bert)), head_of("no", "yes"))
    assert not (tmp_path / "ran").exists()
    torch.load(bert / "pytorch_model.bin", weights_only=False)
    assert (tmp_path / "ran").exists(), "the pickle would have told"


CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
pathlib.Path({marker!r}).touch()
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
class Config(BertConfig):
    model_type = "own"
class Model(BertForSequenceClassification):
    config_class = Config
class Tokenizer(PreTrainedTokenizerFast):
    pass
"""


@pytest.mark.parametrize("kind", ["config", "model", "tokenizer"])
def test_code_of_a_model_runs_only_where_the_experiment_says_so(bert: Path, tmp_path: Path, kind: str) -> None:
    marker = tmp_path / "ran"
    (bert / "own.py").write_text(CODE.format(marker=str(marker)))
    if kind == "tokenizer":
        edit(bert / "tokenizer_config.json", auto_map={"AutoTokenizer": ["own.Tokenizer", "own.Tokenizer"]},
             tokenizer_class="Own")  # fmt: skip
    elif kind == "config":
        edit(bert / "config.json", model_type="own", auto_map={
            "AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"})  # fmt: skip
    else:
        edit(bert / "config.json", auto_map={"AutoModelForSequenceClassification": "own.Model"})
    refused = ""
    try:
        load_base(ModelSpec(base=str(bert)), head_of("no", "yes"))
    except ModelError as error:
        refused = str(error)
    assert not refused or "model.trust_remote_code: must be true to run the Python code" in refused
    assert not marker.exists()
    load_base(ModelSpec(base=str(bert), trust_remote_code=True), head_of("no", "yes"))
    assert marker.exists(), "the code would have told"


def test_attention_from_the_hub_is_not_fetched(bert: Path) -> None:
    edit(bert / "config.json", attn_implementation="somebody/kernel", _attn_implementation="somebody/kernel")
    assert "somebody/kernel" in mistake_of(bert)


@pytest.mark.parametrize("name", ["../model.gguf", "/model.gguf", "a/b.gguf", ".."])
def test_a_gguf_file_is_one_in_the_folder(bert: Path, name: str) -> None:
    (bert.parent / "model.gguf").touch()
    assert mistake_of(bert, gguf_file=name) == (
        f"model.gguf_file: must be the name of a file in model.base, got '{name}'"
    )


@pytest.mark.parametrize("architectures", [["BertForMultipleChoice"], None])
def test_a_head_of_another_size_is_known_whatever_it_is_called(bert: Path, architectures: list[str] | None) -> None:
    torch.manual_seed(1)
    BertForMultipleChoice(tiny_config("bert")).save_pretrained(bert)
    edit(bert / "config.json", architectures=architectures)
    assert load_base(ModelSpec(base=str(bert)), head_of("no", "yes")).resized
    assert not load_base(ModelSpec(base=str(bert)), head_of("one")).resized
