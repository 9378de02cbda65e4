"""Ranks that differ by module, from the experiment file to PEFT and other trainers."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import yaml
from peft import LoraConfig, get_peft_model
from tiny_world import assert_same_study
from transformers import AutoModelForSequenceClassification

from lora_search import Experiment, export_adapter, plan_study, run_study, write_report
from lora_search.errors import InputError
from lora_search.export.recipes import check_recipe
from lora_search.spec import facts
from lora_search.statistics.wording import adapter_name
from lora_search.store.reader import read_study
from lora_search.store.status import study_status
from lora_search.study import explained, prepare
from lora_search.study.executors.worker import Worker
from lora_search.study.refit import chosen_trial, prepared_again
from lora_search.training import Engine

SEARCH = {
    "rank": [1, 2], "alpha_over_rank": [2], "targets": ["all-linear"], "layers": ["all"],
    "rank_pattern": ["uniform", "mlp:0.5", "eva"], "learning_rate": 0.02, "trials": 99,
}  # fmt: skip


def experiment_of(world) -> Experiment:
    return world.experiment(search=SEARCH, training={"epochs": 1})


@pytest.fixture(scope="module")
def study(world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(experiment_of(world), tmp_path_factory.mktemp("ranks"), progress=False).folder


def trial_of(study: Path, pattern: str, rank: int = 2) -> int:
    trials = read_study(study).trials
    (number,) = trials.loc[(trials["rank_pattern"] == pattern) & (trials["rank"] == rank), "trial"]
    return int(number)


def test_every_adapter_is_tried_once_and_told_apart(study: Path) -> None:
    tables = read_study(study)
    tried = sorted(zip(tables.trials["rank"], tables.trials["rank_pattern"], strict=True))
    # half of rank 1 is rank 1, and what EVA makes of rank 1 here is that too
    assert tried == [(1, "uniform"), (2, "eva"), (2, "mlp:0.5"), (2, "uniform")]
    assert set(tables.trials["state"]) == {"complete"}
    assert (study_status(tables).trials_wanted, study_status(tables).cells_wanted) == (4, 8)
    names = {adapter_name(row) for row in tables.trials.to_dict("records") if row["rank"] == 2}
    assert names == {f"rank 2{ranks} on all-linear of all layers" for ranks in ("", " (mlp x 0.5)", " (by EVA)")}
    counted = tables.trials.set_index(["rank", "rank_pattern"])["adapter_parameters"]
    # in each of 3 layers four modules of 32 + 32 in attention, and two of 32 + 64 in the MLP
    assert counted[2, "uniform"] == 3 * 2 * (4 * 64 + 2 * 96)
    assert counted[2, "mlp:0.5"] == 3 * (2 * 4 * 64 + 2 * 96)
    written = pd.read_csv(study / "trials.csv")
    assert written["rank_pattern"].tolist() == tables.trials["rank_pattern"].tolist()


def test_a_study_goes_on_with_the_ranks_it_had(
    study: Path, world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured_again(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(explained, "explained_variance", measured_again)
    shutil.copytree(study, tmp_path / study.name)
    again = run_study(experiment_of(world), tmp_path, progress=False).folder
    assert_same_study(again, study)
    # as a worker elsewhere finds them, and whoever refits
    worker = Worker(prepare(experiment_of(world)), Engine)
    kept = read_study(study).facts
    worker.begin(kept)
    assert worker.prepared.explained == facts.EXPLAINED.of(kept) is not None


@pytest.mark.parametrize("pattern", ["mlp:0.5", "eva"])
def test_what_is_exported_has_pefts_patterns(study: Path, tmp_path: Path, pattern: str) -> None:
    number, tables = trial_of(study, pattern), read_study(study)
    # loaded through PEFT in there, and refused if it predicted anything else
    out = export_adapter(study, tmp_path / "out", trial=number, weights=True, recipe="trl", progress=False)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["r"] == 2
    assert config["alpha_pattern"] == {key: 2 * rank for key, rank in config["rank_pattern"].items()}
    base = AutoModelForSequenceClassification.from_pretrained(config["base_model_name_or_path"], num_labels=2)
    theirs = get_peft_model(base, LoraConfig(**{**config, "inference_mode": False}))
    trainable, whole = theirs.get_nb_trainable_parameters()
    row = tables.trials.set_index("trial").loc[number]
    assert trainable == row["adapter_parameters"] + row["head_parameters"] < whole
    ranks = prepared_again(tables).ranks_of(chosen_trial(tables, number).adapter)
    assert (sum(ranks.values()) == 2 * 18) == (pattern == "eva")
    assert "| ranks by module | attention.self.query " in (out / "README.md").read_text()
    script = (out / "recipe" / "train.py").read_text()
    compile(script, "train.py", "exec")
    assert f"    rank_pattern={config['rank_pattern']!r},\n    alpha_pattern={config['alpha_pattern']!r},\n" in script


def test_other_trainers_are_told_or_say_that_they_cannot(study: Path, tmp_path: Path) -> None:
    number, tables = trial_of(study, "mlp:0.5"), read_study(study)
    out = export_adapter(study, tmp_path / "out", trial=number, recipe="axolotl", progress=False)
    config = json.loads((out / "adapter_config.json").read_text())
    settings = yaml.safe_load((out / "recipe" / "axolotl.yaml").read_text())
    assert settings["lora_rank_pattern"] == config["rank_pattern"]
    assert settings["lora_alpha_pattern"] == config["alpha_pattern"]
    chosen = chosen_trial(tables, number)
    with pytest.raises(InputError, match="must be trl or axolotl for an adapter whose ranks differ by module"):
        check_recipe("llamafactory", chosen)
    odd = replace(chosen, adapter=chosen.adapter.model_copy(update={"alpha": 3.0}))
    with pytest.raises(InputError, match="must be trl for an adapter whose alpha is no whole number"):
        check_recipe("axolotl", odd)


def test_the_report_and_the_plan_tell_of_them(study: Path, world, plain_reports: None) -> None:
    page = write_report(study).read_text(encoding="utf-8")
    assert "EVA spreads the ranks of all of them anew" in page
    assert "rank_pattern" in page
    plan = plan_study(world.experiment(search={**SEARCH, "learning_rate": "auto", "trials": 24}))
    assert plan.adapters == 4
    (told,) = [line for line in plan.lines() if line.startswith("by EVA, rank 2 on all-linear of all layers becomes")]
    assert told.count(" to ") + told.count(",") > 5
