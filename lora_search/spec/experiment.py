"""What the user writes: one experiment, validated into frozen objects.

The objects know the rules of the file (types, ranges, spelling) and nothing of models or data: whether ``q_proj``
exists in the model, or column ``category`` in the table, is found out where the model and the table are opened.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, Literal

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from lora_search.metrics import VERDICT_METRICS, has_own_unit
from lora_search.spec.adapter import AdapterSpec, Bias, Scaling
from lora_search.spec.baselines import BaselinesSpec
from lora_search.spec.execution import ExecutionSpec
from lora_search.spec.fields import (
    SHORTEST_LENGTH,
    Columns,
    DoraChoices,
    Dropouts,
    LayerChoices,
    LearningRate,
    MetricName,
    Range,
    RankPatterns,
    Ranks,
    Ratios,
    Section,
    TargetChoices,
    Texts,
    WordColumn,
)
from lora_search.spec.names import LONGEST_STUDY_NAME, STUDY_NAME, UNIFORM

ANY_RATE = Range(low=1e-6, high=1.0)
"""Where the best learning rate is looked for if the user says nothing: no LoRA has needed more or less."""


class ModelSpec(Section):
    """``[model]``: the frozen base.

    ``base`` is a hub id, a local folder or ``package:NAME/PATH``. ``gguf_file`` names a GGUF file inside the folder.
    ``quantization`` keeps the matrices of its layers in 4 bits by bitsandbytes, as QLoRA has it; adapters stay float32.
    """

    base: str = Field(min_length=1)
    task: Literal[
        "text-classification", "multi-label-classification", "regression", "token-classification", "causal-lm"
    ] = "text-classification"
    revision: str | None = None
    gguf_file: str | None = None
    quantization: Literal["nf4", "fp4"] | None = None
    trust_remote_code: bool = False


class DataSpec(Section):
    """``[data]``: where the labelled examples are and how to read them.

    ``train`` is a path, ``package:NAME/PATH`` or ``hub:OWNER/NAME`` (with ``config`` and ``split``). ``holdout`` is the
    share set aside before any fold. ``max_examples`` takes a stratified sample. Examples of one ``group`` never
    straddle folds. Of the columns, ``text``, ``text_pair`` and ``label`` are those of text classification; of
    regression, whose labels are numbers; and of multi-label classification, whose ``label`` is a column of lists,
    of texts in which ``label_separator`` stands between labels, or several columns of 0 and 1; token classification
    reads ``tokens`` and ``tags``, and ``scheme`` says how tags mark entities (``"auto"`` finds out). A causal
    language model reads ``messages``, ``prompt`` and ``completion``, or ``text``, and ``format`` says which
    (``"auto"`` goes by the columns).
    """

    train: str = Field(min_length=1)
    text: str = "text"
    text_pair: str | None = None
    label: Columns = "label"
    label_separator: str | None = Field(default=None, min_length=1)
    tokens: WordColumn | None = None
    tags: WordColumn | None = None
    scheme: Literal["auto", "IOB1", "IOB2", "BIOES", "BILOU"] | None = None
    format: Literal["auto", "messages", "sharegpt", "prompt-completion", "alpaca", "text"] | None = None
    messages: str | None = None
    prompt: str | None = None
    completion: str | None = None
    drop_labels: Texts = ()
    holdout: float = Field(default=0.0, ge=0, lt=0.9)
    max_examples: int | None = Field(default=None, ge=4, lt=2**63)
    max_length: int = Field(default=256, ge=SHORTEST_LENGTH, le=1_000_000)
    group: str | None = None
    config: str | None = None
    split: str = "train"

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels; one but for multi-label classification."""
        return (self.label,) if isinstance(self.label, str) else self.label


class CrossValidationSpec(Section):
    """``[cv]``: k folds, repeated over reshuffled partitions."""

    folds: int = Field(default=5, ge=2, le=50)
    repeats: int = Field(default=1, ge=1, le=50)


