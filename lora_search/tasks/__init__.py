"""What can be asked of a base: each task joins a kind of data, a head, a loss and what predictions are scored by.

::

    task = task_of("text-classification")
    dataset = task.load(experiment.data, experiment.seed, experiment.cv.folds)
    base = load_base(experiment.model, task.head(dataset.label_names))
    data = task.encode(dataset, base.tokenizer, max_length=256)
    engine = Engine(base, data, ...)    # trains for task.objective(data)
"""

from collections.abc import Mapping

from lora_search.errors import ModelError
from lora_search.models import ModelStructure, load_structure
from lora_search.spec import ModelSpec
from lora_search.tasks.causal_lm import CausalLm
from lora_search.tasks.keys import check_keys
from lora_search.tasks.multi_label import MultiLabelClassification
from lora_search.tasks.regression import Regression
from lora_search.tasks.task import Guesses, Objective, ReadsStates, RowTexts, Standardises, Task, as_trained_on
from lora_search.tasks.text_classification import TextClassification
from lora_search.tasks.token_classification import TokenClassification

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (TextClassification(), MultiLabelClassification(), Regression(), TokenClassification(), CausalLm())
}
"""Every task, by its name in ``model.task``."""


def task_of(name: str) -> Task:
    """The task that ``model.task`` names; the experiment file accepts no other."""
    return TASKS[name]


def structure_of(model: ModelSpec) -> ModelStructure:
    """The structure of ``[model]`` with the head of its task, from its config alone; of a head with labels as it is
    for two of them.

    Raises:
        ModelError, MachineError: as ``load_base``.
    """
    return load_structure(model, task_of(model.task).head(("0", "1")))


def structure_with_any_head(base: str) -> tuple[str, ModelStructure]:
    """The name of the first task that a model has a head for, and its structure with that (see ``structure_of``).

    Raises:
        ModelError, MachineError: as ``structure_of``; for the first task, where there is none.
    """
    first: ModelError | None = None
    for name in TASKS:
        try:
            return name, structure_of(ModelSpec(base=base, task=name))  # type: ignore[arg-type]
        except ModelError as error:
            if not error.details[0].rule.startswith("must be a model that can "):
                raise
            first = first or error
    assert first is not None, "there are tasks"
    raise first


__all__ = [
    "TASKS",
    "Guesses",
    "Objective",
    "ReadsStates",
    "RowTexts",
    "Standardises",
    "Task",
    "TextClassification",
    "TokenClassification",
    "as_trained_on",
    "check_keys",
    "structure_of",
    "structure_with_any_head",
    "task_of",
]
