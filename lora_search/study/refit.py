"""The winner, trained once more on everything it may see: all examples but the hold-out.

The folds said how good an adapter of this kind is; none of their trainings is the one to use, for each saw only a part
of the data. A refit is one more cell with the trial's own hyperparameters, after which the hold-out, if there is one,
is predicted. It changes nothing in the study.

Near the largest rates an adapter bears, one training in several may teach nothing though those of all folds did well,
by what it draws: the order of examples and what A begins with. A refit that stalls (``training.stalling``) is begun
anew with other draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lora_search.errors import StudyError
from lora_search.spec import AdapterSpec, Experiment, Nuisance, facts
from lora_search.statistics.judging import judge
from lora_search.store.frames import trial_record
from lora_search.store.reader import StudyTables
from lora_search.store.records import CellKey, CellResult
from lora_search.study.explained import with_explained
from lora_search.study.faults import enough_memory
from lora_search.study.preparation import Prepared, prepare
from lora_search.study.settings import settings_of
from lora_search.training import Cell, Engine, EngineSettings, Step

ATTEMPTS = 3
"""Trainings of a refit, each with draws of its own, until one teaches something; the last goes on to its end."""
_MOST_LISTED = 12
_FINGERPRINTS = {"data": facts.DATA_FINGERPRINT, "model": facts.MODEL_FINGERPRINT}


@dataclass(frozen=True)
class ChosenTrial:
    """One trial of a study, and why it is this one.

    Attributes:
        trial: its number.
        adapter, nuisance: what defines it.
        row: its row of the trials table.
        verdict: the mapping of ``verdict.json``.
        notes: what its user should be warned of, as sentences; usually none.
    """

    trial: int
    adapter: AdapterSpec
    nuisance: Nuisance
    row: Mapping[str, Any]
    verdict: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def is_recommended(self) -> bool:
        recommended = self.verdict["recommended"]
        return recommended is not None and bool(recommended["trial"] == self.trial)


@dataclass(frozen=True, eq=False)
class Refit:
    """A trial trained on all development examples.

    Attributes:
        chosen: the trial; its notes tell of trainings that taught nothing.
        prepared: the study's data and model.
        cell: the training; its ``evaluate`` is the hold-out.
        result: its record; the scores are NaN without a hold-out.
        state: the trained weights on the CPU, float32, named as in ``AdapterPack.state``.
    """

    chosen: ChosenTrial
    prepared: Prepared
    cell: Cell
    result: CellResult
    state: dict[str, Tensor]

    def predict(self, examples: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the task predicts, (examples, columns), by this package's own model in float32 on the CPU."""
        settings = EngineSettings(torch.device("cpu"), torch.float32, prefix_cache=False)
        engine = Engine(self.prepared.base, self.prepared.data, self.prepared.experiment.training, settings)
        return engine.predict(self.cell, self.state, examples)


def refit(tables: StudyTables, trial: int | None = None, listener: Callable[[Step], None] | None = None) -> Refit:
    """Train a trial on every example outside the hold-out.

    In the precision and lanes the study was measured to run in; deterministic in (experiment, trial).

    Args:
        tables: the study.
        trial: its number; None for the one the verdict recommends.
        listener: called after every step.

    Raises:
        StudyError: no such trial, none recommended, the data or the model are not those of the study, or the training
            diverged.
        InputError: the data or the model cannot be loaded.
    """
    return refit_chosen(tables, chosen_trial(tables, trial), listener)


def refit_chosen(tables: StudyTables, chosen: ChosenTrial, listener: Callable[[Step], None] | None = None) -> Refit:
    """As ``refit``, of a trial already chosen."""
    prepared = prepared_again(tables)
    engine = Engine(prepared.base, prepared.data, tables.experiment.training, settings_of(prepared, tables.facts))
    for attempt in range(ATTEMPTS):
        cell = refit_cell(prepared, chosen.trial, chosen.adapter, chosen.nuisance, attempt)
        with enough_memory():
            (trained,) = engine.train([cell], 0, listener)
        if not trained.stalled:
            break
    if attempt:
        chosen = replace(chosen, notes=(*chosen.notes, anew(chosen.trial, attempt)))
    if trained.result.state == "failed":
        raise StudyError.about(
            tables.folder,
            (
                f"trial {chosen.trial} must train to the end on all {len(cell.train)} training examples, "
                f"but {trained.result.failure}"
            ),
            hint="export another trial",
        )
    state = {name: weight.detach().to("cpu", torch.float32) for name, weight in trained.state.items()}
    return Refit(chosen, prepared, cell, trained.result, state)


