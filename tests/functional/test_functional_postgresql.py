"""Whole studies in PostgreSQL: equal to those in a folder, whatever befalls the server, the driver or its machine."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

from simulated_study import Killed, die_at, simulated
from tiny_world import assert_same_study

from lora_search import run_study
from lora_search.store import session
from lora_search.study import prepare

SIMULATED = {"search": {"trials": 4}, "baselines": {"include": ["majority"]}}


def test_every_command_takes_a_study_in_a_database(
    world, finished, tmp_path, lora_search, postgresql, monkeypatch, plain_reports
):
    from postgresql_server import PASSWORD

    monkeypatch.setattr(
        "lora_search.reporting.page.save_figures", lambda *_: None
    )  # which take seconds, and read nothing
    spec = world.file(tmp_path)
    answer = lora_search("run", spec, "--storage", postgresql.storage, "--quiet")
    assert (answer.code, answer.err) == (0, "")
    folder = Path("results") / "critics"
    assert not (folder / "study.db").exists()
    assert_same_study(folder, finished)
    shutil.rmtree("results")
    # from here on another machine, which has the database alone
    monkeypatch.setenv("LORA_SEARCH_STORAGE", postgresql.storage)
    assert lora_search("attach", "--results", "elsewhere") == replace(answer, out="elsewhere/critics\n")
    elsewhere = Path("elsewhere") / "critics"
    assert lora_search("verdict", elsewhere).out == answer.out
    status = lora_search("status", elsewhere).out
    assert status.startswith("critics: 4 of 4 trials (4 complete)\n8 of 8 trainings recorded, ")
    assert lora_search("report", elsewhere).out == "elsewhere/critics/report.html\n"
    assert lora_search("export", elsewhere, "adapter").code == 0
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes(), path
    with postgresql.connect() as connection:
        query = "select string_agg(value, '') from lora_search_critics.lora_study"
        assert PASSWORD not in connection.execute(query).fetchone()[0]
        names = connection.execute("select application_name, query from pg_stat_activity").fetchall()
        assert PASSWORD not in str(names)


def test_a_password_in_the_address_goes_no_further(world, tmp_path, lora_search):
    spec = world.file(tmp_path)
    for address in ("postgresql://lora:geheim@127.0.0.1/studies", "postgresql://127.0.0.1/studies?password=geheim"):
        answer = lora_search("run", spec, "--storage", address)
        assert answer.code == 2
        assert answer.err.startswith("--storage: must hold no password, ")
        assert "geheim" not in answer.out + answer.err
    assert not Path("results").exists()


def test_killed_and_gone_on_with_elsewhere_while_the_server_is_killed_too(world, tmp_path, postgresql, monkeypatch):
    """Every driver begins in a folder of its own: nothing of the one before is left but the database."""
    monkeypatch.setattr(session, "_LONGEST_PAUSE", 0.05)
    prepared = prepare(world.experiment(**SIMULATED))
    with simulated(monkeypatch, prepared):
        undisturbed = run_study(prepared.experiment, tmp_path / "undisturbed", progress=False).folder
    deaths, timers, writes = [], [], 0

    def one_or_the_other():
        die = die_at(27)

        def hear(name):
            nonlocal writes
            die(name)
            writes += 1
            if writes % 20 == 12:
                postgresql.kill()
                timers.append(threading.Timer(0.05, postgresql.start))
                timers[-1].start()

        return hear

    while True:
        try:
            with simulated(monkeypatch, prepared, one_or_the_other()):
                place = tmp_path / str(len(deaths))
                study = run_study(prepared.experiment, place, progress=False, storage=postgresql.storage)
        except Killed as killed:
            deaths.append(str(killed))
        else:
            break
        finally:
            for timer in timers:
                timer.join()
    assert len(deaths) >= 2
    assert len(timers) >= 2
    assert_same_study(study.folder, undisturbed)
