"""What is no adapter, in the same study: trained after the search, recorded one by one, told beside the recommended."""

from __future__ import annotations

import json
import os
import re
import signal

import numpy as np
import pandas as pd
import pytest
import torch
from test_functional_tokens import experiment_of, sentences  # noqa: F401 - a fixture
from tiny_world import ASKED, without_time

from lora_search import open_study, plan_study, run_study
from lora_search.errors import InputError
from lora_search.metrics import metric_named
from lora_search.spec import Experiment
from lora_search.store.reader import read_study
from lora_search.store.records import BaselineKey
from lora_search.study import Interrupted, baselines, prepare
from lora_search.study.baselines import baseline_cell, check_baselines
from lora_search.study.progress import Silent
from lora_search.study.untrained import majority
from lora_search.training import whole

ALL = {
    "baselines": {
        "include": ["full", "majority", "tfidf", "head", "bitfit", "hidden-state"],
        "learning_rate": {"head": 0.1, "bitfit": 0.03, "hidden-state": 0.03, "full": [1e-3, 1e-2]},
    },
    "search": {"trials": 2},
}
NAMES = ["majority", "tfidf", "head", "hidden-state", "bitfit", "full"]


@pytest.fixture(scope="module")
def compared(world, tmp_path_factory):
    """A finished study with every baseline; for reading only."""
    return run_study(world.experiment(**ALL), tmp_path_factory.mktemp("compared"), progress=False)


def test_every_baseline_is_trained_on_every_fold(compared):
    table = pd.read_csv(compared.folder / "baselines.csv")
    counts = table.groupby("baseline").size()
    assert counts.to_dict() == dict.fromkeys(NAMES, 2) | {"full": 4}
    assert set(table["state"]) == {"complete"}
    assert set(table["repeat"]) == {0}
    sizes = table.groupby("baseline")["trainable_parameters"].max()
    assert sizes["majority"] == 0
    assert sizes["head"] < sizes["bitfit"] < sizes["full"]
    held = table.groupby("baseline")["step_bytes"].max()
    assert held[["majority", "tfidf"]].isna().all()
    assert held["head"] < held["hidden-state"] < held["full"]
    folds = compared.predictions().groupby("fold")["example"].apply(set)
    theirs = compared.baseline_predictions().groupby(["baseline", "fold"])["example"].apply(set)
    assert all(theirs[name, fold] == folds[fold] for name in NAMES for fold in (0, 1))


def test_adapters_are_what_they_would_be_without(compared, world, tmp_path):
    plain = run_study(world.experiment(search={"trials": 2}, baselines={"include": []}), tmp_path, progress=False)
    pd.testing.assert_frame_equal(compared.trials[ASKED], plain.trials[ASKED])
    assert plain.baselines.empty
    assert plain.verdict()["baselines"] is None
    ours, theirs = (without_time(study.verdict()) for study in (compared, plain))
    beside_the_head = ("warnings", "baselines")
    assert {k: v for k, v in ours.items() if k not in beside_the_head} == {
        k: v for k, v in theirs.items() if k not in beside_the_head
    }


def test_the_verdict_tells_them(compared, lora_search):
    told = json.loads((compared.folder / "verdict.json").read_text())["baselines"]
    assert [row["name"] for row in told["compared"]] == NAMES
    assert told["recommended"]["trainable_parameters"] > told["compared"][2]["trainable_parameters"]
    assert told["kept"]["memory"] == told["recommended"]["step_bytes"] / told["compared"][-1]["step_bytes"]
    assert told["sentence"]
    answer = lora_search("verdict", compared.folder)
    lines = [line.split("  ")[0] for line in answer.out.splitlines()]
    assert [line for line in lines if line in ("majority", "TF-IDF", "full fine-tuning", "LoRA, recommended")]
    assert told["sentence"] in answer.out


