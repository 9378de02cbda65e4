"""The model card: what it claims is what the study recorded."""

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml
from export_builders import run_tiny_study, save_base

from lora_search import export_adapter
from lora_search.export.card import evidence_rows
from lora_search.statistics.baselines import head_alone
from lora_search.study.refit import refit


def parts(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.fixture(scope="module")
def card(study_of, tmp_path_factory):
    out = tmp_path_factory.mktemp("card") / "out"
    return (export_adapter(study_of("bert"), out, weights=True, progress=False) / "README.md").read_text("utf-8")


def test_the_front_matter_is_the_hubs(card, study_of):
    front, _ = parts(card)
    assert front == {
        "library_name": "peft",
        "base_model": study_of("bert").experiment.model.base,
        "pipeline_tag": "text-classification",
        "tags": ["lora", "lora-search"],
    }


def test_the_evidence_is_the_studys(card, study_of):
    study = study_of("bert")
    verdict = study.verdict()
    recommended = study.trials.iloc[verdict["recommended"]["trial"]]
    assert verdict["sentence"] in card
    assert f"| {recommended.score_mean:.4f} |" in card
    assert f"| {recommended.adapter_parameters:,} | {recommended.head_parameters:,} |" in card
    assert study.facts["data fingerprint"] in card
    assert study.facts["model fingerprint"] in card
    assert "2-fold cross-validation, 48 examples" in card
    alone = [cell.scores["accuracy"] for cell in head_alone(study)]
    assert f"The task head alone, with no adapter, scores {np.mean(alone):.4f}." in card
    assert all(f"> **Note.** {warning}\n" in card for warning in verdict["warnings"])
    assert "`classifier`, 99 parameters" in card
    assert "peft 0." in card
    assert "*apple pie*, *banana* and *cherry*" in card


def test_the_hold_out_is_kept_until_the_verdict_is_decided(study_of, card, tmp_path):
    study = study_of("bert")
    assert study.verdict()["status"] == "undecided"
    assert "\n- The hold-out of 12 examples is kept until the verdict is decided: no training and" in card
    trial = study.verdict()["recommended"]["trial"]
    score = refit(study).result.scores["accuracy"]
    decided = replace(study, recorded_verdict={**study.verdict(), "status": "decided", "holdout_score": score})
    for exported, told in ((trial, True), (1 - trial, False)):
        out = export_adapter(decided, tmp_path / str(exported), trial=exported, weights=True, progress=False)
        said = (out / "README.md").read_text("utf-8")
        assert (
            f"- On the hold-out of 12 examples, which no training and no choice has seen, this adapter scores"
            f" {score:.4f}.\n" in said
        ) == told
        assert "is kept until" not in said


def test_every_line_of_a_table_has_the_columns_of_its_head(card):
    widths = [line.count("|") for line in card.splitlines() if line.startswith("|")]
    assert len(set(widths)) == 2  # the evidence, and what was trained


def test_the_rows_are_the_recommended_the_best_the_guess_and_the_exported(study_of):
    study = study_of("bert")
    trials = study.trials.assign(origin=["guess", "sampler"])
    study = replace(study, trials=trials)

    def roles(recommended, best, exported):
        verdict = {"recommended": {"trial": recommended}, "best": {"trial": best}}
        return {row.trial: row.roles for row in evidence_rows(study, verdict, exported)}

    assert roles(1, 0, 1) == {1: "recommended", 0: "best, usual guess"}
    assert roles(1, 1, 0) == {1: "recommended, best", 0: "usual guess, exported"}
    assert roles(0, 0, 0) == {0: "recommended, best, usual guess, exported"}
    verdict = {"recommended": None, "best": None}
    assert [row.roles for row in evidence_rows(study, verdict, 1)] == ["usual guess", "exported"]


def test_scores_and_intervals_are_those_of_the_verdict(study_of):
    study = study_of("bert")
    verdict = study.verdict()
    rows = {row.roles: row for row in evidence_rows(study, verdict, verdict["recommended"]["trial"])}
    for role in ("recommended", "best"):
        told, (row,) = verdict[role], [row for roles, row in rows.items() if role in roles]
        low, high = told["score_interval"]
        assert row.score == f"{told['score_mean']:.4f}"
        assert row.interval == ("-" if low is None else f"{low:.4f} to {high:.4f}")


def test_another_trial_than_the_recommended_says_so(study_of, tmp_path):
    study = study_of("bert")
    recommended = study.verdict()["recommended"]["trial"]
    out = export_adapter(study, tmp_path / "out", trial=1 - recommended, weights=True, progress=False)
    card = (out / "README.md").read_text("utf-8")
    assert f"Trial {1 - recommended} was asked for; the study recommends trial {recommended}." in card


def test_without_a_hold_out_nothing_is_said_of_one(tmp_path, data_file):
    base = save_base(tmp_path / "base", "bert")
    study = run_tiny_study(tmp_path / "results", base, data_file, holdout=0.0)
    out = export_adapter(study, tmp_path / "out", weights=True, recipe="trl", progress=False)
    card = (out / "README.md").read_text("utf-8")
    assert "hold-out" not in card
    assert "| examples | 60: all |" in card
    assert not (out / "recipe" / "holdout.jsonl").exists()
    compile((out / "recipe" / "train.py").read_text(), "train.py", "exec")
    assert json.loads((out / "export.json").read_text())["weights"] is True
