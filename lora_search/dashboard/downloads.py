"""Adapter files for any trial, as ``lora-search export`` makes them, in a process of its own.

An export reads the base model and so loads torch, which the dashboard does without. One runs at a time, nicely.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

from lora_search.dashboard.commands import lora_search

_MOST_KEPT = 16


class Exports:
    """Exports made so far, for as long as their studies stay as they were."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, ...], dict[str, bytes]] = OrderedDict()
        self._turn = asyncio.Semaphore(1)

    async def files(self, folder: Path, token: str, trial: int, recipe: str | None = None) -> dict[str, bytes]:
        """The files of an export without weights, by path.

        Raises:
            StudyError: the export refused; with what it said.
        """
        key = (str(folder), token, str(trial), recipe or "")
        async with self._turn:
            if key not in self._kept:
                self._kept[key] = await _export(folder, trial, recipe)
                while len(self._kept) > _MOST_KEPT:
                    self._kept.popitem(last=False)
            return self._kept[key]


async def _export(folder: Path, trial: int, recipe: str | None) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="lora-search-") as place:
        out = Path(place) / "adapter"
        chosen = ["--trial", str(trial), *(["--recipe", recipe] if recipe else [])]
        await lora_search("export", str(folder), str(out), *chosen)
        return {
            path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()
        }


def zipped(files: dict[str, bytes], folder: str) -> bytes:
    """The files as a zip that unpacks into one folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(f"{folder}/{name}", data)
    return content.getvalue()
