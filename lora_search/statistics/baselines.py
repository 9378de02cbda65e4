"""What adapters are worth, beside what is no adapter: each baseline's score, and what LoRA keeps of full fine-tuning.

A baseline was trained at several learning rates on every fold. On a fold it is scored at the rate that its *other*
folds score best (ties: the lower log loss, then the lower rate), as adapters are: the choice flatters nothing. Its
score and its interval come from the same two sources as those of adapters (:mod:`two_sources`).

    share kept = (LoRA - head alone) / (full fine-tuning - head alone)

Both differences are paired, by fold and example, and share the head alone: their variances and covariance follow from
the three pairwise comparisons, var(a) + var(b) - var(a - b) = 2 cov(a, b), and the bounds of their ratio are Fieller's
(:mod:`ratio`). Where full fine-tuning is not shown to gain anything there is no such share, and that is said instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from lora_search.metrics import direction, loss_beside, metric_named
from lora_search.spec import Experiment, facts
from lora_search.spec.baselines import BASE, BASELINES, title_of
from lora_search.statistics.beside import BaselineVerdict, Compared, Kept
from lora_search.statistics.comparison import Array, Posterior
from lora_search.statistics.examples import ExampleScores, Recorded
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.ratio import ratio_interval
from lora_search.statistics.recorded import RecordedStudy
from lora_search.statistics.verdict import TrialSummary

LEVEL = 0.95
"""Of the intervals here, as of every score's."""


def baseline_verdict(study: RecordedStudy, recommended: TrialSummary | None) -> BaselineVerdict | None:
    """Judge the recorded baselines of a study beside its recommended adapter.

    Args:
        study: the tables by adapter (see ``by_adapter``).
        recommended: of its verdict.

    Returns:
        None without an adapter or without baselines. Of a language model, which has none, the base as it is.

    Raises:
        StudyError: predictions are damaged.
    """
    if recommended is None:
        return None
    metric, folds = study.experiment.verdict.metric, study.experiment.cv.folds
    lora = study.cells[(study.cells["trial"] == recommended.trial) & (study.cells["repeat"] == 0)]
    chosen: dict[str, pd.DataFrame] = {
        name: chosen_cells(study.baselines[study.baselines["baseline"] == name], metric)
        for name in BASELINES
        if (study.baselines["baseline"] == name).any()
    }
    if not chosen and not recommended.head_parameters:
        chosen = _base_as_it_is(study, lora)
    if not chosen:
        return None
    scored = {"lora": lora, **{name: cells for name, cells in chosen.items() if (cells["state"] == "complete").all()}}
    # of a base as it is no predictions are kept
    matrix = _matrix(study, scored, None if BASE in scored else _examples(study, scored, recommended.trial))
    pairs, own = matrix.pairs(folds), matrix.own(folds)
    names = list(scored)
    rows = {name: _compared(name, cells, names, pairs, own, study.experiment) for name, cells in chosen.items()}
    parameters = recommended.adapter_parameters + recommended.head_parameters
    held = (facts.STEP_BYTES.of(study.facts) or {}).get(str(recommended.trial))
    lora = lora.assign(
        trainable_parameters=parameters, step_bytes=held, learning_rate=recommended.nuisance.get("learning_rate")
    )
    mine = _compared("lora", lora, names, pairs, own, study.experiment)
    kept = None
    if {"head", "full"} <= set(scored):
        three = replace(matrix, **_only(matrix, [names.index(name) for name in ("lora", "head", "full")]))
        kept = _kept(three.pairs(folds), mine, rows["full"], lora, chosen["full"])
    return BaselineVerdict(mine, tuple(rows.values()), kept, recommended.adapter, metric)


