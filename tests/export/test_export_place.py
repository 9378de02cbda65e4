"""Where an export goes: whole or not at all, and over nothing but an earlier export."""

import json
import os
import signal
import sys
import time
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from lora_search import cli, export_adapter
from lora_search.errors import LoraSearchError, StudyError
from lora_search.export import place, weights
from lora_search.export.place import Place


def at(out):
    return Place(out, study="fruit", weights=False)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def test_parents_are_made_and_an_empty_folder_is_taken(study_of, tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "a" / "b" / "out", tmp_path / "empty"):
        assert (export_adapter(study_of("bert"), out, progress=False) / "adapter_config.json").is_file()
        assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_an_earlier_export_is_replaced_as_a_whole(study_of, tmp_path):
    study, out = study_of("bert"), tmp_path / "out"
    export_adapter(study, out, weights=True, recipe="trl", progress=False)
    assert (out / "recipe" / "train.py").is_file()
    export_adapter(study, out, trial=1, weights=True, progress=False)
    assert not (out / "recipe").exists()
    assert json.loads((out / "export.json").read_text())["trial"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_trained_weights_make_way_for_nothing_less(study_of, tmp_path):
    study, out = study_of("bert"), tmp_path / "out"
    export_adapter(study, out, trial=1, weights=True, progress=False)
    before = tree(tmp_path)
    with pytest.raises(StudyError) as caught:
        export_adapter(study, out, trial=0, progress=False)
    assert caught.value.mistakes == (
        f"{out}: must not hold trained weights if none are to take their place, got those of trial 1; export with"
        " --weights, give another folder, or remove this one first",
    )
    assert tree(tmp_path) == before


def test_the_export_of_another_study_is_left_alone(study_of, tmp_path):
    study, out = study_of("bert"), tmp_path / "out"
    export_adapter(study, out, progress=False)
    before = tree(tmp_path)
    other = replace(study, experiment=study.experiment.model_copy(update={"name": "vegetables"}))
    with pytest.raises(StudyError) as caught:
        export_adapter(other, out, progress=False)
    assert caught.value.mistakes == (
        f"{out}: must be new, empty or an earlier export of vegetables, got one of fruit;"
        " give another folder, or remove this one first",
    )
    assert tree(tmp_path) == before


def test_a_folder_with_other_files_is_left_alone(study_of, tmp_path):
    study, out = study_of("bert"), tmp_path / "out"
    export_adapter(study, out, progress=False)
    (out / "notes.md").write_text("mine")
    (out / "logs").mkdir()
    before = tree(out)
    with pytest.raises(
        StudyError, match=r"must be new, empty or an earlier export, got .* other files: logs, notes.md"
    ):
        export_adapter(study, out, progress=False)
    assert tree(out) == before
    for other in (study.folder, tmp_path / "of-files"):
        other.mkdir(exist_ok=True)
        (other / "adapter_config.json").write_text("{}")
        with pytest.raises(StudyError, match="must be new, empty or an earlier export"):
            export_adapter(study, other, progress=False)
        (other / "adapter_config.json").unlink()


@pytest.mark.parametrize("record", ["not json", "[]", "{}", '{"made_by": "somebody", "files": ["export.json"]}'])
def test_somebody_elses_export_json_is_no_earlier_export(tmp_path, record):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "export.json").write_text(record)
    with pytest.raises(StudyError, match=r"other files: export.json"):
        at(tmp_path / "out")


