"""The search space in Optuna's terms, and what people would guess in it.

Choices are categories (ranks are few, and neither ordered cost nor ordered score should be assumed); the learning
rate is a log range. Names and choices are part of the stored study: they may not change while it runs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import partial
from itertools import product
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from lora_search.adapters import key_of
from lora_search.spec import UNIFORM, AdapterSpec, Nuisance
from lora_search.spec.experiment import SearchSpec
from lora_search.spec.facts import Point

_RANDOM_FIRST = 8
_DRAWS = 16
ADAPTER_CHOICES = ("rank", "alpha_over_rank", "targets", "layers", "use_dora", "rank_pattern")
_LATER = ("use_dora", "rank_pattern")
"""Without a choice these are no parameters: studies of before there was one go on as they began."""
_GUESSES = (
    # (rank, alpha, targets), on all layers: PEFT's documentation examples, then the habit of every linear module
    (8, 16.0, "query+value"),
    (16, 32.0, "all-linear"),
)


def _choices(search: SearchSpec) -> dict[str, tuple[Any, ...]]:
    names = (*ADAPTER_CHOICES, "dropout")
    return {name: getattr(search, name) for name in names if name not in _LATER or len(getattr(search, name)) > 1}


def adapter_choices(search: SearchSpec) -> dict[str, tuple[Any, ...]]:
    """The parameters that make an adapter, each with its choices."""
    return {name: values for name, values in _choices(search).items() if name in ADAPTER_CHOICES}


def suggest_adapter(trial: optuna.Trial, search: SearchSpec) -> AdapterSpec:
    """The adapter that the sampler, or an enqueued guess, gives a trial; the same one if asked again."""
    choices = adapter_choices(search)
    return search.adapter(**{name: trial.suggest_categorical(name, values) for name, values in choices.items()})


def suggest_nuisance(trial: optuna.Trial, search: SearchSpec, rate: float) -> Nuisance:
    """What is tuned besides; ``rate`` is what the study's one learning rate is, or what the trial's sampler gives."""
    if search.tunes_rate:
        rate = trial.suggest_float("learning_rate", search.rates.low, search.rates.high, log=True)
    return Nuisance(learning_rate=rate, dropout=trial.suggest_categorical("dropout", search.dropout))


def guesses(search: SearchSpec, layers: str) -> list[dict[str, Any]]:
    """What people would guess, as far as the space has it; tried first, so that a study beats the habit or confirms it.

    The nearest rank and alpha of the space stand for one it does not have.

    Args:
        search: the space.
        layers: the choice of it that stands for all layers: the one with the most.
    """
    found: list[dict[str, Any]] = []
    for rank, alpha, targets in _GUESSES:
        if targets not in search.targets:
            continue
        nearest_rank = min(search.rank, key=lambda choice: abs(math.log(choice / rank)))
        ratio = alpha / rank
        point: dict[str, Any] = {
            "rank": nearest_rank,
            "alpha_over_rank": min(search.alpha_over_rank, key=lambda choice: abs(math.log(choice / ratio))),
            "targets": targets,
            "layers": layers,
            "dropout": min(search.dropout),
        }
        if len(search.use_dora) > 1:
            point["use_dora"] = False
        if len(search.rank_pattern) > 1:
            point["rank_pattern"] = UNIFORM if UNIFORM in search.rank_pattern else search.rank_pattern[0]
        if point not in found:
            found.append(point)
    return found


class _Untried(BaseSampler):
    """Points of a finite space in a random order, each once: repeating a deterministic training would teach nothing."""

    rate: float = math.nan
    """The learning rate to give the trial, where that is part of the space."""

    def __init__(self, search: SearchSpec, seed: int, own: Collection[tuple[Any, ...]] | None) -> None:
        self._search = search
        self._seed = seed
        self._own = own

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(choices) for name, choices in _choices(self._search).items()}

    def sample_relative(
        self, study: optuna.Study, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        choices = _choices(self._search)
        tried = {
            tuple(other.params.get(name) for name in choices)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
        }
        untried = [point for point in product(*choices.values()) if point not in tried and self._is_own(point[:-1])]
        return dict(zip(choices, untried[key_of(self._seed, trial.number) % len(untried)], strict=True))

    def _is_own(self, adapter: tuple[Any, ...]) -> bool:
        return self._own is None or adapter in self._own

    def sample_independent(self, study: optuna.Study, trial: Any, name: str, distribution: BaseDistribution) -> Any:
        raise RuntimeError(f"{name} is not part of the space")


class _Given(BaseSampler):
    """One point, known beforehand; what it leaves open is drawn by the trial's number."""

    rate: float = math.nan

    def __init__(self, seed: int, number: int, point: Point) -> None:
        self._of_name = partial(_seed, seed, number)
        self._point = point

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: Any, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(self, study: optuna.Study, trial: Any, name: str, distribution: BaseDistribution) -> Any:
        if name == "learning_rate":
            return self.rate
        if name in self._point:
            return dict(self._point)[name]
        return RandomSampler(self._of_name(name)).sample_independent(study, trial, name, distribution)


