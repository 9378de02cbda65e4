"""How the user loads the export, as values: the same arguments stand in the model card and are used for the check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig

from lora_search.data import EncodedExamples
from lora_search.data.chat_encoding import EncodedExchanges
from lora_search.data.tagged_encoding import space_before
from lora_search.handover.answers import offset_of
from lora_search.handover.config import base_location
from lora_search.models import FrozenBase, positions_follow_padding
from lora_search.models.checkpoint import Checkpoint, find_checkpoint
from lora_search.models.quantization import Quantization
from lora_search.spec import ModelSpec
from lora_search.tasks import task_of
from lora_search.training.inputs import takes_types

_OF_FILES = ("revision", "gguf_file", "trust_remote_code")
_OF_THE_MODEL = ("dtype", "ignore_mismatched_sizes")


@dataclass(frozen=True)
class Loading:
    """What ``from_pretrained`` and the tokenizer are given.

    Attributes:
        base: hub id or absolute folder of the base.
        auto_class: name of the class of transformers that loads it.
        model: keyword arguments for the base. The names of the labels are the base's to know, for an adapter has no
            place for them; with them come the number of labels and, where the base pads otherwise, the padding token.
        tokenizer: keyword arguments for encoding texts.
        reading: Python that makes answers of what it is given (see ``Task``).
        pairs: whether texts come in pairs.
        spaced: of a task that reads words, what is put in front of each; None for any other.
        checkpoint: the base's files.
        generates: whether the model goes on with texts.
        talks: whether these are conversations, in its chat template.
        offset: what has to be added to the number it answers with; 0 where nothing has, and for what is no number.
        quantization: how the base is kept, if that is in 4 bits.
    """

    base: str
    auto_class: str
    model: dict[str, Any]
    tokenizer: dict[str, Any]
    reading: str
    pairs: bool
    spaced: str | None
    checkpoint: Checkpoint
    generates: bool = False
    talks: bool = False
    offset: float = 0.0
    quantization: Quantization | None = None

    @property
    def skipped(self) -> tuple[str, ...]:
        """What the config of a base that comes quantized has to be told to leave as it is. Where there is something,
        that config is given ``config_arguments``, and the model it and ``model_arguments``."""
        return self.quantization.skipped if self.quantization is not None and self.quantization.brought else ()

    @property
    def config_arguments(self) -> dict[str, Any]:
        """Those of ``model`` that are the config's."""
        return {key: value for key, value in self.model.items() if key not in _OF_THE_MODEL}

    @property
    def model_arguments(self) -> dict[str, Any]:
        """Those of ``model`` that are not the config's alone."""
        return {key: value for key, value in self.model.items() if key in (*_OF_THE_MODEL, *_OF_FILES)}


def loading_of(
    spec: ModelSpec, base: FrozenBase, data: EncodedExamples, train: NDArray[np.int64], *, pairs: bool
) -> Loading:
    """How an adapter of this base is loaded.

    Args:
        spec: ``[model]`` of the experiment.
        base: that model, loaded.
        data: the examples, encoded for it.
        train: those that are trained on.
        pairs: whether they are text pairs.
    """
    checkpoint = find_checkpoint(spec)
    arguments: dict[str, Any] = {**base.head.labels, **base.head.config, "dtype": "float32"}
    # a language model is told what is padding by the attention mask alone
    padding = None if base.head.frozen else base.tokenizer.pad_token_id
    with checkpoint.reading():
        own = AutoConfig.from_pretrained(checkpoint.source, **checkpoint.arguments)
    # Where positions are counted from the padding id, another one would move every token.
    moved = padding is not None and own.get_text_config().pad_token_id != padding
    if moved and not positions_follow_padding(base.model):
        arguments["pad_token_id"] = padding
    if base.resized:
        # somebody's head is in the checkpoint, of another size than ours
        arguments["ignore_mismatched_sizes"] = True
    if spec.revision is not None:
        arguments["revision"] = spec.revision
    if checkpoint.gguf_file is not None:
        arguments["gguf_file"] = checkpoint.gguf_file
    if spec.trust_remote_code:
        arguments["trust_remote_code"] = True
    encoding: dict[str, Any] = {"truncation": True, "max_length": data.report.max_length, "padding": True}
    if base.head.reads_words:
        encoding["is_split_into_words"] = True
    if data.token_type_ids is not None and not takes_types(base.model):
        encoding["return_token_type_ids"] = False
    spaced = None if not base.head.reads_words else space_before(base.tokenizer)
    return Loading(
        base_location(spec),
        base.head.auto_class,
        arguments,
        encoding,
        task_of(base.head.task).reading,
        pairs,
        spaced,
        checkpoint,
        generates=base.head.frozen,
        talks=isinstance(data, EncodedExchanges) and not data.adds_special,
        offset=offset_of(base, data, train),
        quantization=base.quantization,
    )