def test_the_report_shows_them(compared, lora_search):
    assert lora_search("report", compared.folder).code == 0
    page = (compared.folder / "report.html").read_text()
    section = page.partition('id="beside"')[2].partition("</section>")[0]
    rows = re.findall(r'<th scope="row">([^<]+)', section)
    assert sorted(rows) == sorted(
        ["majority", "TF-IDF", "head alone", "hidden-state adapter", "BitFit", "full fine-tuning", "LoRA, recommended"]
    )
    assert "it is not LoRA and cannot be exported" in section
    data = json.loads(page.partition('id="study-data">')[2].partition("</script>")[0])
    lines = {line["name"]: line["score"] for line in data["judged"]["baselines"]}
    assert lines.keys() == set(rows) - {"LoRA, recommended"}
    told = {row["name"]: row for row in compared.verdict()["baselines"]["compared"]}
    recommended = compared.verdict()["recommended"]["score_mean"]
    assert lines["majority"] == pytest.approx(recommended + told["majority"]["difference"], abs=1e-5)


class Signalling(Silent):
    """Interrupts when the n-th training of this title begins, or at its n-th step."""

    def __init__(self, title, number, at_step=0):
        self.title, self.left, self.at_step = title, number, at_step
        self.steps = None

    def pack(self, title, work):
        if title.startswith(self.title):
            self.left -= 1
            if self.left == 0 and not self.at_step:
                os.kill(os.getpid(), signal.SIGINT)
            self.steps = 0 if self.left == 0 else None

    def step(self, step):
        if self.steps is not None:
            self.steps += 1
            if self.steps == self.at_step:
                os.kill(os.getpid(), signal.SIGINT)


def test_interrupted_again_and_again_and_run_again(world, compared, tmp_path):
    experiment = world.experiment(**ALL)
    for signalling in (
        ("logistic regression", 1, 0), ("the head alone", 1, 2), ("BitFit", 2, 0), ("full fine-tuning", 3, 4),
    ):  # fmt: skip
        with pytest.raises(Interrupted):
            run_study(experiment, tmp_path, progress=Signalling(*signalling))
        before = open_study(tmp_path / "critics").baselines
        assert len(before) < len(compared.baselines)
    study = run_study(experiment, tmp_path, progress=False)
    result = [
        "baseline",
        "learning_rate",
        "fold",
        "score",
        "log_loss",
        "train_loss",
        "trainable_parameters",
        "step_bytes",
    ]
    pd.testing.assert_frame_equal(study.baselines[result], compared.baselines[result], check_exact=True)
    pd.testing.assert_frame_equal(study.baseline_predictions(), compared.baseline_predictions(), check_exact=True)
    kept = study.baselines[study.baselines["finished_at"].isin(before["finished_at"])]
    pd.testing.assert_frame_equal(kept.reset_index(drop=True), before)


def test_a_finished_study_can_be_given_more(world, tmp_path):
    folder = run_study(world.experiment(search={"trials": 2}), tmp_path, progress=False).folder
    first = read_study(folder)
    assert set(first.baselines["baseline"]) == {"majority", "head"}
    more = world.experiment(
        search={"trials": 2}, baselines={"include": ["majority", "head", "full"], "learning_rate": {"full": 1e-3}}
    )
    study = run_study(more, tmp_path, progress=False)
    assert list(study.baselines["baseline"]) == ["full"] * 2 + ["head"] * 6 + ["majority"] * 2
    pd.testing.assert_frame_equal(study.cells, first.cells)


def test_words_have_baselines_too(world, sentences, tmp_path):  # noqa: F811
    tables = experiment_of(
        world.model,
        sentences,
        baselines={
            "include": ["majority", "head", "hidden-state", "bitfit", "full"],
            "learning_rate": {"head": 0.1, "hidden-state": 0.03, "bitfit": 0.03, "full": 3e-3},
        },
    )
    study = run_study(Experiment.model_validate(tables), tmp_path, progress=False)
    scores = study.baselines.groupby("baseline")["score"].mean()
    assert scores["majority"] == 0.0, "no word is an entity"
    losses = study.baselines.groupby("baseline")["token_log_loss"].mean()
    assert losses["full"] < losses["majority"]
    assert study.verdict()["baselines"]["kept"] is not None


