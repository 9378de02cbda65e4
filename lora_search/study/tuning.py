"""Adapters, each at its own learning rate: what a study asks for and trains next where the rate is looked for.

A study in rounds (:mod:`statistics.rounds`): probes, then adapters at the rates that the model of the rates predicts,
fold by fold, fewer of them each time. This module brings the rounds to Optuna and the ledger. Every setting is a trial.
Where the space has no more adapters than the study has room for, all of them are tried; else Optuna's sampler
chooses among them, a generation at a time, and has learned from what the adapters before scored.

A round is recorded before its consequences are, so that a run which ends in between finds it and draws them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from lora_search.spec import AdapterSpec, facts
from lora_search.statistics.by_adapter import SettingsTable, features_of, knowing, settings_table
from lora_search.statistics.question import Question
from lora_search.statistics.rounds import (
    PROBES,
    Round,
    Rules,
    next_round,
    no_settings,
    probes,
    probing_rates,
)
from lora_search.statistics.settings import Knowing, fit
from lora_search.store.ledger import Ledger
from lora_search.store.reader import StudyTables
from lora_search.store.records import CellKey, TrialRecord
from lora_search.store.status import furthest
from lora_search.study.asking import TrialSource, believed_values
from lora_search.study.generations import OneRate
from lora_search.study.preparation import Prepared
from lora_search.study.race import loss_sentence
from lora_search.study.schedule import GENERATION, Search, Step

_TRIALS_PER_PROBED = 6
"""So many trials call for one adapter to be probed, up to three: a short study cannot spend all on probes."""
_FINISHED_AT_LEAST = 2
"""Adapters for which a limited number of trainings is to be enough."""
_TRIALS_PER_SECOND_RATE = 8
"""One trial in so many is kept for another rate of an adapter there is."""


class RateSearch:
    """The rounds of one study.

    Args:
        prepared: the experiment.
        ledger: where trials, cells and rounds are recorded.
        source: asks for trials.
    """

    def __init__(self, prepared: Prepared, ledger: Ledger, source: TrialSource) -> None:
        self.prepared = prepared
        self.ledger = ledger
        self.source = source
        experiment = prepared.experiment
        self.search = search = experiment.search
        self.total, self.different = source.total, source.different
        self.probed = min(PROBES, self.total // _TRIALS_PER_PROBED)
        self.kept = self.total // _TRIALS_PER_SECOND_RATE
        room = max(self.total - (PROBES - 1) * self.probed - self.kept, 1)
        self.adapters = min(room, len(self.space))
        """How many are going to be compared, the trials kept for second rates aside."""
        self.systematic = len(self.space) <= room
        rates = search.rates
        self.rules = Rules(
            Question.of(experiment),
            low=math.log(rates.low),
            high=math.log(rates.high),
            cells=search.cells,
            adapters=self.adapters,
            seed=experiment.seed,
        )

    @cached_property
    def nothing(self) -> Knowing:
        """What knowing nothing scores; looked at once a run has recorded what it takes to say."""
        alone = self.ledger.fact(facts.HEAD_ALONE)
        width = self.prepared.base.structure.hidden_size
        return knowing(self.prepared.experiment, self.prepared.data.truth, width, alone)

    # -- the space -----------------------------------------------------------------------------------------------

    @cached_property
    def space(self) -> tuple[AdapterSpec, ...]:
        """Every adapter there can be, smallest first."""
        found = self.search.adapters() if self.source.points is None else self.source.points.adapters
        return tuple(sorted(found, key=self.prepared.adapter_parameters))

    def features(self, adapters: Sequence[AdapterSpec]) -> np.ndarray:
        """As the model of the rate wants them."""
        structure = self.prepared.base.structure
        parameters = np.array([float(self.prepared.adapter_parameters(spec)) for spec in adapters])
        return features_of(adapters, parameters, structure.layer_count, structure.hidden_size)

    # -- rounds --------------------------------------------------------------------------------------------------

    def steps(self) -> Iterator[Step]:
        """Round after round, each once the one before is trained and recorded; first the one that was under way."""
        kept = self.ledger.fact(facts.ROUND)
        if kept is not None:
            yield self._carried_out(kept)
        while True:
            kept = self._next(0.0 if kept is None else kept["spent"], 0 if kept is None else kept["number"] + 1)
            if kept is None:
                return
            self.ledger.set_fact(facts.ROUND, kept)
            yield self._carried_out(kept)

    def _carried_out(self, kept: facts.RecordedRound) -> Step:
        """Ask for the trials of a round that are not there yet."""
        there = len(self.ledger.trials())
        wanted = [setting for setting in kept["settings"] if setting[0] >= there]
        if wanted:
            tables = _trained(self.ledger.tables())
            rate_of, believed = self._predicted_rates(tables), believed_values(tables)
            for trial, point, rate in wanted:
                self.source.ask(trial, believed, point, rate_of if rate is None else rate)
        return Step(
            tuple((trial, state, reason) for trial, state, reason in kept["finished"]),
            tuple(CellKey(*cell) for cell in kept["cells"]),
        )

    def _next(self, spent: float, number: int) -> facts.RecordedRound | None:
        records = self.ledger.trials()[: self.total]
        if not records:
            return self._probes()
        tables = self.ledger.tables()
        table = self._reopened(settings_table(_first(tables, self.total)), records)
        there = set(table.adapters)
        if len(there) <= self.probed and (points := self._more_adapters(there, self.total - len(records))):
            return self._added(points, len(records), spent, number)  # the race begins when they are all in it
        closed = {state: self._rows(table, state) for state in ("complete", "pruned")}
        eliminated = closed["pruned"] - closed["complete"] - self._rows(table, "running")
        room = self.total - len(records)
        found = next_round(
            table.settings,
            table.features,
            table.parameters,
            self.nothing,
            replace(self.rules, least=self.nothing.least),
            settled=closed["complete"],
            eliminated=eliminated,
            spent=spent,
            room=room,
        )
        finished = self._finished(table, found)
        if not found.wanted and not finished:
            if points := self._more_adapters(there, room):
                return self._added(points, len(records), found.spent, number)
            return self._left_over(records, spent, number)
        trials = [int(trial) for trial in table.trials]
        settings: list[facts.WantedSetting] = []
        for row, log_rate in found.new:
            point = self.source.point_of(table.adapters[row])
            settings.append((len(records) + len(settings), point, math.exp(log_rate)))
        cells = [
            (
                trials[want.setting] if want.setting is not None else settings[want.new or 0][0],
                *table.columns[want.column],
            )
            for want in found.wanted
        ]
        return {"number": number, "spent": found.spent, "settings": settings, "cells": cells, "finished": finished}

    def _reopened(self, table: SettingsTable, records: Sequence[TrialRecord]) -> SettingsTable:
        """Trials that only the limit of trainings stopped go on where it leaves room, as after it was raised."""
        if self.rules.cells is not None and len(self.ledger.cell_keys()) >= self.rules.cells:
            return table
        unfinished = {record.trial for record in records if facts.is_open(record.state, record.failure)}
        states = zip(table.trials.tolist(), table.states, strict=True)
        return replace(table, states=tuple("running" if trial in unfinished else state for trial, state in states))

    def _rows(self, table: SettingsTable, state: str) -> set[int]:
        """Adapters with a setting in this state."""
        found = zip(table.settings.adapter, table.states, strict=True)
        return {int(row) for row, its_state in found if its_state == state}

    def _probes(self) -> facts.RecordedRound:
        features = self.features(self.space)
        sizes = np.array([self.prepared.adapter_parameters(spec) for spec in self.space])
        settings: list[facts.WantedSetting] = []
        model = fit(no_settings(), features, self.nothing)
        chosen = probes(features, sizes)[: self.probed]
        for row, log_rate in probing_rates([int(row) for row in chosen], model, self.rules):
            settings.append((len(settings), self.source.point_of(self.space[row]), math.exp(log_rate)))
        settings = settings[: self.rules.cells]
        if not settings:
            return self._added(self._more_adapters(set(), self.total), 0, 0.0, 0)
        cells = [(trial, 0, 0) for trial, *_ in settings]
        return {"number": 0, "spent": 0.0, "settings": settings, "cells": cells, "finished": []}

    def _added(
        self, points: Sequence[facts.Point | None], there: int, spent: float, number: int
    ) -> facts.RecordedRound:
        """Adapters join, at the rates predicted for them."""
        settings: list[facts.WantedSetting] = [(there + place, point, None) for place, point in enumerate(points)]
        cells = [(trial, 0, 0) for trial, *_ in settings]
        return {"number": number, "spent": spent, "settings": settings, "cells": cells, "finished": []}

    def _more_adapters(self, there: set[AdapterSpec], room: int) -> list[facts.Point | None]:
        """Adapters to be added: all that are left of a small space; else as many as sampler may choose at once, guesses
        first. The trials kept for second rates go to adapters when none is in the race any more."""
        left = [spec for spec in self.space if spec not in there]
        # those under way may still need another rate
        free = room if len(there) >= self.adapters else min(room, self.adapters - len(there))
        if self.rules.cells is not None:
            # so many that some of them can be trained to the end
            cells = self.rules.cells - len(self.ledger.cell_keys())
            free = min(free, max(cells - _FINISHED_AT_LEAST * (self.rules.question.planned - 1), min(cells, 1)))
        if not left or free <= 0:
            return []
        if self.systematic or len(left) <= free:
            return [self.source.point_of(spec) for spec in left[:free]]
        guesses = [self.source.point_of(spec) for spec in self.source.guessed() if spec in left]
        count = min(free, GENERATION, len(left))
        return [*guesses, *[None] * count][:count]

    def _finished(self, table: SettingsTable, found: Round) -> list[facts.Finished]:
        """Trials to close: of adapters that are through or out of the race."""
        trials = [int(trial) for trial in table.trials]
        main = {int(row): place for place, row in enumerate(table.settings.adapter)} | dict(found.complete)
        lost = {loss.trial: loss for loss in found.eliminated}
        finished: list[facts.Finished] = []
        for place, row in enumerate(table.settings.adapter.tolist()):
            if table.states[place] != "running":
                continue
            if row in found.complete:
                chosen = found.complete[row]
                rate = math.exp(float(table.settings.log_rate[chosen]))
                other = f"trial {trials[chosen]}, the same adapter at a learning rate of {rate:.2g}, goes for it"
                ending = ("complete", None) if place == chosen else ("pruned", other)
                finished.append((trials[place], *ending))
            if row in lost:
                finished.append((trials[place], "pruned", loss_sentence(lost[row], trials[main[lost[row].against]])))
        return finished

    def _left_over(self, records: Sequence[TrialRecord], spent: float, number: int) -> facts.RecordedRound | None:
        """What the limit of trainings leaves unfinished is closed at last."""
        finished: list[facts.Finished] = [
            (record.trial, "pruned", facts.OUT_OF_CELLS) for record in records if record.state == "running"
        ]
        if not finished:
            return None
        return {"number": number, "spent": spent, "settings": [], "cells": [], "finished": finished}

    def ahead(self) -> tuple[list[tuple[int, TrialRecord]], int]:
        """See :class:`schedule.Search`: if no more adapters are stopped early, and none needs another rate."""
        planned = self.rules.question.planned
        records = self.ledger.trials()[: self.total]
        recorded = Counter(key.trial for key in self.ledger.cell_keys())
        adapters = [record.adapter for record in records]
        counts = [recorded[record.trial] for record in records]
        places = furthest(adapters, [record.state for record in records], counts)
        lacking = [(planned - counts[place], records[place]) for place in places]
        unasked = max(self.adapters - len(set(adapters)), 0) * planned
        if self.rules.cells is not None:
            left = max(self.rules.cells - sum(recorded.values()), 0)
            unasked = min(unasked, max(left - sum(cells for cells, _ in lacking), 0))
        return lacking, unasked

    # -- rates ---------------------------------------------------------------------------------------------------

    def _predicted_rates(self, tables: StudyTables) -> Callable[[AdapterSpec], float]:
        """Where the model, fitted to these tables, expects an adapter to score best."""
        if tables.cells.empty:
            model = fit(no_settings(), self.features(self.space[:1]), self.nothing)
        else:
            table = settings_table(_first(tables, self.total))
            model = fit(table.settings, table.features, self.nothing)

        def rate_of(adapter: AdapterSpec) -> float:
            best, _ = model.optimum(self.features([adapter]))
            return math.exp(self.rules.allowed(float(best[0])))

        return rate_of


def _trained(tables: StudyTables) -> StudyTables:
    """Without the trials that have no cells: a round that was interrupted while it asked for trials asks for the rest
    knowing what it knew."""
    return replace(tables, trials=tables.trials[tables.trials["trial"].isin(tables.cells["trial"])])


def _first(tables: StudyTables, total: int) -> StudyTables:
    """The tables of the first trials: those past the total, which may have been lowered, are left as they are."""
    if len(tables.trials) <= total:
        return tables
    return replace(
        tables, trials=tables.trials[tables.trials["trial"] < total], cells=tables.cells[tables.cells["trial"] < total]
    )


def search_of(prepared: Prepared, ledger: Ledger) -> Search:
    """What decides what a study of this experiment tries."""
    source = TrialSource(prepared, ledger)
    if prepared.experiment.search.tunes_rate:
        return RateSearch(prepared, ledger, source)
    return OneRate(prepared.experiment, ledger, source)
