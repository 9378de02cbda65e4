"""The command as a user starts it: the address it prints, what it starts beside itself, how it ends."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest
from dashboard_builders import record
from fabricated_studies import sampled_rows

from lora_search.dashboard import serve
from lora_search.errors import InputError

_COMMAND = [sys.executable, "-c", "from lora_search.cli import main; main()", "dashboard"]


@contextmanager
def started(*arguments, **environment):
    """The command on a free port: the first line it prints, and the process."""
    with subprocess.Popen(
        [*_COMMAND, *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process.stdout.readline(), process
        finally:
            process.kill()


def until(holds):
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end, "did not come true in 30 s"
        time.sleep(0.02)


def test_it_says_where_it_is_and_ends_quietly(tmp_path):
    record(tmp_path / "film-quotes", sampled_rows(2))
    with started(tmp_path) as (line, process):
        address = line.split(": ", 1)[1].strip()
        assert "token" not in address
        assert b"film-quotes" in urllib.request.urlopen(address, timeout=60).read()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_optuna_s_own_dashboard_is_started_beside_it_and_reads_only(tmp_path):
    record(tmp_path / "results" / "film-quotes", sampled_rows(2))
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "optuna-dashboard"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/asked.tmp\nmv {tmp_path}/asked.tmp {tmp_path}/asked\nexec sleep 60\n'
    )
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    with started(tmp_path / "results", "--optuna", PATH=path) as (_, process):
        line = process.stdout.readline()
        until(asked.exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    storage, *rest = asked.read_text().split()
    assert line.startswith("film-quotes in optuna-dashboard: http://127.0.0.1:")
    assert storage == f"sqlite:///file:{tmp_path}/results/film-quotes/study.db?mode=ro&uri=true"
    assert rest[:2] == ["--host", "127.0.0.1"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"optuna": True}, "--optuna: needs optuna-dashboard, which is not installed"),
        ({"host": "192.0.2.1"}, "must be an address of this machine that is free"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is(tmp_path, monkeypatch, arguments, words):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=words):
        serve(tmp_path, port=0, **arguments)


def test_elsewhere_and_with_control_a_token_is_printed(tmp_path):
    with started(tmp_path, "--control") as (line, _):
        assert "/?token=" in line
