"""Server-sent events: that something changed, not what. A few ``stat`` calls a turn for each connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from lora_search.dashboard.shelf import Shelf
from lora_search.dashboard.watching import live_stamp, look_at, read_live, rest

_TURN = 0.4
_TURN_OF_LIST = 1.0
_KEEP_ALIVE_TURNS = 35
_PULSE_TURNS = 12
"""Turns after which a run is looked at though it said nothing: it may have been killed."""


def event(name: str, value: Any) -> bytes:
    """One event in the wire format, its data as JSON in one line."""
    return f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


async def study_events(folder: Path, seconds: Callable[[], float] = lambda: 0.0) -> AsyncIterator[bytes]:
    """``changed`` when something was recorded, ``live`` when the run said something, ``gone`` at the end.

    Both come at once too, for what the page missed: it may have been away, or the dashboard.

    Args:
        folder: the study's.
        seconds: tells what it last took to read and judge the study.
    """
    yield b"retry: 2000\n\n"
    seen, stamp, live, turn, rested = None, -1, None, 0, 0.0
    while True:
        look = look_at(folder)
        if look is None:
            yield event("gone", {})
            return
        said = live_stamp(folder)
        if said != stamp or turn % _PULSE_TURNS == 0:
            now = read_live(folder)
            if now != live or turn == 0:
                yield event("live", now)
            stamp, live = said, now
        if look.files != seen and time.monotonic() >= rested:
            yield event("changed", {"token": look.token})
            if seen is not None:  # a page that has read this state already asks for nothing
                rested = time.monotonic() + rest(seconds())
            seen = look.files
        elif turn % _KEEP_ALIVE_TURNS == 0:
            yield b": still here\n\n"
        turn += 1
        await asyncio.sleep(_TURN)


async def shelf_events(shelf: Shelf) -> AsyncIterator[bytes]:
    """``studies`` with every line of the list, whenever one of them differs."""
    yield b"retry: 2000\n\n"
    shown: list[dict[str, Any]] | None = None
    turn = 0
    while True:
        rows = await asyncio.to_thread(shelf.rows)
        if rows != shown:
            yield event("studies", rows)
            shown = rows
        elif turn % _KEEP_ALIVE_TURNS == 0:
            yield b": still here\n\n"
        turn += 1
        await asyncio.sleep(_TURN_OF_LIST)
