"""Choices that come to one adapter where ranks differ by module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from test_study_families import FAMILIES, prepared_family

from lora_search.study import Prepared
from lora_search.study.points import Points, points_of
from lora_search.study.space import sampler_for, suggest_adapter

SEARCH: dict[str, Any] = {
    "rank": [4, 8],
    "alpha_over_rank": [1],
    "targets": ["attention", "all-linear"],
    "layers": ["all"],
    "rank_pattern": ["mlp:0.5", "attention:2", "uniform"],
    "learning_rate": 1e-3,
    "trials": 99,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepared_family(FAMILIES["olmo2"], tmp_path_factory.mktemp("points"), **SEARCH)


def test_every_adapter_is_one_point_and_told_as_plain_as_can_be(prepared: Prepared) -> None:
    points = Points(prepared)
    found = [(spec.rank, spec.alpha, spec.targets, spec.rank_pattern) for spec in points.adapters]
    # on attention alone mlp x 0.5 is nothing, and attention x 2 of rank 4 is rank 8; of 8 it is rank 16, at alpha 16
    assert sorted(found) == [
        (4, 4.0, "all-linear", "attention:2"),  # and not rank 8 with half of it in the MLP, which is the same
        (4, 4.0, "all-linear", "mlp:0.5"),
        (4, 4.0, "all-linear", "uniform"),
        (4, 4.0, "attention", "uniform"),
        (8, 8.0, "all-linear", "attention:2"),
        (8, 8.0, "all-linear", "uniform"),
        (8, 8.0, "attention", "uniform"),
        (16, 16.0, "attention", "uniform"),
    ]
    for spec in points.adapters:
        point = points.point(spec)
        assert points.adapter(prepared.experiment.search.adapter(**point)) == spec
    assert points.point(points.adapters[-1])["rank"] in SEARCH["rank"]


@pytest.mark.parametrize("rate", [1e-3, "auto"])
def test_the_sampler_gives_each_adapter_once(prepared: Prepared, rate: float | str) -> None:
    points, search = Points(prepared), prepared.experiment.search.model_copy(update={"learning_rate": rate})
    study = optuna.create_study(directions=["maximize", "minimize"])
    drawn = []
    for number in range(len(points.adapters)):
        study.sampler = sampler_for(search, 0, number, own=points.own)
        trial = study.ask()
        drawn.append(points.adapter(suggest_adapter(trial, search)))
        trial.suggest_categorical("dropout", search.dropout)
        study.tell(trial, [0.5, 1.0])
    assert set(drawn) == set(points.adapters)
    assert search.total_among(len(points.adapters)) == (8 if rate != "auto" else 99)


def test_a_space_of_one_rank_per_adapter_is_as_its_words_say(prepared: Prepared, tmp_path: Path) -> None:
    plain = prepared_family(FAMILIES["olmo2"], tmp_path)
    assert points_of(plain) is None
    assert points_of(prepared) is not None
