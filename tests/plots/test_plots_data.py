"""What the figures show, before anything is drawn."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from fabricated_studies import every_state_rows, frames, sampled_rows, trial_row, verdict_for

from lora_search.errors import StudyError
from lora_search.plots import folds_data, importance, importance_data, parameters_data, ranks_data, time_data
from lora_search.plots.encoding import Encoding
from lora_search.plots.formats import adapter
from lora_search.plots.landscape import landscape


def _with_scores(trials: pd.DataFrame, cells: pd.DataFrame, scores: dict[int, list[float]]) -> None:
    """Replace the scores of both frames, in place; trials and folds in order."""
    for trial, values in scores.items():
        cells.loc[cells["trial"] == trial, ["score", "accuracy"]] = np.array([values, values]).T
        trials.loc[trials["trial"] == trial, "score_mean"] = float(np.mean(values))


def test_a_trial_with_only_an_easy_fold_is_placed_by_its_paired_difference() -> None:
    rows = [
        trial_row(0, 8, "query+value", "all", 1e-3),
        trial_row(1, 2, "attention", "all", 1e-3, state="pruned", cells=1),
    ]
    trials, cells = frames(rows, folds=3)
    _with_scores(trials, cells, {0: [0.90, 0.80, 0.82], 1: [0.89]})
    scene = landscape(trials, cells, verdict_for(trials, cells, folds=3))

    assert scene.best == 0
    assert scene.points[0].score == pytest.approx(0.84)
    assert scene.points[1].score == pytest.approx(0.84 - 0.01)  # its own mean is 0.89, above the best
    assert scene.adjusted
    assert not scene.points[1].finished


def test_nothing_is_placed_beyond_what_the_metric_can_be() -> None:
    rows = [
        trial_row(0, 8, "query+value", "all", 1e-3),
        trial_row(1, 2, "attention", "all", 1e-3, state="pruned", cells=1),
        trial_row(2, 4, "attention", "all", 1e-3),
    ]
    trials, cells = frames(rows, folds=3)
    _with_scores(trials, cells, {0: [0.9, 0.0, 0.0], 1: [0.0], 2: [0.0, 0.0, 0.0]})
    scene = landscape(trials, cells, verdict_for(trials, cells, folds=3))
    assert scene.best == 0
    assert [point.score for point in scene.points] == pytest.approx([0.3, 0.0, 0.0])  # not 0.3 - 0.9 of the stopped
    ends = [end for point in scene.points for end in (point.low, point.high) if end is not None]
    assert ends
    assert all(0 <= end <= 1 for end in ends)


def test_what_is_no_adapter_is_placed_at_its_own_mean() -> None:
    trials, cells = frames(sampled_rows(4), repeats=2)
    compared = [
        {"name": "full", "title": "full fine-tuning", "score_mean": None, "difference": None},
        {"name": "head", "title": "head alone", "score_mean": 0.7, "difference": -0.2},
        {"name": "majority", "title": "majority", "score_mean": 0.0, "difference": -0.8},
    ]
    scene = landscape(trials, cells, verdict_for(trials, cells) | {"baselines": {"compared": compared}})
    assert [(line.name, line.score) for line in scene.baselines] == [("majority", 0.0), ("head alone", 0.7)]


@pytest.mark.parametrize("count", [1, 12])
def test_the_best_from_which_the_others_are_measured_has_no_bar(count: int) -> None:
    trials, cells = frames(sampled_rows(count))
    scene = landscape(trials, cells, verdict_for(trials, cells))
    barred = {point.trial for point in scene.points if point.low is not None}
    assert barred == {point.trial for point in scene.points} - {scene.best}


def test_adapters_that_differ_in_alpha_alone_are_told_by_it() -> None:
    rows = [trial_row(trial, 2, "attention", "all", 1e-3, alpha=alpha) for trial, alpha in enumerate((2.0, 4.0, 8.0))]
    rows.append(trial_row(3, 4, "attention", "all", 1e-3))
    trials, cells = frames(rows)
    scene = landscape(trials, cells, verdict_for(trials, cells))
    assert [point.alpha for point in scene.points] == [2.0, 4.0, 8.0, None]
    assert adapter(2, "attention", "all", alpha=4.0) == "r=2 α=4, attention, all layers"


def test_adapters_are_told_by_the_variants_that_not_all_of_them_are() -> None:
    rows = [trial_row(trial, 2, "attention", "all", 1e-3) | {"scaling": "rslora"} for trial in range(3)]
    rows[1] |= {"use_dora": True}
    rows[2] |= {"rank_pattern": "mlp:0.5"}
    trials, cells = frames(rows)
    scene = landscape(trials, cells, verdict_for(trials, cells))
    assert [point.variants for point in scene.points] == [(), ("DoRA",), ("ranks mlp x 0.5",)]
    assert adapter(2, "mlp", "all", variants=("DoRA",)) == "r=2, mlp, all layers, DoRA"


@pytest.mark.parametrize("noise", [0.0006, 0.002, 0.005])
def test_a_bar_above_the_margin_and_the_status_not_worse_are_the_same_thing(noise: float) -> None:
    trials, cells = frames(sampled_rows(24), noise=noise)
    verdict = verdict_for(trials, cells)
    scene = landscape(trials, cells, verdict)
    assert scene.best_score is not None
    edge = scene.best_score - scene.margin
    for item in verdict["comparisons"]:
        point = scene.point(item["trial"])
        assert point is not None
        if point.trial == scene.best:
            continue
        assert point.low is not None
        assert point.high is not None
        drawn = "not-worse" if point.low >= edge - 1e-9 else "worse" if point.high < edge else "open"
        assert drawn == item["status"], item
    assert {item["status"] for item in verdict["comparisons"]} >= {"not-worse"}


def test_the_front_climbs_and_never_holds_an_unfinished_trial() -> None:
    trials, cells = frames(every_state_rows())
    front = parameters_data(trials, cells, verdict_for(trials, cells)).front
    finished = trials[trials["state"] == "complete"]
    assert all(
        one.adapter_parameters < two.adapter_parameters and one.score < two.score for one, two in pairwise(front)
    )
    assert {point.trial for point in front} <= set(finished["trial"])
    assert front[-1].score == pytest.approx(finished["score_mean"].max())
    assert front[0].adapter_parameters == finished["adapter_parameters"].min()


def test_failed_trials_have_no_point_and_are_counted() -> None:
    trials, cells = frames(every_state_rows())
    scene = landscape(trials, cells, verdict_for(trials, cells))
    assert scene.unscored == (7,)
    assert 7 not in {point.trial for point in scene.points}


def test_a_verdict_about_another_study_is_refused() -> None:
    trials, cells = frames(sampled_rows(3))
    verdict = verdict_for(trials, cells)
    verdict["best"]["trial"] = 99
    with pytest.raises(StudyError, match=r"verdict\.json: best\.trial must be a trial of the study, got 99"):
        landscape(trials, cells, verdict)


def test_the_wall_clock_of_a_pack_is_divided_among_its_cells() -> None:
    trials, cells = frames(sampled_rows(4), pack=4)
    verdict = verdict_for(trials, cells)
    wall = time_data(trials, cells, verdict, "wall")
    assert wall.x == pytest.approx(dict.fromkeys(range(4), 1.9 / 4))
    compute = cells[cells["trial"] == 2]["seconds"].mean()
    assert time_data(trials, cells, verdict, "compute").x[2] == pytest.approx(compute)


def test_time_is_the_wall_clock_unless_trainings_were_packed() -> None:
    for pack, clock in ((1, "wall"), (4, "compute")):
        trials, cells = frames(sampled_rows(4), pack=pack)
        assert time_data(trials, cells, verdict_for(trials, cells)).cost == clock


def test_a_line_joins_the_best_finished_trial_at_each_rank() -> None:
    rows = [
        trial_row(0, 1, "attention", "all", 1e-3),
        trial_row(1, 1, "attention", "top-1/2", 1e-3),
        trial_row(2, 4, "attention", "all", 1e-3),
        trial_row(3, 4, "attention", "top-1/2", 1e-3, state="pruned", cells=1),
        trial_row(4, 4, "query+value", "all", 1e-3),
    ]
    trials, cells = frames(rows, folds=2)
    _with_scores(trials, cells, {0: [0.8, 0.8], 1: [0.83, 0.83], 2: [0.84, 0.84], 3: [0.9], 4: [0.7, 0.7]})
    lines = ranks_data(trials, cells, verdict_for(trials, cells, folds=2)).lines
    assert {targets: [point.trial for point in line] for targets, line in lines.items()} == {
        "query+value": [4],
        "attention": [1, 2],
    }


def test_finalists_carry_their_paired_differences_to_the_best() -> None:
    trials, cells = frames(
        [trial_row(0, 8, "query+value", "all", 1e-3, origin="guess"), trial_row(1, 2, "attention", "all", 1e-3)]
    )
    _with_scores(trials, cells, {0: [0.80, 0.90, 0.85, 0.85, 0.85], 1: [0.79, 0.90, 0.84, 0.84, 0.84]})
    data = folds_data(trials, cells, verdict_for(trials, cells))
    assert data.scene.best == 0
    [row] = data.rows
    assert row.point.trial == 1
    assert row.differences == pytest.approx((-0.01, 0.0, -0.01, -0.01, -0.01))
    assert row.mean == pytest.approx(-0.008)


def test_finalists_are_at_most_eight_and_always_hold_the_recommended_and_the_guess() -> None:
    trials, cells = frames(sampled_rows(24), noise=0.001)
    verdict = verdict_for(trials, cells)
    data = folds_data(trials, cells, verdict)
    shown = [row.point.trial for row in data.rows]
    assert len(shown) == 8
    assert verdict["best"]["trial"] not in shown
    assert {0, verdict["recommended"]["trial"]} <= set(shown)
    sizes = [row.point.adapter_parameters for row in data.rows]
    assert sizes == sorted(sizes)
    chances = {item["trial"]: item["probability_not_worse"] for item in verdict["comparisons"]}
    assert all(row.probability == chances[row.point.trial] for row in data.rows)


def test_finalists_hold_what_keeps_the_verdict_open() -> None:
    trials, cells = frames(sampled_rows(24), noise=0.0006)
    verdict = verdict_for(trials, cells)
    size = dict(zip(trials["trial"], trials["adapter_parameters"], strict=True))
    asked = {
        item["trial"]
        for item in verdict["comparisons"]
        if item["status"] == "open" and size[item["trial"]] < size[verdict["recommended"]["trial"]]
    }
    assert verdict["status"] == "undecided"
    assert asked
    assert asked <= {row.point.trial for row in folds_data(trials, cells, verdict).rows}


@pytest.fixture
def _whole_forest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "_REPEATS", 8)
    monkeypatch.setattr(importance, "_TREES", 30)


def _importance_frames(count: int, *, signal: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    generator = np.random.default_rng(5)
    trials, cells = frames(sampled_rows(count, ranks=(1, 2, 4, 8, 16, 32)))
    rank = np.log2(trials["rank"].astype(float))
    values = 0.8 + (0.01 * rank if signal else 0.0) + generator.normal(0, 0.001 if signal else 0.01, count)
    _with_scores(trials, cells, {trial: [float(value)] * 5 for trial, value in enumerate(values)})
    return trials, cells


@pytest.mark.usefixtures("_whole_forest")
def test_importance_finds_the_hyperparameter_that_moves_the_score() -> None:
    trials, cells = _importance_frames(40, signal=True)
    data = importance_data(trials, cells, verdict_for(trials, cells))
    assert data.problem is None
    assert data.explained > 0.5
    assert data.bars[0].name == "rank"
    assert data.bars[0].low > 3 * max(abs(bar.median) for bar in data.bars[1:])
    assert {bar.name for bar in data.bars} == {"rank", "alpha / rank", "target modules", "layers", "learning rate"}


@pytest.mark.usefixtures("_whole_forest")
def test_importance_listens_to_stopped_trials() -> None:
    trials, cells = _importance_frames(40, signal=True)
    trials.loc[trials["trial"] >= 3, "state"] = "pruned"
    cells = cells[(cells["trial"] < 3) | (cells["fold"] < 2)]
    data = importance_data(trials, cells, verdict_for(trials, cells))
    assert (data.trials, data.stopped, data.problem) == (40, 37, None)
    assert data.bars[0].name == "rank"


@pytest.mark.usefixtures("_whole_forest")
def test_importance_says_so_when_there_is_nothing_to_find() -> None:
    trials, cells = _importance_frames(24, signal=False)
    data = importance_data(trials, cells, verdict_for(trials, cells))
    assert data.explained <= 0
    assert data.problem is not None
    assert "no better than their mean" in data.problem


def test_importance_is_repeatable() -> None:
    trials, cells = frames(sampled_rows(12))
    verdict = verdict_for(trials, cells)
    assert importance_data(trials, cells, verdict).bars == importance_data(trials, cells, verdict).bars


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "0 trials with a score: too few to say, 10 needed."),
        (sampled_rows(1), "1 trial with a score: too few to say, 10 needed."),
        (sampled_rows(9), "9 trials with a score: too few to say, 10 needed."),
        (
            [trial_row(trial, 8, "attention", "all", 1e-3 + trial * 1e-5) for trial in range(12)],
            "Fewer than two hyperparameters varied: nothing to compare.",
        ),
    ],
)
def test_importance_needs_trials_and_variety(rows: list[dict[str, object]], problem: str) -> None:
    trials, cells = frames(rows)
    data = importance_data(trials, cells, verdict_for(trials, cells))
    assert (data.bars, data.problem) == ((), problem)
    assert math.isnan(data.explained)


def test_colours_and_markers_depend_only_on_what_is_there_not_on_its_order() -> None:
    trials, _ = frames(sampled_rows(24))
    shuffled = trials.sample(frac=1, random_state=1)
    encoding = Encoding.of(trials)
    assert encoding == Encoding.of(shuffled)
    assert list(encoding.colours) == ["query+value", "attention", "all-linear"]
    assert list(encoding.markers) == ["all", "top-1/2", "top-1/3"]
    assert len(set(encoding.colours.values())) == len(set(encoding.markers.values())) == 3


def test_layer_ranges_go_from_most_to_fewest() -> None:
    names = ["0,1", "top-1/3", "top-2", "all", "3,4,5", "top-4", "top-2/3"]
    trials, _ = frames([trial_row(i, 1, "attention", layers, 1e-3) for i, layers in enumerate(names)])
    assert list(Encoding.of(trials).markers) == ["all", "top-2/3", "top-1/3", "top-4", "top-2", "3,4,5", "0,1"]
