"""The command line itself: help, version, misuse, pipes."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_search import cli

PRINTING = "import sys; sys.argv = ['lora-search', 'schema']; from lora_search.cli import main; main()"
"""Python that prints some pages."""
COMMANDS = ("run", "plan", "targets", "status", "verdict", "report", "export", "doctor", "schema")


def invoke(*arguments):
    return CliRunner().invoke(cli.app, arguments)


def test_help_says_what_each_command_does_on_one_line():
    answer = invoke("--help")
    assert answer.exit_code == 0
    said = dict(re.findall(r"^  (\w+) +(.+)$", answer.output, re.MULTILINE))
    assert set(COMMANDS) <= set(said)
    assert all(not said[command].endswith("...") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    answer = invoke(command, "--help")
    assert answer.exit_code == 0
    assert "Usage: " in answer.output


def test_the_margin_is_explained_in_the_unit_it_is_given_in():
    assert "0.01 is one point of a hundred" in " ".join(invoke("verdict", "--help").output.split())


def test_version():
    answer = invoke("--version")
    assert (answer.exit_code, answer.output) == (0, version("lora-search") + "\n")


def test_the_package_is_the_program(monkeypatch, capsys):
    """``python -m lora_search``."""
    monkeypatch.setattr(sys, "argv", ["lora_search", "--version"])
    monkeypatch.delitem(sys.modules, "lora_search.__main__", raising=False)  # another test imports every module
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("lora_search", run_name="__main__")
    assert not ended.value.code
    assert capsys.readouterr().out == version("lora-search") + "\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "Missing argument"),
        (["run", "a.toml", "--bogus"], "No such option: --bogus"),
        (["run", "a.toml", "--trials", "many"], "--trials"),
        (["verdict", "results/a", "--margin", "wide"], "--margin"),
        (["bogus"], "No such command 'bogus'"),
        ([], "Usage: "),
    ],
)
def test_misuse(arguments, said):
    answer = invoke(*arguments)
    assert answer.exit_code == 2
    assert said in answer.output


@pytest.fixture
def lora_search(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["lora-search", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        captured = capsys.readouterr()
        return exit_.value.code, captured.out, captured.err

    return call


VALID = """
name = "reviews"
model = { base = "owner/model" }
data = { train = "reviews.csv" }
verdict = { metric = "accuracy" }
"""


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("text", "arguments", "lines"),
    [
        (None, [], ["spec.toml: no such file"]),
        ("name = [", [], ["spec.toml: line 1, at its end: invalid value"]),
        (
            VALID + "search = { rank = [0], ranks = 1 }",
            [],
            [
                "spec.toml: search.rank[0]: must be at least 1, got 0",
                "spec.toml: search.ranks: unknown key, did you mean search.rank?",
            ],
        ),
        (VALID, ["--set", "nonsense"], ['--set: must be KEY=VALUE, got "nonsense"']),
        (VALID, ["--set", "serch.rank=1"], ["--set: serch: unknown key, did you mean search?"]),
        (VALID, ["--set", "search.rank=0"], ["--set: search.rank: must be at least 1, got 0"]),
        (VALID, ["--trials", "0"], ["--trials: search.trials: must be at least 1, got 0"]),
        (VALID, ["--set", "verdict.margin=-1"], ["--set: verdict.margin: must be at least 0, got -1"]),
    ],
)
def test_mistakes_of_the_file_and_of_overrides(lora_search, tmp_path, command, text, arguments, lines):
    if text is not None:
        (tmp_path / "spec.toml").write_text(text)
    code, out, err = lora_search(command, "spec.toml", *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines() == lines
    assert {path.name for path in tmp_path.iterdir()} <= {"spec.toml"}


def test_an_override_that_is_wrong_inside_is_not_blamed_on_the_file(lora_search, tmp_path):
    (tmp_path / "spec.toml").write_text(VALID)
    _, _, err = lora_search("run", "spec.toml", "--set", "data.train=other.csv")
    assert err.startswith("--set: data.train: must be an existing file or folder, got 'other.csv'")


def test_a_reader_that_stops_reading_is_no_failure(tmp_path):
    """As ``lora-search schema | head -1``, when head is gone before the end."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-c", PRINTING], stdout=write, stderr=subprocess.PIPE, text=True, timeout=120
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full is Linux's")
@pytest.mark.parametrize("buffered", ["", "1"])
def test_output_that_cannot_be_written_is_told_in_a_line(buffered):
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PRINTING],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            env=environment,
        )
    assert (done.returncode, done.stderr) == (2, "the output: No space left on device\n")


def test_output_that_nobody_wants_is_no_failure():
    command = shlex.join([sys.executable, "-c", PRINTING]) + " >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("redirected", "said"),
    [(">&-", ("", "nowhere: ")), ("2>&-", ("", "")), ("2</dev/null", ("", ""))],
)
def test_mistakes_that_nobody_reads_are_mistakes_all_the_same(tmp_path, redirected, said):
    code = "import sys; sys.argv = ['lora-search', 'status', 'nowhere']; from lora_search.cli import main; main()"
    command = f"{shlex.join([sys.executable, '-c', code])} {redirected}"
    environment = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    assert (done.stdout, done.stderr[: len("nowhere: ")]) == said


def test_results_that_are_a_file_are_told_at_once(lora_search, tmp_path):
    (tmp_path / "spec.toml").write_text(VALID)
    (tmp_path / "results").write_text("")
    code, _, err = lora_search("run", "spec.toml", "--results", "results")
    assert (code, err) == (2, "--results: must be a folder, or nothing yet, got 'results', a file\n")
