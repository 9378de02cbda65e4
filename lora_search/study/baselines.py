"""What is no adapter and is compared with them, on the same folds, outside Optuna's space: which trainings there are,
and how each is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import get_args

from lora_search.errors import InputError
from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import BaselineKey, BaselineResult, CellKey, CellResult
from lora_search.study.preparation import Prepared
from lora_search.study.schedule import PACK_SLOTS
from lora_search.study.untrained import majority, tfidf
from lora_search.tasks import task_of
from lora_search.training import Cell, Engine, Step
from lora_search.training.memory import is_out_of_memory, release_memory
from lora_search.training.whole import Kind, WholeModel, has_biases

WHOLE: tuple[Kind, ...] = get_args(Kind)
"""Those that train a copy of the model, one training at a time."""
_PHRASES = {
    "majority": "the share of each label",
    "tfidf": "logistic regression on TF-IDF",
    "head": "the head alone",
    "hidden-state": "the hidden-state adapter",
    "bitfit": "BitFit",
    "full": "full fine-tuning",
}
_OF_NUMBERS = {"majority": "the mean", "tfidf": "ridge regression on TF-IDF"}
_WORK = {"full": 2.0, "bitfit": 1.3}
"""Of one training, per layer of the model, where a packed adapter's is 1; of the others as an adapter on one layer."""
_NO_RATE = 1.0  # a training is never without one; what has none does not look at it


@dataclass(frozen=True)
class Part:
    """What is trained at once.

    Attributes:
        baseline: which.
        keys: the trainings.
        work: in layers computed, as of cells.
        what: it is, in words.
    """

    baseline: str
    keys: tuple[BaselineKey, ...]
    work: float
    what: str

    @property
    def title(self) -> str:
        """``full fine-tuning at 3e-05, fold 2, to compare with``."""
        words = [self.what]
        if len(self.keys) == 1:
            key = self.keys[0]
            words[0] += "" if key.learning_rate is None else f" at {key.learning_rate:g}"
            words.append(f"fold {key.fold + 1}")
        return ", ".join([*words, "to compare with"])


def baseline_cell(prepared: Prepared, key: BaselineKey) -> Cell:
    """A training of a baseline as the engine knows it: of no modules, so that an adapter's rank means nothing."""
    nothing = AdapterSpec(rank=1, alpha=1.0, targets=prepared.experiment.search.targets[0])
    fold = prepared.splits.fold(key.repeat, key.fold)
    return Cell(
        CellKey(0, key.repeat, key.fold),
        nothing,
        Nuisance(learning_rate=key.learning_rate or _NO_RATE),
        (),
        fold.train,
        fold.evaluate,
        prepared.experiment.seed,
    )


def baseline_parts(prepared: Prepared) -> list[Part]:
    """Everything the experiment asks for, the cheapest first; nothing of a language model, which is compared with its
    base as it is."""
    if prepared.base.head.frozen:
        return []
    spec, folds = prepared.experiment.baselines, prepared.experiment.cv.folds
    layers = prepared.base.structure.layer_count
    titles = _PHRASES | (_OF_NUMBERS if task_of(prepared.experiment.model.task).on_words == "numbers" else {})
    parts: list[Part] = []
    for name in spec.ordered:
        keys = [BaselineKey(name, rate, 0, fold) for rate in spec.rates_of(name) for fold in range(folds)]
        together = 1 if name in WHOLE else PACK_SLOTS
        work = _WORK[name] * layers if name in _WORK else 1.0
        for start in range(0, len(keys), together):
            some = tuple(keys[start : start + together])
            parts.append(Part(name, some, work * len(some), titles[name]))
    return parts


def check_baselines(prepared: Prepared) -> None:
    """Check what the file alone does not tell.

    Raises:
        InputError: BitFit of a model that has no biases, or full fine-tuning of one that is quantized.
    """
    include = prepared.experiment.baselines.include
    if "full" in include and prepared.base.quantization is not None and not prepared.base.head.frozen:
        key, kind = f"baselines.include[{include.index('full')}]", prepared.base.quantization.kind
        rule = f"must be left out for a base in 4 bits ({kind}), whose weights are codes that no gradient moves"
        raise InputError.about(key, rule, got='"full"')
    if "bitfit" in include and not has_biases(prepared.base):
        name = type(prepared.base.model).__name__
        key = f"baselines.include[{include.index('bitfit')}]"
        raise InputError.about(key, f"must be left out for {name}, whose layers have no biases", got='"bitfit"')


class BaselineTrainer:
    """Trains parts over an engine.

    Args:
        prepared: the experiment.
        engine: of the study.
    """

    def __init__(self, prepared: Prepared, engine: Engine) -> None:
        self.prepared = prepared
        self.engine = engine
        self._whole: WholeModel | None = None

    def train(self, part: Part, listener: Callable[[Step], None]) -> list[BaselineResult] | None:
        """Train a part; None where memory has no room for it.

        The copy of the model that parts of one kind share is kept until ``forget``, or until a part of another kind.
        """
        try:
            return list(self._of_whole(part, listener) if part.baseline in WHOLE else self._of_part(part, listener))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.forget()
        release_memory(self.prepared.device)
        return None

    def forget(self) -> None:
        """Let go of the copy of the model."""
        self._whole = None

    def _of_whole(self, part: Part, listener: Callable[[Step], None]) -> Iterator[BaselineResult]:
        whole = self._whole
        if whole is None or whole.kind != part.baseline:
            whole = self._whole = None  # before the next copy of the model is made
            whole = self._whole = WholeModel(self.engine, part.baseline)  # type: ignore[arg-type]
        for key in part.keys:
            cell = baseline_cell(self.prepared, key)
            held = whole.step_bytes(cell)
            result = whole.train(cell, listener)
            yield BaselineResult(key, result, whole.trainable_parameters, held)

    def _of_part(self, part: Part, listener: Callable[[Step], None]) -> Iterator[BaselineResult]:
        cells = [baseline_cell(self.prepared, key) for key in part.keys]
        if part.baseline == "head":
            yield from self._heads(part, cells, listener)
            return
        answer = {"majority": majority, "tfidf": tfidf}[part.baseline]
        for key, cell in zip(part.keys, cells, strict=True):
            result, parameters = answer(self.prepared, cell)
            yield BaselineResult(key, result, parameters, None)

    def _heads(self, part: Part, cells: list[Cell], listener: Callable[[Step], None]) -> Iterator[BaselineResult]:
        """As adapters are trained, packed and over cached layers; where each is told from the others by a number."""
        numbered = [replace(cell, key=replace(cell.key, trial=place)) for place, cell in enumerate(cells)]
        held: dict[int, int] = {}  # of a fold the same at every rate
        for cell in cells:
            if cell.key.fold not in held:
                held[cell.key.fold] = self.engine.step_bytes(cell)

        def told(step: Step) -> None:
            """The numbers of the heads are none of trials, so nobody is told their losses."""
            listener(replace(step, losses={}))

        results: list[CellResult] = [trained.result for trained in self.engine.train(numbered, -1, told)]
        parameters = self.prepared.base.structure.head_parameters
        for key, result in zip(part.keys, results, strict=True):
            yield BaselineResult(key, result, parameters, held[key.fold])
