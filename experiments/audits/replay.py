"""What racing saves on real scores, and what it costs: hundreds of races over a grid that was trained in full.

    python experiments/audits/replay.py [--replays 400] [--grid results/audits/grid/cells.csv] [--out FILE]

``grid.py`` trained every configuration on every fold of every repeat. Each replay draws an order in which the
configurations arrive, an order of the repeats and of the folds in them, and uncovers only the cells the package would
have trained: generations raced over the first repeat, extra repeats for the finalists, the verdict. The truth it is
held against is the mean over all cells recorded.

Figures, each with its Monte-Carlo standard error over the replays (they share one grid: the error says how well its
own average is known, not how another dataset would come out):

- ``raced_share``: cells racing trained, of one full repeat (configurations x folds); ``share`` with the finalists'
  extra repeats; ``share_of_all`` with them, of all cells of the grid.
- ``regret``: points (hundredths of the metric) that the recommended is truly below the recommendation made from all
  cells; negative where it is above. ``shortfall``: points it is below the truly best. ``full_shortfall``: what one full
  repeat without racing would have lost.
- ``worse_than_margin``: the recommended is truly below the best by more than the margin; ``wrong``: and was called
  decided.
- ``full_recommendation_eliminated``: racing threw out what all cells recommend; ``repeat_recommendation_eliminated``:
  what its own repeat in full would have recommended, which is what racing promises to keep in 95 of 100 studies.

One row per margin. Repeats that are not complete, and configurations of which a cell failed, are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_search.statistics import Question

sys.path.insert(0, str(Path(__file__).parent))  # loaded by path, as the tests do, it still has its neighbour
from simulation import Array, rates, run_raced, take_verdict

ROOT = Path(__file__).resolve().parents[2]
MARGINS = (0.01, 0.02, 0.03)
CONFIDENCE = 0.95
POINTS = 100.0


def grid_table(cells: pd.DataFrame) -> tuple[Array, Array, int]:
    """(score table, adapter parameters, folds) of the complete repeats of a grid, smallest configuration first.

    Raises:
        ValueError: no repeat is complete.
    """
    trained = cells.pivot_table(index="trial", columns=["repeat", "fold"], values="state", aggfunc="first")
    folds = int(cells["fold"].max()) + 1
    whole = trained.columns[trained.notna().all()].to_frame(index=False)
    counts = whole.groupby("repeat")["fold"].count()
    repeats = [int(repeat) for repeat in counts.index[counts == folds]]
    if not repeats:
        raise ValueError(f"cells: must hold a repeat with all {folds} folds of every configuration, got none")
    used = cells[cells["repeat"].isin(repeats)]
    table = used.pivot(index="trial", columns=["repeat", "fold"], values="score").sort_index(axis=1).dropna()
    sizes = cells.groupby("trial")["adapter_parameters"].first().loc[table.index]
    order = np.argsort(sizes.to_numpy(), kind="stable")
    return table.to_numpy(dtype=np.float64)[order], sizes.to_numpy(dtype=np.float64)[order], folds


def replayed(scores: Array, parameters: Array, rules: Question, seed: int) -> dict[str, float]:
    """Figures of one replay."""
    rng = np.random.default_rng(seed)
    trials, columns = scores.shape
    everyone = np.arange(trials)
    truth = scores.mean(axis=1)
    target, _ = take_verdict(scores, parameters, everyone, rules)
    shuffled = _shuffled(scores, rules.folds, rng)
    one_repeat = np.where(np.arange(columns) < rules.folds, shuffled, np.nan)
    unraced, _ = take_verdict(one_repeat, parameters, everyone, rules)
    raced = run_raced(shuffled, parameters, rng.permutation(trials), rules, seed)
    shortfall = truth.max() - truth
    worse = bool(shortfall[raced.chosen] > rules.margin + 1e-12)
    return {
        "raced_share": raced.raced_cells / (trials * rules.folds),
        "share": raced.cells / (trials * rules.folds),
        "share_of_all": raced.cells / scores.size,
        "regret": POINTS * float(truth[target] - truth[raced.chosen]),
        "shortfall": POINTS * float(shortfall[raced.chosen]),
        "full_shortfall": POINTS * float(shortfall[unraced]),
        "worse_than_margin": float(worse),
        "wrong": float(worse and raced.decided),
        "undecided": float(not raced.decided),
        "full_recommendation_eliminated": float(target not in raced.rows),
        "repeat_recommendation_eliminated": float(unraced not in raced.rows),
    }


def _shuffled(scores: Array, folds: int, rng: np.random.Generator) -> Array:
    """The same cells with the repeats, and the folds within each, in another order."""
    columns = np.arange(scores.shape[1]).reshape(-1, folds)
    return scores[:, np.concatenate([rng.permutation(repeat) for repeat in rng.permutation(columns)])]


def row(scores: Array, parameters: Array, rules: Question, replays: int) -> dict[str, Any]:
    """What is reported for one margin."""
    everyone = np.arange(len(scores))
    target, decided = take_verdict(scores, parameters, everyone, rules)
    truth = scores.mean(axis=1)
    figures = pd.DataFrame([replayed(scores, parameters, rules, seed) for seed in range(replays)])
    return {
        "margin": rules.margin,
        "replays": replays,
        "all_cells_recommend": target,
        "all_cells_decide": decided,
        "all_cells_score": round(float(truth[target]), 5),
        "best_score": round(float(truth.max()), 5),
        **rates(figures),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replays", type=int, default=400, help="per margin")
    parser.add_argument("--grid", type=Path, default=ROOT / "results/audits/grid/cells.csv")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/replay.json")
    options = parser.parse_args()
    scores, parameters, folds = grid_table(pd.read_csv(options.grid))
    settings = {
        "configurations": len(scores),
        "folds": folds,
        "repeats": scores.shape[1] // folds,
        "confidence": CONFIDENCE,
        "mean_score": round(float(scores.mean()), 6),  # of another grid, or of more of it, the rows are begun anew
    }
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    rows = kept["rows"] if kept.get("settings") == settings else []
    done = {(line["margin"], line["replays"]) for line in rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for margin in MARGINS:
        if (margin, options.replays) not in done:
            rows.append(row(scores, parameters, Question("score", margin, CONFIDENCE, folds), options.replays))
            print(json.dumps(rows[-1]), flush=True)
            options.out.write_text(json.dumps({"settings": settings, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
