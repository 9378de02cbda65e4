"""Figures of every kind of study: drawn without accident, on their paper, with labels that can be read."""

from dataclasses import replace
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from fabricated_studies import (
    ENVIRONMENT,
    by_error,
    every_state_rows,
    experiment_mapping,
    frames,
    sampled_rows,
    study,
    trial_row,
    verdict_for,
)
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWNBASE, CARETUPBASE
from matplotlib.text import Annotation, Text

from lora_search.plots import draw_folds, draw_ranks, draw_tradeoff, folds_data, parameters_data, ranks_data
from lora_search.plots.axes import score_limits, spread
from lora_search.plots.figures import PlotData, Width, draw_all, plot_data
from lora_search.plots.labels import Label, place_labels
from lora_search.plots.landscape import Line
from lora_search.spec import Experiment
from lora_search.store.reader import StudyTables

NAMES = {"score_by_parameters", "score_by_time", "score_by_rank", "score_by_rate", "folds", "importance"}
LONG_NAMES = [
    trial_row(trial, 2**trial, targets, layers, 1e-3)
    for trial, (targets, layers) in enumerate(
        (targets, layers)
        for targets in ("k_proj,q_proj,v_proj", "down_proj,gate_proj,k_proj,o_proj,q_proj,up_proj,v_proj", "q_lin")
        for layers in ("all", "0,1,2,3,4,5")
    )
]
STUDIES: dict[str, dict[str, Any]] = {
    "no trials": {"rows": []},
    "one trial": {"rows": sampled_rows(1)},
    "two trials": {"rows": sampled_rows(2)},
    "three trials": {"rows": sampled_rows(3)},
    "one cell": {"rows": [trial_row(0, 8, "attention", "all", 1e-3, state="running", cells=1)]},
    "all failed": {"rows": [trial_row(0, 8, "attention", "all", 1e-3, state="failed", failure="NaN")]},
    "single rank": {"rows": sampled_rows(6, ranks=(8,))},
    "every state": {"rows": every_state_rows(), "pack": 8},
    "decided": {"rows": sampled_rows(24), "noise": 0.0004},
    "repeats": {"rows": sampled_rows(8), "repeats": 3},
    "no noise": {"rows": sampled_rows(6), "noise": 0.0},
    "another metric": {"rows": sampled_rows(6), "metric": "matthews_correlation"},
    "long names": {"rows": LONG_NAMES},
}


@cache
def _data(name: str) -> PlotData:
    options = dict(STUDIES[name])
    trials, cells = frames(**options)
    verdict = verdict_for(trials, cells, metric=options.get("metric", "accuracy"))
    return plot_data(_tables(trials, cells), verdict)


@cache
def _drawn(name: str, width: Width) -> dict[str, Figure]:
    return draw_all(_data(name), width)


def _tables(trials: Any, cells: Any) -> Any:
    return StudyTables(Path(), Experiment.model_validate(experiment_mapping()), ENVIRONMENT, trials, cells, {})


NARROW = ("one cell", "three trials", "every state", "decided", "repeats", "long names")


@pytest.mark.parametrize(
    ("study", "width"), [*((study, "wide") for study in STUDIES), *((study, "narrow") for study in NARROW)]
)
def test_every_study_can_be_drawn_and_stays_on_its_paper(study: str, width: Width) -> None:
    drawn = _drawn(study, width)
    assert set(drawn) == NAMES
    for name, figure in drawn.items():
        box = figure.axes[0].get_tightbbox()
        assert box is not None
        assert box.y0 >= 0, name
        assert box.y1 <= figure.bbox.y1 + 0.5, name
        assert box.x0 >= -1, name


