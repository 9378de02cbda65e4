"""The space as Optuna sees it: what is guessed, what is drawn, and that drawing depends on the number alone."""

from __future__ import annotations

import math

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_search.spec.experiment import SearchSpec
from lora_search.study.space import guesses, sampler_for, suggest_adapter, suggest_nuisance

TARGETS = ["query+value", "attention", "mlp", "all-linear", "q_proj,v_proj"]
LAYERS = ["all", "top-1/2", "top-2", "3,4"]


def some(choices):
    return st.lists(st.sampled_from(choices), min_size=1, max_size=4, unique=True)


rates = st.one_of(
    st.just("auto"),
    st.floats(1e-5, 1.0),
    st.tuples(st.floats(1e-5, 1e-2), st.floats(1.1, 100)).map(lambda pair: {"low": pair[0], "high": pair[0] * pair[1]}),
)
searches = st.builds(
    lambda **choices: SearchSpec.model_validate(choices),
    rank=some([1, 2, 3, 4, 8, 16, 64]),
    alpha_over_rank=some([0.5, 1.0, 2.0, 4.0]),
    targets=some(TARGETS),
    layers=some(LAYERS),
    dropout=some([0.0, 0.05, 0.1]),
    learning_rate=rates,
)


def suggest(trial, search, rate=None):
    """Both halves of a trial, as a run asks for them; the rate is the middle of what may be tried, if not said."""
    adapter = suggest_adapter(trial, search)
    rate = math.sqrt(search.rates.low * search.rates.high) if rate is None else rate
    sampler = getattr(trial, "study", None)
    if sampler is not None:
        sampler.sampler.rate = rate
    return adapter, suggest_nuisance(trial, search, rate)


def memory_study():
    return optuna.create_study(directions=["maximize", "minimize"])


@pytest.fixture(autouse=True, scope="module")
def _quiet():
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    yield
    optuna.logging.set_verbosity(before)


@given(searches)
def test_guesses_are_in_the_space(search):
    layers = search.layers[-1]
    for point in guesses(search, layers):
        for name in ("rank", "alpha_over_rank", "targets", "layers", "dropout"):
            assert point[name] in getattr(search, name)
        assert "learning_rate" not in point
        assert point["layers"] == layers
    assert len(guesses(search, layers)) == len({"query+value", "all-linear"} & set(search.targets))


@given(searches)
def test_every_combination_of_choices_is_an_adapter_of_the_space(search):
    found = list(search.adapters())
    assert len(set(found)) == len(found)
    assert len(found) == math.prod(map(len, (search.rank, search.alpha_over_rank, search.targets, search.layers)))
    assert {spec.layers for spec in found} == set(search.layers)


@pytest.mark.parametrize("use_dora", [(False,), (True,), (False, True)])
def test_dora_is_a_parameter_where_there_is_a_choice(use_dora):
    search = SearchSpec.model_validate({"use_dora": use_dora, "bias": "lora_only", "learning_rate": 1e-3})
    study = memory_study()
    study.sampler = sampler_for(search, 0, 0)
    trial = study.ask()
    adapter, _ = suggest(trial, search)
    assert adapter.use_dora in use_dora
    assert adapter.bias == "lora_only"
    assert ("use_dora" in trial.params) == (len(use_dora) == 2)
    assert [point.get("use_dora") for point in guesses(search, "all")] == [False if len(use_dora) == 2 else None] * 2
    assert search.points == 5 * 2 * 3 * 3 * len(use_dora)


@given(searches)
@settings(max_examples=30)
def test_an_enqueued_guess_is_what_is_asked_first(search):
    study = memory_study()
    for point in guesses(search, search.layers[0]):
        study.enqueue_trial(point)
    for number, point in enumerate(guesses(search, search.layers[0])):
        study.sampler = sampler_for(search, 0, number)
        adapter, nuisance = suggest(study.ask(), search)
        assert (adapter.rank, adapter.targets, adapter.layers) == (point["rank"], point["targets"], point["layers"])
        assert adapter.alpha == point["rank"] * point["alpha_over_rank"]
        assert nuisance.dropout == point["dropout"]


