"""How far a study is, from what is recorded, in the totals its run goes by."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lora_search.spec import ADAPTER_FIELDS, facts
from lora_search.store.reader import StudyTables


@dataclass(frozen=True)
class StudyStatus:
    """What is done and what there will be.

    Attributes:
        name: the study.
        trials: recorded trials by state.
        trials_wanted: trials when it ends; as many as a finite space has points, and never fewer than there are.
        cells: trainings recorded, failed ones too.
        cells_wanted: trainings when it ends, if no further trial is stopped early and no finalist gets extra repeats.
        seconds: of training.
        verdict: the status of ``verdict.json``; None before the first.
        sentence: the verdict's.
    """

    name: str
    trials: dict[str, int]
    trials_wanted: int
    cells: int
    cells_wanted: int
    seconds: float
    verdict: str | None
    sentence: str | None

    def to_dict(self) -> dict[str, Any]:
        """``status --json``."""
        return {name: value for name, value in vars(self).items() if name != "sentence"}

    def lines(self) -> list[str]:
        """As a person reads it."""
        parts = ", ".join(f"{count} {state}" for state, count in self.trials.items()) or "none yet"
        return [
            f"{self.name}: {sum(self.trials.values())} of {self.trials_wanted} trials ({parts})",
            f"{self.cells} of {self.cells_wanted} trainings recorded, {self.seconds:.0f} s of training",
            *([] if self.sentence is None else [self.sentence]),
        ]


def study_status(tables: StudyTables) -> StudyStatus:
    """How far a study is.

    Raises:
        StudyError: its verdict is damaged.
    """
    trials = tables.trials
    verdict = tables.verdict() or {}
    # the trials of a run that asked for more stay, whatever a later one asks for
    wanted = tables.trials_wanted
    return StudyStatus(
        name=tables.experiment.name,
        trials={str(state): int(count) for state, count in trials["state"].value_counts().items()},
        trials_wanted=max(wanted, len(trials)),
        cells=len(tables.cells),
        cells_wanted=len(tables.cells) + _cells_ahead(tables, wanted),
        seconds=float(trials["seconds"].sum()),
        verdict=verdict.get("status"),
        sentence=verdict.get("sentence"),
    )


def _cells_ahead(tables: StudyTables, wanted: int) -> int:
    """Cells that trials not yet finished lack, and those of trials not yet asked for, within the limit there is.

    Trials past the wanted number are left as they are, finished or not.
    """
    cv, trials = tables.experiment.cv, tables.trials[:wanted]
    planned = cv.folds * cv.repeats
    running = trials.loc[trials["state"] == "running", "trial"]
    compared = facts.COMPARED.of(tables.facts)
    recorded = tables.cells["trial"].value_counts()
    if compared is None:
        begun, left = running.tolist(), wanted - len(trials)
    else:
        adapters = list(trials[list(ADAPTER_FIELDS)].itertuples(index=False, name=None))
        counts = [int(recorded.get(trial, 0)) for trial in trials["trial"]]
        begun = [int(trials["trial"].iloc[place]) for place in furthest(adapters, trials["state"].tolist(), counts)]
        left = max(compared - len(set(adapters)), 0)
    ahead = (left + len(begun)) * planned - sum(int(recorded.get(trial, 0)) for trial in begun)
    limit = tables.experiment.search.cells
    return ahead if limit is None else min(ahead, max(limit - len(tables.cells), 0))


def furthest(adapters: Sequence[Hashable], states: Sequence[str], recorded: Sequence[int]) -> list[int]:
    """The trial of every adapter that it goes on with, where several may be one adapter at rates of its own: the places
    of those with the most cells, of adapters that are not through.

    Args:
        adapters, states, recorded: the adapter, the state and the number of cells of each trial.
    """
    through = {adapter for adapter, state in zip(adapters, states, strict=True) if state == "complete"}
    found: dict[Hashable, int] = {}
    for place, adapter in enumerate(adapters):
        if states[place] == "running" and adapter not in through:
            known = found.setdefault(adapter, place)
            if recorded[place] > recorded[known]:
                found[adapter] = place
    return list(found.values())
