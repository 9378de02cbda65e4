"""Ctrl-C at a terminal, SIGTERM to a job: exit codes 130 and 143, and the printed line goes on."""

from __future__ import annotations

import os
import re
import shlex
from concurrent.futures import ThreadPoolExecutor

import pytest
from forking import SECONDS, ForkedCommand, read_all
from tiny_world import assert_same_study

from lora_search import open_study, spec
from lora_search.export import adapter
from lora_search.reporting import page
from lora_search.store import mending, reader

SLOW = {"search": {"trials": 3}, "cv": {"folds": 3}, "training": {"epochs": 6}}


def test_interrupted_at_a_terminal_and_in_a_job(world, tmp_path, lora_search):
    command = ["run", world.file(tmp_path, **SLOW), "--results"]
    ours, theirs = os.openpty()
    terminal = ForkedCommand([*command, "at a terminal"], tmp_path, theirs)
    os.close(theirs)
    job = ForkedCommand([*command, "job"], tmp_path)

    # the third fold is under way: some cells are recorded, some are not
    with ThreadPoolExecutor() as both:
        seen_ = both.submit(read_all, ours, "fold 3  epoch", lambda: os.write(ours, b"\x03"))
        log_ = both.submit(read_all, job.err, "fold 3", job.terminate)
        seen, log = seen_.result(), log_.result()
    os.close(ours)
    assert terminal.wait(SECONDS) == 130, seen
    assert job.wait(SECONDS) == 143, log
    assert os.read(job.out, 1) == b"", "no verdict"
    for end in (job.out, job.err):
        os.close(end)

    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen)
    assert "━" in plain, "a bar"
    assert re.search(r"epoch \d+/6  loss \d\.\d+  .*about \d+s left", plain)
    assert "\x1b" not in log
    assert "━" not in log
    for said, results in ((plain, "at a terminal"), (log, "job")):
        *_, sentence, line = [line for line in said.splitlines() if line.strip()]
        assert sentence.endswith(f"Everything finished is in {results}/critics; go on with:")
        recorded = open_study(tmp_path / results / "critics")
        assert 0 < len(recorded.cells) < 9
        again = lora_search(*shlex.split(line)[1:])
        assert again.code == 0
        assert "Traceback" not in said
        study = open_study(tmp_path / results / "critics")
        assert len(study.cells) == 9
        assert set(recorded.cells["finished_at"]) <= set(study.cells["finished_at"]), "nothing was trained twice"
    assert_same_study(tmp_path / "at a terminal" / "critics", tmp_path / "job" / "critics")


@pytest.mark.parametrize("command", ["status", "verdict", "report", "export", "plan", "doctor"])
def test_any_command_can_be_interrupted(tmp_path, lora_search, monkeypatch, command):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for module in (reader, page, adapter):
        monkeypatch.setattr(module, "read_study", interrupted)
    monkeypatch.setattr(mending, "mend_study", interrupted)
    monkeypatch.setattr(spec, "load_experiment", interrupted)
    rest = ["adapter"] if command == "export" else []
    answer = lora_search(command, "critics", *rest)
    line = " ".join(["lora-search", command, "critics", *rest])
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == f"Interrupted. Go on with:\n  {line}\n"
