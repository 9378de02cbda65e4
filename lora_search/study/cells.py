"""Trains packs of cells and records each result as soon as it exists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lora_search.spec import facts
from lora_search.store.ledger import Ledger
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.preparation import Prepared
from lora_search.study.progress import StudyProgress, pack_title
from lora_search.training import Engine

_STALLED = (
    "a training that still answers like one who knows nothing after half of its steps ends there"
    " (training.stop_stalled = false trains on)"
)


class CellRunner:
    """The study's hands.

    Args:
        prepared: the experiment.
        ledger: where results go.
        engine: what trains.
        progress: who is told.
    """

    def __init__(self, prepared: Prepared, ledger: Ledger, engine: Engine, progress: StudyProgress) -> None:
        self.prepared = prepared
        self.ledger = ledger
        self.engine = engine
        self.progress = progress
        self._told: set[str] = set()

    def train(self, keys: Sequence[CellKey], trials: Mapping[int, TrialRecord]) -> None:
        """Train a pack that is not wholly recorded: all of it, so that it is the pack it would have been."""
        recorded = self.ledger.cell_keys()
        if all(key in recorded for key in keys):
            return
        self.progress.pack(pack_title(keys), sum(self.work_of(trials[key.trial]) for key in keys))
        number = self.ledger.next_pack()
        stops = self.prepared.experiment.training.stop_stalled
        cells = [
            replace(self.prepared.cell(key, trials[key.trial].adapter, trials[key.trial].nuisance), may_stall=stops)
            for key in keys
        ]
        results = self.engine.train(cells, number, self.progress.step)
        # before the cells: a run that ends in between trains them again, with these
        self._record_budgets()
        for trained in results:
            if trained.result.key not in recorded:
                self.ledger.add_cell(trained.result)
        for note in (*self.engine.notes, *self.ledger.notes):
            self.note(note)
        if any(trained.stalled for trained in results):
            self.note(_STALLED)

    def _record_budgets(self) -> None:
        """What the pack was found to have room for, so that a resumed study does not find it out again."""
        if self.engine.budgets != self.ledger.fact(facts.BUDGETS):
            self.ledger.set_fact(facts.BUDGETS, self.engine.budgets)

    def work_of(self, record: TrialRecord) -> float:
        """Cost of one cell of a trial, in layers computed."""
        return self.prepared.base.structure.layer_count - self.prepared.depth(record.adapter)

    def note(self, sentence: str) -> None:
        """Tell the user something, once."""
        if sentence not in self._told:
            self._told.add(sentence)
            self.progress.note(sentence)
