"""Loading a language model: its own head, frozen; no token for padding; in the precision of its checkpoint."""

import pytest
import torch
from tiny_decoder import write_decoder
from tiny_models import KNOWN, head_of, tiny_config
from transformers import AutoModelForCausalLM, AutoTokenizer

from lora_search.models.base import load_base, load_structure, structure_from_config
from lora_search.models.peft_targets import peft_targets
from lora_search.models.targets import resolve_targets
from lora_search.spec import ModelSpec
from lora_search.tasks import task_of
from lora_search.training.precision import in_precision

HEAD = task_of("causal-lm").head(())
CPU = torch.device("cpu")


@pytest.mark.parametrize("tied", [True, False])
def test_nothing_is_trained_whole_and_padding_is_no_token(tmp_path, tied):
    folder = write_decoder(tmp_path / "model", tie_word_embeddings=tied)
    base = load_base(ModelSpec(base=str(folder)), HEAD)
    structure = base.structure
    assert (structure.head_modules, structure.modules_to_save, structure.head_parameters) == ((), (), 0)
    assert structure == load_structure(ModelSpec(base=str(folder)), HEAD)
    assert base.label_names == ()
    assert base.tokenizer.pad_token is None
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())
    whole = AutoModelForCausalLM.from_pretrained(folder)
    for name, parameter in base.model.named_parameters():
        torch.testing.assert_close(parameter, whole.get_parameter(name), rtol=0, atol=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_tokenizer_is_written_with_the_side_it_pads_on(tmp_path, side):
    """On the left where a batch of texts is gone on with; in training all pad on the right."""
    folder = write_decoder(tmp_path / "model")
    AutoTokenizer.from_pretrained(folder, padding_side=side).save_pretrained(folder)
    base = load_base(ModelSpec(base=str(folder)), HEAD)
    assert base.tokenizer.padding_side == "right"
    base.save_tokenizer(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").padding_side == side
    assert base.tokenizer.padding_side == "right"
    classifier = load_base(ModelSpec(base=str(folder)), head_of("no", "yes"))
    classifier.save_tokenizer(tmp_path / "classifier")
    assert AutoTokenizer.from_pretrained(tmp_path / "classifier").padding_side == "right"


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2", "qwen3", "opt", "gpt_neo"])
def test_what_is_adapted_is_in_the_layers_and_never_the_head(family):
    structure = structure_from_config(tiny_config(family), HEAD)
    assert structure.stack_name == KNOWN[family].stack
    everything = resolve_targets(structure, "all-linear", "all")
    assert {module.leaf for module in everything} == {*KNOWN[family].attention, *KNOWN[family].mlp}
    targets = peft_targets(structure, everything)
    assert targets.modules_to_save == ()
    assert not any("lm_head".endswith(name) for name in targets.target_modules)


def test_a_base_kept_in_bf16_is_never_copied_to_float32_to_run_in_bf16(tmp_path):
    folder = write_decoder(tmp_path / "model")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(folder)
    base = load_base(ModelSpec(base=str(folder)), HEAD)
    assert {parameter.dtype for parameter in base.model.parameters()} == {torch.bfloat16}
    ids = torch.arange(3, 13)[None]
    plain = in_precision(base.model, torch.float32, CPU)
    expected = plain(input_ids=ids).logits
    assert {parameter.dtype for parameter in plain.parameters()} == {torch.float32}
    assert in_precision(base.model, torch.bfloat16, CPU) is base.model
    logits = base.model(input_ids=ids).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1 * float(expected.abs().max()))
    again = load_base(ModelSpec(base=str(folder)), HEAD)
    assert again.fingerprint == base.fingerprint
