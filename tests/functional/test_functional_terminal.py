"""Terminals that cannot show everything, and libraries that talk: what is said arrives, and nothing else does."""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_world import sentences, write_experiment

from lora_search import cli


@pytest.fixture
def spec(world, tmp_path: Path) -> Path:
    """An experiment whose labels are beyond ASCII."""
    names = {"fresh": "größer", "rotten": "🙂"}
    with (tmp_path / "data.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *((text, names[label]) for text, label in sentences())])
    return write_experiment(tmp_path / "spec.toml", world.settings(data={"train": str(tmp_path / "data.csv")}))


def test_an_ascii_terminal_is_shown_escapes(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["lora-search", "plan", str(spec)])
    cli.main()
    sys.stdout.flush()
    assert b"60 examples of 2 labels: gr\\xf6\\xdfer (30), \\U0001f642 (30)." in out.getvalue()
    assert err.getvalue() == b""


def test_a_whole_run_on_an_ascii_terminal(spec: Path, tmp_path: Path) -> None:
    """As a process, which sees the variables from its beginning on; nothing but ASCII, no traceback."""
    command = str(Path(sys.executable).with_name("lora-search"))
    variables = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [command, "run", str(spec), "--results", str(tmp_path / "results"), "--trials", "1"],
        env={**os.environ, **variables},
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    assert (done.stdout + done.stderr).isascii()
    assert b"\\U0001f642" in done.stdout + done.stderr
