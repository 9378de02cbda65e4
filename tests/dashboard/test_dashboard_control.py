"""Stopping and resuming from the page: only with --control, only by the page itself, and by the run's own means."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from dashboard_builders import record, served
from fabricated_studies import sampled_rows

from lora_search.dashboard import control, create_app
from lora_search.dashboard.watching import read_live
from lora_search.errors import StudyError
from lora_search.store.files import LIVE_FILE, LOCK_FILE

_WAITS = """
import pathlib, signal, sys, time
from lora_search.store.lock import FolderLock
signal.signal(signal.SIGINT, signal.SIG_IGN)
lock = FolderLock.acquire(pathlib.Path(sys.argv[1]))
print("here", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return record(tmp_path / "film-quotes", sampled_rows(2))


def speak(folder, process, machine=None):
    said = {
        "state": "running", "process": process, "machine": machine or os.uname().nodename, "share": 0.5, "left": None,
        "left_words": "", "title": "", "epoch": 0, "epochs": 0, "step": 0, "steps": 0, "losses": [],
        "updated": time.time(),
    }  # fmt: skip
    (folder / LIVE_FILE).write_text(json.dumps(said), encoding="utf-8")


@pytest.fixture
def run(folder):
    """A process that has the study as its run does, started in the background: Ctrl-C's signal does not reach it."""
    with subprocess.Popen([sys.executable, "-c", _WAITS, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        speak(folder, process.pid)
        yield process
        process.kill()


@pytest.fixture
def stranger():
    """A process that has nothing to do with any study."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def started(monkeypatch):
    """What was started: the commands, the options, and the processes, which end when they are told to."""
    found = []

    class Process:
        def __init__(self, command, **options):
            self.command, self.options, self.code = command, options, None
            found.append(self)

        def poll(self):
            return self.code

    monkeypatch.setattr(control.subprocess, "Popen", Process)
    return found


def secret_of(site):
    page = site.ask("/studies/film-quotes").text
    return page.partition('data-control="')[2].partition('"')[0]


def test_a_run_is_asked_to_stop(folder, run):
    with served(create_app(folder.parent, control=True)) as site:
        answer = site.ask("/studies/film-quotes/stop", method="POST", headers={"X-Control": secret_of(site)})
    assert answer.json["words"].startswith("Asked to stop")
    assert run.wait(10) == -signal.SIGTERM


def test_a_page_of_another_site_cannot_stop_it(folder, run):
    with served(create_app(folder.parent, control=True)) as site:
        for headers in ({}, {"X-Control": "guess"}, {"X-Control": secret_of(site), "Sec-Fetch-Site": "cross-site"}):
            assert site.ask("/studies/film-quotes/stop", method="POST", headers=headers).status == 403
        assert site.ask("/studies/film-quotes/stop", headers={"X-Control": secret_of(site)}).status == 405
    assert run.poll() is None


def test_without_control_there_is_nothing_to_ask(folder, run):
    with served(create_app(folder.parent)) as site:
        assert site.ask("/studies/film-quotes/stop", method="POST").status == 404
        assert "data-control" not in site.ask("/studies/film-quotes").text
        assert 'id="stop"' not in site.ask("/studies/film-quotes").text
    assert run.poll() is None


def test_a_study_is_resumed_as_its_command_does_it(folder, started):
    runs = control.Control()
    assert runs.stop(folder) == "No run is at work here."
    assert runs.resume(folder).startswith("Started")
    [process] = started
    assert process.command[-4:] == ["run", str(folder / "experiment.toml"), "--results", str(folder.parent)]
    assert process.options["start_new_session"]


def test_a_folder_that_is_not_called_like_its_study_is_not_gone_on_with(folder, started):
    """The run would begin another study, beside it or over it."""
    for other in (folder.rename(folder.with_name("old")), folder.with_name("copy")):
        if not other.exists():
            shutil.copytree(folder.with_name("old"), other)
        with pytest.raises(StudyError) as caught:
            control.Control().resume(other)
        rule = "must be called film-quotes, as its study, for a run to go on with it, got a renamed folder or a copy"
        assert caught.value.mistakes == (f"{other}: {rule}",)
    assert started == []


def test_the_page_says_why_a_study_is_not_gone_on_with(folder, started):
    folder.rename(folder.with_name("old"))
    with served(create_app(folder.parent, control=True)) as site:
        page = site.ask("/studies/old").text
        secret = page.partition('data-control="')[2].partition('"')[0]
        answer = site.ask("/studies/old/resume", method="POST", headers={"X-Control": secret})
    assert "its folder was renamed or copied: only in a folder of that name a run goes on with it" in page
    assert "<code>lora-search run" not in page
    assert (answer.status, "must be called film-quotes, as its study" in answer.text) == (409, True)
    assert started == []


def test_a_study_is_gone_on_with_by_way_of_a_link_of_its_name(folder, started, tmp_path):
    folder = folder.rename(folder.with_name("kept"))
    (tmp_path / "results").mkdir()
    link = tmp_path / "results" / "film-quotes"
    link.symlink_to(folder)
    assert control.Control().resume(link).startswith("Started")
    assert started[0].command[-2:] == ["--results", str(tmp_path / "results")]


def test_a_folder_without_its_experiment_is_told_what_writes_it(folder, started):
    (folder / "experiment.toml").unlink()
    with pytest.raises(StudyError, match=f"experiment.toml: must be there, got none; lora-search doctor {folder}"):
        control.Control().resume(folder)
    assert started == []


def test_a_study_that_runs_is_not_started_twice(folder, run, started):
    assert control.Control().resume(folder) == "A run is at work here already."
    assert (run.poll(), started) == (None, [])


def test_a_run_that_was_started_is_at_work_before_it_says_so_and_no_longer_when_it_has_ended(folder, started):
    runs = control.Control()
    runs.resume(folder)
    assert runs.resume(folder) == "A run is at work here already."
    started[0].code = 2
    assert runs.resume(folder).startswith("Started")
    assert len(started) == 2


def test_a_stranger_with_the_number_of_a_killed_run_is_no_run(folder, stranger, started):
    """The run was killed, or the machine restarted, and its number given to another process."""
    (folder / LOCK_FILE).write_text(f"process {stranger.pid} on {os.uname().nodename}\n", encoding="utf-8")
    speak(folder, stranger.pid)
    assert read_live(folder)["running"] is False
    runs = control.Control()
    assert runs.stop(folder) == "No run is at work here."
    assert runs.resume(folder).startswith("Started")
    assert (stranger.poll(), len(started)) == (None, 1)


def test_a_number_that_changes_hands_at_the_last_moment_is_not_signalled(folder, run, monkeypatch):
    asked = iter([run.pid, None])
    monkeypatch.setattr(control, "process_of", lambda folder: next(asked))
    assert control.Control().stop(folder) == "No run is at work here."
    assert run.poll() is None


def test_a_run_that_was_killed_and_not_waited_for_is_no_run(folder, run, started):
    """A zombie has a number still; its lock is free."""
    os.kill(run.pid, signal.SIGKILL)
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
    assert read_live(folder)["running"] is False
    assert control.Control().resume(folder).startswith("Started")


def test_a_run_on_another_machine_is_neither_signalled_nor_doubled(folder, stranger, started):
    speak(folder, stranger.pid, machine="another")
    runs = control.Control()
    assert runs.stop(folder) == "The run is on another machine: stop it there."
    assert runs.resume(folder) == "A run is at work here already."
    assert (stranger.poll(), started) == (None, [])


def test_a_run_of_another_user_is_left_alone_and_that_is_said(folder, run, monkeypatch):
    def refused(*arguments):
        raise PermissionError

    monkeypatch.setattr(control.signal, "pidfd_send_signal", refused)
    assert control.Control().stop(folder) == f"The run, process {run.pid}, is another user's: ask there."
