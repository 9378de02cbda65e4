"""Other programs at ``study.db`` while a run writes it: they may look, and even delete, and no record is lost."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from store_builders import ENVIRONMENT, cell, experiment, trial

from lora_search.errors import StudyError
from lora_search.store.files import index_of, log_of
from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_study

COUNT = "select count(*) from lora_cells"
LOOK = f"import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute({COUNT!r}).fetchone()[0])"


def looked(path: Path) -> int:
    """Cells that another program sees, which opens the database as anybody would, and closes it."""
    program = shutil.which("sqlite3")
    command = [sys.executable, "-c", LOOK, path] if program is None else [program, path, COUNT]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def lose_the_log(path: Path) -> None:
    """As it happens: this process lets go of its locks without knowing, and another program believes itself alone."""
    with path.open("rb"):
        pass
    looked(path)
    assert not log_of(path).exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "results" / "reviews"


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        ledger.optuna_study().ask()
        ledger.add_cell(cell(0, 0, 0))
        yield ledger


def test_whoever_looks_leaves_the_log_where_it_is(folder: Path, ledger: Ledger) -> None:
    path = folder / "study.db"
    log = log_of(path).stat().st_ino
    for fold in range(1, 4):
        ledger.add_cell(cell(0, 0, fold))
        read_study(folder).predictions()
        ledger.write_tables()
        assert looked(path) == fold + 1
        assert log_of(path).stat().st_ino == log
    assert ledger.notes == ()


def test_reading_opens_the_database_through_sqlite_alone(folder: Path, ledger: Ledger) -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "from lora_search.store.reader import read_study\n"
        "tables = read_study(sys.argv[1])\n"
        "tables.predictions(), tables.examples(), tables.verdict()\n"
        "print(sorted(name for name in opened if 'study.db' in name))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_log_that_vanished_is_noticed_and_nothing_is_lost(folder: Path, ledger: Ledger) -> None:
    path = folder / "study.db"
    ledger.add_cell(cell(0, 0, 1))
    lose_the_log(path)
    ledger.add_cell(cell(0, 0, 2))
    assert looked(path) == 3
    assert ledger.notes == (f"{log_of(path)} was deleted under the run; nothing of what was recorded is lost",)
    number = ledger.optuna_study().ask().number
    assert number == 1, "Optuna's records are there too"
    for fold in (3, 4):
        ledger.add_cell(cell(0, 0, fold))
        assert len(read_study(folder).predictions()["fold"].unique()) == fold + 1
    assert {file.name for file in folder.glob("study*")} == {"study.db", "study.db-wal", "study.db-shm"}


def test_what_was_written_to_a_log_without_a_name_is_put_back(folder: Path, ledger: Ledger) -> None:
    """Somebody deletes the log between a look and the write after it."""
    path = folder / "study.db"
    for file in (log_of(path), index_of(path)):
        file.unlink()
    with ledger._open._connection as database:
        database.execute("insert into lora_facts values ('precision', '\"bf16\"')")
    assert len(ledger.cell_keys()) == 1
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("select value from lora_facts").fetchall() == [('"bf16"',)]


def test_a_log_lost_at_the_end_is_noticed_too(folder: Path) -> None:
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        lose_the_log(folder / "study.db")
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        assert ledger.trials() == [trial(0)]


def test_a_deleted_database_is_put_back(folder: Path, ledger: Ledger) -> None:
    path = folder / "study.db"
    for file in folder.glob("study.db*"):
        file.unlink()
    ledger.add_cell(cell(0, 0, 1))
    assert looked(path) == 2
    assert ledger.notes == (f"{path} was deleted under the run; nothing of what was recorded is lost",)
    assert ledger.optuna_study().ask().number == 1


def test_another_database_in_its_place_is_left_alone(folder: Path, ledger: Ledger) -> None:
    path = folder / "study.db"
    shutil.copy(path, folder / "copy")
    (folder / "copy").replace(path)
    content = path.read_bytes()
    with pytest.raises(
        StudyError, match=r"another file was put there; what the run recorded is in .*study-rescued\.db$"
    ):
        ledger.add_cell(cell(0, 0, 1))
    assert path.read_bytes() == content
    assert looked(folder / "study-rescued.db") == 1


def test_a_deleted_folder_is_the_end(folder: Path, ledger: Ledger) -> None:
    shutil.rmtree(folder)
    with pytest.raises(StudyError, match=r"must stay where it is while a run writes to it, and is gone$"):
        ledger.add_cell(cell(0, 0, 1))


def test_a_deleted_lock_is_taken_again(folder: Path, ledger: Ledger) -> None:
    (folder / ".lock").unlink()
    ledger.add_cell(cell(0, 0, 1))
    assert ledger.notes == (
        f"{folder / '.lock'} was deleted under the run, and is taken again; no other run came in meanwhile",
    )
    with pytest.raises(StudyError, match="another run is writing to"):
        Ledger.open(folder, experiment(), ENVIRONMENT)
    ledger.add_cell(cell(0, 0, 2))
    assert len(ledger.notes) == 1


def test_a_run_that_came_in_by_a_deleted_lock_goes_on_alone(folder: Path, ledger: Ledger) -> None:
    (folder / ".lock").unlink()
    with Ledger.open(folder, experiment(), ENVIRONMENT) as other:
        for write in (lambda: ledger.add_cell(cell(0, 0, 1)), lambda: ledger.optuna_study().ask(), ledger.write_tables):
            with pytest.raises(StudyError, match=r"another run is writing to .* \(process \d+ on "):
                write()
        other.add_cell(cell(0, 0, 2))
        assert other.notes == ()
    assert [key.fold for key in sorted(ledger.cell_keys())] == [0, 2]


def test_a_reader_beside_a_run_sees_one_moment(folder: Path, ledger: Ledger) -> None:
    before = read_study(folder)
    ledger.add_trial(trial(1))
    ledger.add_cell(cell(1, 0, 0))
    assert set(before.predictions()["trial"]) == {0}
    assert set(read_study(folder).predictions()["trial"]) == {0, 1}
