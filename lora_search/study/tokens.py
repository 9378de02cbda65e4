"""Whether the model can read what its tokenizer made of the data: an embedding for every id, a row for every type."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from lora_search.data import EncodedExamples
from lora_search.errors import ModelError
from lora_search.models import FrozenBase, no_embedding
from lora_search.spec import ModelSpec
from lora_search.spec.quoting import quoted, quoted_path
from lora_search.training.inputs import takes_types

_TYPE_TABLE = "token_type_embeddings"


def check_tokens(
    spec: ModelSpec, base: FrozenBase, data: EncodedExamples, rows: npt.NDArray[np.int64]
) -> tuple[str, ...]:
    """Check every id and token type of the data against the model's tables.

    Args:
        spec: ``[model]``, for messages.
        base: the model and its tokenizer.
        data: n examples.
        rows: (n,) their data row numbers.

    Returns:
        Notes, as sentences: tokens the model cannot read that the data do not have; usually none.

    Raises:
        ModelError: an id or a token type beyond a table; texts whose ends a model needs and cannot tell.
    """
    known, embeddings = base.tokenizer.get_vocab(), base.model.get_input_embeddings().weight.shape[0]
    beyond = sorted((number, token) for token, number in known.items() if number >= embeddings)
    for example, ids in enumerate(data.input_ids):
        if int(ids.max()) >= embeddings:
            token, where = int(ids.max()), f" in data row {rows[example]}"
            raise no_embedding("every token of the data", token, spec.base, base.tokenizer, embeddings, where)
    _check_types(spec, base, data)
    _check_ends(spec, base, data, rows)
    if not beyond:
        return ()
    return (
        f"The tokenizer knows {len(known)} tokens, the model has rows for {embeddings}: it cannot read a text with"
        f" {quoted(beyond[0][1])}, which the data do not have.",
    )


def _check_ends(spec: ModelSpec, base: FrozenBase, data: EncodedExamples, rows: npt.NDArray[np.int64]) -> None:
    """An encoder-decoder answers at the end-of-text token, and wants as many of them in every text."""
    if base.structure.decoder_name is None:
        return
    end = base.model.config.eos_token_id
    counts = np.array([int((ids == end).sum()) for ids in data.input_ids])
    if not counts.all():
        raise ModelError.about(
            "model.base",
            "must come with a tokenizer that ends every text with the model's end-of-text token",
            got=f"{quoted_path(spec.base)}, whose tokenizer puts no token {end} into data row {rows[counts.argmin()]}",
        )
    if (counts != counts[0]).any():
        usual = int(np.bincount(counts).argmax())
        odd = int(np.flatnonzero(counts != usual)[0])
        raise ModelError.about(
            "model.base",
            "must be given as many end-of-text tokens in every text, for it answers at the last of them",
            got=f"{counts[odd]} in data row {rows[odd]}, and {usual} in most",
            hint="take that token out of the texts",
        )


def _check_types(spec: ModelSpec, base: FrozenBase, data: EncodedExamples) -> None:
    if data.token_type_ids is None or not takes_types(base.model):
        return
    tables = [
        module
        for name, module in base.model.named_modules()
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] == _TYPE_TABLE
    ]
    most = max(int(types.max()) for types in data.token_type_ids)
    if tables and most >= tables[0].num_embeddings:
        raise ModelError.about(
            "model.base",
            "must tell as many kinds of token apart as its tokenizer makes",
            got=f"{quoted_path(spec.base)}, which has {tables[0].num_embeddings} and is given {most + 1}",
            hint="a text pair needs a model, or a tokenizer, made for pairs",
        )
