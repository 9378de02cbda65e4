"""Stopping and resuming from the page: only with --control, only by the page itself, and by the run's own means."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from dashboard_builders import record, served
from fabricated_studies import sampled_rows

from lora_search.dashboard import control, create_app
from lora_search.store.files import LIVE_FILE, LOCK_FILE

_WAITS = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("here", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return record(tmp_path / "film-quotes", sampled_rows(2))


@pytest.fixture
def run(folder):
    """A process that says it is the run of the study, started in the background: Ctrl-C's signal does not reach it."""
    with subprocess.Popen([sys.executable, "-c", _WAITS], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        said = {
            "state": "running", "process": process.pid, "machine": os.uname().nodename, "share": 0.5, "left": None,
            "left_words": "", "title": "", "epoch": 0, "epochs": 0, "step": 0, "steps": 0, "losses": [],
            "updated": time.time(),
        }  # fmt: skip
        (folder / LIVE_FILE).write_text(json.dumps(said), encoding="utf-8")
        (folder / LOCK_FILE).write_text(f"process {process.pid} on {os.uname().nodename}\n", encoding="utf-8")
        yield process
        process.kill()


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


def test_a_study_is_resumed_as_its_command_does_it(folder, monkeypatch):
    started = []
    monkeypatch.setattr(control.subprocess, "Popen", lambda command, **options: started.append((command, options)))
    assert control.stop(folder) == "No run is at work here."
    assert control.resume(folder).startswith("Started")
    [(command, options)] = started
    assert command[-4:] == ["run", str(folder / "experiment.toml"), "--results", str(folder.parent)]
    assert options["start_new_session"]


def test_a_study_that_runs_is_not_started_twice(folder, run, monkeypatch):
    monkeypatch.setattr(control.subprocess, "Popen", None)
    assert control.resume(folder) == "A run is at work here already."
    assert run.poll() is None
