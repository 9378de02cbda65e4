"""Terminals that cannot show everything: what is said arrives as escapes, and nothing ends in a traceback."""

from __future__ import annotations

import csv
import io
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


def said(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[bytes, bytes]:
    """What a command that succeeds writes to an ASCII terminal, to standard output and to standard error."""
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding="ascii"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["lora-search", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    sys.stdout.flush()
    sys.stderr.flush()
    return out.getvalue(), err.getvalue()


def test_a_plan_on_an_ascii_terminal(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = said(monkeypatch, "plan", str(spec))
    assert b"60 examples of 2 labels: gr\\xf6\\xdfer (30), \\U0001f642 (30)." in out
    assert err == b""


def test_a_run_on_an_ascii_terminal(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = said(monkeypatch, "run", str(spec), "--results", str(tmp_path / "results"), "--trials", "1")
    assert b"recommended" in out
    assert b"\\U0001f642" in out + err
    assert (out + err).isascii()
