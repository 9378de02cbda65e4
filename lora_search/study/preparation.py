"""Everything a run needs before its first training: data, model, folds, and every choice of the space resolved.

All mistakes the user can have made show here, before a study folder is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import product

import torch

from lora_search.data import Dataset, EncodedExamples, Splits
from lora_search.errors import DataError, InputError, Mistake, ModelError
from lora_search.models import (
    Explained,
    FrozenBase,
    LinearModule,
    ModelStructure,
    check_device,
    load_base,
    module_ranks,
    position_limit,
    quantization_note,
    ranked_modules,
    resolve_targets,
    structure_notes,
    target_notes,
    trained_parameters,
)
from lora_search.spec import EVA, UNIFORM, AdapterSpec, Experiment, Nuisance
from lora_search.spec.experiment import SearchSpec
from lora_search.spec.fields import LARGEST_RANK
from lora_search.spec.quoting import quoted
from lora_search.store.records import CellKey
from lora_search.study.tokens import check_tokens
from lora_search.tasks import Task, check_keys, structure_of, task_of
from lora_search.training import Cell, choose_dtype

Ranked = tuple[tuple[LinearModule, ...], Mapping[str, int]]
"""The modules that an adapter adapts, and their ranks by name."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """An experiment with its data and model in hand.

    Attributes:
        modules: of every (targets, layers) of the space what they name.
        explained: what ranks by EVA follow from; None where the space has none, or before it is known.
    """

    experiment: Experiment
    base: FrozenBase
    dataset: Dataset
    data: EncodedExamples
    splits: Splits
    modules: dict[tuple[str, str], tuple[LinearModule, ...]]
    device: torch.device
    notes: tuple[str, ...]
    explained: Explained | None = None
    _ranked: dict[AdapterSpec, Ranked] = field(init=False, default_factory=dict, repr=False)

    def modules_of(self, adapter: AdapterSpec) -> tuple[LinearModule, ...]:
        """What an adapter spec of this experiment's space adapts."""
        return self._ranked_modules(adapter)[0]

    def ranks_of(self, adapter: AdapterSpec) -> Mapping[str, int]:
        """The ranks of these modules, by name; none of an adapter that has one rank."""
        return self._ranked_modules(adapter)[1]

    def named_by(self, adapter: AdapterSpec) -> tuple[LinearModule, ...]:
        """The modules that an adapter spec names, of which EVA may leave some as they are."""
        key = (adapter.targets, adapter.layers)
        return self.modules.get(key) or resolve_targets(self.base.structure, *key)

    def _ranked_modules(self, adapter: AdapterSpec) -> Ranked:
        if adapter not in self._ranked:
            self._ranked[adapter] = ranked_modules(self.named_by(adapter), adapter, self.explained)
        return self._ranked[adapter]

    def adapter_parameters(self, adapter: AdapterSpec) -> int:
        return trained_parameters(self.modules_of(adapter), adapter, self.ranks_of(adapter))

    def cell(self, key: CellKey, adapter: AdapterSpec, nuisance: Nuisance) -> Cell:
        """One training of one trial."""
        fold = self.splits.fold(key.repeat, key.fold)
        modules, ranks = self._ranked_modules(adapter)
        return Cell(key, adapter, nuisance, modules, fold.train, fold.evaluate, self.experiment.seed, ranks=ranks)

    def depth(self, adapter: AdapterSpec) -> int:
        """The lowest adapted layer."""
        return min(module.layer for module in self.modules_of(adapter))

    def most_layers(self) -> str:
        """Of the space's choices of layers the one that adapts the most."""
        search = self.experiment.search
        adapted = {
            layers: {module.layer for targets in search.targets for module in self.modules[targets, layers]}
            for layers in search.layers
        }
        return max(adapted, key=lambda layers: len(adapted[layers]))


def prepare(experiment: Experiment) -> Prepared:
    """Load and check everything.

    Raises:
        InputError: what the user can mend: the mistakes of the data, of the model and of the choices in it together.
    """
    task = task_of(experiment.model.task)
    check_keys(experiment, task)
    try:
        dataset = task.load(experiment.data, experiment.seed, experiment.cv.folds)
        splits = _split(experiment, task, dataset)  # what the texts alone say, before the model is read
    except InputError as error:
        if more := _mistakes_in_model(experiment):
            raise InputError([*error.details, *more]) from error
        raise
    base = load_base(experiment.model, task.head(dataset.label_names))
    modules = _resolved(experiment.search, base.structure)
    device = default_device()
    if base.quantization is not None:
        check_device(base.quantization, device)
    if experiment.training.precision != "auto":
        choose_dtype(experiment.training.precision, device, 1)
    data = task.encode(dataset, base.tokenizer, _max_length(experiment, base))
    if (data.groups != dataset.groups).any():
        splits = _split(experiment, task, replace(dataset, groups=data.groups, report=data.report))
    notes = [*data.report.sentences(), *check_tokens(experiment.model, base, data, dataset.rows[data.examples_of_rows])]
    if base.quantization is not None:
        notes.append(quantization_note(base.quantization, base.model, base.structure.stacks))
    notes.extend(structure_notes(base.structure))
    for targets in experiment.search.targets:
        notes.extend(target_notes(base.structure, targets))
    return Prepared(experiment, base, dataset, data, splits, modules, device, tuple(notes))


