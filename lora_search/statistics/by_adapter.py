"""A study's tables by adapter: one row for each, at its own well-chosen learning rate, instead of one per setting.

What is compared is an adapter; Optuna keeps a trial per setting (an adapter with its learning rate and dropout). Here
the settings of one adapter become one row, with the number of the setting that stands for it. Its score on a fold is
that of the setting the other folds speak for (:mod:`settings`), so the choice is paid for. Whatever judges or draws
trials takes these tables and speaks of adapters.

A study in which no adapter has two settings is its own table by adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lora_search.metrics import direction, has_own_unit, loss_beside, metric_named
from lora_search.spec import ADAPTER_FIELDS, AdapterSpec, Experiment, facts, layer_indices
from lora_search.statistics.comparison import Array
from lora_search.statistics.examples import truth_of
from lora_search.statistics.rates import LEAST, RateModel, adapter_features, prior_centre
from lora_search.statistics.recorded import RecordedStudy
from lora_search.statistics.rounds import tolerated
from lora_search.statistics.settings import Knowing, Settings, adapter_scores

_STATES = ("complete", "running", "pruned", "failed")
"""From what speaks for an adapter most: it is in the state of the setting that came furthest."""
_MOST_FITTED = 300
"""Adapters that one model of the rate is fitted to; past that it takes minutes, and what is not fitted is taken at the
setting that came furthest."""
_DEFAULT_WIDTH = 768
"""Of a model of which only tables are left; a wrong one moves the prior of the rate, which is wide."""


@dataclass(frozen=True, eq=False)
class SettingsTable:
    """The settings of a study as arrays, with what the model of the rate knows them by.

    Attributes:
        adapters: the adapter of each row of ``features``, in the order of their first trials.
        trials: ``(settings,)`` trial numbers. states: of them.
        settings: with their cells; a cell that was not trained is NaN, a failed one minus infinity.
        columns: (repeat, fold) of the columns.
        features: ``(adapters, 4)``. parameters: ``(adapters,)``.
    """

    adapters: tuple[AdapterSpec, ...]
    trials: NDArray[np.int64]
    states: tuple[str, ...]
    settings: Settings
    columns: tuple[tuple[int, int], ...]
    features: Array = field(repr=False)
    parameters: Array = field(repr=False)


def settings_table(study: RecordedStudy) -> SettingsTable:
    """All trials of a study; its columns are the planned ones and whatever extra repeats there are."""
    trials = study.trials.sort_values("trial")
    keys = list(trials[list(ADAPTER_FIELDS)].itertuples(index=False, name=None))
    adapters = tuple(dict.fromkeys(keys))
    row_of = {key: row for row, key in enumerate(adapters)}
    adapter = np.array([row_of[key] for key in keys], dtype=np.int64)
    cv = study.experiment.cv
    planned = {(repeat, fold) for repeat in range(cv.repeats) for fold in range(cv.folds)}
    cells = study.cells
    seen = zip(cells["repeat"].astype(int), cells["fold"].astype(int), strict=True)
    columns = tuple(sorted(planned | set(seen)))
    numbers = trials["trial"].to_numpy(dtype=np.int64)
    score, loss = np.full((2, len(numbers), len(columns)), np.nan)
    place, column = {int(number): row for row, number in enumerate(numbers)}, {key: c for c, key in enumerate(columns)}
    metric = study.experiment.verdict.metric
    merits = direction(metric) * cells["score"]
    loss_name = loss_beside(metric).name
    # a loss that is the score itself tells nothing a second time
    known = loss_name in cells and loss_name != metric
    losses = cells[loss_name] if known else pd.Series(np.nan, index=cells.index)
    for trial, repeat, fold, state, value, nats in zip(
        cells["trial"], cells["repeat"], cells["fold"], cells["state"], merits, losses, strict=True
    ):
        if int(trial) in place:
            where = place[int(trial)], column[int(repeat), int(fold)]
            usable = state == "complete" and np.isfinite(value)
            score[where], loss[where] = (float(value), float(nats)) if usable else (-np.inf, np.nan)
    first = trials.drop_duplicates(list(ADAPTER_FIELDS))
    parameters = first["adapter_parameters"].to_numpy(dtype=np.float64)
    specs = tuple(AdapterSpec.model_validate(dict(zip(ADAPTER_FIELDS, key, strict=True))) for key in adapters)
    model = study.environment.get("model", {})
    return SettingsTable(
        specs,
        numbers,
        tuple(trials["state"]),
        Settings(adapter, np.log(trials["learning_rate"].to_numpy(dtype=np.float64)), score, loss),
        columns,
        features_of(specs, parameters, model.get("layers"), model.get("hidden_size", _DEFAULT_WIDTH)),
        parameters,
    )


def features_of(adapters: Sequence[AdapterSpec], parameters: Array, layer_count: int | None, hidden_size: int) -> Array:
    """What the model of the rate knows adapters by, ``(adapters, 4)``.

    Args:
        adapters: to be known.
        parameters: ``(adapters,)``, of each.
        layer_count: of the model; None where only tables are left of it, and all adapters count as of one layer.
        hidden_size: of the model.
    """
    layers = [1 if layer_count is None else len(layer_indices(spec.layers, layer_count)) for spec in adapters]
    return adapter_features(
        np.array([float(spec.rank) for spec in adapters]),
        parameters,
        np.array(layers, dtype=np.float64),
        np.array([spec.scale for spec in adapters]),
        hidden_size,
    )


def knowing(
    experiment: Experiment, truth: NDArray[Any], hidden_size: int, alone: Sequence[facts.HeadAlone] | None = None
) -> Knowing:
    """What an answer scores that knows nothing of the inputs, and where the search for the rate begins.

    Args:
        experiment: for its metric.
        truth: what is right of the examples, as metrics take it.
        hidden_size: of the model.
        alone: what no adapter scores, where that is a base as it is, with nothing trained: a language model knows much
            beforehand, and an adapter that learns nothing leaves it at that.
    """
    metric = metric_named(experiment.verdict.metric)
    if not len(truth):
        return Knowing(0.0, float(np.log(2.0)), prior_centre(hidden_size))
    loss = loss_beside(metric.name)
    # a thousandth is little, but of a label that varies by less than 1
    least, least_loss = (
        LEAST * min(1.0, float(np.std(truth))) if has_own_unit(each.name) else LEAST for each in (metric, loss)
    )
    untrained = [cell for cell in alone or () if cell.trial < 0 and cell.failure is None]
    if untrained:
        score, log_loss = (float(np.mean([cell.scores[each.name] for cell in untrained])) for each in (metric, loss))
    else:
        score, log_loss = (each.score_of_knowing_nothing(truth) for each in (metric, loss))
    merit = direction(metric.name) * score if np.isfinite(score) else 0.0
    return Knowing(merit, log_loss, prior_centre(hidden_size), least, least_loss, may_fall=bool(untrained))


@dataclass(frozen=True, eq=False)
class ByAdapter:
    """The tables of a study, a row per adapter; otherwise as the store has them.

    Attributes:
        experiment, environment, facts: the study's.
        trials: as the store's, a row per adapter under the number of its ``main`` setting; and ``settings``, how many
            were tried of it.
        cells: the cells behind their scores, under those numbers; ``setting`` is the trial that trained each.
        table: all settings. study: as it is recorded.
        model: of the rate, which chose; None in a study of very many adapters.
    """

    experiment: Experiment
    environment: Mapping[str, Any] = field(repr=False)
    trials: pd.DataFrame = field(repr=False)
    cells: pd.DataFrame = field(repr=False)
    facts: Mapping[str, Any] = field(repr=False)
    table: SettingsTable = field(repr=False)
    study: RecordedStudy = field(repr=False)
    model: RateModel | None = field(repr=False)

    def predictions(self) -> pd.DataFrame:
        """Out-of-fold predictions of the cells of these tables, under the numbers of these trials."""
        wanted = self.cells.loc[self.cells["state"] == "complete", ["trial", "setting", "repeat", "fold"]]
        found = self.study.predictions().rename(columns={"trial": "setting"})
        merged = found.merge(wanted, on=["setting", "repeat", "fold"], how="inner")
        return merged[["trial", *(name for name in found.columns if name != "setting")]].sort_values(
            ["trial", "repeat", "fold"], kind="stable", ignore_index=True
        )

    def examples(self) -> pd.DataFrame:
        """label and group of every example."""
        return self.study.examples()

    @property
    def baselines(self) -> pd.DataFrame:
        """As the store has them."""
        return self.study.baselines

    def baseline_predictions(self) -> pd.DataFrame:
        """As the store has them."""
        return self.study.baseline_predictions()

    def adapter_of(self, trial: int) -> int:
        """The row of a setting's adapter in the table and in the model."""
        return int(self.table.settings.adapter[int(np.flatnonzero(self.table.trials == trial)[0])])


