"""Where trials come from: guesses first, then the sampler, or whoever knows what is wanted; each recorded as soon as
it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.trial import TrialState

from lora_search.errors import StudyError
from lora_search.spec import AdapterSpec
from lora_search.spec.facts import Point
from lora_search.statistics import believed_scores, score_matrix
from lora_search.statistics.by_adapter import by_adapter
from lora_search.store.ledger import Ledger
from lora_search.store.reader import StudyTables
from lora_search.store.records import Origin, TrialRecord
from lora_search.study.points import points_of
from lora_search.study.preparation import Prepared
from lora_search.study.schedule import generation_of
from lora_search.study.space import ADAPTER_CHOICES, guesses, sampler_for, suggest_adapter, suggest_nuisance


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
        self.points = points_of(prepared)
        self.total = self.search.total_among(self.different)
        self.guesses = guesses(self.search, prepared.most_layers())
        if self.points is not None:
            self.guesses = [guess | self.points.point(self._adapter_of(guess)) for guess in self.guesses]

    @property
    def different(self) -> int | None:
        """How many different ones there are, where two choices may be one; None where they are not."""
        return None if self.points is None else len(self.points.adapters)

    def begin(self) -> None:
        """Put the guesses in front, those that are not there yet."""
        self.ledger.patiently(self._enqueue)

    def _enqueue(self) -> None:
        study = self.ledger.optuna_study()
        for point in self.guesses[len(study.get_trials(deepcopy=False)) :]:
            study.enqueue_trial(point)

    def generation(self) -> list[TrialRecord]:
        """The trials of the generation under way, of a study at one learning rate: the recorded ones, and as many new
        ones as it lacks.

        All are finished when there is nothing left to ask for. Trials past the total, which may have been lowered, are
        left as they are.
        """
        trials = self.ledger.trials()[: self.total]
        unfinished = [record for record in trials if record.state == "running"]
        current = generation_of(unfinished[0].trial if unfinished else len(trials))
        while len(trials) < self.total and generation_of(len(trials)) == current:
            trials.append(self.ask(len(trials), {}, None, float(self.search.rates.low)))
        return [record for record in trials if generation_of(record.trial) == current]

    def point_of(self, adapter: AdapterSpec) -> Point:
        """An adapter of the space as the choices it is made of."""
        if self.points is not None:
            return self.points.point(adapter)
        ratios = self.search.alpha_over_rank
        ratio = min(ratios, key=lambda choice: abs(choice * adapter.rank - adapter.alpha))
        point: Point = {
            "rank": adapter.rank,
            "alpha_over_rank": ratio,
            "targets": adapter.targets,
            "layers": adapter.layers,
        }
        if len(self.search.use_dora) > 1:
            point["use_dora"] = adapter.use_dora
        return point

    def guessed(self) -> list[AdapterSpec]:
        """The adapters people would guess."""
        return [self._told(self._adapter_of(guess)) for guess in self.guesses]

    def _adapter_of(self, guess: Mapping[str, Any]) -> AdapterSpec:
        return self.search.adapter(**{name: choice for name, choice in guess.items() if name in ADAPTER_CHOICES})

    def _told(self, adapter: AdapterSpec) -> AdapterSpec:
        return adapter if self.points is None else self.points.adapter(adapter)

    def ask(
        self,
        number: int,
        believed: Mapping[int, tuple[float, float]],
        point: Point | None,
        rate: float | Callable[[AdapterSpec], float],
    ) -> TrialRecord:
        """Ask Optuna for a trial and record it.

        Args:
            number: of the trial.
            believed: what the sampler is to learn from (see ``believed_values``).
            point: the adapter; None lets the sampler choose.
            rate: the learning rate, or what gives that of an adapter.
        """
        record = self.ledger.patiently(lambda: self._asked(number, believed, point, rate))
        self.ledger.add_trial(record)
        return record

    def _asked(
        self,
        number: int,
        believed: Mapping[int, tuple[float, float]],
        point: Point | None,
        rate: float | Callable[[AdapterSpec], float],
    ) -> TrialRecord:
        own = None if self.points is None else self.points.own
        sampler = sampler_for(self.search, self.prepared.experiment.seed, number, believed, point, own)
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
        adapter = self._told(suggest_adapter(trial, self.search))
        # the exponential of the logarithm of a bound may lie beyond it
        rates = self.search.rates
        sampler.rate = min(max(rate(adapter) if callable(rate) else rate, rates.low), rates.high)
        nuisance = suggest_nuisance(trial, self.search, sampler.rate)
        return TrialRecord(
            trial=number,
            adapter=adapter,
            nuisance=nuisance,
            adapter_parameters=self.prepared.adapter_parameters(adapter),
            head_parameters=self.prepared.base.structure.head_parameters,
            origin=self._origin(number, adapter),
        )

    def _origin(self, number: int, adapter: AdapterSpec) -> Origin:
        if self.search.tunes_rate:
            return "guess" if adapter in self.guessed() else "sampler"
        return "guess" if number < len(self.guesses) else "sampler"


def believed_values(tables: StudyTables) -> dict[int, tuple[float, float]]:
    """(score, adapter parameters) of complete and stopped adapters, by the number of the trial that stands for each,
    as the sampler is to believe them.

    A stopped adapter has a few folds only, perhaps lucky or easy ones, and its mean is no score to compare with. So
    every score is corrected for its folds, and shrunk toward the others' as far as its noise calls for.
    """
    metric, rows = tables.experiment.verdict.metric, by_adapter(tables)
    matrix = score_matrix(rows.trials, rows.cells, metric, states=("complete", "pruned"))
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
