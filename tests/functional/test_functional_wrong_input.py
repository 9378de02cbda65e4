"""Wrong input: exit code 2, one clear line per mistake, no traceback, nothing written, nothing of an older study lost.

What the file alone tells wrong is in tests/spec; here it is what a user sees.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from on_postgresql import in_its_folder
from tiny_world import sentences, write_experiment, write_model, write_sentences


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def broken(key: str, value: object) -> dict[str, dict[str, object]]:
    table, _, name = key.partition(".")
    return {table: {name: value}}


IN_THE_FILE = {
    "missing data": ("data.train", "no/where.csv", "must be an existing file or folder, got 'no/where.csv'"),
    "text column": ("data.text", "txet", "must be a column of critics.csv, got 'txet', did you mean 'text'? (columns:"),
    "label column": ("data.label", "lable", "must be a column of critics.csv, got 'lable', did you mean 'label'?"),
    "hub data": ("data.train", "hub:a/b", "'hub:a/b' cannot be reached and is not in the local cache (HF_HUB_OFFLINE"),
    "folds": ("cv.folds", 31, "must be at most the examples of each label, got 31 folds for 30 examples of 'fresh'"),
    "unknown key": ("search.ranks", [1], "unknown key, did you mean search.rank?"),
    "rank 0": ("search.rank", [1, 0], "must be at least 1, got 0"),
    "target": ("search.targets", ["q_proj"], "must name linear modules of the model, got q_proj, did you mean query?"),
    "layer index": ("search.layers", [0, 3], "must be below 3, the number of layers of the model, got 3"),
    "top layers": ("search.layers", "top-4", "must name at most the 3 layers of the model, got top-4"),
    "hub model": ("model.base", "a/b", "must be a folder, a model in the cache of this machine, or on the hub while"),
    "margin": ("verdict.margin", 1.5, "must be below 1, got 1.5"),
    "metric": ("verdict.metric", "acuracy", "must be accuracy, macro_f1, matthews_correlation, micro_f1, "),
}


@pytest.mark.parametrize("what", IN_THE_FILE)
def test_a_mistake_in_the_file(world, tmp_path, lora_search, what):
    key, value, sentence = IN_THE_FILE[what]
    world.file(tmp_path, **broken(key, value))
    before = contents(tmp_path)
    answer = lora_search("run", "critics.toml")
    assert answer.code == 2
    key = "search.rank[1]" if what == "rank 0" else key
    assert answer.err.startswith(f"critics.toml: {key}: {sentence}")
    assert len(answer.err.splitlines()) == (2 if what == "folds" else 1), "one line per mistake: one label each"
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert contents(tmp_path) == before
    assert not (tmp_path / "results").exists()


def test_all_mistakes_are_told_at_once(world, tmp_path, lora_search):
    changes = {"data": {"text": "txet"}, "search": {"targets": ["q_proj"], "layers": [[3], "top-9"]}}
    world.file(tmp_path, **changes)
    answer = lora_search("plan", "critics.toml")
    assert answer.code == 2
    keys = [line.split(": ")[1] for line in answer.err.splitlines()]
    assert keys == ["data.text", "search.targets", "search.layers", "search.layers"]


def test_a_mistake_in_an_override_is_blamed_on_it(world, tmp_path, lora_search):
    world.file(tmp_path)
    answer = lora_search("run", "critics.toml", "--set", "data.train=nowhere.csv", "--set", "cv.folds=3")
    assert answer.err.startswith("--set: data.train: must be an existing file or folder, got 'nowhere.csv'")
    assert answer.code == 2


def test_data_of_one_class(world, tmp_path, lora_search):
    write_sentences(tmp_path / "one.csv", [row for row in sentences() if row[1] == "fresh"])
    answer = lora_search("run", world.file(tmp_path, data={"train": str(tmp_path / "one.csv")}))
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.endswith(
        "critics.toml: data.label: must have two labels or more in column 'label', got fresh (30)\n"
    )
    assert not (tmp_path / "results").exists()


def test_a_folder_that_is_no_model(world, tmp_path, lora_search):
    (tmp_path / "empty").mkdir()
    answer = lora_search("run", world.file(tmp_path, model={"base": str(tmp_path / "empty")}))
    assert answer.code == 2
    assert answer.err.endswith(f"must be the folder of a model, got '{tmp_path / 'empty'}', which has no config.json\n")

    shutil.copytree(world.model, tmp_path / "torn")
    weights = tmp_path / "torn" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    answer = lora_search("run", world.file(tmp_path, model={"base": str(tmp_path / "torn")}))
    assert answer.code == 2
    assert "model.base: must be a model that transformers can load, got" in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_results_that_are_no_folder(world, tmp_path, lora_search):
    (tmp_path / "results").write_text("mine")
    answer = lora_search("run", world.file(tmp_path))
    assert answer.code == 2
    assert answer.err == "--results: must be a folder, or nothing yet, got 'results', a file\n"
    assert (tmp_path / "results").read_text() == "mine"


def test_a_study_folder_that_holds_something_else(world, tmp_path, lora_search):
    (tmp_path / "results" / "critics").mkdir(parents=True)
    (tmp_path / "results" / "critics" / "diary.txt").write_text("mine")
    answer = lora_search("run", world.file(tmp_path))
    assert answer.code == 2
    assert answer.err == "results/critics: must be empty or hold a study, got diary.txt and no study.db\n"
    assert os.listdir(tmp_path / "results" / "critics") == ["diary.txt"]


@pytest.fixture
def older(finished, tmp_path):
    """A copy of the finished study where ``run`` would go on with it."""
    shutil.copytree(finished, tmp_path / "results" / "critics")
    return tmp_path / "results" / "critics"


def test_the_study_of_another_experiment(world, older, tmp_path, lora_search):
    before = contents(older)
    changes = {"seed": 3, "search": {"rank": [4], "trials": 9}, "verdict": {"margin": 0.2}}
    answer = lora_search("run", world.file(tmp_path, **changes))
    assert answer.code == 2
    assert answer.err.splitlines() == [
        "results/critics: seed: the study has 0, the experiment says 3",
        "results/critics: search.rank: the study has [1, 2, 4], the experiment says [4]",
        "results/critics: is another experiment's study; give this one another name",
    ]
    assert contents(older) == before


@pytest.mark.parametrize("what", ["data", "model"])
def test_a_study_whose_data_or_model_changed_under_it(world, tmp_path, lora_search, what):
    data, model = tmp_path / "critics.csv", tmp_path / "model"
    shutil.copy(world.data, data)
    shutil.copytree(world.model, model)
    spec = write_experiment(
        tmp_path / "critics.toml",
        world.settings(data={"train": str(data)}, model={"base": str(model)}, search={"trials": 1}),
    )
    assert lora_search("run", spec).code == 0
    before = contents(tmp_path / "results")
    if what == "data":
        write_sentences(data, [*sentences()[:-1], ("another film", "rotten")])
    else:
        shutil.rmtree(model)
        write_model(model, seed=1)
    answer = lora_search("run", spec, "--trials", 2)
    assert answer.code == 2
    assert answer.err == (
        f"results/critics: the {what} must be what the study ran on, and has changed since;"
        " run a study of another name on it\n"
    )
    assert contents(tmp_path / "results") == before


@in_its_folder
def test_a_study_that_is_damaged(world, older, tmp_path, lora_search):
    (older / "study.db").write_bytes(b"SQLite format 3\0" + bytes(5000))
    before = contents(older)
    for command in (["run", world.file(tmp_path)], ["status", older], ["verdict", older], ["report", older]):
        answer = lora_search(*command)
        assert answer.code == 2, command
        assert "study.db: must be a study's database, got a damaged or foreign file" in answer.err
        assert len(answer.err.splitlines()) == 1
    assert contents(older) == before


def test_from_a_shell(world, tmp_path, shell):
    """What a user sees of it: no warning, no log line, no traceback around the mistakes."""
    world.file(tmp_path, data={"train": "hub:owner/reviews"}, model={"base": "owner/bert"}, search={"layers": [8]})
    process = shell("lora-search run critics.toml")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert out == ""
    assert [line.split(": ")[:2] for line in err.splitlines()] == [
        ["critics.toml", "data.train"],
        ["critics.toml", "model.base"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["critics.toml"]


LONG = "x" * 300


@pytest.fixture
def closed(tmp_path, monkeypatch):
    """A folder nobody may look into, not even the administrator who runs the tests."""
    folder, stat = tmp_path / "closed", os.stat
    folder.mkdir()

    def refusing(path, **options):
        if str(path).startswith(f"{folder}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refusing)
    return folder


COMMANDS = ["status", "verdict", "report", "export", "targets", "data", "model", "run", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("why", ["File name too long", "Permission denied"])
def test_a_path_that_cannot_be_looked_up(world, closed, tmp_path, lora_search, command, why):
    path = LONG if why == "File name too long" else str(closed / "critics")
    arguments = {
        "export": ["export", path, "adapter"],
        "data": ["run", world.file(tmp_path, data={"train": path})],
        "model": ["run", world.file(tmp_path, model={"base": path})],
        "run": ["run", "critics.toml", "--results", path],
        "doctor": ["doctor", "--results", path],
    }.get(command, [command, path])
    answer = lora_search(*arguments)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert "must be a path that can be looked up, got " in line
    assert line.endswith(why)


@pytest.mark.parametrize("out", [LONG, "/proc/adapter"])
def test_a_place_no_adapter_can_be_written_to(finished, tmp_path, lora_search, out):
    answer = lora_search("export", finished, out, "--trial", 0)
    assert (answer.code, answer.out) == (2, "")
    (line,) = answer.err.splitlines()
    assert line.startswith((f"{out}: must be ", f"{tmp_path / out}: must be "))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "report", "export"])
def test_a_damaged_verdict_file_is_in_nobodys_way(older, lora_search, command, plain_reports):
    """It is for other programs; the study has its verdict among its records."""
    (older / "verdict.json").write_text("{}")
    answer = lora_search(command, older, *(["adapter"] if command == "export" else []))
    assert (answer.code, "verdict.json" in answer.err) == (0, False)


def test_a_report_that_cannot_be_written(older, lora_search, plain_reports):
    shutil.rmtree(older / "figures", ignore_errors=True)
    (older / "figures").write_text("in the way")
    answer = lora_search("report", older)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"{older / 'figures'}: must be a place that can be written to, got File exists\n"
