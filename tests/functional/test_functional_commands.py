"""The other commands, on a finished study: what they say, and that they are light and change nothing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from tiny_world import LAYERS
from transformers import AutoConfig

from lora_search import open_study, plan_study, run_study
from lora_search.study import Interrupted
from lora_search.study.progress import Silent


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


# -- plan --------------------------------------------------------------------------------------------------------------


def test_plan_counts_and_writes_nothing(world, tmp_path, lora_search):
    world.file(tmp_path, seed=1, search={"trials": 6}, cv={"folds": 3, "repeats": 2}, data={"holdout": 0.2})
    before = contents(tmp_path)
    answer = lora_search("plan", "critics.toml")
    assert (answer.code, answer.err) == (0, "")
    assert contents(tmp_path) == before
    assert "data: 48 examples in the folds, 12 held out" in answer.out
    # 32 of 48 to train on in batches of 8, three epochs
    assert "cells: 6 trials x 3 folds x 2 repeats = 36 trainings of 12 steps" in answer.out
    # rank 1 on query and value of one layer: 2 (32 + 32); rank 4 on all six modules of three layers
    assert f"adapters: 128 to {3 * 4 * (4 * 64 + 2 * 96):,} parameters, and 66 in the head" in answer.out
    # a bit for each of 48 answers of which half are fresh
    assert "rule of thumb: the answers hold at most 48 bits, a parameter about 2, so 24 parameters" in answer.out
    packs = re.findall(r"^pack: trials? ([\d, ]+) / fold 1, 2 on layers? (\d)", answer.out, re.MULTILINE)
    assert [layer for _, layer in packs] == ["2", "0"], "the cheap ones first"
    assert sorted(int(trial) for trials, _ in packs for trial in trials.split(",")) == list(range(6))
    assert re.search(r"^then: at most about 1 training, \ds: the hold-out$", answer.out, re.MULTILINE)
    assert re.search(r"^to compare with: 12 trainings, about \ds: majority 3, head alone 9$", answer.out, re.MULTILINE)
    assert re.search(r"^training: \d\.\d s on layers 0 to 2$", answer.out, re.MULTILINE)
    assert re.search(r"^training: \d\.\d s on layer 2$", answer.out, re.MULTILINE)
    assert re.search(r"^memory: about \d+ MiB \(base under 1 MiB, ", answer.out, re.MULTILINE)
    assert re.search(r"^time: about \d+s if no trial is stopped early$", answer.out, re.MULTILINE)


def test_a_plan_counts_the_one_adapter_that_is_trained_to_the_end_whatever_the_limit(world, tmp_path, lora_search):
    world.file(tmp_path, search={"learning_rate": "auto", "trials": 6, "cells": 1}, cv={"folds": 3})
    answer = lora_search("plan", "critics.toml")
    assert re.search(r"^cells: .* on 3 folds: at most 3 trainings of 15 steps$", answer.out, re.MULTILINE), answer.out


def test_the_packs_of_a_plan_are_the_first_of_the_run(world, tmp_path):
    class Titles(Silent):
        def __init__(self):
            self.titles = []

        def pack(self, title, work):
            self.titles.append(title)

    experiment, heard = world.experiment(search={"trials": 5}, cv={"folds": 2}), Titles()
    planned = [line.split(" on ")[0].removeprefix("pack: ") for line in plan_study(experiment).packs if "pack:" in line]
    run_study(experiment, tmp_path, progress=heard)
    assert planned
    assert heard.titles[: len(planned)] == planned


def test_plan_of_a_finite_space_counts_its_points(world):
    small = {"rank": [1, 2], "alpha_over_rank": 1, "layers": "all", "learning_rate": 0.01, "trials": 50}
    plan = plan_study(world.experiment(search=small))
    assert (plan.trials, plan.cells) == (4, 8)
    assert plan.seconds > 0
    assert str(plan).splitlines() == plan.lines()


def test_plan_takes_overrides(world, tmp_path, lora_search):
    answer = lora_search("plan", world.file(tmp_path), "--trials", 1, "--set", "cv.folds=4")
    assert "cells: 1 trial x 4 folds = 4 trainings" in answer.out


# -- targets and doctor ------------------------------------------------------------------------------------------------


def test_targets_lists_what_can_be_adapted(world, lora_search):
    answer = lora_search("targets", world.model, "--rank", 2, "--rank", 16)
    assert answer.code == 0
    header, *rows, empty, head = answer.out.splitlines()
    assert header.split() == ["module", "in", "x", "out", "layers", "groups", "rank", "2", "rank", "16"]
    first = rows[0].split()
    assert first[0] == "attention.self.query"
    assert first[4] == f"0-{LAYERS - 1}"
    assert first[-2:] == [str(LAYERS * 2 * 64), f"{LAYERS * 16 * 64:,}"]
    assert len(rows) == 6
    assert (empty, head) == ("", "head: classifier (66 parameters with 2 labels)")


@pytest.mark.parametrize(
    ("kind", "settings", "lines"),
    [
        (
            "granite",
            {},
            [
                "",
                "for model.task = 'causal-lm': it has no head for text-classification",
            ],
        ),
        (
            "mixtral",
            {"num_local_experts": 2},
            [
                "",
                "head: score (64 parameters with 2 labels)",
                "note: a mixture of experts: adapters go on attention, not on the experts. 69% of the weights of the"
                " layers stay frozen whatever the targets: mlp.experts.gate_up_proj, mlp.experts.down_proj,"
                " mlp.gate.weight are in no linear module",
            ],
        ),
        (
            "phi3",
            {},
            [
                "note: self_attn.qkv_proj computes query, key and value together: an adapter on it is on all of that",
                "note: mlp.gate_up_proj computes a gate and what it gates together: an adapter on it is on all of that",
            ],
        ),
    ],
)
def test_targets_tells_what_is_special_about_a_family(tmp_path, lora_search, kind, settings, lines):
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4, "hidden_size": 32}
    AutoConfig.for_model(kind, vocab_size=8, pad_token_id=0, **sizes, intermediate_size=48, **settings).save_pretrained(
        tmp_path
    )
    (tmp_path / "model.safetensors").write_bytes(b"")  # never read
    answer = lora_search("targets", tmp_path)
    assert answer.code == 0
    assert answer.out.splitlines()[-len(lines) :] == lines


def test_targets_of_no_model(lora_search):
    answer = lora_search("targets", "")
    assert (answer.code, answer.out, answer.err) == (2, "", 'MODEL: must not be empty, got ""\n')


def test_targets_of_no_rank(world, lora_search):
    answer = lora_search("targets", world.model, "--rank", 0)
    assert answer.code == 2
    assert "--rank" in answer.err


def test_doctor_says_what_there_is(lora_search, monkeypatch):
    answer = lora_search("doctor", "--results", "not/yet")
    assert (answer.code, answer.err) == (0, "")
    findings = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in answer.out.splitlines())
    assert {"device", "cores", "bf16", "AMX", "torch", "transformers", "optuna", "model hub", "free disk"} <= set(
        findings
    )
    assert findings["model hub"].startswith("not reachable (")
    assert findings["model hub"].endswith("local folders, files and package: locations work")
    assert not Path("not").exists()


# -- status and verdict ------------------------------------------------------------------------------------------------


def test_status_of_a_finished_study(finished, lora_search):
    before = contents(finished)
    first, second, sentence = lora_search("status", finished).out.splitlines()
    assert first == "critics: 4 of 4 trials (4 complete)"
    assert re.fullmatch(r"8 of 8 trainings recorded, \d+ s of training", second)
    assert sentence == open_study(finished).verdict()["sentence"]
    state = json.loads(lora_search("status", finished, "--json").out)
    assert state["trials"] == {"complete": 4}
    assert (state["cells"], state["cells_wanted"], state["trials_wanted"]) == (8, 8, 4)
    assert state["seconds"] > 0
    assert contents(finished) == before


def test_status_of_a_finite_space_and_of_trials_lowered(world, tmp_path, lora_search):
    small = {"rank": [1, 2], "alpha_over_rank": 1, "targets": "attention", "layers": "top-1", "learning_rate": 0.01}
    run_study(world.experiment(search=small | {"trials": 5}), tmp_path, progress=False)
    status = lora_search("status", tmp_path / "critics").out.splitlines()
    assert status[0] == "critics: 2 of 2 trials (2 complete)"
    assert status[1].startswith("4 of 4 trainings recorded, ")
    run_study(world.experiment(search=small | {"trials": 1}), tmp_path, progress=False)
    assert lora_search("status", tmp_path / "critics").out.splitlines()[0] == status[0]


class StoppingAt(Silent):
    def __init__(self, pack):
        self.packs = pack

    def pack(self, title, work):
        self.packs -= 1
        if self.packs < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("packs", [0, 1])
def test_every_command_takes_a_study_that_is_only_begun(world, tmp_path, lora_search, packs):
    with pytest.raises(Interrupted):
        run_study(world.experiment(cv={"folds": 3}, search={"trials": 5}), tmp_path, progress=StoppingAt(packs))
    study = tmp_path / "critics"
    status = lora_search("status", study)
    assert status.code == 0
    assert status.out.splitlines()[0] == "critics: 5 of 5 trials (5 running)"
    assert f"{len(open_study(study).cells)} of 15 trainings recorded" in status.out
    verdict = lora_search("verdict", study)
    assert verdict.code == 0
    assert verdict.out == "No trial was trained to the end, so there is nothing to recommend yet.\n"
    assert lora_search("report", study).code == 0
    assert lora_search("export", study, tmp_path / "adapter").code == 2


def test_a_verdict_is_taken_anew_without_training(finished, lora_search):
    before = contents(finished)
    recorded = open_study(finished).verdict()
    again = json.loads(lora_search("verdict", finished, "--json").out)
    assert again == recorded
    generous = json.loads(lora_search("verdict", finished, "--json", "--margin", 0.99, "--confidence", 0.6).out)
    assert (generous["margin"], generous["confidence"]) == (0.99, 0.6)
    assert generous["status"] == "decided"
    # anything is within 99 points of the best, so the smallest is recommended
    trials = open_study(finished).trials
    assert generous["recommended"]["adapter_parameters"] == trials["adapter_parameters"].min()
    text = lora_search("verdict", finished, "--margin", 0.99, "--confidence", 0.6).out
    assert text.splitlines()[0] == generous["sentence"]
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--margin", "1", "--margin: must be at least 0 and below 1, got 1"),
        ("--margin", "-0.1", "--margin: must be at least 0 and below 1, got -0.1"),
        ("--margin", "nan", "--margin: must be at least 0 and below 1, got nan"),
        ("--confidence", "0.5", "--confidence: must be above 0.5 and below 1, got 0.5"),
        ("--confidence", "1", "--confidence: must be above 0.5 and below 1, got 1"),
    ],
)
def test_a_margin_or_confidence_out_of_range(finished, lora_search, option, value, line):
    answer = lora_search("verdict", finished, option, value)
    assert (answer.code, answer.out, answer.err) == (2, "", line + "\n")


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("--trial", "99", "--trial: must be one of 0, 1, 2, 3 in {}, got 99"),
        ("--recipe", "tlr", "--recipe: must be trl, axolotl or llamafactory, got 'tlr', did you mean trl?"),
    ],
)
def test_an_export_of_what_is_not_there(finished, tmp_path, lora_search, option, value, line):
    answer = lora_search("export", finished, "adapter", option, value)
    assert (answer.code, answer.out, answer.err) == (2, "", line.format(finished) + "\n")
    assert list(tmp_path.iterdir()) == []


def test_the_verdict_prints_a_sentence_and_a_table(finished, lora_search):
    answer = lora_search("verdict", finished)
    verdict = open_study(finished).verdict()
    lines = answer.out.splitlines()
    assert lines[0] == verdict["sentence"]
    adapter = "rank alpha learning rate targets layers parameters"
    assert lines[2].split() == ["trial", *adapter.split(), "accuracy", "seconds"]
    recommended, best = (re.split(r"\s{2,}", line) for line in lines[3:5])
    for row, summary in ((recommended, verdict["recommended"]), (best, verdict["best"])):
        assert row[1] == str(summary["trial"])
        assert row[2] == str(summary["adapter"]["rank"])
        assert row[7] == f"{summary['adapter_parameters']:,}"
        assert row[8].startswith(f"{summary['score_mean']:.3f} [")
    assert [line for line in lines if line.startswith("warning: ")] == [f"warning: {w}" for w in verdict["warnings"]]


def test_examples_are_named_as_predictions_name_them(finished, lora_search):
    texts = open_study(finished).examples()
    answer = lora_search("examples", finished, 3, "--json")
    [example] = json.loads(answer.out)
    assert (example["number"], answer.err) == (3, "")
    assert example["label"] == open_study(finished).environment["data"]["labels"][texts["label"][3]]
    assert lora_search("examples", finished, 3).out.startswith(f"3\t{example['label']}\t")
    assert len(lora_search("examples", finished).out.splitlines()) == len(texts)
    wrong = lora_search("examples", finished, 4000)
    assert (wrong.code, wrong.out) == (2, "")
    assert wrong.err == f"NUMBER: must be between 0 and {len(texts) - 1}, got 4000\n"


def test_a_report_keeps_texts_only_where_it_is_asked_to(finished, tmp_path, lora_search, plain_reports):
    folder = shutil.copytree(finished, tmp_path / "copy")
    text = json.loads(lora_search("examples", finished, 3, "--json").out)[0]["text"]
    for options, kept in (((), False), (("--texts",), True)):
        assert lora_search("report", folder, *options).code == 0
        assert (text in (folder / "report.html").read_text(encoding="utf-8")) is kept


@pytest.mark.parametrize("command", ["status", "verdict", "report", "export"])
def test_no_such_study(finished, lora_search, tmp_path, command):
    arguments = [finished.with_name("critcs"), *(["adapter"] if command == "export" else [])]
    answer = lora_search(command, *arguments)
    assert (answer.code, answer.out) == (2, "")
    line = (
        f"{finished.with_name('critcs')}: must be the folder of a study, got no such folder, did you mean {finished}?"
    )
    assert answer.err == line + "\n"
    assert list(tmp_path.iterdir()) == []


# -- light -------------------------------------------------------------------------------------------------------------

_COMMANDS = """
import sys
from lora_search import cli
from lora_search.reporting import page
page.judgement_grid = lambda *_: None  # what takes most of the time, and imports nothing else
for command in (["status"], ["status", "--json"], ["verdict"], ["verdict", "--json", "--margin", "0.2"], ["report"]):
    sys.argv = ["lora-search", command[0], {folder!r}, *command[1:]]
    try:
        cli.main()
    except SystemExit as exit_:
        assert not exit_.code, command
print(sorted({{"torch", "transformers", "optuna", "datasets", "sklearn", "peft"}} & set(sys.modules)), file=sys.stderr)
"""


def test_looking_at_a_study_needs_no_torch(finished, tmp_path, shell):
    shutil.copytree(finished, tmp_path / "critics")
    (tmp_path / "commands.py").write_text(_COMMANDS.format(folder="critics"))
    process = shell("python commands.py")
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert err == "[]\n"
    assert out.splitlines()[-1] == "critics/report.html"
    assert (tmp_path / "critics" / "report.html").exists()


def test_importing_the_package_imports_nothing_heavy(shell):
    heavy = {"torch", "transformers", "optuna", "datasets", "pandas", "numpy", "scipy", "matplotlib", "pydantic"}
    process = shell(f'''python -c "import sys, lora_search; dir(lora_search); print({heavy} & set(sys.modules))"''')
    assert process.communicate(timeout=120) == ("set()\n", "")
