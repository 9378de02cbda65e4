"""Does the verdict keep its promises? Thousands of simulated studies whose true scores are known.

    python experiments/audits/calibration.py [--studies 150] [--corrections 150] [--rho 0.2] [--grid CELLS.csv]
        [--out FILE]

A study has 24 trials (smallest first) over 5 folds. What is simulated is whether each trial is right about each example
(``simulated_examples.py``): examples differ in difficulty, trainings in luck, which is correlated 1/5 between those of
one study (Nadeau and Bengio's rho; from a single dataset it cannot be measured, Bengio and Grandvalet 2004, so
``--rho`` varies it). Each study is run twice: in full (24 x 5 cells), and as the package runs it (raced fold by fold in
generations of eight, then up to three extra repeats for the finalists). Points are hundredths of the metric; the margin
is 3 points. A study's level is its number of examples.

``--grid`` takes cells.csv of an exhaustive real study: its residuals, whole columns at a time, become one more noise
model, with the real covariance between trials and the real tails. Of it only the scores of folds are known, so it
audits the comparison by fold scores; its level is the standard deviation of one cell.

The corrected score is audited on simulated predictions instead, since it works on those.

Results, each with its Monte-Carlo standard error, go to results/audits/calibration.json row by row; an interrupted
run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from lora_search.statistics import (
    ExampleScores,
    Question,
    corrected_score,
    correlated_t,
    pairwise,
    pairwise_by_example,
    scores_by_example,
)

sys.path.insert(0, str(Path(__file__).parent))  # loaded by path, as the tests do, it still has its neighbours
from simulated_examples import KINDS, Shape, simulate_examples
from simulation import Array, rates, run_raced, take_verdict

TRIALS, FOLDS, REPEATS, MARGIN, CONFIDENCE = 24, 5, 4, 0.03, 0.95
RULES = Question("score", MARGIN, CONFIDENCE, FOLDS)
SIZES = np.arange(1, TRIALS + 1)
"""Adapter parameters: trials are numbered from the smallest."""
LEVELS = (400, 1600)
"""Examples of a study: with few a margin of 3 points can hardly be shown, with many it can."""
DROWNING = 100
BASE = 0.8
"""The score around which all true scores lie."""

Rng = np.random.Generator


@dataclass(frozen=True, eq=False)
class Drawn:
    """One simulated study in full: the score table, and what it is made of where that is simulated too."""

    scores: Array
    examples: ExampleScores | None


Draw = Callable[[Array, Rng], Drawn]
"""A study from its true scores."""


def equal(rng: Rng) -> Array:
    return np.zeros(TRIALS)


def graded(rng: Rng) -> Array:
    """Scores saturate with size: fifteen points lost at the smallest, and a point of other differences."""
    return -0.15 * np.exp(-np.arange(TRIALS) / 6.0) + 0.01 * rng.standard_normal(TRIALS)


def clear_winner(rng: Rng) -> Array:
    """One of the larger half is nine points better than all others."""
    true = -0.09 + 0.01 * rng.standard_normal(TRIALS)
    true[rng.integers(TRIALS // 2, TRIALS)] = 0.0
    return true


def mixed(rng: Rng) -> Array:
    """No order at all, and a fifth of the trials collapsed."""
    true = -np.abs(0.045 * rng.standard_normal(TRIALS))
    return np.where(rng.random(TRIALS) < 0.2, true - 0.2, true)


def at_the_margin(rng: Rng) -> Array:
    """Everything smaller is worse than the largest by a hair more than the margin: no data of this size can tell."""
    return np.where(np.arange(TRIALS) == TRIALS - 1, 0.0, -MARGIN - 1e-6)


def drowned(rng: Rng) -> Array:
    """Differences of a point and a half on a hundred examples: nothing to be seen."""
    return 0.015 * rng.standard_normal(TRIALS)


SCORES: dict[str, Callable[[Rng], Array]] = {
    "equal": equal,
    "graded": graded,
    "clear winner": clear_winner,
    "mixed": mixed,
    "at the margin": at_the_margin,
    "drowned": drowned,
}
CANNOT_DECIDE = ("at the margin", "drowned")


def noise_models(rho: float, grid: Path | None) -> dict[str, dict[float, Draw]]:
    """How a study is drawn, by kind of noise and level."""
    shape = Shape(FOLDS, REPEATS, rho)

    def of_examples(kind: str, examples: int) -> Draw:
        def draw(true: Array, rng: Rng) -> Drawn:
            made = simulate_examples(BASE + true, kind, examples, shape, rng)
            return Drawn(made.cell_scores(), made)

        return draw

    models: dict[str, dict[float, Draw]] = {
        kind: {level: of_examples(kind, level) for level in (*LEVELS, DROWNING)} for kind in KINDS
    }
    if grid is not None:
        residuals = real_residuals(pd.read_csv(grid))
        models["measured"] = {round(float(residuals.std()), 5): _of_residuals(residuals, rho)}
    return models


def _of_residuals(residuals: Array, rho: float) -> Draw:
    """Whole columns of real residuals, trials in random order, and a difficulty of the fold that all share."""

    def draw(true: Array, rng: Rng) -> Drawn:
        rows = np.resize(rng.permutation(len(residuals)), TRIALS)
        drawn = residuals[rows][:, rng.integers(0, residuals.shape[1], FOLDS * REPEATS + 1)]
        drawn = drawn * rng.choice([-1.0, 1.0], drawn.shape[1])
        noise = np.sqrt(rho) * drawn[:, :1] + np.sqrt(1.0 - rho) * drawn[:, 1:]
        unit = np.sqrt(rho) * rng.standard_normal() + np.sqrt(1.0 - rho) * rng.standard_normal(FOLDS * REPEATS)
        return Drawn(BASE + true[:, None] + 0.02 * unit + noise, None)

    return draw


def real_residuals(cells: pd.DataFrame) -> Array:
    """Residuals of score = trial + cell in an exhaustive study, rescaled for the degrees of freedom they lost."""
    table = cells[cells["state"] == "complete"].pivot_table(index="trial", columns=["repeat", "fold"], values="score")
    scores = table.dropna().to_numpy(dtype=np.float64)
    left = scores - scores.mean(axis=1, keepdims=True) - scores.mean(axis=0) + scores.mean()
    rows, columns = scores.shape
    return left * np.sqrt(rows * columns / ((rows - 1) * (columns - 1)))


@dataclass
class Outcome:
    """What one simulated study showed."""

    full_decided: bool
    full_wrong: bool
    decided: bool
    wrong: bool
    wrong_provisional: bool
    full_recommended_eliminated: bool
    raced_cells: int
    cells: int
    regret: float
    pair_covered: float
    score_covered: float


def simulate(true: Array, drawn: Drawn, rng: Rng, seed: int) -> Outcome:
    """One study, in full and as the package runs it."""
    scores, examples = drawn.scores, drawn.examples
    one_repeat = np.where(np.arange(FOLDS * REPEATS) < FOLDS, scores, np.nan)
    everyone = np.arange(TRIALS)
    whole = None if examples is None else ExampleScores(examples.values[:, :1], examples.folds[:1], examples.groups)
    full, full_decided = take_verdict(one_repeat, SIZES, everyone, RULES, whole)
    raced = run_raced(scores, SIZES, rng.permutation(TRIALS), RULES, seed, examples)
    chosen, decided = raced.chosen, raced.decided
    shortfall = true.max() - true
    pairs = pairwise(one_repeat, FOLDS) if whole is None else pairwise_by_example(whole, FOLDS)
    low, high = pairs.interval(0.95)
    # the same pairs in every study, chosen before any score is seen
    left, right = everyone[0::2], everyone[1::2]
    gaps = true[left] - true[right]
    covered = (low[left, right] <= gaps) & (gaps <= high[left, right])
    own = correlated_t(one_repeat, FOLDS) if whole is None else scores_by_example(whole, FOLDS)
    bottom, top = own.interval(0.95)
    return Outcome(
        full_decided=full_decided,
        full_wrong=full_decided and bool(shortfall[full] > MARGIN),
        decided=decided,
        wrong=decided and bool(shortfall[chosen] > MARGIN),
        wrong_provisional=not decided and bool(shortfall[chosen] > MARGIN),
        full_recommended_eliminated=full not in raced.rows,
        raced_cells=raced.raced_cells,
        cells=raced.cells,
        regret=float(true[full] - true[chosen]),
        pair_covered=float(covered.mean()),
        score_covered=float(((bottom <= BASE + true) & (BASE + true <= top)).mean()),
    )


def audit_scores(name: str, model: str, draw: Draw, level: float, studies: int) -> dict[str, Any]:
    """Rates over studies with one kind of true scores, one noise model and one level."""
    part = [list(SCORES).index(name), sum(model.encode()), round(1e5 * level)]
    outcomes = []
    for study in range(studies):
        rng = np.random.default_rng([*part, study])
        true = SCORES[name](rng)
        outcomes.append(simulate(true, draw(true, rng), rng, study))
    return {"scores": name, "noise": model, "level": level, "studies": studies} | _rates(outcomes)


def _rates(outcomes: list[Outcome]) -> dict[str, list[float]]:
    """Mean and Monte-Carlo standard error of every figure."""
    table = pd.DataFrame(outcomes).astype(float)
    table["undecided"] = 1.0 - table.pop("decided")
    table["full_undecided"] = 1.0 - table.pop("full_decided")
    for name in ("raced_cells", "cells"):
        table[name] /= TRIALS * FOLDS
    return rates(table)


PREDICTION_SCORES: dict[str, Callable[[Rng], Array]] = {
    "equal": lambda rng: np.full(TRIALS, BASE),
    "graded": lambda rng: BASE + graded(rng),
    "clear winner": lambda rng: BASE + clear_winner(rng),
    "mixed": lambda rng: BASE + mixed(rng),
}


def audit_correction(name: str, examples: int, studies: int) -> dict[str, Any]:
    """Bias of the winner's naive and corrected score, and coverage of the corrected interval, in metric units.

    Whether a trial is right about an example depends on the example's difficulty (70 % of the latent variance) and
    chance.
    """
    rows = []
    for study in range(studies):
        rng = np.random.default_rng([9, list(PREDICTION_SCORES).index(name), examples, study])
        true = PREDICTION_SCORES[name](rng)
        latent = np.sqrt(0.7) * rng.standard_normal(examples) + np.sqrt(0.3) * rng.standard_normal((TRIALS, examples))
        labels = rng.integers(0, 2, examples)
        predicted = np.where(latent < special.ndtri(true)[:, None], labels, 1 - labels)[:, None, :]
        result = corrected_score(
            np.eye(2, dtype=np.float32)[predicted], labels, metric="accuracy", samples=300, seed=study
        )
        low, high = result.interval
        truth = true[result.winner]
        rows.append((result.naive - truth, result.score - truth, low <= truth <= high))
    table = np.array(rows, dtype=np.float64)
    mean, error = table.mean(axis=0), table.std(axis=0, ddof=1) / np.sqrt(studies)
    names = ("naive_bias", "corrected_bias", "interval_covered")
    figures = {key: [round(float(m), 5), round(float(e), 5)] for key, m, e in zip(names, mean, error, strict=True)}
    return {"scores": name, "examples": examples, "studies": studies} | figures


def promises(rows: list[dict[str, Any]], corrections: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each promise against each noise model, averaged over scores and levels, and the worst of them."""
    found = []

    def check(promise: str, noise: str, chosen: list[dict[str, Any]], key: str, low: float, high: float) -> None:
        if not chosen:
            return
        values, errors = (np.array([row[key][part] for row in chosen]) for part in (0, 1))
        mean, error = float(values.mean()), float(np.sqrt((errors**2).sum()) / len(values))
        worst = int(np.argmax(np.maximum(values - high, low - values)))
        where = ", ".join(
            f"{name} {chosen[worst][name]}" for name in ("scores", "level", "examples") if name in chosen[worst]
        )
        found.append(
            {
                "promise": promise,
                "noise": noise,
                "value": [round(mean, 4), round(error, 4)],
                "holds": low <= mean <= high,
            }
            | {"worst": [round(float(values[worst]), 4), round(float(errors[worst]), 4)], "worst_case": where}
        )

    for noise in dict.fromkeys(row["noise"] for row in rows):
        mine = [row for row in rows if row["noise"] == noise]
        check("wrong verdicts <= 5 %", noise, mine, "wrong", -1.0, 0.05)
        check(
            "recommendation of the full run eliminated <= 5 %", noise, mine, "full_recommended_eliminated", -1.0, 0.05
        )
        check("95 % intervals of differences cover 93-97 %", noise, mine, "pair_covered", 0.93, 0.97)
        check("95 % intervals of scores cover 93-97 %", noise, mine, "score_covered", 0.93, 0.97)
        hopeless = [row for row in mine if row["scores"] in CANNOT_DECIDE]
        check("undecided where data cannot decide >= 90 %", noise, hopeless, "undecided", 0.9, 2.0)
    flattered = [row for row in corrections if row["naive_bias"][0] >= 0.01]
    check("corrected score at most 0.2 points too high", "predictions", flattered, "corrected_bias", -1.0, 0.002)
    check("corrected score at most 0.2 points off", "predictions", flattered, "corrected_bias", -0.002, 0.002)
    check("95 % corrected intervals cover 93-97 %", "predictions", corrections, "interval_covered", 0.93, 0.97)
    return found


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("scores", "noise", "level", "examples", "studies"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=150, help="per kind of scores, noise model and level")
    parser.add_argument("--corrections", type=int, help="the same for the corrected score; as many if not given")
    parser.add_argument("--rho", type=float, default=1.0 / FOLDS, help="true correlation between folds")
    parser.add_argument("--grid", type=Path, help="cells.csv of an exhaustive real study")
    parser.add_argument("--out", type=Path, default=Path("results/audits/calibration.json"))
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "trials": TRIALS,
        "folds": FOLDS,
        "repeats": REPEATS,
        "margin": MARGIN,
        "confidence": CONFIDENCE,
    }
    settings |= {"rho": options.rho, "grid": None if options.grid is None else str(options.grid)}
    kept: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    if kept.get("settings") != settings:
        kept = {}
    rows, corrections = kept.get("studies", []), kept.get("corrections", [])
    done = {_key(row) for row in [*rows, *corrections]}
    options.out.parent.mkdir(parents=True, exist_ok=True)

    def keep(row: dict[str, Any], where: list[dict[str, Any]]) -> None:
        where.append(row)
        print(json.dumps(row), flush=True)
        content = {"settings": settings, "promises": promises(rows, corrections), "studies": rows}
        options.out.write_text(json.dumps(content | {"corrections": corrections}, indent=1) + "\n")

    asked = options.corrections or options.studies
    for name, examples in itertools.product(PREDICTION_SCORES, (300, 600, 1200)):
        if (name, None, None, examples, asked) not in done:
            keep(audit_correction(name, examples, asked), corrections)
    for (model, draws), name in itertools.product(noise_models(options.rho, options.grid).items(), SCORES):
        for level, draw in draws.items():
            if (level == DROWNING) != (name == "drowned") and model != "measured":
                continue
            if (name, model, level, None, options.studies) not in done:
                keep(audit_scores(name, model, draw, level, options.studies), rows)
    for line in promises(rows, corrections):
        said = f"{line['promise']}, {line['noise']}: {line['value']}, worst {line['worst']} ({line['worst_case']})"
        print("holds " if line["holds"] else "BROKEN", said)


if __name__ == "__main__":
    main()