@pytest.mark.parametrize(("scale", "tick"), [(1e7, "1200000"), (1e-5, "0.0000012")])
def test_long_numbers_are_whole_on_their_paper(tmp_path: Path, scale: float, tick: str) -> None:
    tables = by_error(study(tmp_path, sampled_rows(12)), "rmse", scale, scale / 100, "regression")
    verdict = verdict_for(tables.trials, tables.cells, margin=scale / 100, metric="rmse")
    drawn = draw_all(plot_data(tables, verdict), "wide")
    for name, figure in drawn.items():
        box = figure.axes[0].get_tightbbox()
        assert box is not None
        assert box.x0 >= -1, name
        assert box.x1 <= figure.bbox.x1 + 1, name
    assert tick in {label.get_text() for label in drawn["score_by_parameters"].axes[0].get_yticklabels()}
    ax = drawn["importance"].axes[0]
    written = [float(label.get_text().replace("\N{MINUS SIGN}", "-")) for label in ax.get_xticklabels()]
    assert written == pytest.approx([float(tick) for tick in ax.get_xticks()])


@pytest.mark.parametrize("width", ["wide", "narrow"])
@pytest.mark.parametrize("study", ["decided", "every state", "three trials", "repeats"])
def test_names_of_special_trials_do_not_overlap(study: str, width: Width) -> None:
    for name, figure in _drawn(study, width).items():
        if name not in ("score_by_parameters", "score_by_time", "score_by_rank"):
            continue
        named = [
            text for text in _texts(figure.axes[0]) if text.get_text().startswith(("recommended", "best", "the guess"))
        ]
        boxes = [Text.get_window_extent(text) for text in named]
        assert len(boxes) >= 2
        for one, two in combinations(boxes, 2):
            assert not one.overlaps(two), (name, [text.get_text() for text in named])


def test_tick_labels_on_the_log_axis_are_parameter_counts_that_occur() -> None:
    trials, _ = frames(sampled_rows(24))
    figure = _drawn("decided", "wide")["score_by_parameters"]
    ax = figure.axes[0]
    ticks = [float(tick) for tick in ax.get_xticks()]
    assert len(ticks) >= 4
    assert {round(tick) for tick in ticks} <= set(trials["adapter_parameters"])
    assert {"4.61k", "221k"} <= {label.get_text() for label in ax.get_xticklabels()}
    width = ax.get_window_extent().width
    places = [ax.transData.transform((tick, 0))[0] for tick in ticks]
    assert all(right - left > 0.05 * width for left, right in pairwise(places))


def test_the_figure_names_the_recommended_the_best_and_the_guess() -> None:
    words = {text.get_text() for text in _texts(_drawn("decided", "wide")["score_by_rank"].axes[0])}
    assert {"best", "the guess"} <= words
    assert words & {"recommended", "recommended so far"}


def test_a_diverged_trial_does_not_flatten_the_others_and_its_score_is_written() -> None:
    figure = _drawn("every state", "wide")["score_by_parameters"]
    ax = figure.axes[0]
    trials, _ = frames(every_state_rows())
    assert trials["score_mean"].min() < ax.get_ylim()[0]
    notes = [text.get_text() for text in _texts(ax) if text.get_text().startswith("below the axis")]
    assert notes == [f"below the axis: {trials['score_mean'].min() * 100:.1f}"]


def test_what_is_below_the_axis_and_too_long_to_stand_above_is_said_under_the_title() -> None:
    data = _data("decided").ranks
    low = tuple(Line(name, 0.2 + place / 100) for place, name in enumerate(("majority", "head alone", "TF-IDF") * 4))
    ax = Figure(figsize=(7, 4)).add_axes((0.1, 0.3, 0.8, 0.6))
    draw_ranks(replace(data, scene=replace(data.scene, baselines=low)), ax)
    title, *note = ax.get_xlabel().splitlines()
    assert title == "rank"
    assert " ".join(note).startswith("below the axis: majority 20.0; head alone 21.0")
    assert not any(text.get_text().startswith("below the axis") for text in _texts(ax))


