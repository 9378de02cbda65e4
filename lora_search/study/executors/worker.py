"""Who does tasks: holds the model and the data of one experiment, and computes over one engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lora_search.store.records import CellKey
from lora_search.study.baselines import BaselineTrainer, Part
from lora_search.study.executors.tasks import Measuring, Outcome, Pack, Task, Training
from lora_search.study.explained import with_explained
from lora_search.study.preparation import Prepared
from lora_search.study.refit import attempt_of, refit_cell
from lora_search.study.settings import facts_of, settings_of
from lora_search.training import Cell, Engine, Step

MakeEngine = Callable[..., Engine]
"""As ``Engine`` itself: of base, data, training and settings."""


class Worker:
    """One of those who train.

    Args:
        prepared: the experiment.
        make_engine: makes what trains.
        lanes: processes that compute at the same time; None for as many as the study had, or the machine has room for.
    """

    def __init__(self, prepared: Prepared, make_engine: MakeEngine, lanes: int | None = None) -> None:
        self.prepared = prepared
        self._make_engine = make_engine
        self._lanes = lanes

    def begin(self, kept: Mapping[str, Any]) -> dict[str, Any]:
        """Set up what trains; the facts of how it computes (see ``Executor.begin``)."""
        self.prepared = with_explained(self.prepared, kept)
        settings = settings_of(self.prepared, kept)
        if self._lanes is not None:
            settings = replace(settings, lanes=self._lanes)
        prepared = self.prepared
        self.engine = self._make_engine(prepared.base, prepared.data, prepared.experiment.training, settings)
        self._baselines = BaselineTrainer(prepared, self.engine)
        return facts_of(self.engine)

    def work(self, task: Task, listener: Callable[[Step], None]) -> Outcome:
        """Do a task.

        Args:
            task: any.
            listener: called after every step.
        """
        done: dict[str, Any] = {}
        if isinstance(task, Part):
            trained = self._baselines.train(task, listener)
            done = {"no_room": True} if trained is None else {"baselines": tuple(trained)}
        else:
            self._baselines.forget()
        if isinstance(task, Pack):
            cells = self.engine.train([self._cell(each) for each in task.trainings], task.number, listener)
            done = {"cells": tuple(each.result for each in cells), "stalled": any(each.stalled for each in cells)}
        if isinstance(task, Measuring):
            done = {"step_bytes": {trial: self._step_bytes(trial, *setting) for trial, *setting in task.trials}}
        return Outcome(self.engine.budgets, self.engine.notes, **done)

    def _cell(self, training: Training) -> Cell:
        key = training.key
        attempt = attempt_of(self.prepared.experiment, key)
        if attempt is not None:
            return refit_cell(self.prepared, key.trial, training.adapter, training.nuisance, attempt)
        cell = self.prepared.cell(key, training.adapter, training.nuisance)
        return replace(cell, may_stall=training.may_stall, modules=cell.modules if training.adapted else ())

    def _step_bytes(self, trial: int, adapter: Any, nuisance: Any) -> int:
        return self.engine.step_bytes(self.prepared.cell(CellKey(trial, 0, 0), adapter, nuisance))
