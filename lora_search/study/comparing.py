"""Has trained what is no adapter and is compared with them: after the search, outside Optuna's space.

Every training is recorded as soon as it exists; a run that goes on trains what is missing. The search, racing and the
verdict's choice see nothing of it: baselines are tables of their own.
"""

from __future__ import annotations

from collections.abc import Iterable

from lora_search.spec import facts
from lora_search.store.ledger import Ledger
from lora_search.study.baselines import Part, baseline_parts
from lora_search.study.crew import Crew
from lora_search.study.executors.tasks import Measuring
from lora_search.study.preparation import Prepared
from lora_search.study.progress import StudyProgress


class BaselineRunner:
    """Has the baselines of one study trained.

    Args:
        prepared: the experiment.
        ledger: where results go.
        crew: who trains.
        progress: who is told.
    """

    def __init__(self, prepared: Prepared, ledger: Ledger, crew: Crew, progress: StudyProgress) -> None:
        self.prepared = prepared
        self.ledger = ledger
        self.crew = crew
        self.progress = progress

    def left(self) -> list[Part]:
        """What is not wholly recorded."""
        recorded = self.ledger.baseline_keys()
        return [part for part in baseline_parts(self.prepared) if not set(part.keys) <= recorded]

    def work_left(self) -> float:
        """Of everything that is left."""
        return sum(part.work for part in self.left())

    def train(self) -> None:
        """Train and record what is left."""
        left = self.left()
        skipped: set[str] = set()
        for wave in self.crew.waves(left):
            wanted = [part for part in wave if part.baseline not in skipped]
            if not wanted:
                continue
            self.progress.expect(sum(later.work for later in left[left.index(wanted[0]) :]))
            for part, outcome in self.crew.done(wanted):
                recorded = self.ledger.baseline_keys()
                for trained in outcome.baselines:
                    if trained.key not in recorded:
                        self.ledger.add_baseline(trained)
                if outcome.no_room and part.baseline not in skipped:
                    skipped.add(part.baseline)
                    self.progress.note(f"{part.what} found no room in memory and is left out")
                self.ledger.write_tables()

    def measure(self, trials: Iterable[int]) -> None:
        """Keep what a step of these trials' trainings holds, to compare with that of the baselines."""
        known = self.ledger.fact(facts.STEP_BYTES)
        kept = {} if known is None else dict(known)
        records = {record.trial: record for record in self.ledger.trials()}
        missing = [trial for trial in sorted(trials) if str(trial) not in kept]
        if missing:
            task = Measuring(tuple((trial, records[trial].adapter, records[trial].nuisance) for trial in missing))
            for _, outcome in self.crew.quietly(task):
                kept |= {str(trial): held for trial, held in outcome.step_bytes.items()}
            self.ledger.set_fact(facts.STEP_BYTES, kept)