class SearchSpec(Section):
    """``[search]``: the scientific choices, the nuisance values and the number of trials.

    Ranks, ratios, targets, layers, dropouts, ``use_dora`` and ``rank_pattern`` are lists of choices, or one value.
    ``layers = [3, 4, 5]`` is one choice of three layers. A ``rank_pattern`` gives ``"mlp:0.5"`` modules of a kind so
    many times the rank, with alpha, or has ``"eva"`` spread the ranks of all modules by what the inputs of each hold.
    All adapters have one ``scaling`` (``"rslora"``: alpha over the root of the rank) and one ``bias`` (``"lora_only"``:
    those of the adapted modules are trained too). ``learning_rate`` is found for every adapter, anywhere (``"auto"``)
    or within ``{low, high}``; one value is the same for all. ``trials`` are settings tried: an adapter at two rates is
    two trials. ``cells`` limits the trainings before the finalists' extra repeats; adapters that are left without are
    the least promising.
    """

    rank: Ranks = Field(default=(1, 2, 4, 8, 16))
    alpha_over_rank: Ratios = Field(default=(1.0, 2.0))
    targets: TargetChoices = Field(default=("query+value", "attention", "all-linear"))
    layers: LayerChoices = Field(default=("all", "top-1/2", "top-1/3"))
    scaling: Scaling = "lora"
    use_dora: DoraChoices = Field(default=(False,))
    bias: Bias = "none"
    rank_pattern: RankPatterns = Field(default=(UNIFORM,))
    learning_rate: LearningRate = "auto"
    dropout: Dropouts = Field(default=(0.0,))
    trials: int = Field(default=24, ge=1, le=100_000)
    cells: int | None = Field(default=None, ge=1, le=10_000_000)

    @property
    def tunes_rate(self) -> bool:
        """Whether each adapter's learning rate is looked for."""
        return not isinstance(self.learning_rate, float)

    @property
    def rates(self) -> Range:
        """The least and the greatest learning rate that may be tried; one value is both."""
        if isinstance(self.learning_rate, float):
            return Range.model_construct(low=self.learning_rate, high=self.learning_rate)
        return ANY_RATE if self.learning_rate == "auto" else self.learning_rate

    @property
    def points(self) -> int | None:
        """How many different trials there can be; None where learning rates are looked for, and they are endless."""
        return None if self.tunes_rate else self.combinations * len(self.dropout)

    @property
    def combinations(self) -> int:
        """Of the scientific choices; each is an adapter, but for patterns of ranks that come to the same ranks."""
        return math.prod(len(values) for values in self._choices)

    @property
    def _choices(self) -> tuple[Sequence[Any], ...]:
        return self.rank, self.alpha_over_rank, self.targets, self.layers, self.use_dora, self.rank_pattern

    def adapter(
        self,
        rank: int,
        alpha_over_rank: float,
        targets: str,
        layers: str,
        use_dora: bool | None = None,
        rank_pattern: str | None = None,
    ) -> AdapterSpec:
        """An adapter of these choices; ``use_dora`` and ``rank_pattern`` may be left out where they are none."""
        return AdapterSpec(
            rank=rank,
            alpha=alpha_over_rank * rank,
            targets=targets,
            layers=layers,
            scaling=self.scaling,
            use_dora=self.use_dora[0] if use_dora is None else use_dora,
            bias=self.bias,
            rank_pattern=self.rank_pattern[0] if rank_pattern is None else rank_pattern,
        )

    def adapters(self) -> Iterator[AdapterSpec]:
        """One for every combination of the scientific choices."""
        return (self.adapter(*chosen) for chosen in product(*self._choices))

    @property
    def total(self) -> int:
        """Trials a study makes: those asked for, or every point of a space that has fewer."""
        return self.total_among(None)

    def total_among(self, adapters: int | None) -> int:
        """The same, where it is known how many different adapters there are, if two choices may be one (None: no)."""
        points = self.points
        if points is not None and adapters is not None:
            points = adapters * len(self.dropout)
        return self.trials if points is None else min(self.trials, points)

    @field_validator("rank", "alpha_over_rank", "targets", "layers", "use_dora", "rank_pattern", "dropout")
    @classmethod
    def _distinct(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("must not be empty")
        if len(set(value)) < len(value):
            raise ValueError("must not repeat a choice")
        return value


class TrainingSpec(Section):
    """``[training]``: what is the same for every cell.

    Batches are of ``batch_size`` examples; the learning rate warms up over ``warmup_ratio`` of the steps, then decays
    linearly to zero; gradients are clipped to ``max_grad_norm`` per adapter. The learning rate is A's; that of B and of
    all vectors is ``loraplus_lr_ratio`` times it (LoRA+). ``gradient_checkpointing`` computes layers twice to keep less
    of them in memory, for the same result; auto does where memory is short. With ``stop_stalled`` a training of the
    search that still answers like one who knows nothing after half of its steps ends there.
    """

    epochs: int = Field(default=3, ge=1, le=10_000)
    batch_size: int = Field(default=16, ge=1, le=1_000_000)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0, le=1000)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    loraplus_lr_ratio: float = Field(default=1.0, ge=1, le=1e6)
    gradient_checkpointing: Literal["auto", True, False] = "auto"
    stop_stalled: bool = True


class VerdictSpec(Section):
    """``[verdict]``: the metric, how much worse is acceptable (in metric points; of an error in its unit, which has no
    default) and how sure to be.

    ``extra_repeats`` are repeats beyond ``cv.repeats`` that the few trials deciding the verdict may get.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"properties": {"metric": {"enum": [name for name in VERDICT_METRICS if has_own_unit(name)]}}},
                {"properties": {"margin": {"exclusiveMaximum": 1}}},
            ]
        }
    )

    metric: MetricName
    margin: float = Field(default=0.01, ge=0)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    extra_repeats: int = Field(default=3, ge=0, le=50)

    @field_validator("margin")
    @classmethod
    def _below_one(cls, value: float, info: ValidationInfo) -> float:
        """A score is a share, and a loss of one nat is no small one; an error in the unit of the label may be large."""
        if value >= 1 and not has_own_unit(info.data.get("metric", "")):
            raise ValueError("must be below 1")
        return value


class Experiment(Section):
    """One experiment, resolved: every default filled in, nothing left to guess."""

    name: str = Field(pattern=STUDY_NAME, max_length=LONGEST_STUDY_NAME)
    seed: int = Field(default=0, ge=0, lt=2**32)
    model: ModelSpec
    data: DataSpec
    cv: CrossValidationSpec = CrossValidationSpec()
    search: SearchSpec = SearchSpec()
    training: TrainingSpec = TrainingSpec()
    baselines: BaselinesSpec = BaselinesSpec()
    execution: ExecutionSpec = ExecutionSpec()
    verdict: VerdictSpec
