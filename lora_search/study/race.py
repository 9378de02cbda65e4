"""Who gets more cells: racing looks at the scores after each rung, finalists are chosen when the trials are spent.

What was found is recorded before its consequences are, so that a run which ends in between finds it and draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any

from lora_search.spec import Experiment, facts
from lora_search.statistics import CellRequest, Question, next_cells
from lora_search.statistics.by_adapter import by_adapter
from lora_search.statistics.matrix import score_matrix
from lora_search.statistics.racing import Elimination, race
from lora_search.statistics.recorded import recorded_of
from lora_search.store.ledger import Ledger

_MORE_LIKELY_THAN_NOT = 0.5


@dataclass(frozen=True)
class Loss:
    """A trial that left the race, and why, as a sentence."""

    trial: int
    reason: str


def loss_sentence(loss: Elimination, against: int) -> str:
    """Why a trial was stopped; its chance to matter is what decided, the rest says what it looks like.

    Args:
        loss: what racing found. against: number of the trial it lost to.
    """
    chance = f"{max(loss.charge, 0.001):.1%} chance to change the verdict"
    if loss.reason == "futile" and loss.probability >= _MORE_LIKELY_THAN_NOT:
        return f"{chance}: larger than trial {against} and not clearly better"
    if loss.reason == "inferior" and loss.probability >= _MORE_LIKELY_THAN_NOT:
        return f"{chance}: worse than trial {against}"
    return chance


class Racer:
    """Decides after each rung which trials need no more cells.

    Args:
        experiment: its verdict section says what matters.
        ledger: where scores are read and looks are kept.
        trials: trials the study will have in all.
    """

    def __init__(self, experiment: Experiment, ledger: Ledger, trials: int) -> None:
        self.experiment = experiment
        self.ledger = ledger
        self.trials = trials

    def look(self, repeat: int, fold: int) -> list[Loss]:
        """The trials that lose at this rung; the same ones if it has been looked at before.

        A rung is looked at anew when trials have been added to it, which a raised total does.
        """
        kept: facts.Looks = self.ledger.fact(facts.RACING) or {"spent": 0.0, "looks": {}}
        name = f"{len(self.ledger.trials())} trials, repeat {repeat}, fold {fold}"
        if name not in kept["looks"]:
            found, spent = self._race(kept["spent"])
            kept = {"spent": spent, "looks": {**kept["looks"], name: found}}
            self.ledger.set_fact(facts.RACING, kept)
        return [Loss(loss["trial"], loss["reason"]) for loss in kept["looks"][name]]

    def _race(self, spent: float) -> tuple[list[dict[str, Any]], float]:
        tables, question = self.ledger.tables(), Question.of(self.experiment)
        matrix = score_matrix(tables.trials, tables.cells, question.metric, states=("running", "complete", "pruned"))
        if len(matrix.trials) < 2:
            return [], spent
        result = race(
            matrix,
            question,
            trials=self.trials,
            eliminated=tables.trials.loc[tables.trials["state"] == "pruned", "trial"].tolist(),
            spent=spent,
            seed=self.experiment.seed,
        )
        losses = [{"trial": loss.trial, "reason": loss_sentence(loss, loss.against)} for loss in result.eliminated]
        return losses, result.spent


def finalist_requests(experiment: Experiment, ledger: Ledger) -> Iterator[list[CellRequest]]:
    """Cells that would help the verdict: what readmitted trials lack, and one extra repeat of the finalists after
    another; for the caller to train.

    The latter as often as there are extra repeats, and as often again when trials have been added. A run that goes on
    begins with the request under way: part of it being recorded, the rest would not be asked for again, or not
    together.
    """
    spec, cv = experiment.verdict, experiment.cv
    trials = len(ledger.trials())
    found = ledger.fact(facts.FINALISTS)
    kept = found["requests"] if found is not None and found["trials"] == trials else []
    if kept:
        yield [CellRequest(*request) for request in kept[-1]]
    while True:
        extra = sum(request[-1][0] >= cv.repeats for request in kept)
        tables = ledger.tables()
        rows = by_adapter(tables)
        most, recorded = experiment.search.cells, ledger.cell_keys()
        planned = sum(key.repeat < cv.repeats for key in recorded)
        wanted = next_cells(
            rows.trials,
            rows.cells,
            Question.of(experiment),
            repeats=cv.repeats + spec.extra_repeats,
            recorded=recorded_of(rows),
            tried={(key.trial, key.repeat, key.fold) for key in recorded},
            room=None if most is None else max(most - planned, 0),
        )
        if not wanted or (extra >= spec.extra_repeats and wanted[-1].repeat >= cv.repeats):
            return
        kept = [*kept, [list(astuple(request)) for request in wanted]]
        asked: facts.FinalistRequests = {"trials": trials, "requests": kept}
        ledger.set_fact(facts.FINALISTS, asked)
        yield list(wanted)
