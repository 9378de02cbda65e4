"""How the user loads the export, as values: the same arguments stand in the model card and are used for the check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from lora_search.export.config import base_location
from lora_search.models.checkpoint import Checkpoint, find_checkpoint
from lora_search.study import Prepared
from lora_search.training.inputs import takes_types


@dataclass(frozen=True)
class Loading:
    """What ``from_pretrained`` and the tokenizer are given.

    Attributes:
        base: hub id or absolute folder of the base.
        auto_class: name of the class of transformers that loads it.
        model: keyword arguments for the base. The names of the labels are the base's to know, for an adapter has no
            place for them; with them come the number of labels and, where the base has none, a padding token.
        tokenizer: keyword arguments for encoding texts.
        pairs: whether texts come in pairs.
        checkpoint: the base's files.
    """

    base: str
    auto_class: str
    model: dict[str, Any]
    tokenizer: dict[str, Any]
    pairs: bool
    checkpoint: Checkpoint


def loading_of(prepared: Prepared) -> Loading:
    """How an export of this experiment is loaded."""
    spec, data, head = prepared.experiment.model, prepared.data, prepared.base.head
    checkpoint = find_checkpoint(spec)
    arguments: dict[str, Any] = {**head.labels, "dtype": "float32"}
    padding = prepared.base.tokenizer.pad_token_id
    with checkpoint.reading():
        own = AutoConfig.from_pretrained(checkpoint.source, **checkpoint.arguments)
    if own.get_text_config().pad_token_id != padding:
        arguments["pad_token_id"] = padding
    if own.num_labels != len(head.label_names) and any("Classification" in name for name in own.architectures or ()):
        # somebody's classifier is in the checkpoint, of another size than ours
        arguments["ignore_mismatched_sizes"] = True
    if spec.revision is not None:
        arguments["revision"] = spec.revision
    if checkpoint.gguf_file is not None:
        arguments["gguf_file"] = checkpoint.gguf_file
    if spec.trust_remote_code:
        arguments["trust_remote_code"] = True
    encoding: dict[str, Any] = {"truncation": True, "max_length": data.report.max_length, "padding": True}
    if data.token_type_ids is not None and not takes_types(prepared.base.model):
        encoding["return_token_type_ids"] = False
    pairs = prepared.experiment.data.text_pair is not None
    return Loading(base_location(spec), head.auto_class, arguments, encoding, pairs, checkpoint)