def _base_as_it_is(study: RecordedStudy, lora: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """What a base scored with nothing trained, as if it were a baseline's trainings; nothing where it did not score on
    every fold on which the adapter was trained."""
    metric, alone = study.experiment.verdict.metric, facts.HEAD_ALONE.of(study.facts) or ()
    if any(metric not in cell.scores for cell in alone):
        return {}
    scores = {cell.fold: float(cell.scores[metric]) for cell in alone if cell.repeat == 0}
    if not set(lora["fold"]) <= set(scores):
        return {}
    costs = {"seconds": 0.0, "trainable_parameters": 0, "step_bytes": math.nan, "learning_rate": math.nan}
    return {BASE: lora.assign(score=lora["fold"].map(scores), **costs)}


def chosen_cells(cells: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Of one baseline's trainings one for each fold: at the rate that the other folds score best.

    A rate with a failed training among them is the last resort.

    Args:
        cells: of the store's frame.
        metric: that ``score`` is.
    """
    if cells["learning_rate"].isna().all():
        return pd.DataFrame(cells.sort_values("fold", ignore_index=True))
    kept = cells.get(loss_beside(metric).name)
    loss = pd.Series(0.0, index=cells.index) if kept is None else kept
    failed = cells["state"] != "complete"
    merits = direction(metric) * cells["score"]
    worth = cells.assign(score=merits.where(~failed, -np.inf), loss=loss.where(~failed, np.inf))
    picked = []
    for fold in sorted(cells["fold"].unique()):
        here = cells[cells["fold"] == fold]
        others = worth[(worth["fold"] != fold) & worth["learning_rate"].isin(here["learning_rate"])]
        means = others.groupby("learning_rate")[["score", "loss"]].mean().reset_index()
        order = means.sort_values(["score", "loss", "learning_rate"], ascending=[False, True, True])
        rate = here["learning_rate"].min() if order.empty else order["learning_rate"].iloc[0]
        picked.append(here[here["learning_rate"] == rate])
    found: pd.DataFrame = pd.concat(picked, ignore_index=True)
    return found


def head_alone(study: RecordedStudy) -> tuple[facts.HeadAlone, ...]:
    """What no adapter scores on each fold, or why it failed; nothing before it was trained."""
    heads = study.baselines[study.baselines["baseline"] == "head"]
    if heads.empty:
        return facts.HEAD_ALONE.of(study.facts) or ()
    metric = study.experiment.verdict.metric
    cells = chosen_cells(heads, metric).astype({"failure": object})
    return tuple(
        facts.HeadAlone(
            trial=-1,
            repeat=int(row["repeat"]),
            fold=int(row["fold"]),
            scores={metric: float(row["score"])} if row["state"] == "complete" else {},
            failure=None if row["state"] == "complete" else str(row["failure"]),
        )
        for row in cells.to_dict("records")
    )


def _matrix(study: RecordedStudy, scored: Mapping[str, pd.DataFrame], examples: ExampleScores | None) -> ScoreMatrix:
    """The rows that have every fold, under made-up numbers."""
    columns = tuple((0, fold) for fold in sorted({int(fold) for cells in scored.values() for fold in cells["fold"]}))
    metric = study.experiment.verdict.metric
    scores = np.full((len(scored), len(columns)), np.nan)
    for row, cells in enumerate(scored.values()):
        for fold, score in zip(cells["fold"], cells["score"], strict=True):
            scores[row, columns.index((0, int(fold)))] = direction(metric) * score
    nothing = np.zeros(len(scored))
    sizes = pd.concat([cells["examples"] for cells in scored.values()])
    return ScoreMatrix(
        tuple(range(len(scored))),
        columns,
        scores,
        nothing,
        nothing,
        resolution=1.0 / 6.0 / float(sizes.median()) ** 2 if metric_named(metric).unit == "points" else 0.0,
        examples=examples,
    )


def _examples(study: RecordedStudy, scored: Mapping[str, pd.DataFrame], trial: int) -> ExampleScores | None:
    examples = study.examples()
    if examples.empty:
        return None
    ours = study.predictions()
    ours = ours[(ours["trial"] == trial) & (ours["repeat"] == 0)]
    parts = [ours.assign(trial=0)]
    theirs = study.baseline_predictions()
    for row, (name, cells) in enumerate(scored.items()):
        if name != "lora":
            mine = theirs[theirs["baseline"] == name]
            rates = dict(zip(cells["fold"], cells["learning_rate"], strict=True))
            wanted = mine["fold"].map(rates)
            mine = mine[(mine["learning_rate"] == wanted) | (mine["learning_rate"].isna() & wanted.isna())]
            parts.append(mine.drop(columns=["baseline", "learning_rate"]).assign(trial=row))
    frame = pd.concat(parts, ignore_index=True)
    return Recorded(frame, examples).scores(list(range(len(scored))), study.experiment.verdict.metric)


def _only(matrix: ScoreMatrix, rows: Sequence[int]) -> dict[str, Any]:
    """What changes of a matrix when some rows alone are looked at."""
    examples = None if matrix.examples is None else matrix.examples.of(rows)
    some = {name: getattr(matrix, name)[list(rows)] for name in ("scores", "parameters", "seconds")}
    return {"trials": tuple(rows), "examples": examples, "_pairs": {}, "_own": {}, **some}


def _compared(
    name: str, cells: pd.DataFrame, names: Sequence[str], pairs: Posterior, own: Posterior, experiment: Experiment
) -> Compared:
    metric = experiment.verdict.metric
    failed = cells[cells["state"] != "complete"]
    held = cells["step_bytes"].dropna()
    known = name in names
    row = names.index(name) if known else 0
    return Compared(
        name=name,
        title=title_of(name, experiment.model.task),
        learning_rates=tuple(sorted({float(rate) for rate in cells["learning_rate"].dropna()})),
        score_mean=direction(metric) * float(own.mean[row]) if known else None,
        score_interval=_as_scored(_interval(own, (row,)), metric) if known else None,
        difference=float(pairs.mean[row, 0]) if known else None,
        difference_interval=_interval(pairs, (row, 0)) if known else None,
        trainable_parameters=int(cells["trainable_parameters"].max()),
        seconds=float(cells["seconds"].mean()),
        step_bytes=int(held.max()) if len(held) else None,
        failure=None if failed.empty else str(failed["failure"].iloc[0]),
    )


def _kept(pairs: Posterior, lora: Compared, full: Compared, ours: pd.DataFrame, theirs: pd.DataFrame) -> Kept:
    """From the comparisons of LoRA, the head and full fine-tuning, rows 0, 1 and 2."""
    variance = np.square(pairs.scale)
    of_lora, of_full, between = variance[0, 1], variance[2, 1], variance[0, 2]
    gain = float(pairs.mean[2, 1])
    df = min(pairs.degrees_of_freedom[0, 1], pairs.degrees_of_freedom[2, 1], pairs.degrees_of_freedom[0, 2])
    interval = None
    if np.isfinite([of_lora, of_full, between]).all() and gain > 0:
        interval = ratio_interval(
            float(pairs.mean[0, 1]),
            gain,
            variances=(float(of_lora), float(of_full)),
            covariance=float(of_lora + of_full - between) / 2.0,
            t=_quantile(float(df)),
        )
    ratios = _log_ratios(ours, theirs)
    middle, reach = float(ratios.mean()), math.inf
    if len(ratios) > 1:
        reach = _quantile(len(ratios) - 1.0) * float(ratios.std(ddof=1)) / math.sqrt(len(ratios))
    memory = None
    if lora.step_bytes is not None and full.step_bytes is not None:
        memory = lora.step_bytes / full.step_bytes
    return Kept(
        gain=gain,
        gain_interval=_interval(pairs, (2, 1)),
        share=None if interval is None else float(pairs.mean[0, 1]) / gain,
        share_interval=interval,
        parameters=lora.trainable_parameters / full.trainable_parameters,
        seconds=math.exp(middle),
        seconds_interval=(
            math.exp(middle - reach),
            math.exp(min(middle + reach, 700.0)) if reach < math.inf else reach,
        ),
        memory=memory,
    )


def _log_ratios(ours: pd.DataFrame, theirs: pd.DataFrame) -> Array:
    """Of the seconds of both on each fold."""
    paired = ours.set_index("fold")["seconds"].to_frame("ours").join(theirs.set_index("fold")["seconds"], how="inner")
    return np.asarray(np.log(paired["ours"].to_numpy(dtype=float) / paired["seconds"].to_numpy(dtype=float)))


def _as_scored(merits: tuple[float, float], metric: str) -> tuple[float, float]:
    """An interval of merits as one of scores, as far as there can be such."""
    low, high = sorted(direction(metric) * end for end in merits)
    lowest, highest = metric_named(metric).bounds
    return max(low, lowest), min(high, highest)


def _quantile(df: float) -> float:
    return float(special.stdtrit(df, (1.0 + LEVEL) / 2.0))


def _interval(found: Posterior, at: tuple[int, ...]) -> tuple[float, float]:
    scale = float(found.scale[at])
    reach = _quantile(float(found.degrees_of_freedom[at])) * scale if math.isfinite(scale) else math.inf
    middle = float(found.mean[at])
    return middle - reach, middle + reach
