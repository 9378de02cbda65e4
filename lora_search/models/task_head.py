"""What a task puts on a base, in the words of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TaskHead:
    """A head, before there is a model that has it.

    Attributes:
        task: name of the task that it answers, as in ``model.task``.
        purpose: what a model with it can do, for messages: ``classify text``.
        auto_class: name of the class of transformers that loads a base with it.
        label_names: label i of the head is ``label_names[i]``; none for a head without labels.
        config: what else the model's config is told.
        reads_words: whether the tokenizer is given lists of words.
        frozen: whether the head is the base's own and stays as it is: that of a language model. Such a base answers
            each token from those before it.
    """

    task: str
    purpose: str
    auto_class: str
    label_names: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    reads_words: bool = False
    frozen: bool = False

    @property
    def model_class(self) -> Any:
        """The class of that name."""
        import transformers

        return getattr(transformers, self.auto_class)

    @property
    def labels(self) -> dict[str, Any]:
        """The names of the labels, as a config of transformers is told them; with them comes their number."""
        if not self.label_names:
            return {}
        return {
            "id2label": dict(enumerate(self.label_names)),
            "label2id": {name: label for label, name in enumerate(self.label_names)},
        }