def test_a_file_and_the_current_folder_are_refused(study_of, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="must be a folder to write the adapter to, got a file"):
        export_adapter(study_of("bert"), tmp_path / "file", progress=False)
    with pytest.raises(StudyError, match="must be in a folder that can be written to"):
        export_adapter(study_of("bert"), tmp_path / "file" / "out", progress=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(StudyError, match="must not be the folder you are in"):
        export_adapter(study_of("bert"), ".", progress=False)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("x" * 300, "must be a path that can be looked up, got File name too long"),
        ("x" * 300 + "/out", "must be a path that can be looked up, got File name too long"),
        ("/proc/out", "must be in a folder that can be written to, got /proc: No such file or directory"),
        ("/proc/a/b/out", "must be in a folder that can be written to, got /proc: No such file or directory"),
    ],
)
def test_a_place_where_nothing_can_be_is_refused_before_anything_is_computed(tmp_path, monkeypatch, out, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StudyError) as caught:
        at(out)
    (mistake,) = caught.value.mistakes
    assert mistake.endswith(said)
    assert list(tmp_path.iterdir()) == []


def test_a_place_may_have_the_longest_name_there_is(tmp_path):
    out = tmp_path / ("x" * 255)
    with at(out).filled() as folder:
        (folder / "file").touch()
    assert list(tmp_path.rglob("*")) == [out, out / "file"]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(place.os, "scandir", refuse)
    with pytest.raises(StudyError, match="must be a path that can be looked up, got Permission denied"):
        at(tmp_path)


@pytest.mark.parametrize("kept", [False, True], ids=["new", "over-an-earlier-one"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: {name: w * (3 if "lora_B" in name else 1) for name, w in state.items()},
        lambda state: {name: torch.full_like(w, torch.nan) for name, w in state.items()},
        lambda state: {name.replace("query", "key"): w for name, w in state.items()},
    ],
    ids=["scaled", "nan", "misnamed"],
)
@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
def test_an_adapter_that_predicts_something_else_is_not_written(study_of, tmp_path, monkeypatch, spoil, kept):
    study, out = study_of("bert"), tmp_path / "out"
    if kept:
        export_adapter(study, out, progress=False)
    before = tree(tmp_path)
    right = weights.to_peft_state
    monkeypatch.setattr(weights, "to_peft_state", lambda state: right(spoil(state)))
    with pytest.raises(LoraSearchError, match="must predict what the trained model predicts") as caught:
        export_adapter(study, out, weights=True, progress=False)
    assert not isinstance(caught.value, StudyError)  # it is a bug, and says so with a traceback
    assert tree(tmp_path) == before


def test_an_interrupt_leaves_nothing(study_of, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(weights, "check_reload", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_adapter(study_of("bert"), tmp_path / "out", weights=True, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_termination_leaves_nothing(study_of, tmp_path, monkeypatch, capsys):
    def terminated(folder, *_):
        assert (folder / "adapter_model.safetensors").is_file()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    study = str(study_of("bert").folder)
    monkeypatch.setattr(weights, "check_reload", terminated)
    monkeypatch.setattr(sys, "argv", ["lora-search", "export", study, "out", "--trial", "0", "--weights"])
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 143
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "Interrupted. Go on with:",
        f"  lora-search export {study} out --trial 0 --weights",
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "full",
    [OSError(28, "No space left on device"), Exception("No space left on device (os error 28)")],
    ids=["python", "rust"],
)
def test_a_full_disk_is_told_in_one_line_and_leaves_nothing(study_of, tmp_path, monkeypatch, full):
    def written(*_, **__):
        raise full

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", written)
    with pytest.raises(StudyError) as caught:
        export_adapter(study_of("bert"), tmp_path / "out", weights=True, progress=False)
    assert caught.value.mistakes == (
        f"{tmp_path / 'out'}: must be a folder that can be written to, got No space left on device",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_replaced_keeps_its_content(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with at(out).filled() as folder:
        (folder / "export.json").write_text('{"made_by": "lora-search", "files": ["export.json"]}')
    before = tree(tmp_path)
    moved = type(out).rename

    def rename(path, target):
        if path.name == "new":
            raise OSError(16, "Device or resource busy")
        return moved(path, target)

    monkeypatch.setattr(type(out), "rename", rename)
    with (
        pytest.raises(StudyError, match="must be a folder that can be replaced: Device or resource busy"),
        at(out).filled() as folder,
    ):
        (folder / "export.json").write_text("new")
    assert tree(tmp_path) == before
