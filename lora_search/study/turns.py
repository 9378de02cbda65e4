"""Several runs of one study: one has it, and others wait for their turn."""

from __future__ import annotations

import time

from lora_search.store.storages import Storage
from lora_search.study.progress import StudyProgress

_PAUSE = 1.0  # seconds


def await_turn(place: Storage, progress: StudyProgress) -> None:
    """Wait until nobody writes to a study; returns at once where nobody does.

    Args:
        place: of the study.
        progress: who is told whom this run waits for.

    Raises:
        StudyError: the study's database does not answer.
    """
    told = None
    while (holder := place.holder()) is not None:
        if holder != told:
            who = f" ({holder})" if holder else ""
            progress.note(f"another run has the study{who}: waiting to go on in its place")
            told = holder
        time.sleep(_PAUSE)
