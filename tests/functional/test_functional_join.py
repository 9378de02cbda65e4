"""A second run of a study, begun with --join, goes on in place of the first."""

from __future__ import annotations

import os
import signal
import threading

from forking import SECONDS, ForkedCommand, read_all, read_until
from tiny_world import assert_same_study

from lora_search import run_study
from lora_search.store.ledger import Ledger
from lora_search.store.lock import FolderLock
from lora_search.store.storages import FolderStorage
from lora_search.study import turns
from lora_search.study.progress import Silent


def killed_while_another_waits(spec, tmp_path, first, second):
    """Two runs of an experiment; the first is killed when the second has said that it waits."""
    one = ForkedCommand(["run", spec, *first], tmp_path)
    read_until(one.err, "fold 1")
    os.kill(one.pid, signal.SIGSTOP)
    two = ForkedCommand(["run", spec, "--join", *second], tmp_path)
    said = read_all(two.err, "waiting to go on", one.kill)
    assert two.wait(SECONDS) == 0, said
    assert one.wait(SECONDS) == -signal.SIGKILL
    assert f"another run has the study (process {one.pid} on {os.uname().nodename})"[:60] in said
    for end in (one.out, one.err, two.out, two.err):
        os.close(end)


def test_in_a_folder(world, finished, tmp_path):
    killed_while_another_waits(world.file(tmp_path), tmp_path, [], [])
    assert_same_study(tmp_path / "results" / "critics", finished)


def test_in_a_database(world, finished, tmp_path, postgresql):
    where = ["--storage", postgresql.storage, "--results"]
    killed_while_another_waits(world.file(tmp_path), tmp_path, [*where, "here"], [*where, "there"])
    assert_same_study(tmp_path / "there" / "critics", finished)


def test_of_a_study_that_nobody_has_it_is_a_run_as_any(world, finished, lora_search, tmp_path):
    answer = lora_search("run", world.file(tmp_path), "--join")
    assert (answer.code, "waiting" in answer.err) == (0, False)
    assert_same_study(tmp_path / "results" / "critics", finished)


def test_of_several_that_wait_one_goes_on_and_the_others_wait_again(world, finished, tmp_path, monkeypatch):
    """Another run comes in while this one, whose turn it was, loads data and model."""
    monkeypatch.setattr(turns, "_PAUSE", 0.01)
    folder = tmp_path / "critics"
    opened, others, notes = Ledger.open, [], []

    def open_second(*arguments):
        if not others:
            folder.mkdir()
            others.append(FolderLock.acquire(folder))
            threading.Timer(0.5, others[0].release).start()
        return opened(*arguments)

    class Noting(Silent):
        def note(self, sentence):
            notes.append(sentence)

    monkeypatch.setattr(Ledger, "open", open_second)
    run_study(world.experiment(), tmp_path, progress=Noting(), join=True)
    assert sum("waiting to go on in its place" in note for note in notes) == 1
    assert FolderStorage(folder).holder() is None
    assert_same_study(folder, finished)


def test_without_it_a_second_run_is_refused(world, tmp_path, lora_search):
    experiment = world.experiment()
    with Ledger.open(tmp_path / "results" / "critics", experiment, {}):
        answer = lora_search("run", world.file(tmp_path))
    assert answer.code == 2
    assert "another run is writing to" in answer.err
