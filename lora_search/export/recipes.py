"""Recipes: the found adapter as a script or config for another trainer, with the training examples it reads.

A recipe trains on the examples of the study, written out as they were used: other trainers cannot drop labels, sample
or set aside a hold-out the way the study did. What a trainer cannot do is said in its file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from lora_search.data import Dataset
from lora_search.errors import InputError
from lora_search.export import RECIPES
from lora_search.export.rendering import render
from lora_search.handover import Loading
from lora_search.spec import UNIFORM, closest
from lora_search.spec.quoting import quoted
from lora_search.spec.suggestions import one_of
from lora_search.study import Prepared
from lora_search.study.refit import ChosenTrial
from lora_search.training.batches import step_count

_FILES = {"trl": "train.py", "axolotl": "axolotl.yaml", "llamafactory": "llamafactory.yaml"}
_METRIC_FUNCTIONS = {"accuracy": "accuracy_score", "macro_f1": "f1_score", "matthews_correlation": "matthews_corrcoef"}
_FILE_ARGUMENTS = ("revision", "gguf_file", "trust_remote_code")
_LABEL_TOKENS = 16  # room for "Label:" and a label's name behind a text of full length
_LOGS_PER_RUN = 10


@dataclass(frozen=True, eq=False)
class Recipe:
    """One recipe, ready to be written.

    Attributes:
        trainer: one of ``RECIPES``.
        chosen, config: the trial and its ``adapter_config.json``.
        prepared, dataset: the study's data and model, and its texts.
        loading: how the base is loaded.
    """

    trainer: str
    chosen: ChosenTrial
    config: Mapping[str, Any]
    prepared: Prepared
    dataset: Dataset
    loading: Loading

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, as sentences."""
        notes = ["recipe/ holds the training examples as text; leave it out when you publish the adapter."]
        if (obstacle := self._obstacle()) is not None:
            notes.insert(
                0, f"recipe/{_FILES[self.trainer]} has the settings and cannot be run on this base: {obstacle}."
            )
        return tuple(notes)

    def write(self, folder: Path) -> None:
        """Write the recipe and its data into a new folder ``recipe`` in ``folder``."""
        target = folder / "recipe"
        target.mkdir()
        file = _FILES[self.trainer]
        (target / file).write_text(render(f"{file}.jinja", self._context()), encoding="utf-8")
        splits, rows = self.prepared.splits, self._labelled if self.trainer == "trl" else self._answered
        _write_rows(target / "train.jsonl", rows(splits.development))
        if len(splits.holdout):
            _write_rows(target / "holdout.jsonl", rows(splits.holdout))
        if self.trainer == "llamafactory":
            columns = {"prompt": "prompt", "response": "response"}
            information = {"study": {"file_name": "train.jsonl", "columns": columns}}
            (target / "dataset_info.json").write_text(json.dumps(information, indent=2) + "\n", encoding="utf-8")

    def _context(self) -> dict[str, Any]:
        experiment, tokenizer = self.prepared.experiment, self.prepared.base.tokenizer
        training = experiment.training
        steps = step_count(len(self.prepared.splits.development), training.batch_size, training.epochs)
        length = int(self.prepared.data.report.max_length or experiment.data.max_length)
        return {
            "file": _FILES[self.trainer],
            "trial": self.chosen.trial,
            "study": experiment.name,
            "adapter": str(self.chosen.adapter),
            "config": self.config,
            "lora_target": ",".join(module.name for module in self.prepared.modules_of(self.chosen.adapter)),
            "base": self.loading.base,
            "auto_class": self.loading.auto_class,
            "resized": "ignore_mismatched_sizes" in self.loading.model,
            "quantization": self.loading.quantization,
            "skipped": list(self.loading.skipped),
            "files": {key: value for key, value in self.loading.model.items() if key in _FILE_ARGUMENTS},
            "revision": experiment.model.revision,
            "trust_remote_code": experiment.model.trust_remote_code,
            "pad_token": tokenizer.pad_token if tokenizer.pad_token == tokenizer.eos_token else None,
            "labels": list(self.prepared.base.label_names),
            "pairs": self.loading.pairs,
            "encoding": {key: value for key, value in self.loading.tokenizer.items() if key != "padding"},
            "training": training,
            "learning_rate": self.chosen.nuisance.learning_rate,
            "warmup_steps": int(np.ceil(steps * training.warmup_ratio)),
            "logging_steps": max(1, steps // _LOGS_PER_RUN),
            "sequence_length": length + _LABEL_TOKENS,
            "seed": experiment.seed,
            "holdout": len(self.prepared.splits.holdout) > 0,
            "metric": experiment.verdict.metric,
            "metric_function": _METRIC_FUNCTIONS[experiment.verdict.metric],
            "obstacle": self._obstacle(),
        }

    def _labelled(self, examples: NDArray[np.int64]) -> Iterable[dict[str, str]]:
        """text, text_pair and label."""
        for example in examples:
            row = {"text": self.dataset.texts[example]}
            if self.dataset.pairs is not None:
                row["text_pair"] = self.dataset.pairs[example]
            yield {**row, "label": self.dataset.label_names[self.dataset.labels[example]]}

    def _answered(self, examples: NDArray[np.int64]) -> Iterable[dict[str, str]]:
        """The texts as a prompt, the label as the response to it."""
        for row in self._labelled(examples):
            texts = [row["text"], *([row["text_pair"]] if "text_pair" in row else [])]
            yield {"prompt": "\n".join([*texts, "Label: "]), "response": row["label"]}

    def _obstacle(self) -> str | None:
        """Why the trainer cannot train on this base; None where it can."""
        model = self.prepared.base.model
        kind = model.config.get_text_config().model_type
        if self.trainer == "trl":
            return None
        if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
            return f"{self.trainer} trains models that generate text, and {type(model).__name__} is an encoder"
        if self.loading.checkpoint.gguf_file is not None:
            return f"{self.trainer} has no setting for a GGUF file"
        return None


def check_recipe(trainer: str | None, chosen: ChosenTrial, task: str = "text-classification") -> None:
    """Check a recipe before anything is computed.

    Raises:
        InputError: no such trainer, or one that cannot express the adapter.
    """
    if trainer is None:
        return
    if trainer not in RECIPES:
        near = closest(trainer, RECIPES)
        raise InputError.about("recipe", one_of(RECIPES), got=quoted(trainer), meant=near)
    if task != "text-classification":
        rule = f"must be left out for {task}: recipes are of text classification"
        raise InputError.about("recipe", rule, got=quoted(trainer))
    if trainer != "trl" and chosen.adapter.bias != "none":
        rule = "must be trl for an adapter that trains biases, for which the others have no setting"
        raise InputError.about("recipe", rule, got=f"{trainer} for trial {chosen.trial}")
    if trainer == "llamafactory" and chosen.adapter.rank_pattern != UNIFORM:
        rule = "must be trl or axolotl for an adapter whose ranks differ by module, for which it has no setting"
        raise InputError.about("recipe", rule, got=f"{trainer} for trial {chosen.trial}")
    # where ranks differ by module alphas do, in proportion: all are whole if that of rank 1 is
    uneven = chosen.adapter.rank_pattern != UNIFORM and not chosen.adapter.alpha_at(1).is_integer()
    if trainer != "trl" and (uneven or not chosen.adapter.alpha.is_integer()):
        raise InputError.about(
            "recipe",
            f"must be trl for an adapter whose alpha is no whole number{' on every module' if uneven else ''}",
            got=f"{trainer} for trial {chosen.trial} with alpha {chosen.adapter.alpha:g}",
        )


def _write_rows(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