class _Seeded(TPESampler):
    """TPE over adapters, of which every draw depends on the trial's number and at most the parameter's name.

    So a trial that was half asked when its run ended is asked the rest as if nothing had happened.

    It learns from stopped trials too, which Optuna's own TPE ranks behind all complete ones, whatever they scored; and
    it gives no adapter that is there already.

    Args:
        search, believed, own: as in :func:`sampler_for`.
    """

    rate: float = math.nan

    def __init__(
        self,
        search: SearchSpec,
        seed: int,
        number: int,
        believed: Mapping[int, tuple[float, float]],
        own: Collection[tuple[Any, ...]] | None,
    ) -> None:
        super().__init__(
            seed=_seed(seed, number), n_startup_trials=_RANDOM_FIRST, multivariate=True, constant_liar=True
        )
        self._of_name = partial(_seed, seed, number)
        self._believed = believed
        self._choices = adapter_choices(search)
        self._own = own

    def infer_relative_search_space(self, study: optuna.Study, trial: Any) -> dict[str, BaseDistribution]:
        return {name: CategoricalDistribution(values) for name, values in self._choices.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        copy = as_believed(study, self._believed)
        there = {
            tuple(other.params.get(name) for name in self._choices)
            for other in study.get_trials(deepcopy=False)
            if other.number != trial.number
        }
        itself = copy.get_trials(deepcopy=False)[trial.number]
        for _ in range(_DRAWS):
            # before there are enough trials to learn from it samples nothing
            drawn = super().sample_relative(copy, itself, search_space)
            if not drawn:
                break
            if self._is_new(tuple(drawn[name] for name in self._choices), there):
                return drawn
        untried = [point for point in product(*self._choices.values()) if self._is_new(point, there)]
        return dict(zip(self._choices, untried[self._of_name("untried") % len(untried)], strict=True))

    def _is_new(self, point: tuple[Any, ...], there: Collection[tuple[Any, ...]]) -> bool:
        return point not in there and (self._own is None or point in self._own)

    def sample_independent(self, study: optuna.Study, trial: Any, name: str, distribution: BaseDistribution) -> Any:
        if name == "learning_rate":
            return self.rate
        return RandomSampler(self._of_name(name)).sample_independent(study, trial, name, distribution)


def as_believed(study: optuna.Study, believed: Mapping[int, tuple[float, float]]) -> optuna.Study:
    """A copy in memory to sample from, in which stopped trials are complete with the values they are believed to have.

    Optuna takes no values for a pruned trial of several objectives. To tell it that the trial is complete would show
    it among the study's best; here nobody but the sampler sees it. Finished settings that do not stand for their
    adapter teach nothing, and count as failed.

    Args:
        study: the trials; it is not changed.
        believed: by trial number, the values of complete and stopped trials.
    """
    copy = optuna.create_study(directions=study.directions)
    for trial in study.get_trials():
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            values = believed.get(trial.number)
            trial.state = TrialState.FAIL if values is None else TrialState.COMPLETE
            trial.values = None if values is None else list(values)
        copy.add_trial(trial)
    return copy


def _seed(seed: int, *what: int | str) -> int:
    return key_of(seed, "trial", *what) % 2**32


AdapterSampler = _Untried | _Given | _Seeded


def sampler_for(
    search: SearchSpec,
    seed: int,
    number: int,
    believed: Mapping[int, tuple[float, float]] | None = None,
    point: Point | None = None,
    own: Collection[tuple[Any, ...]] | None = None,
) -> AdapterSampler:
    """The sampler that asks trial ``number``: seeded by it, so that an interrupted study goes on as if it had not
    been.

    Args:
        search: the space.
        seed: of the experiment.
        number: of the trial.
        believed: (score, adapter parameters) of the finished adapters by the number of the trial that stands for each,
            for the sampler to learn from.
        point: the adapter to give it, where that is known.
        own: the choices of ``adapter_choices`` that may be given, where some are adapters that others are already.
    """
    if point is not None:
        return _Given(seed, number, point)
    if search.points is None:
        return _Seeded(search, seed, number, believed or {}, own)
    return _Untried(search, seed, own)