def test_the_majority_scores_what_knowing_nothing_does(compared, world):
    prepared = prepare(world.experiment(**ALL))
    cell = baseline_cell(prepared, BaselineKey("majority", None, 0, 0))
    result, learned = majority(prepared, cell)
    assert learned == 0
    shares = np.bincount(prepared.data.labels[cell.train]) / len(cell.train)
    assert np.allclose(result.probabilities, shares)
    known = metric_named("log_loss").score_of_knowing_nothing(prepared.data.labels)
    assert result.scores["log_loss"] == pytest.approx(known, abs=0.01)


def test_words_in_texts_tell_this_world_apart(compared):
    scores = compared.baselines.groupby("baseline")["score"].mean()
    assert scores["tfidf"] > 0.9
    assert scores["majority"] == 0.5


def test_a_training_without_room_is_left_out_and_told(world, tmp_path, monkeypatch):
    class Notes(Silent):
        def __init__(self):
            self.notes = []

        def note(self, sentence):
            self.notes.append(sentence)

    def full(*arguments, **settings):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(whole.WholeModel, "train", full)
    notes = Notes()
    spec = {"search": {"trials": 2}, "baselines": {"include": ["majority", "full"]}}
    study = run_study(world.experiment(**spec), tmp_path, progress=notes)
    assert "full fine-tuning found no room in memory and is left out" in notes.notes
    assert set(study.baselines["baseline"]) == {"majority"}
    assert study.verdict()["baselines"]["sentence"] is None
    monkeypatch.undo()
    again = run_study(world.experiment(**spec), tmp_path, progress=False)
    assert set(again.baselines["baseline"]) == {"majority", "full"}


def test_a_baseline_that_diverges_is_told(world, tmp_path, lora_search):
    spec = {"search": {"trials": 2}, "baselines": {"include": ["head", "full"], "learning_rate": {"full": 1e30}}}
    study = run_study(world.experiment(**spec), tmp_path, progress=False)
    told = study.verdict()["baselines"]
    assert told["compared"][-1]["failure"].startswith("the loss was nan at step")
    assert told["kept"] is None
    answer = lora_search("verdict", study.folder)
    assert re.search(r"^full fine-tuning +[\d,]+ +failed", answer.out, re.MULTILINE)
    assert lora_search("report", study.folder).code == 0


# -- before anything is trained ------------------------------------------------------------------------------------


def test_a_plan_counts_them(world):
    plan = plan_study(world.experiment(**ALL))
    assert {name: number for name, (number, _) in plan.baselines.items()} == dict.fromkeys(NAMES, 2) | {"full": 4}
    assert plan.baselines["full"][1] > 0
    said = next(line for line in plan.lines() if line.startswith("to compare with: "))
    assert re.fullmatch(
        r"to compare with: 14 trainings, about \d+s: majority 2, TF-IDF 2, head alone 2, hidden-state adapter 2, "
        r"BitFit 2, full fine-tuning 4",
        said,
    )
    assert not any(
        line.startswith("to compare with") for line in plan_study(world.experiment(baselines={"include": []})).lines()
    )


def test_bitfit_of_a_model_without_biases_is_refused(world, monkeypatch):
    prepared = prepare(world.experiment(baselines={"include": ["head", "bitfit"]}))
    monkeypatch.setattr(baselines, "has_biases", lambda base: False)
    with pytest.raises(InputError, match=r"^baselines.include\[1\]: must be left out for BertForSeq\w+, whose"):
        check_baselines(prepared)


def test_tfidf_of_words_is_refused(world, sentences):  # noqa: F811
    tables = experiment_of(world.model, sentences, baselines={"include": ["head", "tfidf"]})
    with pytest.raises(InputError) as refused:
        prepare(Experiment.model_validate(tables))
    assert refused.value.mistakes == ("baselines.include[1]: must be left out for token-classification, got 'tfidf'",)


def test_the_command_refuses_what_is_no_baseline(world, tmp_path, lora_search):
    answer = lora_search("run", world.file(tmp_path, baselines={"include": ["fulll"]}))
    assert answer.code == 2
    [line] = answer.err.splitlines()
    assert line.endswith('got "fulll", did you mean "full"?')
    assert "baselines.include[0]" in line
