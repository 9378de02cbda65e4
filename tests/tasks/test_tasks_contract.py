"""What every task promises to the engine, the store and the export."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import peft
import pytest

import lora_search
from lora_search.metrics import METRICS
from lora_search.spec import ModelSpec
from lora_search.tasks import TASKS, Task, task_of

every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
PACKAGE = Path(lora_search.__file__).parent


def test_the_experiment_file_accepts_these_tasks_and_no_other() -> None:
    assert set(get_args(ModelSpec.model_fields["task"].annotation)) == set(TASKS)
    assert all(task_of(name).name == name for name in TASKS)


@every_task
def test_its_names_are_those_of_peft_transformers_and_metrics(task: Task) -> None:
    head = task.head(("no", "yes"))
    assert task.peft_type in peft.TaskType.__members__
    assert head.task == task.name
    assert callable(head.model_class.from_pretrained)
    assert all(METRICS[metric.name] is metric for metric in task.metrics)


@pytest.mark.parametrize("name", ["cross_entropy", "SEQ_CLS", "AutoModelForSequenceClassification"])
def test_nobody_else_knows_what_a_task_is_made_of(name: str) -> None:
    sources = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".jinja")]
    knowing = {path.relative_to(PACKAGE).parts[0] for path in sources if name in path.read_text(encoding="utf-8")}
    assert knowing == {"tasks"}