@given(searches, st.integers(0, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_what_is_asked_is_in_the_space(search, number, seed):
    study = memory_study()
    study.sampler = sampler_for(search, seed, number)
    adapter, nuisance = suggest(study.ask(), search)
    assert adapter.rank in search.rank
    assert adapter.alpha / adapter.rank == pytest.approx(
        min(search.alpha_over_rank, key=lambda r: abs(r - adapter.alpha / adapter.rank))
    )
    assert (adapter.targets, adapter.layers) in {(t, la) for t in search.targets for la in search.layers}
    assert search.rates.low <= nuisance.learning_rate <= search.rates.high
    assert nuisance.dropout in search.dropout


RANGED = SearchSpec.model_validate({"learning_rate": {"low": 1e-3, "high": 1e-1}, "dropout": [0.0, 0.1]})
POINT = SearchSpec.model_validate({"learning_rate": 1e-3, "rank": [1, 2], "targets": "mlp", "layers": ["all", "top-2"]})


def ask_and_tell(search, count, seed=0, sampler=sampler_for):
    study = memory_study()
    asked = []
    for number in range(count):
        study.sampler = sampler(search, seed, number)
        trial = study.ask()
        asked.append(suggest(trial, search))
        study.tell(trial, [0.1 * asked[-1][0].rank, float(asked[-1][0].rank)])
    return asked


@pytest.mark.parametrize("search", [RANGED, POINT], ids=["range", "finite"])
def test_the_same_numbers_are_asked_the_same(search):
    count = min(14, search.points or 14)
    assert ask_and_tell(search, count) == ask_and_tell(search, count)
    assert ask_and_tell(search, count) != ask_and_tell(search, count, seed=1)


@pytest.mark.parametrize("asked_before", range(6))
@pytest.mark.parametrize("number", [3, 11], ids=["random", "TPE"])
def test_a_trial_half_asked_is_asked_the_rest_as_if_nothing_had_happened(asked_before, number):
    """A run ends after some of the parameters were drawn; the next one has a new sampler and goes on."""

    def asked(interrupted):
        study = memory_study()
        for earlier in range(number):
            study.sampler = sampler_for(RANGED, 0, earlier)
            trial = study.ask()
            adapter, _ = suggest(trial, RANGED)
            study.tell(trial, [0.1 * adapter.rank, float(adapter.rank)])
        study.sampler = sampler_for(RANGED, 0, number)
        trial = study.ask()
        if interrupted:
            with pytest.raises(InterruptedError):
                suggest(OnlySome(trial, asked_before), RANGED)
            study.sampler = sampler_for(RANGED, 0, number)
            trial = optuna.trial.Trial(study, trial._trial_id)
        return suggest(trial, RANGED)

    assert asked(interrupted=True) == asked(interrupted=False)


class OnlySome:
    """Gives as many parameters as it may, then ends."""

    def __init__(self, trial, count):
        self._trial, self._left = trial, count
        self.study = trial.study

    def _suggest(self, kind, *arguments, **settings):
        if self._left == 0:
            raise InterruptedError
        self._left -= 1
        return getattr(self._trial, kind)(*arguments, **settings)

    def suggest_categorical(self, *arguments):
        return self._suggest("suggest_categorical", *arguments)

    def suggest_float(self, *arguments, **settings):
        return self._suggest("suggest_float", *arguments, **settings)


def test_a_finite_space_is_walked_through_once():
    assert POINT.points == 8
    assert RANGED.points is None
    points = [(adapter.rank, adapter.alpha, adapter.layers) for adapter, _ in ask_and_tell(POINT, 8)]
    assert len(set(points)) == 8
    assert points != [(adapter.rank, adapter.alpha, adapter.layers) for adapter, _ in ask_and_tell(POINT, 8, seed=1)]
