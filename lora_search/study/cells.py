"""Has packs of cells trained, and records each result as soon as it exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lora_search.spec import facts
from lora_search.store.ledger import Ledger
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.crew import Crew
from lora_search.study.executors.tasks import Outcome, Pack, Training
from lora_search.study.preparation import Prepared
from lora_search.study.progress import StudyProgress, pack_title
from lora_search.study.schedule import packs_of, shares_for
from lora_search.study.settings import tightest

UNNUMBERED = -1
"""The number of a pack that is none of the study."""

_STALLED = (
    "a training that still answers like one who knows nothing after half of its steps ends there"
    " (training.stop_stalled = false trains on)"
)


class CellRunner:
    """Has packs of cells trained.

    Args:
        prepared: the experiment.
        ledger: where results go.
        crew: who trains.
        progress: who is told.
        device: the kind that is computed on.
    """

    def __init__(self, prepared: Prepared, ledger: Ledger, crew: Crew, progress: StudyProgress, device: str) -> None:
        self.device = device
        self.prepared = prepared
        self.ledger = ledger
        self.crew = crew
        self.progress = progress
        self._told: set[str] = set()

    def train(self, keys: Iterable[CellKey], trials: Mapping[int, TrialRecord]) -> None:
        """Train cells in packs; a pack that is not wholly recorded is trained whole, so that it is the pack it would
        have been."""
        recorded = self.ledger.cell_keys()
        shares = shares_for(self.crew.executor.workers, self.device)
        packs = packs_of(self.prepared, trials, keys, shares)
        left = [pack for pack in packs if not recorded.issuperset(pack)]
        first = self.ledger.next_pack()
        tasks = [self._task(pack, trials, first + place) for place, pack in enumerate(left)]
        for _, outcome in self.crew.done(tasks):
            # before the cells: a run that ends in between trains them again, with these
            self._record_budgets(outcome.budgets)
            for result in outcome.cells:
                if result.key not in recorded:
                    self.ledger.add_cell(result)
            for note in (*outcome.notes, *self.ledger.notes):
                self.note(note)
            if outcome.stalled:
                self.note(_STALLED)

    def train_apart(self, trainings: Sequence[Training], title: str, work: float) -> Outcome:
        """Train what is no cell of the study, and record nothing."""
        ((_, outcome),) = self.crew.done([Pack(tuple(trainings), UNNUMBERED, title, work)])
        return outcome

    def _task(self, keys: Sequence[CellKey], trials: Mapping[int, TrialRecord], number: int) -> Pack:
        stops = self.prepared.experiment.training.stop_stalled
        records = [trials[key.trial] for key in keys]
        trainings = tuple(
            Training(key, record.adapter, record.nuisance, may_stall=stops)
            for key, record in zip(keys, records, strict=True)
        )
        return Pack(trainings, number, pack_title(keys), sum(self.work_of(record) for record in records))

    def _record_budgets(self, found: facts.Budgets) -> None:
        """What a pack was found to have room for, so that a resumed study does not find it out again; of several
        workers, what the one with the least room found."""
        kept = self.ledger.fact(facts.BUDGETS)
        if kept is not None and self.crew.executor.workers > 1:
            found = tightest(kept, found)
        if found != kept:
            self.ledger.set_fact(facts.BUDGETS, found)

    def work_of(self, record: TrialRecord) -> float:
        """Cost of one cell of a trial, in layers computed."""
        return self.prepared.base.structure.layer_count - self.prepared.depth(record.adapter)

    def note(self, sentence: str) -> None:
        """Tell the user something, once."""
        if sentence not in self._told:
            self._told.add(sentence)
            self.progress.note(sentence)
