"""Weights: the written folder, loaded by PEFT as a user would, predicts what our own model predicts."""

import copy
import json
import re

import numpy as np
import pytest
import torch
from export_builders import LABELS, MODELS, VOCABULARY
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lora_search import export_adapter
from lora_search.adapters import from_peft_state, merge_into
from lora_search.data import load_dataset
from lora_search.study.refit import refit


@pytest.fixture(scope="session", params=MODELS)
def exported(request, study_of, tmp_path_factory):
    """(kind, study, folder) of an export with weights."""
    study = study_of(request.param)
    out = tmp_path_factory.mktemp("out") / request.param
    assert export_adapter(study, out, weights=True, progress=False) == out
    return request.param, study, out


def test_the_folder_has_what_it_should_and_nothing_else(exported):
    kind, _, out = exported
    names = {path.name for path in out.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "README.md", "export.json", "tokenizer.json"} <= names
    assert "config.json" not in names  # it would make transformers take the folder for a whole model
    assert set(json.loads((out / "export.json").read_text())["files"]) == names
    assert [path.name for path in out.parent.iterdir()] == [kind]
    assert {path.stat().st_mode for path in out.iterdir()} == {(out / "export.json").stat().st_mode}


def test_peft_predicts_what_our_own_model_predicts(exported):
    _, study, out = exported
    fitted = refit(study)
    everything = np.arange(len(fitted.prepared.data))
    ours = fitted.predict(everything)
    assert ours.shape == (60, 3)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-6)

    tokenizer = AutoTokenizer.from_pretrained(out)
    base = AutoModelForSequenceClassification.from_pretrained(
        study.experiment.model.base,
        num_labels=len(LABELS),
        pad_token_id=tokenizer.pad_token_id,
        ignore_mismatched_sizes=True,
    )
    model = PeftModel.from_pretrained(base, out).eval()
    texts = list(load_dataset(study.experiment.data, study.experiment.seed).texts)
    encoded = tokenizer(texts, truncation=True, max_length=24, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**encoded).logits.softmax(-1).numpy()
        with model.disable_adapter():
            without = model(**encoded).logits.softmax(-1).numpy()
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert np.abs(without - ours).max() > 0.05  # the adapter says something


def test_the_merged_model_predicts_the_same(exported):
    _, study, _ = exported
    fitted = refit(study)
    examples = np.arange(0, 60, 3)
    ours = fitted.predict(examples)
    merged = copy.deepcopy(fitted.prepared.base.model)
    merge_into(merged, fitted.state, fitted.chosen.adapter.scale)
    data = fitted.prepared.data
    with torch.no_grad():
        for example, expected in zip(examples, ours, strict=True):
            got = merged(input_ids=torch.from_numpy(data.input_ids[example])[None]).logits.softmax(-1)[0]
            np.testing.assert_allclose(got.numpy(), expected, atol=1e-4)


def test_the_weights_are_those_of_the_refit_and_it_repeats_bit_for_bit(exported):
    _, study, out = exported
    fitted = refit(study)
    written = from_peft_state(load_file(out / "adapter_model.safetensors"))
    assert written.keys() == fitted.state.keys()
    for name, weight in written.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, fitted.state[name]), name
    counted = sum(weight.numel() for name, weight in written.items() if ".lora_" in name)
    assert counted == fitted.chosen.row["adapter_parameters"]
    assert sum(weight.numel() for weight in written.values()) - counted == fitted.chosen.row["head_parameters"]


def test_what_is_trained_besides_the_adapter_is_exported(exported):
    kind, _, out = exported
    saved = LoraConfig.from_pretrained(out).modules_to_save
    expected = {
        "bert": ["classifier"],
        "bert-with-classifier": ["classifier"],
        "bert-without-pooler": ["pooler", "classifier"],
        "roberta": ["classifier"],
        "gpt2": ["score"],
        "llama": ["score"],
    }
    assert saved == expected[kind]
    names = {name for name in load_file(out / "adapter_model.safetensors") if ".lora_" not in name}
    heads = {
        "bert": {"classifier.weight", "classifier.bias"},
        "bert-with-classifier": {"classifier.weight", "classifier.bias"},
        "bert-without-pooler": {
            "bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias",
        },
        "roberta": {f"classifier.{part}.{kind}" for part in ("dense", "out_proj") for kind in ("weight", "bias")},
        "gpt2": {"score.weight"},
        "llama": {"score.weight"},
    }  # fmt: skip
    assert names == {f"base_model.model.{name}" for name in heads[kind]}


def test_the_lines_of_the_model_card_run_and_name_the_labels(exported, capsys):
    _, _, out = exported
    card = (out / "README.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    namespace = {}
    exec(compile(snippet, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out.strip().splitlines()[-1]
    assert re.fullmatch(r"\['[a-z ]+', '[a-z ]+'\]", printed)
    assert set(eval(printed)) <= set(LABELS)
    config = namespace["model"].config
    assert config.id2label == dict(enumerate(LABELS))
    assert config.label2id == {name: label for label, name in enumerate(LABELS)}
    assert len(namespace["tokenizer"]) == len(VOCABULARY)


def test_transformers_alone_loads_the_folder_too(exported):
    _, study, out = exported
    fitted = refit(study)
    model = AutoModelForSequenceClassification.from_pretrained(out, num_labels=3, ignore_mismatched_sizes=True).eval()
    ids = torch.from_numpy(fitted.prepared.data.input_ids[4])[None]
    with torch.no_grad():
        got = model(input_ids=ids).logits.softmax(-1)[0].numpy()
    np.testing.assert_allclose(got, fitted.predict(np.array([4]))[0], atol=1e-4)
