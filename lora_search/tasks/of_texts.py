"""What the tasks have in common that ask one thing of a whole text, or of a pair of texts."""

from __future__ import annotations

from typing import Any

from lora_search.data import Dataset, EncodedExamples, encode
from lora_search.tasks.task import Examples, RowTexts


class OfTexts:
    """An example is a text, or a pair, read once and cut where it is too long (see ``Task``)."""

    def encode(self, dataset: Dataset, tokenizer: Any, max_length: int) -> EncodedExamples:
        return encode(dataset, tokenizer, max_length)

    def texts(self, dataset: Dataset, data: EncodedExamples, examples: Examples) -> RowTexts:
        return RowTexts.of(dataset, examples)

    def shown(self, data: EncodedExamples, tokenizer: Any) -> str | None:
        """Nothing: all of a text is read."""
        return None
