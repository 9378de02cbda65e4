"""A base in 4 bits: what is quantized and what is left, what is refused in one line. Without bitsandbytes most of it is
left out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_decoder import tokenizer, write_decoder
from tiny_models import head_of, tiny_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from word_tokenizer import SPECIAL, save_tokenizer

from lora_search.errors import InputError, MachineError, ModelError
from lora_search.models import check_device, load_base, load_structure, quantization_note
from lora_search.models.checkpoint import quiet_libraries
from lora_search.models.quantization import Quantization, check_asked_for, is_quantized
from lora_search.spec import ModelSpec
from lora_search.tasks import task_of

LANGUAGE, LABELS = task_of("causal-lm").head(()), head_of("no", "yes")
CPU = torch.device("cpu")


@pytest.fixture
def needs_bitsandbytes() -> Any:
    return pytest.importorskip(
        "bitsandbytes", reason="bitsandbytes is not installed (pip install 'lora-search[quantized]')"
    )


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def saved(folder: Path, family: str, **settings: Any) -> Path:
    tiny_model(family, initializer_range=0.2, **settings).save_pretrained(folder)
    save_tokenizer(folder, SPECIAL)
    return folder


def mistake(folder: Path, head: Any = LABELS, kind: type[InputError] = ModelError, **settings: Any) -> str:
    with pytest.raises(kind) as caught:
        load_base(ModelSpec(base=str(folder), **settings), head)
    (sentence,) = caught.value.mistakes
    return sentence.replace(str(folder), "FOLDER")


def quantized_decoder(tmp_path: Path, skipped: list[str] | None, **settings: Any) -> Path:
    """A language model as others save it in 4 bits."""
    plain, out = write_decoder(tmp_path / "plain", **settings), tmp_path / "quantized"
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=skipped)
    with quiet_libraries():
        AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16).save_pretrained(plain)
        model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, device_map={"": "cpu"})
    model.save_pretrained(out)
    tokenizer().save_pretrained(out)
    return out


@pytest.mark.usefixtures("needs_bitsandbytes")
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert", "gpt2", "qwen3"])
def test_all_of_the_layers_is_quantized_and_nothing_of_the_head(tmp_path: Path, family: str) -> None:
    base = load_base(ModelSpec(base=str(saved(tmp_path, family)), quantization="nf4"), LABELS)
    structure = load_structure(ModelSpec(base=str(tmp_path)), LABELS)
    kept = {name for name, module in base.model.named_modules() if is_quantized(module)}
    assert kept == {module.name for module in structure.linear_modules}
    assert base.structure.head_modules == structure.head_modules
    assert base.structure.layer_parameters == structure.layer_parameters
    assert base.quantization is not None
    note = quantization_note(base.quantization, base.model, base.structure.stacks)
    assert note == "the base is in 4 bits (nf4, double quantization)"
    base.model.save_pretrained(tmp_path / "again")  # what others load without us
    config = json.loads((tmp_path / "again" / "config.json").read_text())["quantization_config"]
    assert (config["load_in_4bit"], config["bnb_4bit_quant_type"], config["bnb_4bit_use_double_quant"]) == (
        True, "nf4", True,
    )  # fmt: skip


@pytest.mark.usefixtures("needs_bitsandbytes")
def test_a_fingerprint_is_that_of_the_codes(tmp_path: Path) -> None:
    folder = saved(tmp_path / "bert", "bert")

    def fingerprint(kind: str | None, head: Any = LABELS) -> str:
        return load_base(ModelSpec(base=str(folder), quantization=kind), head).fingerprint

    found = {kind: fingerprint(kind) for kind in (None, "nf4", "fp4")}
    assert len(set(found.values())) == 3
    assert fingerprint("nf4", head_of("a", "b", "c")) == found["nf4"]
    torch.manual_seed(5)
    other = tiny_model("bert", initializer_range=0.2)
    with torch.no_grad():
        other.bert.encoder.layer[0].output.dense.weight[0, 0] += 3.0
    other.save_pretrained(folder)
    assert fingerprint("nf4") != found["nf4"]


@pytest.mark.usefixtures("needs_bitsandbytes")
@pytest.mark.parametrize("skipped", [None, ["lm_head"]])
def test_a_model_that_comes_quantized(tmp_path: Path, skipped: list[str] | None) -> None:
    folder = quantized_decoder(tmp_path, skipped, tie_word_embeddings=False)
    base = load_base(ModelSpec(base=str(folder)), LANGUAGE)
    assert base.quantization == Quantization("nf4", double=False, brought=True)
    assert base.structure.head_modules == ()
    assert load_structure(ModelSpec(base=str(folder)), LANGUAGE).linear_modules == base.structure.linear_modules
    fresh = load_base(ModelSpec(base=str(tmp_path / "plain"), quantization="nf4"), LANGUAGE)
    for name, module in fresh.model.named_modules():
        if is_quantized(module):
            assert torch.equal(module.weight, base.model.get_submodule(name).weight), name

    classifier = load_base(ModelSpec(base=str(folder)), LABELS)
    assert classifier.structure.head_modules == ("score",)
    assert not is_quantized(classifier.model.score)
    assert {each.dtype for each in classifier.model.parameters()} == {torch.float32, torch.uint8}
    assert {each.dtype for each in base.model.parameters()} == {torch.bfloat16, torch.uint8}
    assert classifier.quantization is not None
    assert classifier.quantization.skipped == (*(skipped or ()), "score")
    assert mistake(folder, LANGUAGE, quantization="nf4") == (
        "model.quantization: must be left out for a base that comes quantized (nf4), got 'nf4' for 'FOLDER'"
    )


@pytest.mark.usefixtures("needs_bitsandbytes")
def test_what_bitsandbytes_leaves_out_is_told(tmp_path: Path) -> None:
    sizes = {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, **heads}
    folder = saved(tmp_path / "moe", "qwen2_moe", **sizes, **small)
    base = load_base(ModelSpec(base=str(folder), quantization="nf4"), LABELS)
    assert base.quantization is not None
    note = quantization_note(base.quantization, base.model, base.structure.stacks)
    assert "of its layers' weights, which bitsandbytes leaves out: mlp.gate, mlp.experts.gate_up_proj" in note
    folder = saved(tmp_path / "falcon", "falcon", hidden_size=32, num_hidden_layers=2, num_attention_heads=4)
    assert mistake(folder, quantization="nf4") == (
        "model.quantization: must be left out for FalconForSequenceClassification, of whose layers bitsandbytes"
        " quantizes no module, got 'nf4'"
    )


@pytest.mark.usefixtures("needs_bitsandbytes")
def test_a_device_that_cannot_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from bitsandbytes import functional

    check_device(Quantization("nf4"), CPU)

    def without_kernels(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Configured CUDA binary not found\nat libbitsandbytes_cuda999.so")

    monkeypatch.setattr(functional, "quantize_4bit", without_kernels)
    with pytest.raises(MachineError) as caught:
        check_device(Quantization("nf4"), CPU)
    assert caught.value.mistakes == (
        "model.quantization: needs a bitsandbytes that computes on this device (cpu), got nf4: Configured CUDA binary"
        " not found at libbitsandbytes_cuda999.so",
    )


@pytest.mark.parametrize("brought", [True, False])
def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brought: bool) -> None:
    folder = saved(tmp_path, "bert")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    if brought:
        said = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        edit(folder / "config.json", quantization_config=said)
        found, got = mistake(folder, kind=MachineError), "'FOLDER', which is quantized by it"
    else:
        found, got = mistake(folder, kind=MachineError, quantization="nf4"), "'nf4'"
    key = "base" if brought else "quantization"
    assert found == (
        f"model.{key}: needs bitsandbytes, which is not installed, got {got}; pip install 'lora-search[quantized]'"
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"load_in_8bit": True}, " to 8 bits, where an adapter's numbers depend on its company"),
        (
            {"load_in_4bit": True, "bnb_4bit_quant_storage": "bfloat16"},
            ", its codes stored as bfloat16 and not as uint8",
        ),
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf3"}, ""),
    ],
)
def test_other_ways_of_bitsandbytes(tmp_path: Path, said: dict[str, object], why: str) -> None:
    folder = saved(tmp_path, "bert")
    edit(folder / "config.json", quantization_config={"quant_method": "bitsandbytes", **said})
    assert mistake(folder) == (
        "model.base: must have its weights as floating-point numbers, in 4 bits of bitsandbytes or in a GGUF file, got"
        f" 'FOLDER', quantized with bitsandbytes{why}; name the model it was made from"
    )


def test_a_gguf_file_is_quantized_already() -> None:
    spec = ModelSpec(base="folder", gguf_file="x.gguf", quantization="fp4")
    with pytest.raises(ModelError, match=r"^model.quantization: must be left out for a base that is a GGUF file, got"):
        check_asked_for(spec, None, "x.gguf")
