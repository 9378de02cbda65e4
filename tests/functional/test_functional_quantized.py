"""QLoRA from the experiment file to PEFT: studies over bases in 4 bits, of texts and of a language model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from tiny_decoder import conversations, tokenizer, write_decoder, write_rows
from tiny_world import changed, settings
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig

from lora_search import Experiment, export_adapter, plan_study, run_study
from lora_search.errors import InputError
from lora_search.models.checkpoint import quiet_libraries
from lora_search.spec import facts
from lora_search.store.reader import read_study
from lora_search.study import prepare
from lora_search.study.executors.identity import identity_of

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (pip install 'lora-search[quantized]')")

FOUR_BITS = {"quantization": "nf4"}
BASELINES = ["majority", "head", "hidden-state", "bitfit"]
SEARCH = {"trials": 2, "layers": ["all"], "targets": ["all-linear"], "use_dora": [False, True], "rank": [2]}


def experiment_of(world: Any, **tables: Any) -> Experiment:
    usual = {"model": {"base": str(world.model), **FOUR_BITS}, "search": {**SEARCH, "alpha_over_rank": [1]}}
    return world.experiment(**{**usual, "baselines": {"include": BASELINES}, **tables})


@pytest.fixture(scope="module")
def study(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rates = {name: [1e-2] for name in ("head", "hidden-state", "bitfit")}
    experiment = experiment_of(world, baselines={"include": BASELINES, "learning_rate": rates}, data={"holdout": 0.2})
    return run_study(experiment, tmp_path_factory.mktemp("quantized"), progress=False).folder


def executed(out: Path) -> dict[str, Any]:
    """The names that the model card's lines leave."""
    (snippet,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    with quiet_libraries():
        exec(compile(snippet, "README.md", "exec"), namespace)
    return namespace


def kinds(model: Any) -> set[str]:
    return {type(module).__name__ for module in model.modules() if hasattr(module, "lora_A")}


def test_a_study_trains_adapters_and_baselines_over_codes(study: Path, world: Any) -> None:
    tables = read_study(study)
    assert set(tables.cells["state"]) == {"complete"}
    assert set(tables.baselines["baseline"]) == set(BASELINES)
    assert set(tables.baselines["state"]) == {"complete"}
    # of three layers, true shapes: query, key, value and output (32 -> 32), up (32 -> 64) and down (64 -> 32)
    counted = dict(zip(tables.trials["use_dora"], tables.trials["adapter_parameters"], strict=True))
    plain = 3 * 2 * (4 * 64 + 96 + 96)
    assert counted == {False: plain, True: plain + 3 * (4 * 32 + 64 + 32)}
    assert tables.environment["model"]["quantization"] == "nf4"
    assert "bitsandbytes" in tables.environment["versions"]
    other = run_study(
        world.experiment(search={**SEARCH, "trials": 1, "use_dora": False}), study.parent / "plain", progress=False
    )
    assert facts.MODEL_FINGERPRINT.of(other.facts) != facts.MODEL_FINGERPRINT.of(tables.facts)


def test_a_study_does_not_go_on_over_another_base(study: Path, world: Any) -> None:
    for kind, shown in (("fp4", '"fp4"'), (None, "nothing")):
        other = read_study(study).experiment.model_copy(
            update={"model": read_study(study).experiment.model.model_copy(update={"quantization": kind})}
        )
        with pytest.raises(InputError) as caught:
            run_study(other, study.parent, progress=False)
        assert any(
            f'model.quantization: the study has "nf4", the experiment says {shown}' in line
            for line in caught.value.mistakes
        )


def test_what_is_exported_is_qlora(study: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    # loaded through PEFT in there, over the base in 4 bits, and refused if it predicted anything else
    out = export_adapter(study, tmp_path / "out", weights=True, recipe="trl", progress=False)
    config = json.loads((out / "adapter_config.json").read_text())
    assert not any("quant" in key for key in config)
    assert config["modules_to_save"] == ["classifier"]
    found = executed(out)
    assert kinds(found["model"]) == {"Linear4bit"}
    assert type(found["model"].base_model.model.bert.pooler.dense).__name__ == "Linear"
    assert re.fullmatch(r"\['[a-z]+', '[a-z]+'\]", capsys.readouterr().out.strip().splitlines()[-1])
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "| base | in 4 bits: nf4, double quantization |" in card
    assert "over this base in 4 bits (QLoRA)" in card
    script = (out / "recipe" / "train.py").read_text()
    assert "quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4'" in script
    done = subprocess.run(
        [sys.executable, "-W", "ignore", out / "recipe" / "train.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "hold-out accuracy: " in done.stdout


def test_what_a_plan_tells(world: Any) -> None:
    lines = plan_study(experiment_of(world, baselines={"include": ["majority"]})).lines()
    assert "the base is in 4 bits (nf4, double quantization)" in lines
    assert any(line.startswith("machine: ") and "base in nf4, computed in fp32" in line for line in lines)


def test_a_worker_needs_the_package_where_it_computes_with_it(world: Any) -> None:
    assert "bitsandbytes" in identity_of(prepare(experiment_of(world))).packages
    assert "bitsandbytes" not in identity_of(prepare(world.experiment())).packages


def test_full_fine_tuning_is_refused(world: Any) -> None:
    with pytest.raises(InputError) as caught:
        plan_study(experiment_of(world, baselines={"include": ["head", "full"]}))
    assert caught.value.mistakes == (
        "baselines.include[1]: must be left out for a base in 4 bits (nf4), whose weights are codes that no gradient"
        ' moves, got "full"',
    )


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder as others publish it in 4 bits, its head left out by name."""
    folder = tmp_path_factory.mktemp("decoders")
    plain = write_decoder(folder / "plain", tie_word_embeddings=False)
    AutoModelForCausalLM.from_pretrained(plain, dtype=torch.bfloat16).save_pretrained(plain)
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=["lm_head"])
    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(plain, quantization_config=config, device_map={"": "cpu"})
        model.save_pretrained(folder / "quantized")
    tokenizer().save_pretrained(folder / "quantized")
    return folder / "quantized"


@pytest.mark.parametrize("brought", [True, False])
def test_a_language_model(quantized: Path, tmp_path: Path, brought: bool) -> None:
    data = write_rows(tmp_path / "chats.jsonl", conversations())
    model = {"base": str(quantized)} if brought else {"base": str(quantized.parent / "plain"), "quantization": "fp4"}
    values = settings(
        model["base"], data, model={**model, "task": "causal-lm"}, data={"max_length": 32},
        search={"trials": 1, "layers": ["all"]}, verdict={"metric": "completion_loss", "margin": 0.1},
    )  # fmt: skip
    study = run_study(Experiment.model_validate(values), tmp_path / "results", progress=False)
    out = export_adapter(study, tmp_path / "out", weights=True, progress=False)
    found = executed(out)
    assert kinds(found["model"]) == {"Linear4bit"}
    weight = next(m for m in found["model"].modules() if type(m).__name__ == "Linear4bit" and hasattr(m, "quant_state"))
    assert weight.weight.quant_state.quant_type == ("nf4" if brought else "fp4")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert ("BitsAndBytesConfig" in card) == (not brought)
    assert ("double quantization" in card) == (not brought)


def test_a_classifier_over_a_language_model_that_came_quantized(quantized: Path, world: Any, tmp_path: Path) -> None:
    values = changed(
        world.settings(),
        {"model": {"base": str(quantized)}, "search": {"trials": 1, "layers": ["all"], "rank": [2]}},
    )
    study = run_study(Experiment.model_validate(values), tmp_path / "results", progress=False)
    for recipe in ("trl", "axolotl", "llamafactory"):
        out = export_adapter(study, tmp_path / recipe, weights=recipe == "trl", recipe=recipe, progress=False)
        if recipe == "trl":
            assert isinstance(executed(out)["model"], PeftModel)
            script = (out / "recipe" / "train.py").read_text()
            compile(script, "train.py", "exec")
            assert "torch.nn.Module.float(base)" in script
            assert "config.quantization_config[\"llm_int8_skip_modules\"] = ['lm_head', 'score']" in script
            with quiet_libraries():
                plain = AutoModelForSequenceClassification.from_pretrained(quantized.parent / "plain", num_labels=2)
            assert type(plain.score) is type(executed(out)["base"].score.original_module)
        elif recipe == "axolotl":
            config = yaml.safe_load((out / "recipe" / "axolotl.yaml").read_text())
            assert (config["adapter"], config["load_in_4bit"]) == ("qlora", True)
            assert config["bnb_config_kwargs"] == {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False}
        else:
            config = yaml.safe_load((out / "recipe" / "llamafactory.yaml").read_text())
            assert "quantization_bit" not in config  # it says so itself