def test_score_limits_hold_contenders_and_leave_a_lone_outlier_out() -> None:
    low, high = score_limits([0.85, 0.86, 0.87, 0.88, 0.50], best=0.88, margin=0.01)
    assert 0.80 < low < 0.85
    assert 0.88 < high < 0.90


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_an_interval_that_leaves_the_axis_has_an_arrowhead(noise: float) -> None:
    trials, cells = frames(rows=sampled_rows(6), noise=noise)
    data = parameters_data(trials, cells, verdict_for(trials, cells))
    ax = Figure().subplots()
    draw_tradeoff(data, ax)
    low, high = ax.get_ylim()
    bounds = [(p.low, p.high) for p in data.scene.points if p.finished and p.low is not None and p.high is not None]
    heads = [line.get_marker() for line in ax.get_lines()]
    assert heads.count(CARETUPBASE) == sum(upper > high for _, upper in bounds)
    assert heads.count(CARETDOWNBASE) == sum(lower < low for lower, _ in bounds)
    assert CARETUPBASE in heads


def test_drawing_leaves_the_style_of_the_caller_alone_and_does_not_follow_it() -> None:
    trials, cells = frames(sampled_rows(6))
    tables, verdict = _tables(trials, cells), verdict_for(trials, cells)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "axes.grid": True}):
        before = dict(matplotlib.rcParams)
        figure = draw_all(plot_data(tables, verdict), "wide")["score_by_rank"]
        assert dict(matplotlib.rcParams) == before
    assert not any(line.get_visible() for line in figure.axes[0].get_xgridlines())
    assert max(text.get_fontsize() for text in _texts(figure.axes[0])) < 12


def test_draw_functions_draw_on_axes_of_the_caller() -> None:
    trials, cells = frames(sampled_rows(8))
    verdict = verdict_for(trials, cells)
    figure = Figure(figsize=(12, 4))
    left, middle, right = figure.subplots(1, 3)
    draw_tradeoff(parameters_data(trials, cells, verdict), left)
    draw_ranks(ranks_data(trials, cells, verdict), middle)
    draw_folds(folds_data(trials, cells, verdict), right)
    assert left.get_xlabel().replace("\n", " ") == "adapter parameters (log scale)"
    assert middle.get_xlabel() == "rank"
    assert len(right.lines) > len(folds_data(trials, cells, verdict).rows)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=8), st.floats(0.01, 3))
def test_spread_positions_keep_their_order_and_their_distance(wanted: list[float], gap: float) -> None:
    positions = spread(wanted, gap)
    ordered = sorted(range(len(wanted)), key=lambda index: wanted[index])
    assert all(positions[two] - positions[one] >= gap - 1e-9 for one, two in pairwise(ordered))
    assert sum(positions) == pytest.approx(sum(wanted), abs=1e-6)


def test_spread_leaves_alone_what_is_apart() -> None:
    assert spread([5.0, 1.0, 3.0], 1.0) == [5.0, 1.0, 3.0]
    assert spread([1.0, 1.0], 1.0) == [0.5, 1.5]


def test_labels_of_one_spot_are_placed_apart_and_off_the_points() -> None:
    figure = Figure(figsize=(6, 4))
    ax = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    ax.set(xlim=(0, 1), ylim=(0, 1))
    points = [(0.5, 0.5), (0.51, 0.5), (0.5, 0.52)]
    place_labels(ax, [Label(x, y, f"label of point {i}") for i, (x, y) in enumerate(points)], points)
    boxes = [Text.get_window_extent(text) for text in _texts(ax)]
    assert len(boxes) == 3
    assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
    for box in boxes:
        assert not any(box.contains(*ax.transData.transform(point)) for point in points)
        assert ax.bbox.containsx(box.x0)
        assert ax.bbox.containsx(box.x1)


def _texts(ax: Axes) -> list[Annotation]:
    """Annotations with their offsets applied."""
    renderer = ax.figure._get_renderer()  # type: ignore[union-attr]
    texts = [text for text in ax.texts if isinstance(text, Annotation)]
    for text in texts:
        text.update_positions(renderer)
    return texts