def by_adapter(study: RecordedStudy) -> RecordedStudy:
    """A study's tables with a row per adapter: the study itself where none has two settings.

    Deterministic in what is recorded, the margin of the experiment included: what a later look asks for with another
    margin is judged over the same rows.
    """
    if isinstance(study, ByAdapter) or not study.trials.duplicated(list(ADAPTER_FIELDS)).any():
        return study
    table = settings_table(study)
    truth = truth_of(study.examples())
    width = int(study.environment.get("model", {}).get("hidden_size", _DEFAULT_WIDTH))
    nothing = knowing(study.experiment, truth, width, facts.HEAD_ALONE.of(study.facts))
    tolerance = tolerated(study.experiment.verdict.margin, nothing.least)
    if len(table.adapters) > _MOST_FITTED:
        main, chosen = _furthest(table)
        return _tables(study, table, main, chosen, None)
    scores = adapter_scores(table.settings, table.features, nothing, tolerance=tolerance, settled=_settled(table))
    return _tables(study, table, scores.main, scores.chosen, scores.model)


def _furthest(table: SettingsTable) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``main`` and ``chosen`` as in :class:`settings.AdapterScores`: every adapter at the setting that is complete, or
    has the most cells, or the highest score."""
    settings, trained = table.settings, table.settings.trained
    states = np.array([_STATES.index(state) for state in table.states])
    mean = np.where(trained, settings.score, 0.0).sum(axis=1) / np.maximum(trained.sum(axis=1), 1)
    order = np.lexsort((table.trials, -mean, -trained.sum(axis=1), states))
    _, first = np.unique(settings.adapter[order], return_index=True)
    main = order[first]
    mine = trained[main]
    return np.where(mine.any(axis=1), main, -1), np.where(mine, main[:, None], -1)


def _settled(table: SettingsTable) -> dict[int, int]:
    """The setting that stands for each adapter, where the run has said so: the one that is complete."""
    found: dict[int, int] = {}
    for place, state in enumerate(table.states):
        if state == "complete":
            found.setdefault(int(table.settings.adapter[place]), place)
    return found


def _tables(
    study: RecordedStudy,
    table: SettingsTable,
    mains: NDArray[np.int64],
    chosen: NDArray[np.int64],
    model: RateModel | None,
) -> ByAdapter:
    by_key = study.cells.reset_index(drop=True)
    keys = (by_key[name].astype(int).tolist() for name in ("trial", "repeat", "fold"))
    place_of = {key: place for place, key in enumerate(zip(*keys, strict=True))}
    settings_of: dict[int, list[int]] = {}
    for place, row in enumerate(table.settings.adapter.tolist()):
        settings_of.setdefault(row, []).append(place)
    numbers, states, picked = list[int](), list[str](), list[list[int]]()
    for row in range(len(table.adapters)):
        mine = settings_of[row]
        numbers.append(int(table.trials[mains[row] if mains[row] >= 0 else mine[0]]))
        states.append(min((table.states[place] for place in mine), key=_STATES.index))
        picked.append(
            [place for key, place in place_of.items() if key[0] == numbers[-1]]
            if states[-1] == "failed"
            else [
                place_of[int(table.trials[place]), *table.columns[column]]
                for column, place in enumerate(chosen[row].tolist())
                if place >= 0
            ]
        )
    frame = study.trials.set_index("trial", drop=False).loc[numbers].reset_index(drop=True)
    frame = frame.assign(state=states, settings=[len(settings_of[row]) for row in range(len(numbers))])
    frame = frame.assign(**_sums(by_key, picked))
    kinds = {**study.trials.dtypes.to_dict(), "settings": np.dtype("int64")}
    frame = frame.astype(kinds)[list(kinds)].sort_values("trial", ignore_index=True)
    flat, owners = [place for places in picked for place in places], np.repeat(numbers, [len(it) for it in picked])
    chosen_cells = by_key.iloc[flat].assign(setting=by_key["trial"].iloc[flat].to_numpy(), trial=owners)
    chosen_cells = chosen_cells.sort_values(["trial", "repeat", "fold"], kind="stable", ignore_index=True)
    return ByAdapter(study.experiment, study.environment, frame, chosen_cells, study.facts, table, study, model)


def _sums(cells: pd.DataFrame, picked: Sequence[Sequence[int]]) -> dict[str, list[Any]]:
    """What the store's frame of trials says of the cells behind each; ``picked`` are their rows."""
    complete = (cells["state"] == "complete").to_numpy()
    score = np.where(complete, cells["score"].to_numpy(dtype=np.float64), np.nan)
    nothing = np.zeros(len(cells))
    seconds = cells["seconds"].to_numpy(dtype=np.float64) if "seconds" in cells else nothing
    wall = (
        (cells["wall_seconds"] / cells["pack_cells"]).to_numpy(dtype=np.float64) if "pack_cells" in cells else nothing
    )
    found: dict[str, list[Any]] = {name: [] for name in ("cells", "score_mean", "score_std", "seconds", "wall_seconds")}
    for places in picked:
        mine = score[places]
        known = mine[~np.isnan(mine)]
        found["cells"].append(int(complete[places].sum()))
        found["score_mean"].append(float(known.mean()) if known.size else np.nan)
        found["score_std"].append(float(known.std(ddof=1)) if known.size > 1 else np.nan)
        found["seconds"].append(float(np.nansum(seconds[places])))
        found["wall_seconds"].append(float(np.nansum(wall[places])))
    return found