def _split(experiment: Experiment, task: Task, dataset: Dataset) -> Splits:
    """The folds; where there can be none, what is odd about the data is part of the answer."""
    try:
        return task.split(dataset, folds=experiment.cv.folds, holdout=experiment.data.holdout, seed=experiment.seed)
    except InputError as error:
        odd = (Mistake(warning, "data") for warning in dataset.report.warnings())
        raise DataError([*error.details, *odd]) from error


def _mistakes_in_model(experiment: Experiment) -> tuple[Mistake, ...]:
    """What can be said of model and choices without the labels, and without reading weights."""
    try:
        _resolved(experiment.search, structure_of(experiment.model))
    except InputError as error:
        return error.details
    return ()


def _resolved(search: SearchSpec, structure: ModelStructure) -> dict[tuple[str, str], tuple[LinearModule, ...]]:
    """The modules of every (targets, layers) of the space.

    Raises:
        InputError: every choice the model does not have; then every pair that names nothing.
    """
    choices = [(targets, "all") for targets in search.targets] + [("all-linear", layers) for layers in search.layers]
    for pairs in (choices, list(product(search.targets, search.layers))):
        found: dict[tuple[str, str], tuple[LinearModule, ...]] = {}
        mistakes: list[Mistake] = []
        for targets, layers in pairs:
            try:
                found[targets, layers] = resolve_targets(structure, targets, layers)
            except InputError as error:
                mistakes.extend(error.details)
        if mistakes:
            raise InputError(dict.fromkeys(mistakes))
    if search.bias != "none" and not any(module.has_bias for modules in found.values() for module in modules):
        rule = 'must be "none" for a model whose adapted modules have no bias'
        raise ModelError.about("search.bias", rule, got=quoted(search.bias))
    _check_patterns(search, list(found.values()))
    return found


def _check_patterns(search: SearchSpec, choices: Sequence[tuple[LinearModule, ...]]) -> None:
    """A pattern that is none for any choice is a slip: of the kind of module, or of targets without it.

    Raises:
        ModelError: such a one, or one with too large a rank.
    """
    mistakes = []
    for place, pattern in enumerate(search.rank_pattern):
        key, got = f"search.rank_pattern[{place}]", quoted(pattern)
        if pattern == EVA and all(len(modules) == 1 for modules in choices):
            mistakes.append(Mistake("must be left out for adapters of one module", key, got))
        if pattern in (UNIFORM, EVA):
            continue
        specs = [search.adapter(rank, 1.0, "", "", rank_pattern=pattern) for rank in search.rank]
        found = [set(module_ranks(modules, spec).values()) for modules in choices for spec in specs]
        if all(len(ranks) == 1 for ranks in found):
            rule = "must give some modules another rank than others, for one of the ranks, targets and layers"
            mistakes.append(Mistake(rule, key, got))
        if max(max(ranks) for ranks in found) > LARGEST_RANK:
            mistakes.append(Mistake(f"must give no module a rank above {LARGEST_RANK}", key, got))
    if mistakes:
        raise ModelError(mistakes)


def _max_length(experiment: Experiment, base: FrozenBase) -> int:
    """The experiment's limit, or the model's where that is lower."""
    limit = position_limit(base.model)
    return experiment.data.max_length if limit is None else min(experiment.data.max_length, limit)


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def measured_dtype(prepared: Prepared) -> torch.dtype:
    """The precision ``training.precision`` comes to on this machine."""
    width = min(prepared.base.structure.hidden_size, 1024)  # past which the rates hardly change
    return choose_dtype(prepared.experiment.training.precision, prepared.device, width)


class Terminated(KeyboardInterrupt):
    """SIGTERM: somebody ended this process, as by Ctrl-C, but not at its keyboard."""


@contextmanager
def terminated_as_interrupt() -> Iterator[None]:
    """SIGTERM inside the block is an interrupt: the state is saved and the way to resume is said, as for Ctrl-C.

    Raises:
        Terminated: where it arrived.
    """
    import signal
    import threading

    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
