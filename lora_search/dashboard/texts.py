"""The texts of a study's examples, asked of ``lora-search examples`` once for each database there was in its folder."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from pathlib import Path

from lora_search.dashboard.commands import lora_search
from lora_search.errors import StudyError

_MOST_STUDIES = 4
_MOST_LETTERS = 600
_SECONDS_REFUSED = 60


class Texts:
    """Texts by study. A source that could not be read is tried again after a minute."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Path, int], list[str]] = OrderedDict()
        self._refused: dict[tuple[Path, int], tuple[float, StudyError]] = {}
        self._turn = asyncio.Semaphore(1)

    async def of(self, folder: Path, database: int) -> list[str]:
        """The text of every example by its number, the longest cut.

        Args:
            folder: the study's.
            database: what tells its database from another of its name, in its place.

        Raises:
            StudyError: the source cannot be read, or has changed since.
        """
        key = (folder, database)
        async with self._turn:
            when, error = self._refused.get(key, (0.0, None))
            if error is not None and time.monotonic() - when < _SECONDS_REFUSED:
                raise error
            if key not in self._kept:
                try:
                    found = json.loads(await lora_search("examples", str(folder), "--json"))
                except StudyError as refused:
                    self._refused[key] = (time.monotonic(), refused)
                    raise
                self._kept[key] = [example["text"][:_MOST_LETTERS] for example in found]
                while len(self._kept) > _MOST_STUDIES:
                    self._kept.popitem(last=False)
            return self._kept[key]
