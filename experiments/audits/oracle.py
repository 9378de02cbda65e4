"""The whole procedure replayed on an oracle: a table of all adapters x learning rates x folds, trained once.

    python experiments/audits/oracle.py TABLE.csv... [--replays 200] [--cells 60] [--trials N] [--margin 0.03]
        [--share S] [--out FILE]

A table has a row per training: ``rank``, ``layers`` (as an experiment spells them), ``lr``, ``fold``, ``acc`` and
``ll`` (out-of-fold accuracy and log loss), and may have ``targets``, ``alpha`` and ``parameters``; ``oracle_table.py``
makes one. Each replay draws an order of the folds and what racing draws, and runs what a study runs: probes, rounds of
adapters at the rates the model of the rates predicts (the nearest the table has), racing, the verdict by fold scores.
Nothing is trained: cells are uncovered, at most ``--cells``.

A table has no predictions, so what trainings contribute to the scatter between folds (which correlates folds) cannot
be told from what examples do (which does not). ``--share`` says it; by default what ten_samples.py found.

The truth is the whole table: an adapter's score is its mean over the folds at its best rate. Figures, each with its
Monte-Carlo standard error over the replays (which share one table):

- ``times_the_size``: parameters of the recommended over those of the smallest truly within the margin of the best
  (median, mean); ``within_twice``: share of replays in which that is at most 2 and the recommended good enough.
- ``worse``: the recommended is truly worse than the best by more than the margin; ``wrong``: and called decided.
- ``decided``, ``cells``, ``settings``; ``complete``: adapters trained to the end.
- ``rate_loss``: points that adapters trained to the end lose, at the rate they were judged at, against their best.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_search.spec import layer_indices
from lora_search.statistics.levels import additive_scores
from lora_search.statistics.matrix import ScoreMatrix
from lora_search.statistics.question import Question
from lora_search.statistics.rounds import Rules, next_round, no_settings, probes, probing_rates
from lora_search.statistics.settings import Knowing, Settings, adapter_scores, fit
from lora_search.statistics.standing import recommend, standing
from lora_search.statistics.stopped import rivalries

ROOT = Path(__file__).resolve().parents[2]
Array = np.ndarray[Any, np.dtype[Any]]
POINTS = 100.0


@dataclass(frozen=True)
class Oracle:
    """A table of trainings.

    Attributes:
        names: of the adapters. features, parameters: of them, one row each.
        rates: ``(rates,)`` natural logarithms, ascending.
        score, log_loss: ``(adapters, rates, folds)``; NaN where not trained.
    """

    names: tuple[str, ...]
    features: Array
    parameters: Array
    rates: Array
    score: Array
    log_loss: Array

    @classmethod
    def read(cls, path: Path, *, layers: int, modules: int, width: int) -> Oracle:
        """From a CSV file.

        Args:
            path: of the table.
            layers: of the model.
            modules, width: adapted in each layer; inputs and outputs of one, together. They count the parameters of
                tables that do not.
        """
        table = pd.read_csv(path)
        keys = [name for name in ("rank", "layers", "targets", "alpha") if name in table]
        adapters = table.drop_duplicates(keys).reset_index(drop=True)
        count = adapters["layers"].map(lambda name: len(layer_indices(str(name), layers)))
        parameters = adapters["parameters"] if "parameters" in table else adapters["rank"] * modules * width * count
        alpha = adapters["alpha"] if "alpha" in table else 2.0 * adapters["rank"]
        per_layer = parameters / (adapters["rank"] * width * count)
        features = np.log(
            np.stack([adapters["rank"], count, per_layer, alpha / adapters["rank"]], axis=1).astype(float)
        )
        rates, folds = np.sort(table["lr"].unique()), int(table["fold"].max()) + 1
        found = np.full((2, len(adapters), len(rates), folds), np.nan)
        row_of = {tuple(row): place for place, row in enumerate(adapters[keys].itertuples(index=False, name=None))}
        for key, rate, fold, accuracy, loss in zip(
            table[keys].itertuples(index=False, name=None),
            table["lr"],
            table["fold"],
            table["acc"],
            table["ll"],
            strict=True,
        ):
            found[:, row_of[tuple(key)], np.searchsorted(rates, rate), fold] = accuracy, loss
        names = tuple(", ".join(map(str, row)) for row in adapters[keys].itertuples(index=False, name=None))
        return cls(names, features, parameters.to_numpy(dtype=float), np.log(rates), found[0], found[1])

    @property
    def truth(self) -> Array:
        """Score of each adapter at its best rate."""
        return np.asarray(np.nanmean(self.score, axis=2).max(axis=1))

    @property
    def nothing(self) -> Knowing:
        """Of knowing nothing: what the lowest tenth of the table scores in the middle is what the majority label does,
        or near it; a training may collapse to a rarer one."""
        middle = float(self.rates.mean() + (self.features.mean(axis=0) @ np.array([0.4, 0.35, 0.3, 0.8])))
        lowest = self.score <= np.nanquantile(self.score, 0.1)
        return Knowing(float(np.median(self.score[lowest])), float(np.median(self.log_loss[lowest])), middle)


class Replay:
    """One study on an oracle.

    Args:
        oracle: trained beforehand.
        rules: of the study.
        share: of the scatter between folds that is the trainings'.
        rng: draws the order of the folds.
        trials: most settings; None for as many as it asks for.
    """

    def __init__(
        self, oracle: Oracle, rules: Rules, share: float, rng: np.random.Generator, trials: int | None = None
    ) -> None:
        self.oracle, self.rules, self.share, self.trials = oracle, rules, share, trials
        self.order = rng.permutation(rules.question.folds)
        self.adapter: list[int] = []
        self.rate: list[int] = []
        self.seen: list[Array] = []

    def settings(self) -> Settings:
        """What was uncovered, in this replay's order of folds."""
        shown = np.array(self.seen).reshape(-1, self.rules.question.folds)
        pairs = list(zip(self.adapter, self.rate, strict=True))
        score, loss = (
            np.array([table[a, r][self.order] for a, r in pairs]).reshape(-1, self.rules.question.folds)
            for table in (self.oracle.score, self.oracle.log_loss)
        )
        rates = self.oracle.rates[np.array(self.rate, dtype=int)] if self.rate else np.zeros(0)
        return Settings(
            np.array(self.adapter, dtype=np.int64), rates, np.where(shown, score, np.nan), np.where(shown, loss, np.nan)
        )

    def _setting(self, adapter: int, log_rate: float) -> int:
        """The setting at the table's nearest rate, a new one if it is not there yet."""
        rate = int(np.abs(self.oracle.rates - log_rate).argmin())
        for place, known in enumerate(zip(self.adapter, self.rate, strict=True)):
            if known == (adapter, rate):
                return place
        self.adapter.append(adapter)
        self.rate.append(rate)
        self.seen.append(np.zeros(self.rules.question.folds, dtype=bool))
        return len(self.adapter) - 1

    def run(self) -> dict[str, float]:
        """Figures of the study."""
        oracle, rules = self.oracle, self.rules
        model = fit(no_settings(rules.question.folds), oracle.features, oracle.nothing)
        for setting in probing_rates(probes(oracle.features, oracle.parameters).tolist(), model, rules):
            self.seen[self._setting(*setting)][0] = True
        eliminated: list[int] = []
        settled: dict[int, int] = {}
        spent, stuck = 0.0, False
        while not stuck:
            step = next_round(
                self.settings(),
                oracle.features,
                oracle.parameters,
                oracle.nothing,
                rules,
                settled=settled,
                eliminated=eliminated,
                spent=spent,
                room=None if self.trials is None else max(self.trials - len(self.adapter), 0),
            )
            eliminated, spent = eliminated + [loss.trial for loss in step.eliminated], step.spent
            settled |= step.complete
            places = [self._setting(*setting) for setting in step.new]
            before = int(np.sum(self.seen))
            for want in step.wanted:
                self.seen[want.setting if want.setting is not None else places[want.new or 0]][want.column] = True
            stuck = int(np.sum(self.seen)) == before and not step.eliminated and not step.complete
        return self._figures(settled)

    def _figures(self, settled: Mapping[int, int]) -> dict[str, float]:
        oracle, rules, settings = self.oracle, self.rules, self.settings()
        scores = adapter_scores(settings, oracle.features, oracle.nothing, tolerance=rules.tolerance)
        complete = sorted(settled)
        effort = {"cells": int(np.sum(self.seen)), "settings": len(self.adapter), "complete": len(complete)}
        if not complete:
            none = dict.fromkeys(("within_twice", "worse", "wrong", "decided"), False)
            return {"chosen": -1, "times_the_size": np.nan, **none, **effort, "rate_loss": np.nan}
        seen = [row for row in range(len(oracle.names)) if not np.isnan(scores.score[row]).all()]
        matrix = self._matrix(scores.score, complete)
        pairs, _ = rivalries(matrix, self._matrix(scores.score, seen), rules.question.folds)
        status = standing(pairs, rules.question.margin, rules.question.confidence).status
        chosen, _, decided = map(
            int, recommend(status, additive_scores(matrix.scores), matrix.parameters, matrix.seconds)
        )
        truth, row = oracle.truth, complete[chosen]
        good = truth >= truth.max() - rules.question.margin - 1e-12
        times = float(oracle.parameters[row] / oracle.parameters[good].min())
        worse = not good[row]
        lost = [truth[r] - np.nanmean(oracle.score[r, self.rate[settled[r]]]) for r in complete]
        return {
            "chosen": row,
            "times_the_size": times,
            "within_twice": times <= 2 and not worse,
            "worse": worse,
            "wrong": worse and decided,
            "decided": decided,
            **effort,
            "rate_loss": POINTS * float(np.mean(lost)),
        }

    def _matrix(self, scores: Array, rows: list[int]) -> ScoreMatrix:
        """These adapters' scores, numbered by their rows."""
        columns = tuple((0, fold) for fold in range(self.rules.question.folds))
        return ScoreMatrix(
            tuple(rows),
            columns,
            scores[rows],
            self.oracle.parameters[rows],
            np.zeros(len(rows)),
            training_share=self.share,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE.csv")
    parser.add_argument("--replays", type=int, default=200)
    parser.add_argument("--cells", type=int, default=60, help="most trainings of a study")
    parser.add_argument("--trials", type=int, help="most settings of a study; as many as it asks for where not given")
    parser.add_argument("--margin", type=float, default=0.03)
    parser.add_argument("--confidence", type=float, default=0.95)
    parser.add_argument("--share", type=float, help="of trainings in the scatter between folds")
    parser.add_argument("--layers", type=int, default=6, help="layers of the model")
    parser.add_argument("--modules", type=int, default=2, help="modules adapted in a layer")
    parser.add_argument("--width", type=int, default=768, help="inputs and outputs of one, together")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "audits" / "oracle.json")
    args = parser.parse_args()
    share = measured_share() if args.share is None else args.share
    found = {}
    for path in args.tables:
        oracle = Oracle.read(path, layers=args.layers, modules=args.modules, width=args.width)
        rules = Rules(
            Question("score", args.margin, args.confidence, oracle.score.shape[2]),
            oracle.rates[0],
            oracle.rates[-1],
            tuple(oracle.rates),
            cells=args.cells,
        )
        found[path.name] = audit(oracle, rules, share, args.replays, args.trials)
        print(path.name, json.dumps(found[path.name]), flush=True)
    settings = {
        "replays": args.replays,
        "cells": args.cells,
        "trials": args.trials,
        "margin": args.margin,
        "confidence": args.confidence,
        "share": share,
    }
    args.out.write_text(json.dumps({**settings, "oracles": found}, indent=2) + "\n")


def measured_share() -> float:
    """What ten_samples.py found."""
    record = ROOT / "results" / "audits" / "ten_samples" / "ten_samples.json"
    return float(json.loads(record.read_text(encoding="utf-8"))["training_share"])


def audit(oracle: Oracle, rules: Rules, share: float, replays: int, trials: int | None = None) -> dict[str, Any]:
    """Figures over the replays of one oracle: [mean, standard error], and the median size."""
    studies = [(replace(rules, seed=seed), np.random.default_rng(seed)) for seed in range(replays)]
    rows = pd.DataFrame([Replay(oracle, own, share, rng, trials).run() for own, rng in studies])
    table = rows.drop(columns="chosen").astype(float)
    error = table.std(ddof=1) / np.sqrt(len(table))
    named = (*oracle.names, "none is trained to the end")
    chosen = rows["chosen"].map(lambda row: named[int(row)]).value_counts(normalize=True).round(3)
    return {
        "median_times_the_size": float(table["times_the_size"].median()),
        **{str(name): [round(float(table[name].mean()), 4), round(float(error[name]), 4)] for name in table},
        "recommended": chosen.to_dict(),
    }


if __name__ == "__main__":
    main()
