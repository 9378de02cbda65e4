"""The proof that a written folder is the adapter meant: it is loaded as its model card says, and must predict what our
own model predicts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoConfig, AutoTokenizer

from lora_search.data import Dataset, EncodedExamples
from lora_search.data.chat_encoding import EncodedExchanges, rows_of_tokens
from lora_search.errors import LoraSearchError, ModelError
from lora_search.handover.loading import Loading
from lora_search.models import FrozenBase
from lora_search.models.quantization import loaded_in, skip_in
from lora_search.spec.quoting import quoted_path
from lora_search.tasks import Objective, RowTexts, Standardises, task_of

TOLERANCE = 1e-4
"""Most that a class probability may differ, what is predicted per unit of the loss, or a number in its standard
deviations."""
_LOG_TOLERANCE = 1e-3  # of log probabilities, absolute and relative: a saturated probability hides a wrong logit
_MOST_EXAMPLES = 64
_BATCH = 16
_ROWS_OF_LOGITS = 2  # whose logits of every token are made here, as others would


def check_reload(
    folder: Path,
    predict: Callable[[NDArray[np.int64]], NDArray[np.float32]],
    base: FrozenBase,
    data: EncodedExamples,
    dataset: Dataset,
    loading: Loading,
    most: int = _MOST_EXAMPLES,
    batch: int = _BATCH,
) -> float:
    """Load an adapter through PEFT in float32, and compare what it predicts with our own.

    Args:
        folder: its files and its tokenizer.
        predict: what our own model predicts of examples, (examples, columns), by their positions.
        base, data: what it predicts with.
        dataset: the texts of these examples.
        loading: how the folder is loaded.
        most: examples to predict, the shortest and the longest among them.
        batch: how many of about one length are padded to each other.

    Returns:
        The largest difference of a class probability, or of what the task predicts per unit of its loss.

    Raises:
        LoraSearchError: they differ by more than ``TOLERANCE``.
        ModelError: they are no finite numbers, as weights of the base are none.
    """
    task = task_of(base.head.task)
    examples = _sample(data.widths, most)
    objective = task.objective(data)
    ours = predict(examples)
    if not np.isfinite(ours).all():
        _check_finite(base, loading.checkpoint.name)
    answers = _answers_through_peft(folder, base, objective, data, task.texts(dataset, data, examples), loading, batch)
    theirs = objective.predictions(examples, answers) + np.float32(loading.offset)
    measure = objective.deviation if isinstance(objective, Standardises) else 1.0
    units = np.maximum(objective.units[examples], 1)[:, None] * measure
    difference = float(np.abs((ours - theirs) / units).max())
    logs_agree = not task.predicts_probabilities or np.allclose(
        _logs(ours), _logs(theirs), rtol=_LOG_TOLERANCE, atol=_LOG_TOLERANCE
    )
    if not (difference <= TOLERANCE and logs_agree):  # so that a NaN does not pass
        raise LoraSearchError(
            f"the exported adapter must predict what the trained model predicts, to {TOLERANCE:g}; loaded through PEFT"
            f" {version('peft')}, its {task.compared} differ by up to {difference:.2g} on {len(examples)} examples."
            " Nothing was written"
        )
    return difference


def _check_finite(base: FrozenBase, name: str) -> None:
    """Name a weight of the base that is to blame for predictions that are no finite numbers."""
    for weight, values in base.model.named_parameters():
        if not values.isfinite().all():
            got = f"NaN or infinite values in {weight} of {quoted_path(name)}"
            raise ModelError.about(
                "model.base", "must have finite weights, for what it predicts is not finite", got=got
            )


def _logs(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    """Natural logarithms, finite."""
    logs: NDArray[np.float64] = np.log(np.clip(probabilities.astype(np.float64), 1e-30, None))
    return logs


def _sample(lengths: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Examples spread over all lengths."""
    by_length = np.argsort(lengths, kind="stable")
    places = np.linspace(0, len(lengths) - 1, min(most, len(lengths))).round().astype(np.int64)
    return by_length[places]


@torch.no_grad()
def _answers_through_peft(
    folder: Path,
    base: FrozenBase,
    objective: Objective,
    data: EncodedExamples,
    texts: RowTexts,
    loading: Loading,
    size: int,
) -> list[NDArray[np.float32]]:
    """What the base and the adapter answer to some rows as their files are, each (...)."""
    kept = {} if loading.quantization is None else loading.quantization.loading
    files = loading.checkpoint.arguments
    arguments = {**files, **loading.model, **kept}
    if loading.skipped:
        config = AutoConfig.from_pretrained(loading.base, **{**files, **loading.config_arguments})
        skip_in(config, loading.skipped)
        arguments = {**files, **loading.model_arguments, **kept, "config": config}
    # of the caller's random numbers none is taken, though PEFT draws an A that what is loaded replaces
    with loading.checkpoint.reading(), torch.random.fork_rng(devices=[]):
        loaded = base.head.model_class.from_pretrained(loading.base, use_safetensors=True, **arguments)
    loaded_in(loaded, torch.float32, loading.quantization)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        # PEFT asks transformers for an old name, which is nothing the user could mend
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = PeftModel.from_pretrained(loaded, folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=loading.checkpoint.trust_remote_code)
    answers: list[NDArray[np.float32]] = []
    size = min(size, _ROWS_OF_LOGITS) if base.head.frozen else size
    for start in range(0, len(texts.rows), size):
        part = slice(start, start + size)
        if isinstance(data, EncodedExchanges):
            encoded = _padded(list(rows_of_tokens(data, texts.rows[part], tokenizer)))
        else:
            pairs = None if texts.pairs is None else list(texts.pairs[part])
            encoded = tokenizer(list(texts.texts[part]), pairs, return_tensors="pt", **loading.tokenizer)
        targets = torch.from_numpy(objective.targets[texts.rows[part]])
        answers.extend(objective.answers(model(**encoded).logits, targets).numpy())
    return answers


def _padded(rows: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
    """Token ids of one width, (rows, width), of which the mask alone says what is padding."""
    width = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), width, dtype=torch.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = torch.tensor(row)
        mask[place, : len(row)] = 1
    return {"input_ids": ids, "attention_mask": mask}
