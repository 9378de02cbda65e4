"""How far a study is said to be: never further than it goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from store_builders import ENVIRONMENT, cell, experiment, failed_cell, trial

from lora_search.spec.facts import COMPARED, OUT_OF_CELLS
from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_study
from lora_search.store.status import StudyStatus, study_status

FINITE = {"rank": [1, 2], "alpha_over_rank": 2, "targets": "attention", "layers": "all", "learning_rate": 1e-3}


def status_of(folder: Path, states: dict[str, int], **changes: Any) -> StudyStatus:
    """Of a study in two folds, with trials of these states and as many cells of each."""
    asked = experiment(cv={"folds": 2}, **changes)
    with Ledger.open(folder / "reviews", asked, ENVIRONMENT) as ledger:
        for number, (state, cells) in enumerate(states.items()):
            ledger.add_trial(trial(number))
            make = failed_cell if state == "failed" else cell
            for fold in range(cells):
                ledger.add_cell(make(number, *divmod(fold, 2)))
            if state == "limited":
                ledger.set_trial_state(number, "pruned", OUT_OF_CELLS)
            else:
                ledger.set_trial_state(number, state.rstrip("0123456789"))  # type: ignore[arg-type]
    return study_status(read_study(folder / "reviews"))


@pytest.mark.parametrize(
    ("states", "search", "trials", "cells"),
    [
        ({}, {"trials": 5}, "0 of 5 trials (none yet)", "0 of 10 trainings"),
        ({"complete": 2, "running": 1}, {"trials": 5}, "2 of 5 trials (1 complete, 1 running)", "3 of 10 trainings"),
        ({"complete1": 2, "complete2": 2}, FINITE | {"trials": 5}, "2 of 2 trials (2 complete)", "4 of 4 trainings"),
        # what is stopped early lacks nothing
        ({"complete": 2, "pruned": 1, "failed": 1}, {"trials": 3}, "3 of 3 trials (1 complete, 1 ", "4 of 4 trainings"),
        # a limit of trainings ends a study before its trials are asked for, and before they are trained to the end
        ({"complete": 2, "limited": 1}, {"trials": 5, "cells": 4}, "2 of 2 trials (1 ", "3 of 3 trainings"),
        ({"complete": 2, "running": 1}, {"trials": 5, "cells": 4}, "2 of 5 trials (1 ", "3 of 4 trainings"),
        # extra repeats of a finalist
        ({"complete": 4}, {"trials": 1}, "1 of 1 trials (1 complete)", "4 of 4 trainings"),
        # --trials lowered: the third stays as it is, and is waited for no longer
        ({"complete1": 2, "complete2": 2, "running": 1}, {"trials": 2}, "3 of 3 trials (2 ", "5 of 5 trainings"),
    ],
)
def test_no_more_is_done_than_there_is_to_do(
    tmp_path: Path, states: dict[str, int], search: dict[str, Any], trials: str, cells: str
) -> None:
    first, second = status_of(tmp_path, states, search=search).lines()
    assert first.startswith(f"reviews: {trials}")
    assert second.startswith(f"{cells} recorded, ")


def test_adapters_compared_at_rates_of_their_own_lack_the_folds_of_one_trial_each(tmp_path: Path) -> None:
    """Of trials that are the same adapter at other rates one is trained to the end."""
    asked = experiment(cv={"folds": 3}, search={"trials": 9})
    with Ledger.open(tmp_path / "reviews", asked, ENVIRONMENT) as ledger:
        ledger.set_fact(COMPARED, 3)
        for number, (rank, cells) in enumerate([(1, 1), (1, 2), (2, 3), (2, 1)]):
            ledger.add_trial(trial(number, rank))
            for fold in range(cells):
                ledger.add_cell(cell(number, 0, fold))
        ledger.set_trial_state(2, "complete")
        under_way = study_status(read_study(tmp_path / "reviews"))
        # the second of rank 1 goes on, rank 2 is through, a third adapter is to come
        assert (under_way.trials_wanted, under_way.cells_wanted) == (9, 7 + 1 + 3)
        for number in (0, 3):
            ledger.set_trial_state(number, "pruned")
        ledger.set_trial_state(1, "complete")
        assert study_status(read_study(tmp_path / "reviews")).trials_wanted == 9
        ledger.set_fact(COMPARED, 2)
        ended = study_status(read_study(tmp_path / "reviews"))
        assert (ended.trials_wanted, ended.cells_wanted) == (4, 7)


def test_the_json_of_it(tmp_path: Path) -> None:
    status = status_of(tmp_path, {"complete": 2}, search={"trials": 3})
    assert status.to_dict() == {
        "name": "reviews",
        "trials": {"complete": 1},
        "trials_wanted": 3,
        "cells": 2,
        "cells_wanted": 6,
        "seconds": 3.0,
        "verdict": None,
    }
