"""Which cells next, and which of them together.

Trials are asked for in *generations*; a generation is trained fold by fold (a *rung*), and the cells of a rung whose
lowest adapted layer is the same form packs: they see the same batches and resume from the same frozen prefix. Top
layers first, being cheapest. Packs depend on the recorded trials alone, so a study that was interrupted forms the
packs it would have formed.

There is no queue from which a place in a pack is refilled: cells of a pack take equally many steps, but for a row more
or less in a fold, and what comes next depends on all of a rung's scores. A cell that fails leaves, and costs no more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Protocol

from lora_search.spec import facts
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.preparation import Prepared


@dataclass(frozen=True)
class Step:
    """What a run does next.

    Attributes:
        finished: (trial, state, reason) to close, those that are still running.
        cells: to train.
    """

    finished: tuple[facts.Finished, ...]
    cells: tuple[CellKey, ...]


class Search(Protocol):
    """Who decides what a study tries: trials are asked for and recorded by it, trained by the run.

    Attributes:
        total: trials it makes at most.
        different: how many different adapters there are, where two choices may be one; None where they are not.
        adapters: how many are compared, each at trials of its own; None where a trial is one.
    """

    total: int
    different: int | None

    @property
    def adapters(self) -> int | None: ...

    def steps(self) -> Iterator[Step]:
        """One step after another; each is asked for when the one before is trained and recorded."""

    def ahead(self) -> tuple[list[tuple[int, TrialRecord]], int]:
        """What is left to train, about: cells of trials there are, and cells of trials not asked for yet."""


GENERATION = 8
"""Trials asked for at once. More fill packs better; fewer let the sampler learn sooner."""

PACK_SLOTS = 16
"""Most cells in one pack."""

_SHARES_PER_WORKER = {"cpu": 2.0, "cuda": 0.5}
"""Into how many packs the work of a step is cut for each of several workers, by the device. On a CPU cells gain little
by being in one pack, and with twice as many packs as workers fewer of these have nothing to do at a step's end; on a
GPU a larger pack takes hardly longer than a smaller one. Chosen by experiments/benchmarks/schedule_simulator.py."""


def generation_of(trial: int) -> int:
    return trial // GENERATION


def rungs_of(generation: int, folds: int, repeats: int) -> list[list[tuple[int, int]]]:
    """The (repeat, fold) of each rung, after which racing looks at the scores.

    With one cell of each trial nothing tells the noise, so nothing could be stopped: the first generation begins with
    two folds at once, in packs twice as large.
    """
    columns = list(product(range(repeats), range(folds)))
    first = 2 if generation == 0 else 1
    return [columns[:first], *([column] for column in columns[first:])]


def shares_for(workers: int, device: str) -> int:
    """Into how many shares the work of a step is cut.

    Args:
        workers: how many packs are trained at the same time.
        device: the kind they compute on.
    """
    return 1 if workers == 1 else max(2, round(workers * _SHARES_PER_WORKER.get(device, 1.0)))


def packs_of(
    prepared: Prepared, trials: Mapping[int, TrialRecord], keys: Iterable[CellKey], shares: int = 1
) -> list[list[CellKey]]:
    """Cells in packs: of one lowest layer, top layers first.

    For several workers no pack, unless of one cell, is more than its share of the work, and the longest come first, so
    that none begins when the others are through.

    Args:
        trials: the trials the cells belong to, by number.
        keys: the cells; those of a rung see the same batches, those of several folds share the frozen layers only.
        shares: into which the work is cut (see ``shares_for``); 1 for one worker.
    """

    def by_targets(key: CellKey) -> tuple[int, int, str, int]:
        # slots next to each other that adapt the same module meet it in one batched product
        return key.repeat, key.fold, trials[key.trial].adapter.targets, key.trial

    by_depth: dict[int, list[CellKey]] = {}
    for key in keys:
        by_depth.setdefault(prepared.depth(trials[key.trial].adapter), []).append(key)
    layers = {depth: prepared.base.structure.layer_count - depth for depth in by_depth} if shares > 1 else {}
    share = sum(layers[depth] * len(by_depth[depth]) for depth in layers) / shares
    packs: list[list[CellKey]] = []
    for depth in sorted(by_depth, reverse=shares == 1):
        # those of a fold have the same batches; among them, neighbours in rank pad each other's matrices least
        alike = sorted(
            by_depth[depth], key=lambda key: (key.repeat, key.fold, trials[key.trial].adapter.rank, key.trial)
        )
        slots = PACK_SLOTS if shares == 1 else min(PACK_SLOTS, max(1, int(share / layers[depth])))
        if shares > 1:
            slots = -(-len(alike) // -(-len(alike) // slots))  # as many packs as that takes, of equal size
        packs.extend(alike[start : start + slots] for start in range(0, len(alike), slots))
    return [sorted(pack, key=by_targets) for pack in packs]
