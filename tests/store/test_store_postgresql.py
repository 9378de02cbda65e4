"""Studies in PostgreSQL: what is theirs alone. What they share with all studies is in ``storage_contract``."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pytest
from sqlalchemy import event
from store_builders import ENVIRONMENT, another_run, cell, experiment, trial, verdict

from lora_search.errors import InputError, MachineError, StudyError
from lora_search.store import session
from lora_search.store.address import DatabaseAddress, address_in, checked_storage, write_address
from lora_search.store.ledger import Ledger
from lora_search.store.mending import mend_study
from lora_search.store.postgresql import revisions
from lora_search.store.reader import read_study
from lora_search.store.storages import attach_studies
from lora_search.store.verdicts import named_trials

NOWHERE = "postgresql://lora@127.0.0.1:1/studies"
_PATIENCE = 30.0  # seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "reviews"


def begin(folder: Path, server: Any, asked: Any = None) -> Ledger:
    return Ledger.open(folder, asked or experiment(), ENVIRONMENT, server.storage)


def refusal(work: Any, *arguments: Any) -> str:
    with pytest.raises(InputError) as caught:
        work(*arguments)
    (mistake,) = caught.value.mistakes
    assert "\n" not in mistake
    return mistake


# -- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://db.example.org/studies",
        "postgres://lora@db:5432/studies?sslmode=require&connect_timeout=3",
        "postgresql://lora%40corp@[::1]:5432,other:5433/studies",
        "postgresql:///studies?host=/var/run/postgresql",
        "postgresql://?service=studies",
        "postgresql://db/studies?require_auth=scram-sha-256,gss",
        "postgresql://db/studies?require_auth=!password,!md5",
    ],
)
def test_addresses_that_are_taken(address: str) -> None:
    assert checked_storage(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://lora:geheim@db/studies",
        "postgresql://lora:ge%20heim@db/studies",
        "postgresql://lora:ge/heim@db/studies",
        "postgresql://lora:ge?heim@db/studies",
        "postgresql://lora:ge#heim@db/studies",
        "postgresql://lora:geheim@one@db/studies",
        "postgresql://lora:geheim",
        "postgresql://db/studies?user=lora&password=geheim",
        "postgresql://db/studies?pass%77ord=geheim",
        "postgresql://db/studies?sslpassword=geheim",
        "postgresql+psycopg://lora:geheim@db/studies",
        "mysql://geheim",
        "host=db password=geheim",
        "geheim",
    ],
)
def test_a_password_is_refused_and_not_repeated(address: str, folder: Path) -> None:
    mistake = refusal(Ledger.open, folder, experiment(), ENVIRONMENT, address)
    assert mistake.startswith("--storage: must ")
    assert "heim" not in mistake
    assert not folder.exists()


@pytest.mark.parametrize("methods", ["password", "pass%77ord", "scram-sha-256,password", "!md5", ""])
def test_an_address_may_not_have_a_password_told_in_clear(methods: str) -> None:
    assert refusal(checked_storage, f"postgresql://db/studies?require_auth={methods}") == (
        "--storage: may require no other ways than none, scram-sha-256, md5, gss, sspi; "
        "PGREQUIREAUTH may, which is yours alone"
    )


def test_a_server_that_asks_for_the_password_in_clear_is_not_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder from elsewhere may name any server; the password is meant for another."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'lora-search[postgresql]')")
    monkeypatch.setenv("PGPASSWORD", "geheim")
    folder.mkdir(parents=True)
    for methods, told in ((None, False), ("password", True)):
        if methods is not None:
            monkeypatch.setenv("PGREQUIREAUTH", methods)
        with closing(socket.create_server(("127.0.0.1", 0))) as server:
            server.settimeout(_PATIENCE)
            heard = []
            thread = threading.Thread(target=lambda server=server, heard=heard: heard.append(asks_in_clear(server)))
            thread.start()
            write_address(
                folder, DatabaseAddress(f"postgresql://lora@127.0.0.1:{server.getsockname()[1]}/x", "reviews")
            )
            mistake = refusal(read_study, folder)
            thread.join()
        assert heard == [b"geheim" if told else b""]
        assert ("server requested a cleartext password" in mistake) == (not told)


def asks_in_clear(server: socket.socket) -> bytes:
    """Be a server that asks for the password as it is; what it is told."""
    connection, _ = server.accept()
    with connection:
        connection.settimeout(_PATIENCE)
        asked = connection.recv(4096)
        while asked[4:8] in (struct.pack("!I", 80877103), struct.pack("!I", 80877104)):  # for encryption
            connection.sendall(b"N")
            asked = connection.recv(4096)
        connection.sendall(b"R" + struct.pack("!II", 8, 3))
        return connection.recv(4096)[5:-1]


def test_every_study_has_a_schema_whatever_its_name() -> None:
    names = ["a", "A.b-c_d", "x" * 100, "x" * 99 + "y", "x" * 99 + "Y"]
    schemas = [DatabaseAddress(NOWHERE, name).schema for name in names]
    assert schemas[:2] == ["lora_search_a", "lora_search_A.b-c_d"]
    assert len(set(schemas)) == len(names)
    assert all(len(DatabaseAddress(NOWHERE, name).new_schema) <= 63 for name in names)


@pytest.mark.parametrize(
    "text",
    [
        "", "{}", "[]", '{"storage": 3, "study": "a"}', "\xff", f'{{"storage": "{NOWHERE}", "study": "../a"}}',
        f'{{"storage": "{NOWHERE}", "study": "a\\"; drop schema b"}}', f'{{"storage": "{NOWHERE}", "study": 3}}',
    ],
)  # fmt: skip
def test_a_damaged_pointer_is_named(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "storage.json").write_text(text, encoding="latin-1")
    mistake = refusal(read_study, folder)
    assert mistake.startswith(f"{folder / 'storage.json'}: must say where the study is kept, got a damaged file; ")


def test_without_psycopg_it_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MachineError, match=r"needs psycopg, which is not installed \(pip install 'lora-search\[post"):
        Ledger.open(folder, experiment(), ENVIRONMENT, NOWHERE)


# -- places --------------------------------------------------------------------------------------------------------


def test_a_study_is_in_its_database_whole(folder: Path, postgresql: Any, tmp_path: Path) -> None:
    with begin(folder, postgresql) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_cell(cell(0))
        ledger.write_examples(np.arange(30) % 3, np.arange(30))
        ledger.write_verdict(verdict())
        ledger.write_tables()
        here = ledger.tables()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".csv", ".toml", ".json")}
    shutil.rmtree(folder)
    (elsewhere,) = attach_studies(tmp_path / "elsewhere", postgresql.storage)
    there = read_study(elsewhere)
    for _ in range(2):  # from the database, and from the copy
        assert there.predictions()["p0"].tolist() == cell(0).probabilities[:, 0].tolist()
        (copy,) = (elsewhere / "predictions").glob("trial-*")
        copy.write_bytes(copy.read_bytes()[:-1])  # which is not taken for what was recorded
    assert there.cells.equals(here.cells)
    assert there.trials.equals(here.trials)
    assert there.examples()["label"].tolist() == (np.arange(30) % 3).tolist()
    assert there.verdict() == verdict()
    assert named_trials(there.verdict() or {}) == {0}
    findings = {finding.what: finding for finding in mend_study(elsewhere)}
    assert all(finding.sound for finding in findings.values())
    assert findings["database"].found == f"sound: 1 trials, 1 trainings, format 2, in {postgresql.storage}"
    assert findings["predictions"].found == "all 1 are there and as they were recorded"
    assert {name: (elsewhere / name).read_bytes() for name in before} == before
    # and a run goes on there, without being told where
    with Ledger.open(elsewhere, experiment(), ENVIRONMENT) as ledger:
        ledger.add_cell(cell(0, 0, 1))
    assert len(read_study(elsewhere).cells) == 2


def test_several_studies_of_a_database_leave_each_other_alone(postgresql: Any, tmp_path: Path) -> None:
    names = ["films.new", "films", "films-2"]
    for name in names:
        with begin(tmp_path / "here" / name, postgresql, experiment(name=name)) as ledger:
            ledger.add_trial(trial(len(name)))
            ledger.optuna_study().ask()
    folders = attach_studies(tmp_path / "there", postgresql.storage)
    assert [folder.name for folder in folders] == sorted(names)
    assert [int(read_study(folder).trials["trial"].item()) for folder in folders] == [5, 7, 9]
    assert attach_studies(tmp_path / "one", postgresql.storage, ["films"]) == [tmp_path / "one" / "films"]
    with postgresql.connect() as connection:
        connection.execute("create role onlooker login password 'zaungast'")
        for statement in ("usage on schema {}", "select on all tables in schema {}"):
            connection.execute(f"grant {statement.format('lora_search_films')} to onlooker")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", "zaungast")
        (folder,) = attach_studies(tmp_path / "onlooker", postgresql.storage.replace("lora@", "onlooker@"))
        assert read_study(folder).experiment.name == "films"
    with postgresql.connect() as connection:
        connection.execute("drop owned by onlooker; drop role onlooker")


def test_predictions_that_the_database_lost_are_told(folder: Path, postgresql: Any) -> None:
    with begin(folder, postgresql) as ledger:
        ledger.add_trial(trial(0))
        ledger.add_cell(cell(0))
    shutil.rmtree(folder / "predictions")
    with postgresql.connect() as connection:
        connection.execute("delete from lora_search_reviews.lora_files")
    tables = read_study(folder)
    mistake = refusal(tables.predictions)
    assert f": is missing, and {postgresql.storage} says that trial 0, repeat 0, fold 0 is complete; a back" in mistake
    findings = {finding.what: finding for finding in mend_study(folder)}
    assert not findings["predictions"].sound
    assert not findings["examples"].sound
    assert len(read_study(folder).cells) == 1, "nothing is forgotten in a database that may have a backup"


def test_a_folder_is_that_of_one_study(folder: Path, postgresql: Any, tmp_path: Path) -> None:
    with begin(folder, postgresql):
        pass
    other = SimpleNamespace(storage=NOWHERE)
    at = f"study reviews in {postgresql.storage}"
    mistake = refusal(begin, folder, other)
    assert mistake.startswith(f"{folder}: is the folder of {at}, got study reviews in {NOWHERE}; ")
    own = tmp_path / "own" / "reviews"
    with Ledger.open(own, experiment(), ENVIRONMENT):
        pass
    assert refusal(begin, own, postgresql).startswith(f"{own}: holds a study of its own, study.db; leave --storage out")
    assert "holds a study of its own" in refusal(attach_studies, own.parent, postgresql.storage)
    (tmp_path / "reviews").mkdir()
    (tmp_path / "reviews" / "mine.txt").touch()
    assert "must be empty or hold a study" in refusal(attach_studies, tmp_path, postgresql.storage)
    unknown = refusal(attach_studies, tmp_path, postgresql.storage, ["reviewz"])
    assert unknown == "NAME: must be one of reviews, got reviewz"


def test_what_is_no_study_of_a_database_gets_no_folder(folder: Path, postgresql: Any, tmp_path: Path) -> None:
    """Others may have the right to make schemas there, and call themselves anything."""
    with begin(folder, postgresql), postgresql.connect() as connection:
        for schema, name in (
            ("lora_search_evil", "../../outside"),
            ("lora_search_twin", "reviews"),
            ('lora_search_x".y; create table public.made(); --', "x"),
        ):
            quoted = schema.replace('"', '""')
            connection.execute(f'create schema "{quoted}"; create table "{quoted}".lora_study (key text, value text)')
            said = json.dumps({"name": name})
            connection.execute(f"insert into \"{quoted}\".lora_study values ('experiment', %s)", (said,))
    try:
        there = tmp_path / "a" / "b" / "there"
        assert attach_studies(there, postgresql.storage) == [there / "reviews"]
        assert sorted(path.name for path in tmp_path.rglob("storage.json")) == ["storage.json"] * 2
        unknown = refusal(attach_studies, there, postgresql.storage, ["../../outside"])
        assert unknown == "NAME: must be one of reviews, got ../../outside"
        with postgresql.connect() as connection:
            assert connection.execute("select to_regclass('public.made')").fetchone() == (None,)
    finally:
        with postgresql.connect() as connection:
            for schema in ("lora_search_evil", "lora_search_twin", 'lora_search_x"".y; create table public.made(); --'):
                connection.execute(f'drop schema "{schema}" cascade')


def test_what_a_server_refuses_is_told_in_a_line(
    folder: Path, postgresql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert refusal(begin, folder, SimpleNamespace(storage=NOWHERE)).startswith(
        f"{NOWHERE}: must be a database that answers, got "
    )
    assert refusal(attach_studies, tmp_path, postgresql.storage) == f"{postgresql.storage}: must hold a study, got none"
    folder.mkdir(parents=True, exist_ok=True)
    write_address(folder, DatabaseAddress(postgresql.storage, "reviews"))
    assert refusal(read_study, folder) == f"{postgresql.storage}: must hold a study reviews, got none of that name"
    with begin(folder, postgresql), postgresql.connect() as connection:
        connection.execute("create role reader login password 'leser'")
        connection.execute("update lora_search_reviews.lora_study set value = '99' where key = 'format'")
    newer = "was written by a newer lora-search, of format 99; this one reads 2"
    assert refusal(read_study, folder) == f"study reviews in {postgresql.storage}: {newer}"
    assert refusal(begin, folder, postgresql) == f"study reviews in {postgresql.storage}: {newer}"
    with postgresql.connect() as connection:
        connection.execute("drop table lora_search_reviews.lora_study cascade")
    assert refusal(read_study, folder) == f"{postgresql.storage}: must hold a study reviews, got none of that name"
    weak = SimpleNamespace(storage=postgresql.storage.replace("lora@", "reader@"))
    monkeypatch.setenv("PGPASSWORD", "leser")
    other = tmp_path / "other" / "ratings"
    mistake = refusal(begin, other, weak, experiment(name="ratings"))
    assert mistake == f"{weak.storage}: must let this user keep a study (permission denied for database studies)"
    monkeypatch.setenv("PGPASSWORD", "falsch")
    assert 'password authentication failed for user "reader"' in refusal(begin, other, weak)
    with postgresql.connect() as connection:
        connection.execute("drop role reader")


def test_the_password_may_be_in_libpqs_file(
    folder: Path, postgresql: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postgresql_server import PASSWORD

    monkeypatch.delenv("PGPASSWORD")
    kept = tmp_path / "pgpass"
    kept.write_text(f"127.0.0.1:*:*:*:{PASSWORD}\n")
    kept.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(kept))
    with begin(folder, postgresql) as ledger:
        ledger.add_trial(trial(0))
        assert ledger.optuna_study().ask().number == 0
    for path in folder.rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()


# -- runs ----------------------------------------------------------------------------------------------------------


def test_a_run_elsewhere_is_refused_until_this_one_is_gone(folder: Path, postgresql: Any, tmp_path: Path) -> None:
    with another_run(tmp_path / "there" / "reviews", postgresql.storage) as process:
        said = f"process {process.pid} on {os.uname().nodename}"[: 63 - len("lora-search: ")]
        assert refusal(begin, folder, postgresql) == (
            f"{folder}: another run is writing to study reviews in {postgresql.storage} ({said})"
        )
        process.kill()
    until = time.monotonic() + 30
    while True:  # the server notices at once, which is not in no time
        try:
            ledger = begin(folder, postgresql)
        except StudyError:
            assert time.monotonic() < until
            time.sleep(0.02)
        else:
            break
    with ledger:
        assert [record.trial for record in ledger.trials()] == [0]


def test_a_server_that_is_killed_costs_nothing_but_the_wait(
    folder: Path, postgresql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_TOLD", 0.05)
    monkeypatch.setattr(session, "_LONGEST_PAUSE", 0.05)
    with begin(folder, postgresql) as ledger:
        ledger.add_trial(trial(0))
        for fold in range(3):
            postgresql.kill()
            back = threading.Timer(0.3, postgresql.start)
            back.start()
            if fold == 1:
                assert ledger.optuna_study().ask().number == 0
            else:
                ledger.add_cell(cell(0, 0, fold))
            back.join()
        (note, *_) = ledger.notes
        assert re.fullmatch(r"the database was away for \d+ s; nothing of what was recorded is lost", note)
        assert len(ledger.tables().cells) == 2
        monkeypatch.setattr(session, "PATIENCE", 0.2)
        postgresql.kill()
        mistake = refusal(ledger.add_cell, cell(0, 0, 1))
        assert mistake.startswith(
            f"{postgresql.storage}: must answer within 0 s, and did not (connection to server at "
        )
        assert mistake.endswith("; every training that was finished is recorded, and the same command goes on")


def test_whoever_came_in_meanwhile_stays(folder: Path, postgresql: Any, tmp_path: Path) -> None:
    with begin(folder, postgresql) as ledger:
        ledger.add_trial(trial(0))
        with postgresql.connect() as connection:
            connection.execute("select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'")
        with begin(tmp_path / "elsewhere" / "reviews", postgresql) as other:
            for work in (lambda: ledger.add_trial(trial(1)), ledger.optuna_study):
                assert refusal(work).startswith(f"{folder}: another run is writing to study reviews in ")
            other.add_trial(trial(1, rank=2))
        ledger.set_trial_state(1, "failed", "the lock is free again")
        assert [record.adapter.rank for record in ledger.trials()] == [8, 2]


def test_its_own_lost_connection_keeps_no_run_out(folder: Path, postgresql: Any) -> None:
    """As where a network fails: this side knows that the connection is lost, and the server does not yet."""
    with begin(folder, postgresql) as ledger:
        lost = ledger._open._raw
        ledger._open._raw = SimpleNamespace(closed=True)
        ledger.add_trial(trial(0))
        assert ledger._open._raw.info.backend_pid != lost.info.backend_pid
        lost.close()


def test_optuna_may_lose_its_connection_in_any_statement(
    folder: Path, postgresql: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_LONGEST_PAUSE", 0.01)
    with begin(folder, postgresql) as ledger, postgresql.connect() as connection:
        statements, losses = 0, [count * (count + 1) // 2 for count in range(2, 8)]

        @event.listens_for(ledger._open.storage.engine, "before_cursor_execute")
        def lose(conn: Any, *rest: Any) -> None:
            nonlocal statements
            statements += 1
            if statements in losses:
                pid = conn.connection.driver_connection.info.backend_pid
                connection.execute("select pg_terminate_backend(%s, 5000)", (pid,))

        def ask() -> int:
            study = ledger.optuna_study()
            running = [found for found in study.get_trials(deepcopy=False) if not found.state.is_finished()]
            asked = running[0].number if running else study.ask().number
            study.tell(asked, [1.0, 2.0], skip_if_finished=True)
            return asked

        assert [ledger.patiently(ask) for _ in range(3)] == [0, 1, 2]
        assert statements > losses[-1]


def test_the_folder_says_when_something_was_recorded(folder: Path, postgresql: Any) -> None:
    with begin(folder, postgresql) as ledger:
        os.utime(folder / "storage.json", (1, 1))
        address = DatabaseAddress(postgresql.storage, "reviews")
        before = revisions(postgresql.storage, [address])[address]
        ledger.facts()
        none = DatabaseAddress(postgresql.storage, "none")
        assert revisions(postgresql.storage, [address, none]) == {address: before}
        assert (folder / "storage.json").stat().st_mtime == 1
        ledger.add_trial(trial(0))
        assert (folder / "storage.json").stat().st_mtime > 1
        assert revisions(postgresql.storage, [address])[address] != before
        inode = (folder / "storage.json").stat().st_ino
    with begin(folder, postgresql):
        assert address_in(folder) == address
    assert (folder / "storage.json").stat().st_ino == inode


def test_optunas_own_tools_read_the_study_and_nothing_else(folder: Path, postgresql: Any) -> None:
    with begin(folder, postgresql) as ledger:
        ledger.optuna_study().ask()
    tool = optuna.storages.RDBStorage(DatabaseAddress(postgresql.storage, "reviews").for_optuna())
    (summary,) = optuna.study.get_all_study_summaries(tool)
    assert (summary.study_name, summary.n_trials) == ("reviews", 1)
    with pytest.raises(optuna.exceptions.StorageInternalError):
        optuna.create_study(storage=tool)
    tool.remove_session()
    tool.engine.dispose()
