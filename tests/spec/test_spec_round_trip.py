"""An experiment written out and read back is the same experiment, whatever it holds."""

from __future__ import annotations

import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lora_search.metrics import VERDICT_METRICS
from lora_search.spec import Experiment, experiment_to_toml, json_schema, load_experiment
from lora_search.spec.baselines import BASELINES, LEARNING_RATES
from lora_search.spec.toml import toml_document

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
numbers = st.floats(min_value=1e-300, max_value=1e3)
shares = st.floats(min_value=0, max_value=0.89)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,5}x", fullmatch=True)
targets = st.one_of(st.sampled_from(["query+value", "attention", "mlp", "all-linear"]), st.lists(names, min_size=1))
layers = st.one_of(
    st.just("all"),
    st.integers(1, 99).map("top-{}".format),
    st.integers(1, 9).map("top-1/{}".format),
    st.lists(st.integers(0, 99), min_size=1),
)


def distinct(choice: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(choice, min_size=1, max_size=4, unique=True)


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    low = draw(st.floats(min_value=1e-12, max_value=1.0))
    rate: Any = draw(st.sampled_from([low, {"low": low, "high": low * 2}]))
    return Experiment.model_validate(
        {
            "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)),
            "seed": draw(st.integers(0, 2**32 - 1)),
            "model": {
                "base": "hub:" + draw(texts),
                "revision": draw(st.none() | texts),
                "trust_remote_code": draw(st.booleans()),
            },
            "data": {
                "train": "hub:" + draw(texts),
                "text": draw(texts),
                "drop_labels": draw(st.lists(texts, max_size=3)),
                "group": draw(st.none() | texts),
                "max_examples": draw(st.none() | st.integers(4, 10**9)),
                "holdout": draw(shares),
            },
            "search": {
                "rank": draw(distinct(st.integers(1, 4096))),
                "alpha_over_rank": draw(distinct(numbers)),
                "targets": [draw(targets)],
                "layers": [draw(layers)],
                "learning_rate": rate,
                "dropout": draw(distinct(shares)),
            },
            "training": {"weight_decay": draw(numbers), "precision": draw(st.sampled_from(["auto", "fp32", "bf16"]))},
            "baselines": {
                "include": draw(st.lists(st.sampled_from(BASELINES), unique=True)),
                "learning_rate": draw(
                    st.dictionaries(
                        st.sampled_from(sorted(LEARNING_RATES)),
                        st.lists(st.floats(min_value=1e-12, max_value=1e3), min_size=1, max_size=3, unique=True),
                    )
                ),
            },
            "verdict": {"metric": draw(st.sampled_from(VERDICT_METRICS)), "margin": draw(shares)},
        }
    )


@given(experiments())
def test_an_experiment_survives_its_own_file(experiment: Experiment) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "experiment.toml"
        path.write_text(experiment_to_toml(experiment), encoding="utf-8", newline="")
        assert load_experiment(path) == experiment


@given(experiments())
def test_an_experiment_survives_json(experiment: Experiment) -> None:
    assert Experiment.model_validate_json(experiment.model_dump_json()) == experiment


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=4))
def test_any_toml_document_reads_back(document: dict[str, Any]) -> None:
    assert tomllib.loads(toml_document(document)) == document


def test_the_resolved_file_writes_out_every_default() -> None:
    text = experiment_to_toml(
        Experiment.model_validate(
            {
                "name": "reviews",
                "model": {"base": "m"},
                "data": {"train": "t"},
                "search": {"layers": [[3, 4], "all"], "learning_rate": {"low": 2e-4, "high": 4e-3}},
                "verdict": {"metric": "accuracy"},
            }
        )
    )
    assert text.startswith('name = "reviews"\nseed = 0\n\n[model]\nbase = "m"\ntask = "text-classification"\n')
    assert 'layers = ["3,4", "all"]\n' in text
    assert "learning_rate = { low = 0.0002, high = 0.004 }\n" in text
    assert "None" not in text


def test_the_schema_lets_an_editor_accept_what_the_file_may_say() -> None:
    schema = json_schema()
    assert schema["required"] == ["name", "model", "data", "verdict"]
    assert schema["additionalProperties"] is False
    search = schema["$defs"]["SearchSpec"]["properties"]
    assert {option["type"] for option in search["rank"]["anyOf"]} == {"integer", "array"}
    assert {option["type"] for option in search["layers"]["anyOf"][1]["items"]["anyOf"]} == {
        "string",
        "integer",
        "array",
    }
    assert schema["$defs"]["VerdictSpec"]["properties"]["metric"]["enum"] == list(VERDICT_METRICS)


def test_what_python_has_and_no_file_can_is_taken_for_what_it_means() -> None:
    """Paths, ranges, and numbers and arrays of NumPy."""
    given = {
        "name": "python",
        "model": {"base": Path("/models/small")},
        "data": {"train": Path("/data/texts.csv"), "text": "text", "label": "label", "max_examples": np.int64(500)},
        "search": {"rank": range(1, 4), "alpha_over_rank": np.array([1.0, 2.0]), "learning_rate": np.float64(1e-3)},
        "verdict": {"metric": "accuracy", "margin": np.float64(0.02)},
    }
    experiment = Experiment.model_validate(given)
    assert experiment.model.base == "/models/small"
    assert experiment.data.train == "/data/texts.csv"
    assert experiment.data.max_examples == 500
    assert experiment.search.rank == (1, 2, 3)
    assert experiment.search.alpha_over_rank == (1.0, 2.0)
    assert experiment.search.learning_rate == 1e-3
    assert Experiment.model_validate(experiment.model_dump()) == experiment
