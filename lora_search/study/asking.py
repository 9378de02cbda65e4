"""Where trials come from: guesses first, then the sampler; each recorded as soon as it is asked for."""

from __future__ import annotations

from collections.abc import Mapping

import optuna
from optuna.trial import TrialState

from lora_search.errors import StudyError
from lora_search.statistics import believed_scores, score_matrix
from lora_search.store.ledger import Ledger
from lora_search.store.reader import StudyTables
from lora_search.store.records import TrialRecord
from lora_search.study.preparation import Prepared
from lora_search.study.schedule import generation_of
from lora_search.study.space import guesses, sampler_for, suggest


class TrialSource:
    """Asks Optuna for trials, a generation at a time.

    Args:
        prepared: the experiment.
        ledger: where trials are recorded.
    """

    def __init__(self, prepared: Prepared, ledger: Ledger) -> None:
        self.prepared = prepared
        self.ledger = ledger
        self.search = prepared.experiment.search
        self.total = self.search.total
        self.guesses = guesses(self.search, prepared.most_layers())

    def begin(self) -> None:
        """Put the guesses in front, those that are not there yet."""
        study = self.ledger.optuna_study()
        for point in self.guesses[len(study.get_trials(deepcopy=False)) :]:
            study.enqueue_trial(point)

    def generation(self) -> list[TrialRecord]:
        """The trials of the generation under way: the recorded ones, and as many new ones as it lacks.

        All are finished when there is nothing left to ask for. Trials past the total, which may have been lowered, are
        left as they are.
        """
        trials = self.ledger.trials()[: self.total]
        unfinished = [record for record in trials if record.state == "running"]
        current = generation_of(unfinished[0].trial if unfinished else len(trials))
        believed = believed_values(self.ledger.tables())
        while len(trials) < self.total and generation_of(len(trials)) == current:
            trials.append(self._ask(len(trials), believed))
        return [record for record in trials if generation_of(record.trial) == current]

    def _ask(self, number: int, believed: Mapping[int, tuple[float, float]]) -> TrialRecord:
        sampler = sampler_for(self.search, self.prepared.experiment.seed, number, believed)
        study = self.ledger.optuna_study(sampler)
        # a trial that is running in Optuna and not recorded here was asked for by a run that ended in between
        begun = [trial for trial in study.get_trials(deepcopy=False) if trial.number == number]
        if begun and begun[0].state == TrialState.RUNNING:
            trial = optuna.trial.Trial(study, begun[0]._trial_id)
        else:
            trial = study.ask()
        if trial.number != number:
            raise StudyError.about(
                self.ledger.folder, f"trial {number} is missing from study.db, which gave {trial.number}"
            )
        adapter, nuisance = suggest(trial, self.search)
        record = TrialRecord(
            trial=number,
            adapter=adapter,
            nuisance=nuisance,
            adapter_parameters=self.prepared.adapter_parameters(adapter),
            head_parameters=self.prepared.base.structure.head_parameters,
            origin="guess" if number < len(self.guesses) else "sampler",
        )
        self.ledger.add_trial(record)
        return record


def believed_values(tables: StudyTables) -> dict[int, tuple[float, float]]:
    """(score, adapter parameters) of complete and stopped trials by number, as the sampler is to believe them.

    A stopped trial has a few folds only, perhaps lucky or easy ones, and its mean is no score to compare with. So every
    score is corrected for its folds, and shrunk toward the others' as far as its noise calls for.
    """
    metric = tables.experiment.verdict.metric
    matrix = score_matrix(tables.trials, tables.cells, metric, states=("complete", "pruned"))
    if not matrix.trials:
        return {}
    pairs = zip(believed_scores(matrix.scores).tolist(), matrix.parameters.tolist(), strict=True)
    return dict(zip(matrix.trials, pairs, strict=True))


def note_score(study: optuna.Study, number: int, score: float, cells: int) -> None:
    """Keep the mean of the cells a stopped trial has among its user attributes, before it is told to be pruned.

    With several objectives Optuna takes neither values nor reports for a pruned trial.
    """
    trial = study.get_trials(deepcopy=False)[number]
    if not trial.state.is_finished():
        handle = optuna.trial.Trial(study, trial._trial_id)
        handle.set_user_attr("score_mean", score)
        handle.set_user_attr("cells", cells)
