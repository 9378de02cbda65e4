"""What a machine refuses a training, told in one line: the user can do something about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lora_search.errors import MachineError, Mistake
from lora_search.store.faults import GOING_ON, storage_errors_as_study_errors
from lora_search.training.memory import is_out_of_memory


@contextmanager
def refusals_as_input_errors(folder: Path) -> Iterator[None]:
    """Inside the block, what disk, database and memory refuse a run of the study in ``folder`` is told in one line.

    Raises:
        StudyError: the folder or its database.
        MachineError: memory, where nothing was left to save.
    """
    with storage_errors_as_study_errors(folder), enough_memory(GOING_ON):
        yield


@contextmanager
def enough_memory(hint: str = "") -> Iterator[None]:
    """Inside the block, memory that ran out for good is the machine's fault.

    Args:
        hint: how to go on.

    Raises:
        MachineError: so it did.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        rule = "this machine must have more memory for this model, even for the smallest micro-batch"
        raise MachineError(Mistake(rule, got=reason, hint=hint)) from error
