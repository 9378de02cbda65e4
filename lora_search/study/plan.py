"""What a study will cost: cells counted, a few steps measured on throw-away adapters, memory added up."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from lora_search.models import plain_torch, quiet_libraries, stored_bytes
from lora_search.spec import AdapterSpec, Experiment, Nuisance, load_experiment
from lora_search.spec.baselines import title_of
from lora_search.statistics.budget import CONTENDERS
from lora_search.store.ledger import Ledger
from lora_search.store.opening import quiet_optuna
from lora_search.store.records import CellKey
from lora_search.study.baselines import WHOLE, Part, baseline_cell, baseline_parts, check_baselines
from lora_search.study.capacity import information, rule_of_thumb
from lora_search.study.environment import describe_environment
from lora_search.study.executors import THIS_PROCESS, workers_sentence
from lora_search.study.explained import with_explained
from lora_search.study.preparation import Prepared, measured_dtype, prepare
from lora_search.study.progress import counted, duration, pack_title
from lora_search.study.schedule import GENERATION, packs_of
from lora_search.study.trial_export import check_export
from lora_search.study.tuning import RateSearch, search_of
from lora_search.tasks import task_of
from lora_search.training import Cell, Engine, EngineSettings, lanes_of
from lora_search.training.whole import WholeModel

_STEPS = 6
_MEASUREMENTS = 2  # the quicker counts: whatever else the machine does can only make it slower
_OPTIMIZER_COPIES = 4  # value, two moments, compute copy; and a gradient in every lane


@dataclass(frozen=True)
class Plan:
    """A dry run.

    Attributes:
        experiment: what was planned.
        notes: what the data and the model say about themselves.
        device, precision: where and how the base would run.
        examples, labels, holdout: the data after cleaning and sampling.
        trials: of the study. adapters: that it compares at most, each at its own learning rate; 0 where trials are at
            one rate.
        cells: trainings if none is stopped early; where learning rates are looked for, other rates aside.
        steps: optimizer steps per cell.
        smallest, largest: adapter parameters of the cheapest and dearest adapter of the space.
        head_parameters: trained besides the adapter.
        bits: that the answers of the examples in the folds hold at most (see ``capacity``); None of numbers.
        seconds: estimated for all of them.
        later, later_seconds: trainings after the trials, at most and about, and the time they would take.
        baselines: their trainings and seconds, by name.
        memory: estimated peak, bytes by part.
        packs: lines about which cells would be trained together first, and what one costs.
        workers: who would train.
    """

    experiment: Experiment
    notes: tuple[str, ...]
    device: str
    precision: str
    examples: int
    labels: tuple[str, ...]
    holdout: int
    trials: int
    adapters: int
    cells: int
    steps: int
    smallest: int
    largest: int
    head_parameters: int
    bits: float | None
    seconds: float
    memory: dict[str, int]
    packs: tuple[str, ...]
    workers: str
    later: int
    later_seconds: float
    baselines: Mapping[str, tuple[int, float]]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The plan as a person reads it."""
        total = sum(self.memory.values())
        parts = ", ".join(f"{part} {_mebibytes(size)}" for part, size in self.memory.items())
        cv = self.experiment.cv
        repeats = f" x {cv.repeats} repeats" if cv.repeats > 1 else ""
        folds = f"{cv.folds} folds{repeats}"
        head = f", and {self.head_parameters:,} in the head" if self.head_parameters else ""
        compared = f"{counted(self.trials, 'trial')} x {folds} = {self.cells} trainings"
        if self.adapters:
            limit = f"{self.cells} trainings and some for the rates"
            if self.experiment.search.cells is not None:  # one adapter is trained to the end whatever
                limit = f"at most {max(self.experiment.search.cells, cv.folds * cv.repeats)} trainings"
            compared = f"{counted(self.adapters, 'adapter')}, each at its own learning rate, on {folds}: {limit}"
        return [
            *self.notes,
            f"data: {self.examples} examples in the folds, {self.holdout} held out",
            f"cells: {compared} of {self.steps} steps",
            f"adapters: {self.smallest:,} to {self.largest:,} parameters{head}",
            *([] if self.bits is None else [f"rule of thumb: {rule_of_thumb(self.bits, self.smallest, self.largest)}"]),
            *self.packs,
            f"machine: {self.device}, base in {self.precision}",
            f"workers: {self.workers}",
            f"memory: about {_mebibytes(total)} ({parts})",
            f"time: about {duration(max(1.0, self.seconds))}{self._by} if {self._stopped} is stopped early",
            *self._after(),
        ]

    def _after(self) -> list[str]:
        lines = []
        if self.later:
            later = f"then: at most about {counted(self.later, 'training')}, {duration(max(1.0, self.later_seconds))}: "
            lines.append(later + ", ".join(self._later_trainings()))
        if self.baselines:
            seconds = sum(of_each for _, of_each in self.baselines.values())
            trainings = sum(number for number, _ in self.baselines.values())
            names = ", ".join(
                f"{title_of(name, self.experiment.model.task)} {number}" for name, (number, _) in self.baselines.items()
            )
            about = f"about {duration(max(1.0, seconds))}"
            lines.append(f"to compare with: {counted(trainings, 'training')}, {about}: {names}")
        return lines

    @property
    def _by(self) -> str:
        """Whose time it is: what was measured is this process, and others may be elsewhere."""
        return "" if self.workers == THIS_PROCESS else " by one worker"

    @property
    def _stopped(self) -> str:
        return "no adapter" if self.adapters else "no trial"

    def _later_trainings(self) -> list[str]:
        extra = self.experiment.verdict.extra_repeats and self.trials > 1
        parts = {"extra repeats of the finalists": extra, "the hold-out": self.holdout}
        return [part for part, there in parts.items() if there]


