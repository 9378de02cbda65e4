"""A study asked for from Python, in a process that has settings, random numbers and a directory of its own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from on_postgresql import in_its_folder
from tiny_world import assert_same_study, settings

from lora_search import Experiment, export_adapter, open_study, plan_study, run_study, write_report
from lora_search.errors import StudyError


def test_what_the_caller_has_set_in_torch_changes_no_study_and_stays_set(world, finished, tmp_path):
    torch.set_default_dtype(torch.float64)
    try:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            study = run_study(world.experiment(), tmp_path, progress=False)
            export_adapter(study, tmp_path / "adapter", weights=True, progress=False)
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same_study(study.folder, finished)


def test_the_callers_random_numbers_go_on_as_if_nothing_had_run(world, tmp_path):
    before = torch.get_rng_state()
    study = run_study(world.experiment(search={"trials": 1}), tmp_path, progress=False)
    export_adapter(study, tmp_path / "adapter", weights=True, progress=False)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def beside(world, tmp_path, monkeypatch) -> Path:
    """A folder with data and model, which is the current one."""
    shutil.copytree(world.model, tmp_path / "model")
    shutil.copy(world.data, tmp_path / "critics.csv")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(search: dict[str, int]) -> Experiment:
    return Experiment.model_validate(settings("model", "critics.csv", search=search))


@in_its_folder
def test_a_study_of_relative_paths_goes_on_and_is_exported_from_anywhere(beside, monkeypatch):
    first = run_study(written({"trials": 1}), beside / "results", progress=False)
    assert first.experiment.data.train == str(beside / "critics.csv")
    again = run_study(written({"trials": 2}), "results", progress=False)
    assert len(again.trials) == 2, "as it was written it is the same study"
    monkeypatch.chdir(beside / "elsewhere")
    further = run_study(first.folder / "experiment.toml", beside / "results", progress=False)
    assert len(further.trials) == 2
    assert (export_adapter(further, "adapter", progress=False) / "adapter_config.json").is_file()


@in_its_folder
def test_a_study_that_has_relative_paths_goes_on_where_they_lead(beside, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("lora_search.study.runner.with_local_paths", lambda experiment: experiment)
        old = run_study(written({"trials": 1}), "results", progress=False)
    assert old.experiment.data.train == "critics.csv"
    assert len(run_study(written({"trials": 2}), "results", progress=False).trials) == 2


@in_its_folder
def test_a_study_that_is_looked_for_from_another_directory_is_not_empty_but_gone(beside, monkeypatch):
    study = run_study(written({"trials": 1}), "results", progress=False)
    assert len(study.examples()) == 60
    monkeypatch.chdir(beside / "elsewhere")
    for read in (study.examples, study.predictions, study.baseline_predictions):
        with pytest.raises(StudyError, match="must be the folder of a study, got no such folder"):
            read()


@in_its_folder
def test_a_tilde_is_the_home_folder(beside, monkeypatch):
    monkeypatch.setenv("HOME", str(beside / "elsewhere"))
    study = run_study(written({"trials": 1}), "~/results", progress=False)
    assert study.folder == beside / "elsewhere" / "results" / "critics"
    assert not (beside / "~").exists()
    assert open_study(Path("~/results/critics")).folder == study.folder
    assert export_adapter("~/results/critics", "~/adapter", progress=False) == beside / "elsewhere" / "adapter"
    assert len(run_study("~/results/critics/experiment.toml", "~/results", progress=False).trials) == 1


@in_its_folder
@pytest.mark.usefixtures("plain_reports")
def test_texts_of_other_examples_are_not_shown_as_theirs(finished, tmp_path):
    """Those of the file, say, where duplicates and what has no label are no examples."""
    folder = shutil.copytree(finished, tmp_path / "critics")
    for count in (0, 59, 61):
        with pytest.raises(StudyError, match=f"texts: must be those of all 60 examples, got {count}"):
            write_report(folder, texts=[f"quote {number}" for number in range(count)])
        assert not (folder / "report.html").exists()
    page = write_report(open_study(folder), texts=[f"quote {number}" for number in range(60)])
    assert page == folder / "report.html"
    assert "quote 59" in page.read_text(encoding="utf-8")


def test_a_plan_reads_the_file_that_a_run_reads(world, tmp_path):
    assert plan_study(str(world.file(tmp_path))).experiment == world.experiment()
