"""What a study at one learning rate tries: trials a generation at a time, fold by fold, with racing in between."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from lora_search.spec import Experiment, facts
from lora_search.store.ledger import Ledger
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.asking import TrialSource
from lora_search.study.race import Racer
from lora_search.study.schedule import Step, generation_of, rungs_of


class OneRate:
    """Every trial is another adapter (or another dropout of one), all at the same learning rate.

    Args:
        experiment: what is asked.
        ledger: where trials and cells are recorded.
        source: asks for trials.
    """

    adapters = None

    def __init__(self, experiment: Experiment, ledger: Ledger, source: TrialSource) -> None:
        self.experiment = experiment
        self.ledger = ledger
        self.source = source
        self.total, self.different = source.total, source.different
        self.racer = Racer(experiment, ledger, self.total)

    def steps(self) -> Iterator[Step]:
        """Generation after generation, until every trial is complete, failed or out of the race."""
        self.source.begin()
        while running := self._running():
            yield from self._generation(running[0])

    def _generation(self, first: int) -> Iterator[Step]:
        cv = self.experiment.cv
        rungs = rungs_of(generation_of(first), cv.folds, cv.repeats)
        out: tuple[facts.Finished, ...] = ()
        for rung in rungs:
            lost = {trial for trial, *_ in out}
            running = [trial for trial in self._running() if trial not in lost]
            yield Step(out, tuple(CellKey(trial, *column) for column in rung for trial in running))
            if rung is not rungs[-1]:
                out = tuple((loss.trial, "pruned", loss.reason) for loss in self.racer.look(*rung[-1]))
        yield Step(tuple((trial, "complete", None) for trial in self._running()), ())

    def _running(self) -> list[int]:
        """The trials of the generation under way that are in the race."""
        return [record.trial for record in self.source.generation() if record.state == "running"]

    def ahead(self) -> tuple[list[tuple[int, TrialRecord]], int]:
        """See :class:`schedule.Search`: if no more trials are stopped early."""
        planned = self.experiment.cv.folds * self.experiment.cv.repeats
        known = self.ledger.trials()[: self.total]
        recorded = Counter(key.trial for key in self.ledger.cell_keys())
        lacking = [(planned - recorded[record.trial], record) for record in known if record.state == "running"]
        return lacking, (self.total - len(known)) * planned
