"""``[baselines]``: what is said of it, and one clear line for what cannot be."""

from pathlib import Path

import pytest
from test_spec_loading import SMALLEST

from lora_search.errors import ExperimentError
from lora_search.spec import Experiment, json_schema, load_experiment
from lora_search.spec.baselines import BASELINES, LEARNING_RATES, BaselinesSpec


def load(folder: Path, baselines: str = "", *overrides: str) -> Experiment:
    (folder / "reviews.toml").write_text(SMALLEST + baselines, encoding="utf-8")
    return load_experiment(folder / "reviews.toml", overrides)


def test_by_default_there_is_what_is_cheap(tmp_path: Path) -> None:
    spec = load(tmp_path).baselines
    assert spec.include == ("majority", "head")
    assert spec.rates_of("full") == (1e-5, 3e-5, 1e-4)
    assert spec.rates_of("head") == (1e-3, 1e-2, 1e-1)
    assert spec.rates_of("majority") == (None,)


def test_rates_given_stand_beside_the_default_ones(tmp_path: Path) -> None:
    spec = load(
        tmp_path, '[baselines]\ninclude = "full"\nlearning_rate = { full = 1e-4, hidden-state = [1e-3] }'
    ).baselines
    assert spec.include == ("full",)
    assert spec.learning_rate == {**LEARNING_RATES, "full": (1e-4,), "hidden-state": (1e-3,)}


def test_the_cheapest_comes_first() -> None:
    everything = BaselinesSpec(include=("full", "tfidf", "head", "majority", "hidden-state", "bitfit"))
    assert everything.ordered == BASELINES
    assert BaselinesSpec(include=()).ordered == ()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            'include=["majority", "fulll"]',
            "baselines.include[1]: must be majority, tfidf, head, bitfit, full or hidden-state, got "
            '"fulll", did you mean "full"?',
        ),
        ('include=["full", "full"]', 'baselines.include: must not repeat a baseline, got ["full", "full"]'),
        (
            "learning_rate.fulll=[1e-4]",
            "baselines.learning_rate: must have no other keys than head, hidden-state, bitfit and full, got "
            '{ fulll = [0.0001] }, did you mean "full"?',
        ),
        ("learning_rate.full=[0, 1e-4]", "baselines.learning_rate.full[0]: must be above 0, got 0"),
        ("learning_rate.full=[]", "baselines.learning_rate.full: must not be empty, got []"),
        ('learning_rate.full=["x"]', 'baselines.learning_rate.full[0]: must be a number, got "x"'),
        ("learning_rate=3", "baselines.learning_rate: must be a table, got 3"),
        ("includ=3", "baselines.includ: unknown key, did you mean baselines.include?"),
    ],
)
def test_one_line_for_each_mistake(tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(ExperimentError) as refused:
        load(tmp_path, "", f"baselines.{override}")
    assert refused.value.mistakes == (f"--set: {said}",)


def test_an_editor_knows_the_names() -> None:
    assert '"hidden-state"' in str(json_schema()).replace("'", '"')
