"""Long sentences as windows that overlap: where they begin and end, and which words each of them answers for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """Words ``start`` to before ``stop`` of a sentence, of which ``first`` to before ``last`` are answered here."""

    start: int
    stop: int
    first: int
    last: int


def windows(pieces: Sequence[int], room: int) -> tuple[Window, ...]:
    """Cut a sentence into windows half of which overlap; every word is answered once, in the middle of its window.

    Args:
        pieces: tokens of each word.
        room: tokens a window may have, at least 1.

    Returns:
        The windows in order; one where the sentence fits. A word of more tokens than ``room`` has a window of its own.
    """
    count = len(pieces)
    before = np.concatenate([[0], np.cumsum(pieces)])
    starts: list[int] = []
    stops: list[int] = []
    start = 0
    while True:
        stop = max(start + 1, int(np.searchsorted(before, before[start] + room, side="right")) - 1)
        starts.append(start)
        stops.append(min(stop, count))
        if stop >= count:
            break
        middle = before[start] + room / 2
        start = min(max(start + 1, int(np.searchsorted(before, middle, side="left"))), stop)
    # what two windows share is divided in its middle: each side has as much around it as there is
    borders = [0]
    for later, stop in zip(starts[1:], stops[:-1], strict=True):
        middle = (before[later] + before[stop]) / 2
        border = int(np.searchsorted(before, middle, side="left"))
        borders.append(min(max(border, later, borders[-1]), stop))
    borders.append(count)
    return tuple(
        Window(start, stop, first, last)
        for start, stop, first, last in zip(starts, stops, borders[:-1], borders[1:], strict=True)
    )
