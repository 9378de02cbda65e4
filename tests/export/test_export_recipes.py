"""Recipes: read by what reads them, and the Python one is run."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml
from export_builders import LABELS, run_tiny_study, save_base, save_data
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from lora_search import export_adapter
from lora_search.data import load_dataset
from lora_search.errors import InputError
from lora_search.export.rendering import yaml_value
from lora_search.study import prepare


@pytest.fixture(scope="module")
def recipe_of(study_of, tmp_path_factory):
    def recipe(kind, trainer):
        out = tmp_path_factory.mktemp("recipes") / "out"
        return export_adapter(study_of(kind), out, recipe=trainer, progress=False) / "recipe"

    return recipe


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


def test_the_training_examples_are_the_studys_and_the_hold_out_is_apart(recipe_of, study_of):
    folder, experiment = recipe_of("bert", "trl"), study_of("bert").experiment
    dataset, splits = load_dataset(experiment.data, experiment.seed), prepare(experiment).splits
    for name, examples in (("train.jsonl", splits.development), ("holdout.jsonl", splits.holdout)):
        expected = [{"text": dataset.texts[i], "label": LABELS[dataset.labels[i]]} for i in examples]
        assert rows(folder / name) == expected
    assert len(rows(folder / "train.jsonl")) == 48


def test_the_trl_script_trains_the_same_adapter(study_of, tmp_path):
    study = study_of("bert-without-pooler")
    out = export_adapter(study, tmp_path / "out", recipe="trl", weights=True, progress=False)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", out / "recipe" / "train.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hold-out accuracy: 0." in done.stdout or "hold-out accuracy: 1." in done.stdout
    theirs = load_file(out / "recipe" / "adapter" / "adapter_model.safetensors")
    ours = load_file(out / "adapter_model.safetensors")
    assert {name: weight.shape for name, weight in theirs.items()} == {n: w.shape for n, w in ours.items()}
    first, second = LoraConfig.from_pretrained(out / "recipe" / "adapter"), LoraConfig.from_pretrained(out)
    for key in ("r", "lora_alpha", "use_rslora", "lora_dropout", "layers_to_transform", "fan_in_fan_out", "task_type"):
        assert getattr(first, key) == getattr(second, key)
    base = AutoModelForSequenceClassification.from_pretrained(study.experiment.model.base, num_labels=3)
    assert PeftModel.from_pretrained(base, out / "recipe" / "adapter") is not None


def test_text_pairs_and_the_other_metrics(tmp_path):
    base, data = save_base(tmp_path / "base", "bert"), save_data(tmp_path / "pairs.csv", pairs=True)
    study = run_tiny_study(tmp_path / "results", base, data, text_pair="second")
    f1 = study.experiment.model_copy(
        update={"verdict": study.experiment.verdict.model_copy(update={"metric": "macro_f1"})}
    )
    out = export_adapter(replace(study, experiment=f1), tmp_path / "out", weights=True, recipe="trl", progress=False)
    assert rows(out / "recipe" / "train.jsonl")[0].keys() == {"text", "text_pair", "label"}
    script = (out / "recipe" / "train.py").read_text()
    assert 'tokenizer(row["text"], row["text_pair"], **encode)' in script
    assert 'f1_score(predicted.label_ids, predicted.predictions.argmax(-1), average="macro")' in script
    compile(script, "train.py", "exec")
    assert 'tokenizer(["one text"], ["its pair"], truncation=True' in (out / "README.md").read_text()
    out = export_adapter(study, tmp_path / "sft", recipe="axolotl", progress=False)
    first = rows(out / "recipe" / "train.jsonl")[0]
    assert first["prompt"].count("\n") >= 2
    assert first["prompt"].endswith("\nLabel: ")


def test_axolotl_reads_the_adapter_of_a_decoder(recipe_of, study_of):
    folder, study = recipe_of("gpt2", "axolotl"), study_of("gpt2")
    text = (folder / "axolotl.yaml").read_text()
    config = yaml.safe_load(text)
    recommended = study.trials.iloc[study.verdict()["recommended"]["trial"]]
    assert config["base_model"] == study.experiment.model.base
    assert (config["adapter"], config["lora_r"], config["lora_alpha"]) == (
        "lora", recommended["rank"], int(recommended["alpha"]),
    )  # fmt: skip
    assert config["lora_target_modules"] == ["c_attn"]
    assert config["peft_layers_to_transform"] == [1, 2]
    assert config["lora_fan_in_fan_out"] is True
    assert config["special_tokens"] == {"pad_token": "[SEP]"}
    assert (config["learning_rate"], config["num_epochs"], config["micro_batch_size"]) == (0.02, 1, 8)
    assert config["warmup_steps"] == 1  # 48 examples in 6 steps, a tenth of them
    assert "CANNOT BE TRAINED" not in text
    (data,) = config["datasets"]
    first = rows(folder / data["path"])[0]
    assert first[data["type"]["field_instruction"]].endswith("\nLabel: ")
    assert first[data["type"]["field_output"]] in LABELS


def test_llamafactory_names_the_modules_in_full(recipe_of, study_of):
    folder = recipe_of("gpt2", "llamafactory")
    config = yaml.safe_load((folder / "llamafactory.yaml").read_text())
    assert config["lora_target"] == "transformer.h.1.attn.c_attn,transformer.h.2.attn.c_attn"
    assert (config["stage"], config["finetuning_type"], config["use_rslora"]) == ("sft", "lora", False)
    information = json.loads((folder / config["dataset_dir"] / "dataset_info.json").read_text())[config["dataset"]]
    first = rows(folder / information["file_name"])[0]
    assert set(information["columns"].values()) == set(first)


@pytest.mark.parametrize("trainer", ["axolotl", "llamafactory"])
def test_what_a_trainer_cannot_do_with_an_encoder_is_said(study_of, tmp_path, capfd, trainer):
    out = export_adapter(study_of("roberta"), tmp_path / "out", recipe=trainer)
    obstacle = f"{trainer} trains models that generate text, and RobertaForSequenceClassification is an encoder"
    note = f"recipe/{trainer}.yaml has the settings and cannot be run on this base: {obstacle}."
    assert note in capfd.readouterr().err
    text = (out / "recipe" / f"{trainer}.yaml").read_text()
    assert f"# THIS BASE CANNOT BE TRAINED SO: {obstacle}.\n" in text
    assert isinstance(yaml.safe_load(text), dict)


def test_an_unknown_recipe(study_of, tmp_path):
    with pytest.raises(
        InputError, match=r"^recipe: must be trl, axolotl or llamafactory, got 'axolot', did you mean axolotl\?$"
    ):
        export_adapter(study_of("bert"), tmp_path / "out", recipe="axolot")
    with pytest.raises(InputError, match=r"got 'keras'$"):
        export_adapter(study_of("bert"), tmp_path / "out", recipe="keras")
    assert list(tmp_path.iterdir()) == []


def test_a_broken_alpha_fits_trl_alone(study_of, tmp_path):
    assert export_adapter(study_of("llama"), tmp_path / "out", recipe="trl", progress=False)
    with pytest.raises(InputError, match=r"must be trl for an adapter whose alpha is no whole number, got axolotl"):
        export_adapter(study_of("llama"), tmp_path / "other", recipe="axolotl")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "value", [1e-5, -3e-7, 1.5e-5, 2e20, 0.1, 3, "1e-05", "yes", 'a "b": #c', None, True, ["x", 1]]
)
def test_yaml_gives_the_value_back(value):
    got = yaml.safe_load(f"key: {yaml_value(value)}")["key"]
    assert got == value
    assert type(got) is type(value)


def test_numbers_of_numpy_are_no_surprise(recipe_of):
    assert "np." not in (recipe_of("bert", "trl") / "train.py").read_text()
    assert np.isfinite(yaml.safe_load((recipe_of("gpt2", "axolotl") / "axolotl.yaml").read_text())["lora_dropout"])


def test_a_classifier_of_another_size_is_replaced_by_the_script_too(recipe_of):
    for kind, resized in (("bert", False), ("bert-with-classifier", True)):
        script = (recipe_of(kind, "trl") / "train.py").read_text()
        compile(script, "train.py", "exec")
        assert ('dtype="float32", ignore_mismatched_sizes=True, **FILES)' in script) == resized
