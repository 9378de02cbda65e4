"""How much of a wall clock the computing takes: forward, backward and optimizer, and with them the prefix cache.

The rest is overhead: reading data, asking the sampler, racing, writing results, planning micro-batches, starting lanes,
judging. To wait for another lane counts as computing: that is what the other does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from lora_search.training.lanes import Team
from lora_search.training.optimizer import PackedAdamW
from lora_search.training.pack_run import PackRun
from lora_search.training.prefix import PrefixCache

_COMPUTING = (
    (PackRun, "_forward_backward"),
    (PackRun, "_predict_part"),
    (Team, "share"),
    (PackedAdamW, "step"),
    (PrefixCache, "prepare"),
)


class Clock:
    """Seconds spent inside the methods it wraps, each second once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._inside = False

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return method(*args, **kwargs)
            self._inside = True
            start = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start
                self._inside = False

        return call


@contextmanager
def computing() -> Iterator[Clock]:
    """Inside the block the clock runs while lane 0 computes."""
    clock = Clock()
    patches = [patch.object(owner, name, clock.timed(getattr(owner, name))) for owner, name in _COMPUTING]
    for one in patches:
        one.start()
    try:
        yield clock
    finally:
        for one in patches:
            one.stop()
