"""What machines do to a run: full disks, folders that may not be written to, memory that ends, clocks that go back."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta

import pytest
import torch
from on_postgresql import in_its_folder
from simulated_study import FormulaEngine, simulated
from tiny_world import assert_same_study

from lora_search import cli, open_study, run_study
from lora_search.store import ledger as ledger_module
from lora_search.store.faults import GOING_ON
from lora_search.store.ledger import Ledger
from lora_search.study import prepare, runner

SPEC = {
    "cv": {"folds": 4},
    "search": {"trials": 10},
    "verdict": {"extra_repeats": 1, "margin": 0.03, "confidence": 0.8},
}


@pytest.fixture
def command(world, tmp_path, monkeypatch):
    """``command("run", ...)`` in a forked process, its study simulated: the exit code and what it said on stderr."""
    spec = world.file(tmp_path, **SPEC)
    prepared = prepare(world.experiment(**SPEC))

    def call(*arguments, before=lambda: None):
        said = tmp_path / "said"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(descriptor, 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
                sys.argv = ["lora-search", *map(str, arguments)]
                with simulated(monkeypatch, prepared):
                    before()
                    cli.main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said.read_text()

    return lambda *arguments, **settings: call(arguments[0], spec, *arguments[1:], "--quiet", **settings)


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """For reading only."""
    experiment = world.experiment(**SPEC)
    with pytest.MonkeyPatch.context() as patch, simulated(patch, prepare(experiment)):
        return run_study(experiment, tmp_path_factory.mktemp("undisturbed"), progress=False).folder


@contextmanager
def mounted(folder, options):
    """A small disk in memory at ``folder``, or nothing where this user may not have one: then False."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], capture_output=True, check=False)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", folder], check=True)


def fill(path):
    """Leave no room on the disk of ``path``."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def let_no_file_grow():
    """Which SQLite and Python are told as they are told of a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))


@in_its_folder
def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(tmp_path, command, undisturbed):
    results = tmp_path / "disk"
    with mounted(results, "size=4m") as small:

        def filled_by_others():
            add_cell = Ledger.add_cell

            def add(ledger, result):
                if len(ledger.cell_keys()) == 9:
                    fill(results / "others") if small else let_no_file_grow()
                add_cell(ledger, result)

            Ledger.add_cell = add

        code, said = command("run", "--results", results, before=filled_by_others)
        assert code == 2, said
        (line,) = said.splitlines()
        assert line.startswith(str(results / "critics"))
        assert line.endswith(GOING_ON)
        recorded = open_study(results / "critics").cells
        assert len(recorded) == 9 < len(open_study(undisturbed).cells)
        (results / "others").unlink(missing_ok=True)
        assert command("run", "--results", results) == (0, "")
        kept = open_study(results / "critics").cells
        assert set(recorded["finished_at"]) <= set(kept["finished_at"])
        assert_same_study(results / "critics", undisturbed)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param("predictions", "file", marks=in_its_folder),
        ("trials.csv", "folder"),
        ("experiment.toml", "folder"),
        (".lock", "folder"),
    ],
)
def test_whatever_is_in_the_way_is_named(tmp_path, command, undisturbed, name, kind):
    folder = shutil.copytree(undisturbed, tmp_path / "results" / undisturbed.name)
    path = folder / name
    path.rename(tmp_path / "aside")
    path.write_text("in the way") if kind == "file" else path.mkdir()
    code, said = command("run", "--results", folder.parent, "--trials", 12)
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith(f"{folder}: must be a folder that can be written to, got ")
    assert name in line
    path.unlink() if kind == "file" else path.rmdir()
    (tmp_path / "aside").rename(path)
    assert command("run", "--results", folder.parent, "--trials", 12) == (0, "")


@in_its_folder
def test_a_folder_that_may_only_be_read(tmp_path, command, undisturbed, lora_search, plain_reports):
    results = tmp_path / "results"
    with mounted(results, "size=20m") as ours:
        folder = results / "critics"
        subprocess.run(["cp", "-r", undisturbed, folder], check=True)
        if ours:
            subprocess.run(["mount", "-o", "remount,ro", results], check=True)
        else:
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o555 if path.is_dir() else 0o444)
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".db"}
        for reading in ("status", "verdict"):
            assert lora_search(reading, folder).code == 0
        assert "must be a place that can be written to" in lora_search("report", folder).err
        looked = lora_search("doctor", folder)
        assert (looked.code, "cannot be written to now, so nothing is mended" in looked.out) == (0, True)
        code, said = command("run", "--results", results, "--trials", 12)
        assert code == 2
        assert "must be a folder that can be written to" in said
        assert len(said.splitlines()) == 1
        assert {path.name for path in folder.iterdir()} >= {path.name for path in before}
        assert not list(folder.glob("study.db-*"))
        for path in (folder, *folder.rglob("*")) if not ours else ():
            path.chmod(0o755)


def test_memory_that_ends_for_good_is_told_in_one_line(tmp_path, command, undisturbed, monkeypatch):
    calls = []

    class Starving(FormulaEngine):
        def train(self, cells, pack, listener=None):
            calls.append(pack)
            if len(calls) == 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nof many")
            return super().train(cells, pack, listener)

    def starve():
        runner.Engine = Starving

    code, said = command("run", "--results", tmp_path, before=starve)
    assert code == 2
    assert said == (
        "this machine must have more memory for this model, even for the smallest micro-batch, got CUDA out of memory."
        f" Tried to allocate 2 GiB of many; {GOING_ON}\n"
    )
    assert len(open_study(tmp_path / "critics").cells) > 0
    assert command("run", "--results", tmp_path) == (0, "")
    assert_same_study(tmp_path / "critics", undisturbed)


def test_a_clock_that_goes_back_changes_nothing_but_the_times(world, tmp_path, monkeypatch, undisturbed):
    class Backwards(datetime):
        calls = 0

        @classmethod
        def now(cls, tz=None):
            cls.calls += 1
            return datetime(2026, 3, 29, 3, tzinfo=tz) - timedelta(hours=cls.calls)

    monkeypatch.setattr(ledger_module, "datetime", Backwards)
    experiment = world.experiment(**SPEC)
    with simulated(monkeypatch, prepare(experiment)):
        study = run_study(experiment, tmp_path, progress=False)
    assert Backwards.calls == len(study.cells) + len(study.baselines)
    first, last = study.cells.sort_values("pack")["finished_at"].iloc[[0, -1]]
    assert first > last
    assert_same_study(study.folder, undisturbed)