def prepared_again(tables: StudyTables) -> Prepared:
    """A study's data and model, which are those it ran on.

    Raises:
        StudyError: they are not.
        InputError: they cannot be loaded.
    """
    prepared = prepare(tables.experiment)
    check_unchanged(tables, data=prepared.data.fingerprint, model=prepared.base.fingerprint)
    return with_explained(prepared, tables.facts)


def refit_key(experiment: Experiment, trial: int, attempt: int = 0) -> CellKey:
    """Beyond the last fold, for nothing is left out: an order of examples that no fold had, and no earlier attempt."""
    return CellKey(trial, 0, experiment.cv.folds + attempt)


def attempt_of(experiment: Experiment, key: CellKey) -> int | None:
    """Which attempt at a refit a training is, from 0; None where it is one of a fold."""
    return None if key.fold < experiment.cv.folds else key.fold - experiment.cv.folds


def anew(trial: int, attempts: int) -> str:
    """That so many trainings of a trial on all examples taught nothing, as a sentence."""
    times = "a training" if attempts == 1 else f"{attempts} trainings"
    rate = "; a smaller learning rate may be safer"
    return f"Trial {trial} was begun anew with other draws: {times} of it on all examples taught nothing{rate}."


def refit_cell(prepared: Prepared, trial: int, adapter: AdapterSpec, nuisance: Nuisance, attempt: int = 0) -> Cell:
    """The training of a trial on every example outside the hold-out, which it predicts."""
    return Cell(
        key=refit_key(prepared.experiment, trial, attempt),
        adapter=adapter,
        nuisance=nuisance,
        modules=prepared.modules_of(adapter),
        train=prepared.splits.development,
        evaluate=prepared.splits.holdout,
        seed=prepared.experiment.seed,
        ranks=prepared.ranks_of(adapter),
        may_stall=prepared.experiment.training.stop_stalled and attempt + 1 < ATTEMPTS,
    )


def chosen_trial(tables: StudyTables, trial: int | None = None) -> ChosenTrial:
    """The trial asked for, or the recommended one.

    Raises:
        StudyError: the study has no such trial, or recommends none.
    """
    verdict = tables.verdict() or judge(tables).to_dict()
    if trial is None:
        if verdict["recommended"] is None:
            raise StudyError.about(
                tables.folder,
                "must have a trial trained to the end before there is a recommendation",
                got=f"none of {len(tables.trials)}",
                hint="run the study on",
            )
        trial, notes = int(verdict["recommended"]["trial"]), _doubts(verdict)
    else:
        notes = ()
    found = tables.trials[tables.trials["trial"] == trial]
    if found.empty:
        raise StudyError.about("trial", f"must be one of {_listed(tables)} in {tables.folder}", got=trial)
    row = {str(name): value for name, value in found.iloc[0].items()}
    record = trial_record(row)
    return ChosenTrial(trial, record.adapter, record.nuisance, row, verdict, (*notes, *_shortcomings(row)))


def check_unchanged(tables: StudyTables, **fingerprints: str) -> None:
    """Check what is loaded now against what the study ran on.

    Args:
        fingerprints: ``data=...``, ``model=...``, or one of them.

    Raises:
        StudyError: they differ, so that the study's scores say nothing about what would be trained now.
    """
    for what, fingerprint in fingerprints.items():
        kept = _FINGERPRINTS[what].of(tables.facts)
        if kept is not None and kept != fingerprint:
            raise StudyError.about(
                tables.folder,
                f"the {what} must be what the study ran on, and has changed since",
                hint="run a study of another name on it",
            )


def _doubts(verdict: Mapping[str, Any]) -> tuple[str, ...]:
    if verdict["status"] == "decided":
        return ()
    trial = verdict["recommended"]["trial"]
    return (f"The study is undecided. {verdict['sentence']} Trial {trial} is its recommendation as things stand.",)


def _shortcomings(row: Mapping[str, Any]) -> tuple[str, ...]:
    what = {
        "running": "has not been trained on every fold",
        "pruned": f"was stopped early: {row['failure']}",
        "failed": f"failed: {row['failure']}",
    }.get(row["state"])
    return () if what is None else (f"Trial {row['trial']} {what}.",)


def _listed(tables: StudyTables) -> str:
    numbers = [int(number) for number in tables.trials["trial"]]
    if not numbers:
        return "the trials recorded (none yet)"
    if len(numbers) > _MOST_LISTED and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(str(number) for number in numbers)
