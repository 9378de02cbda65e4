"""Several settings of one adapter: one point for the adapter, and what was learned of its rates."""

import math
from pathlib import Path

import numpy as np
import pytest
from fabricated_studies import study, trial_row, verdict_for
from matplotlib.figure import Figure

from lora_search.plots.encoding import RANKS
from lora_search.plots.figures import figures, plot_data
from lora_search.plots.landscape import landscape
from lora_search.plots.rates import draw_rates, rank_colours, rates_data
from lora_search.statistics.by_adapter import by_adapter
from lora_search.statistics.judging import Judge, judge
from lora_search.store.reader import StudyTables

RATES = {1: (2e-3, 6e-3, 2e-2), 8: (6e-4, 2e-3, 6e-3)}


@pytest.fixture
def tables(tmp_path: Path) -> StudyTables:
    rows = [
        trial_row(10 * place + at, rank, "attention", "all", rate, state="complete" if at == 1 else "pruned", cells=5)
        for place, (rank, rates) in enumerate(RATES.items())
        for at, rate in enumerate(rates)
    ]
    for row in rows:
        row["cells"] = 5 if row["state"] == "complete" else 1
    return study(tmp_path, rows)


def test_an_adapter_is_one_point_and_its_other_settings_are_kept_apart(tables: StudyTables) -> None:
    scene = landscape(tables.trials, tables.cells, judge(tables).to_dict())
    assert [point.trial for point in scene.points] == [1, 11]
    assert [point.trial for point in scene.others] == [0, 2, 10, 12]
    other = scene.point(12)
    assert other is not None
    assert other.learning_rate == 6e-3


def test_without_a_verdict_the_setting_that_came_furthest_stands_for_its_adapter(tables: StudyTables) -> None:
    scene = landscape(tables.trials, tables.cells, {})
    assert [point.trial for point in scene.points] == [1, 11]


def test_a_verdict_of_two_settings_of_one_adapter_still_finds_both(tables: StudyTables) -> None:
    trials = tables.trials.assign(state="complete")
    verdict = verdict_for(trials, tables.cells)
    scene = landscape(trials, tables.cells, verdict)
    assert len(scene.points) == 2
    assert scene.point(verdict["best"]["trial"]) is not None
    assert scene.point(verdict["recommended"]["trial"]) is not None


def test_a_curve_goes_through_the_score_of_its_rank_and_peaks_at_its_optimum(tables: StudyTables) -> None:
    data = rates_data(tables, by_adapter(tables), judge(tables).to_dict())
    assert [curve.rank for curve in data.curves] == [1, 8]
    for curve in data.curves:
        point = data.scene.point(curve.trial)
        assert point is not None
        at_its_rate = np.interp(math.log(point.learning_rate), np.log(curve.rates), curve.scores)
        assert at_its_rate == pytest.approx(point.score, abs=3e-3)
        assert curve.optimum[1] == pytest.approx(max(curve.scores), abs=3e-3)
        assert curve.rates[0] == pytest.approx(6e-4)
        assert curve.rates[-1] == pytest.approx(2e-2)


def test_the_figure_has_a_line_per_rank_and_a_point_per_setting(tables: StudyTables) -> None:
    verdict = judge(tables).to_dict()
    data = plot_data(tables, verdict).rates
    ax = Figure().subplots()
    draw_rates(data, ax)
    lines = [line for line in ax.get_lines() if len(np.atleast_1d(line.get_xdata())) > 10]
    assert {line.get_color() for line in lines} == {RANKS[0], RANKS[-1]}
    places = {float(line.get_xdata()[0]) for line in ax.get_lines() if len(np.atleast_1d(line.get_xdata())) == 1}
    assert {rate for rates in RATES.values() for rate in rates} <= places
    assert "score_by_rate" in figures(tables, verdict)
    assert "score_by_rate" in figures(tables, None), "as before the first verdict"


def test_a_study_at_one_rate_has_points_and_no_curves(tmp_path: Path) -> None:
    one = study(tmp_path, [trial_row(rank, rank, "attention", "all", 1e-3) for rank in (1, 2, 4)])
    data = rates_data(one, by_adapter(one), judge(one).to_dict())
    assert data.curves == ()
    assert len(data.points) == 3


def test_more_rank_is_darker_however_many_there_are() -> None:
    assert list(rank_colours([4]).values()) == [RANKS[0]]
    assert rank_colours(list(range(1, 30)))[29] == RANKS[-1]


def test_one_judge_says_at_every_margin_what_a_new_one_would(tables: StudyTables) -> None:
    kept = Judge(tables)
    for margin in (0.001, 0.02, 0.2):
        assert kept.verdict(margin, 0.9).to_dict() == judge(tables, margin, 0.9).to_dict()
