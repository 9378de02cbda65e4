"""Another program that opens a study's database while it is written, as people do with the sqlite3 command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from store_builders import ENVIRONMENT, cell, experiment, trial

from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_predictions, read_study

LOOK = """
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1])
connection.execute("select * from lora_trials").fetchall()
connection.close()
"""


def test_the_log_of_a_running_study_outlives_a_foreign_reader(tmp_path: Path) -> None:
    folder = tmp_path / "reviews"
    with Ledger.open(folder, experiment(), ENVIRONMENT) as ledger:
        ledger.add_trial(trial(0))
        # reading the study in the process that writes it must not cost that process its locks
        read_study(folder)
        ledger.tables()
        log = folder / "study.db-wal"
        before = log.stat().st_ino
        subprocess.run([sys.executable, "-c", LOOK, str(folder / "study.db")], check=True, timeout=120)
        assert log.stat().st_ino == before
        ledger.add_cell(cell(0))
        assert read_study(folder).cells["trial"].tolist() == [0]
    assert set(read_predictions(folder)["trial"]) == {0}
