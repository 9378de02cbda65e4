"""The loop people write against this project: Optuna, a fresh PEFT model and a ``Trainer`` with its defaults per cell.

Texts are tokenized beforehand, as ours are. The naive model runs in train mode, with the base's own dropout, as Trainer
runs it; ours runs the frozen base in eval mode (see the README). Without that dropout scores agree on average; not cell
by cell, for the order of examples is another.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import optuna
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from lora_search.models import peft_targets
from lora_search.study.preparation import Prepared
from lora_search.training import Cell


class Features(torch.utils.data.Dataset):
    """Token ids and labels of some examples, as Trainer wants them."""

    def __init__(self, prepared: Prepared, examples: np.ndarray) -> None:
        self.data, self.examples = prepared.data, examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = int(self.examples[index])
        ids = self.data.input_ids[example].tolist()
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(self.data.labels[example])}


def naive(
    prepared: Prepared, cells: list[Cell], base: Path, *, dropout: bool = True, bf16: bool = False
) -> list[float]:
    """The typical loop: a fresh PEFT model and a Trainer per cell; an Optuna study around it. Accuracy of each cell.

    ``dropout=False`` switches off the base's own, of BERT's names; ``bf16`` is ``Trainer``'s own switch, autocast.
    """
    spec = prepared.experiment.training
    changes = {} if dropout else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    scores: list[float] = []

    def objective(trial: optuna.Trial) -> float:
        cell = cells[trial.number]
        model = AutoModelForSequenceClassification.from_pretrained(
            base, num_labels=len(prepared.data.label_names), **changes
        )
        targets = peft_targets(prepared.base.structure, cell.modules)
        config = LoraConfig(
            task_type="SEQ_CLS",
            r=cell.adapter.rank,
            lora_alpha=cell.adapter.alpha,
            target_modules=targets.target_modules,
            layers_to_transform=targets.layers_to_transform,
        )
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=spec.epochs,
                per_device_train_batch_size=spec.batch_size,
                learning_rate=cell.nuisance.learning_rate,
                warmup_steps=spec.warmup_ratio,
                save_strategy="no",
                logging_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=cell.seed,
                bf16=bf16,
                use_cpu=prepared.device.type == "cpu",
            )
            trainer = Trainer(
                get_peft_model(model, config),
                arguments,
                train_dataset=Features(prepared, cell.train),
                eval_dataset=Features(prepared, cell.evaluate),
                data_collator=DataCollatorWithPadding(prepared.base.tokenizer),
                compute_metrics=lambda output: {
                    "accuracy": float((output.predictions.argmax(-1) == output.label_ids).mean())
                },
            )
            trainer.train()
            scores.append(trainer.evaluate()["eval_accuracy"])
        return scores[-1]

    optuna.create_study(direction="maximize").optimize(objective, n_trials=len(cells))
    return scores


def quiet() -> None:
    """No warnings and no progress bars from the libraries of the loop, which would print some per cell."""
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