def plan_study(experiment: Experiment | str | Path) -> Plan:
    """Check everything a run would check, measure a few steps, and train nothing that is kept.

    Args:
        experiment: an Experiment, or the path of its TOML file.

    Raises:
        InputError: as a run would.
    """
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment)
    with quiet_libraries(), plain_torch():
        return _plan(experiment)


def _plan(experiment: Experiment) -> Plan:
    prepared = with_explained(prepare(experiment), {})
    check_baselines(prepared)
    workers = workers_sentence(experiment.execution)
    tried = check_export(prepared)
    dtype = measured_dtype(prepared)
    settings = EngineSettings(prepared.device, dtype, lanes=lanes_of(prepared.device))
    engine = Engine(prepared.base, prepared.data, experiment.training, settings)
    dtype = engine.settings.dtype
    by_depth = _specs_by_depth(prepared)
    first, adapters, trials, cells = _first_packs(prepared)
    # so many of a depth at a time later on, when racing goes by single folds
    usual = max(1, round(min(trials, GENERATION) / len(by_depth)))
    most = max(usual, *(pack.cells for pack in first))
    shown = task_of(experiment.model.task).shown(prepared.data, prepared.base.tokenizer)
    lowest = prepared.cell(CellKey(0, 0, 0), *_trial(prepared, by_depth[min(by_depth)][0]))
    engine.memory.provide_for([lowest] * most)  # so that what is timed is what would run
    share = {depth: len(specs) for depth, specs in by_depth.items()}
    seconds = {depth: _cell_seconds(prepared, engine, specs, usual) for depth, specs in by_depth.items()}
    later = _most_later(experiment, trials)
    mean = sum(seconds[depth] * share[depth] for depth in seconds) / sum(share.values())
    sizes = [
        prepared.adapter_parameters(experiment.search.adapter(rank, 1.0, *choice, use_dora, pattern))
        for choice in prepared.modules
        for rank in experiment.search.rank
        for use_dora in experiment.search.use_dora
        for pattern in experiment.search.rank_pattern
    ]
    return Plan(
        experiment=experiment,
        notes=(*prepared.notes, *([] if shown is None else [shown]), *tried, *engine.notes),
        device=str(prepared.device),
        precision=_precision(prepared, dtype),
        examples=len(prepared.splits.development),
        labels=prepared.data.label_names,
        holdout=len(prepared.splits.holdout),
        trials=trials,
        adapters=adapters,
        cells=cells,
        steps=-(-len(lowest.train) // experiment.training.batch_size) * experiment.training.epochs,
        smallest=min(sizes),
        largest=max(sizes),
        head_parameters=prepared.base.structure.head_parameters,
        bits=information(prepared),
        seconds=mean * cells,
        workers=workers,
        later=later,
        later_seconds=mean * later,
        baselines=_baselines(prepared, engine, seconds[max(seconds)]),
        memory=_memory(prepared, engine, max(sizes), [lowest] * most),
        packs=(
            *(f"pack: {pack.title} on {_layers(pack.depth, prepared)}" for pack in first),
            *(f"training: {_seconds(seconds[depth])} on {_layers(depth, prepared)}" for depth in sorted(by_depth)),
        ),
    )


@dataclass(frozen=True)
class _Pack:
    """A pack a study would train: how many cells, their lowest layer, and what progress would call it."""

    cells: int
    depth: int
    title: str


def _first_packs(prepared: Prepared) -> tuple[list[_Pack], int, int, int]:
    """The packs of the first rung, which are known before anything is trained: asked for as a run would, in a study
    that is thrown away. And how many adapters are compared at rates of their own, the trials, and the trainings
    ahead."""
    experiment = prepared.experiment
    with quiet_optuna(), tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / experiment.name
        with Ledger.open(where, experiment, describe_environment(prepared)) as ledger:
            search = search_of(prepared, ledger)
            step = next(iter(search.steps()))
            lacking, unasked = search.ahead()
            trials = {record.trial: record for record in ledger.trials()}
    packs = packs_of(prepared, trials, step.cells)
    first = [_Pack(len(pack), prepared.depth(trials[pack[0].trial].adapter), pack_title(pack)) for pack in packs]
    adapters = search.adapters if isinstance(search, RateSearch) else 0
    return first, adapters, search.total, sum(cells for cells, _ in lacking) + unasked


def _most_later(experiment: Experiment, trials: int) -> int:
    """Trainings after the trials, at most and about: extra repeats where no number of them would decide, and the
    hold-out. Baselines are counted apart."""
    folds = experiment.cv.folds
    extra = experiment.verdict.extra_repeats * folds * min(trials, CONTENDERS) if trials > 1 else 0
    return extra + (1 if experiment.data.holdout else 0)


def _baselines(prepared: Prepared, engine: Engine, top_seconds: float) -> dict[str, tuple[int, float]]:
    """Trainings of each baseline, and the seconds of all of them.

    Args:
        prepared: the experiment. engine: of the study.
        top_seconds: of a training of an adapter on the fewest layers, which one of the head alone takes no more than.
    """
    found: dict[str, tuple[int, float]] = {}
    for part in baseline_parts(prepared):
        number, seconds = found.get(part.baseline, (0, 0.0))
        if part.baseline in WHOLE and not number:
            each = _whole_seconds(prepared, engine, part)
        elif part.baseline in WHOLE:
            each = seconds / number
        else:
            each = top_seconds if part.baseline == "head" else 0.0
        found[part.baseline] = number + len(part.keys), seconds + each * len(part.keys)
    return found


def _whole_seconds(prepared: Prepared, engine: Engine, part: Part) -> float:
    """Of one training of a part, from two batches of it after one to warm up."""
    training = prepared.experiment.training
    full = baseline_cell(prepared, part.keys[0])
    few = replace(full, train=full.train[: 2 * training.batch_size], evaluate=full.evaluate[:0])
    whole = WholeModel(engine, part.baseline)  # type: ignore[arg-type]
    whole.train(replace(few, train=few.train[: training.batch_size]), epochs=1)
    start = time.perf_counter()
    whole.train(few, epochs=1)
    per_example = (time.perf_counter() - start) / len(few.train)
    return per_example * (len(full.train) * training.epochs + len(full.evaluate) / 3)


def _layers(depth: int, prepared: Prepared) -> str:
    last = prepared.base.structure.layer_count - 1
    return f"layers {depth} to {last}" if depth < last else f"layer {last}"


def _specs_by_depth(prepared: Prepared) -> dict[int, list[AdapterSpec]]:
    """One adapter of middle rank per (targets, layers), by its lowest layer."""
    search = prepared.experiment.search
    rank = sorted(search.rank)[len(search.rank) // 2]
    found: dict[int, list[AdapterSpec]] = {}
    for targets, layers in prepared.modules:
        spec = search.adapter(rank, 1.0, targets, layers, search.use_dora[-1])
        found.setdefault(prepared.depth(spec), []).append(spec)
    return found


def _trial(prepared: Prepared, spec: AdapterSpec) -> tuple[AdapterSpec, Nuisance]:
    return spec, Nuisance(learning_rate=prepared.experiment.search.rates.low)


def _cell_seconds(prepared: Prepared, engine: Engine, specs: Sequence[AdapterSpec], together: int) -> float:
    """Estimated seconds of one cell in a pack of ``together``, from a few steps and a few evaluated examples.

    An evaluated example costs about a third of a trained one: no backward.
    """
    batch, epochs = prepared.experiment.training.batch_size, prepared.experiment.training.epochs
    full = prepared.cell(CellKey(0, 0, 0), *_trial(prepared, specs[0]))
    few = min(len(full.train), max(1, _STEPS * batch // epochs))
    cells = [
        replace(
            full,
            key=CellKey(slot, 0, 0),
            adapter=spec,
            modules=prepared.modules_of(spec),
            ranks=prepared.ranks_of(spec),
            train=full.train[:few],
            evaluate=full.evaluate[:few],
        )
        for slot, spec in enumerate((list(specs) * together)[:together])
    ]
    nothing = np.empty(0, dtype=np.int64)
    single = [replace(cell, train=cell.train[:batch], evaluate=nothing) for cell in cells]
    engine.train(single, pack=-1)  # fills the prefix cache and warms up
    short, long = [], []
    for _ in range(_MEASUREMENTS):
        start = time.perf_counter()
        engine.train(single, pack=-1)
        between = time.perf_counter()
        engine.train(cells, pack=-1)
        short.append(between - start)
        long.append(time.perf_counter() - between)
    measured = (few - min(batch, few)) * epochs + len(cells[0].evaluate) / 3
    more = min(long) - min(short)
    if more <= 0:  # lost in the noise of a busy machine: at most all that the longer one took
        more = min(long)
    per_example = more / max(1.0, measured)
    return per_example * (len(full.train) * epochs + len(full.evaluate) / 3) / together


def _memory(prepared: Prepared, engine: Engine, largest: int, cells: Sequence[Cell]) -> dict[str, int]:
    structure = prepared.base.structure
    base = stored_bytes(prepared.base.model)
    if engine.forward.model is not prepared.base.model:
        base += stored_bytes(engine.forward.model)
    copies = _OPTIMIZER_COPIES + engine.lanes
    return {
        "base": base,
        "adapters and optimizer": len(cells) * (largest + structure.head_parameters) * 4 * copies,
        "activations": engine.memory.activation_bytes(cells, checkpointing=engine.memory.checkpointing),
        "prefix cache": engine.forward.prefix.bytes_in_memory,
    }


def _precision(prepared: Prepared, dtype: torch.dtype) -> str:
    """``bf16``; ``nf4, computed in bf16`` of a base in 4 bits."""
    name, kept = "bf16" if dtype == torch.bfloat16 else "fp32", prepared.base.quantization
    return name if kept is None else f"{kept.kind}, computed in {name}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _mebibytes(size: float) -> str:
    if size >= 1024**3:
        return f"{size / 1024**3:.1f} GiB"
    return f"{size / 1024**2:.0f} MiB" if size >= 1024**2 else "under 1 MiB"
