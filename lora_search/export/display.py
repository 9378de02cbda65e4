"""What an export tells while it runs, on standard error: its warnings, and a bar for the training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from lora_search.training import Step
    from lora_search.training.pack_run import Listener


class Display:
    """Lines on standard error, and on a terminal a bar.

    Args:
        shown: False shows nothing.
        console: where; standard error if None.
    """

    def __init__(self, *, shown: bool = True, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, quiet=not shown)

    def note(self, sentence: str) -> None:
        """One line."""
        self._console.print(sentence, style="yellow", highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def training(self, title: str) -> Iterator[Listener]:
        """Inside the block, a listener that moves the bar."""
        terminal = self._console.is_terminal and not self._console.quiet
        if not terminal:
            self._console.print(title, highlight=False, markup=False, soft_wrap=True)
        columns = (
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%  epoch {task.fields[epoch]}  loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True, disable=not terminal) as bars:
            task = bars.add_task(title, total=None, epoch="-", loss=float("nan"))

            def listener(step: Step) -> None:
                where = f"{step.epoch}/{step.epochs}"
                bars.update(task, total=step.steps, completed=step.step, epoch=where, loss=step.loss)

            yield listener
