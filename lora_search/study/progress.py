"""What a run tells while it runs. The runner knows only the protocol; the terminal and the log line are two ways to
show it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import IO, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn

from lora_search.statistics.wording import score_number
from lora_search.store.records import CellKey, TrialRecord
from lora_search.training import Step


class StudyProgress(Protocol):
    """Told by the runner; work is cells weighted by the layers they compute.

    ``begin`` comes first, with the work done by earlier runs, the work ahead, the best score so far, and whether a
    lower one is better; ``expect`` says anew what is ahead, when trials were stopped or more cells are wanted. ``pack``
    announces the training under way.
    """

    def begin(
        self, name: str, trials: int, cells: int, done: float, ahead: float, best: float | None, lower: bool = False
    ) -> None: ...

    def expect(self, ahead: float) -> None: ...

    def note(self, sentence: str) -> None: ...

    def pack(self, title: str, work: float) -> None: ...

    def step(self, step: Step) -> None: ...

    def trial(self, record: TrialRecord, score: float | None) -> None: ...

    def end(self) -> None: ...


def duration(seconds: float) -> str:
    """``75`` -> ``1m 15s``."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def opening(name: str, trials: int, cells: int) -> str:
    """What a run begins with: ``quickstart: 12 trials, 36 trainings to go``."""
    if not cells:
        return f"{name}: every trial is finished"
    return f"{name}: {counted(trials, 'trial')}, {counted(cells, 'training')} to go"


def counted(count: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def pack_title(cells: Sequence[CellKey]) -> str:
    """``trials 3, 5, 9 / fold 2``; folds and repeats count from 1 for people."""
    trials = sorted({cell.trial for cell in cells})
    shown = ", ".join(str(trial) for trial in trials[:6]) + (f" and {len(trials) - 6} more" if len(trials) > 6 else "")
    folds = ", ".join(str(fold + 1) for fold in sorted({cell.fold for cell in cells}))
    repeat = f", repeat {cells[0].repeat + 1}" if cells[0].repeat else ""
    return f"trial{'s' if len(trials) > 1 else ''} {shown} / fold {folds}{repeat}"


def outcome(record: TrialRecord, score: float | None) -> str:
    """A finished trial's score, or why it has none or no more: ``0.812``, ``0.790 so far, stopped: ...``."""
    if record.state == "complete":
        return "-" if score is None else score_number(score)
    so_far = "" if score is None else f"{score_number(score)} so far, "
    return f"{so_far}{'stopped' if record.state == 'pruned' else record.state}: {record.failure}"


class Silent:
    """Shows nothing."""

    def begin(
        self, name: str, trials: int, cells: int, done: float, ahead: float, best: float | None, lower: bool = False
    ) -> None:
        pass

    def expect(self, ahead: float) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    def pack(self, title: str, work: float) -> None:
        pass

    def step(self, step: Step) -> None:
        pass

    def trial(self, record: TrialRecord, score: float | None) -> None:
        pass

    def end(self) -> None:
        pass


class Estimate:
    """The work done so far and the time it took give the time that is left.

    Args:
        done: work of earlier runs.
        ahead: work of this one.
        clock: seconds, from any start.
    """

    def __init__(self, done: float, ahead: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = done + ahead
        self._clock = clock
        self._start, self._done, self._done_at_start = clock(), done, done
        self._pack = 0.0

    def expect(self, ahead: float) -> None:
        """The work ahead once the current pack is trained."""
        self.total = self.at(1.0) + ahead

    def begin_pack(self, work: float) -> None:
        self._done += self._pack
        self._pack = work

    def at(self, share: float) -> float:
        """Work done when ``share`` of the current pack is."""
        return self._done + self._pack * share

    def left(self, share: float) -> float | None:
        """Seconds left, or None before there is a rate."""
        passed = self.at(share) - self._done_at_start
        if passed <= 0:
            return None
        return max(0.0, self.total - self.at(share)) * (self._clock() - self._start) / passed


def time_left_phrase(seconds: float | None) -> list[str]:
    """``["about 1m 15s left"]``; nothing when that is unknown or no time."""
    return [] if seconds is None or seconds < 0.5 else [f"about {duration(seconds)} left"]


class PlainLines(Silent):
    """One line per finished trial: for logs and pipes."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._estimate = Estimate(0, 0)
        self._best: float | None = None
        self._better: Callable[[float, float], float] = max
        self._trials = 0

    def _say(self, line: str) -> None:
        print(line, file=self._stream, flush=True)

    def begin(
        self, name: str, trials: int, cells: int, done: float, ahead: float, best: float | None, lower: bool = False
    ) -> None:
        self._estimate = Estimate(done, ahead)
        self._trials, self._best, self._better = trials, best, min if lower else max
        self._say(opening(name, trials, cells))

    def expect(self, ahead: float) -> None:
        self._estimate.expect(ahead)

    def note(self, sentence: str) -> None:
        self._say(sentence)

    def pack(self, title: str, work: float) -> None:
        self._estimate.begin_pack(work)
        self._say(", ".join([f"training {title}", *time_left_phrase(self._estimate.left(0.0))]))

    def trial(self, record: TrialRecord, score: float | None) -> None:
        if record.state == "complete" and score is not None:
            self._best = score if self._best is None else self._better(score, self._best)
        best = f" (best {score_number(self._best)})" if self._best is not None else ""
        self._say(f"trial {record.trial} of {self._trials}: {outcome(record, score)}{best}  {record.adapter}")


class Terminal(Silent):
    """A bar for the study, a line for the pack under way, a line above for each finished trial."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=28),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[state]}", markup=False),
            console=self._console,
            transient=True,
        )
        self._study: TaskID | None = None
        self._estimate = Estimate(0, 0)
        self._best: float | None = None
        self._better: Callable[[float, float], float] = max
        self._title = ""

    def begin(
        self, name: str, trials: int, cells: int, done: float, ahead: float, best: float | None, lower: bool = False
    ) -> None:
        self._estimate = Estimate(done, ahead)
        self._best, self._better = best, min if lower else max
        self._console.print(opening(name, trials, cells), style="bold", highlight=False, markup=False)
        self._study = self._bars.add_task(name, total=done + ahead, completed=int(done), state="")
        self._bars.start()

    def expect(self, ahead: float) -> None:
        self._estimate.expect(ahead)
        if self._study is not None:
            self._bars.update(self._study, total=self._estimate.total)

    def note(self, sentence: str) -> None:
        self._console.print(sentence, style="yellow", highlight=False, markup=False)

    def pack(self, title: str, work: float) -> None:
        self._estimate.begin_pack(work)
        self._title = title

    def step(self, step: Step) -> None:
        if self._study is None:
            return
        share = step.step / step.steps
        parts = [self._title, f"epoch {step.epoch}/{step.epochs}", f"loss {step.loss:.3f}"]
        if self._best is not None:
            parts.append(f"best {score_number(self._best)}")
        parts.extend(time_left_phrase(self._estimate.left(share)))
        self._bars.update(self._study, completed=self._estimate.at(share), state="  ".join(parts))

    def trial(self, record: TrialRecord, score: float | None) -> None:
        if record.state == "complete" and score is not None:
            self._best = score if self._best is None else self._better(score, self._best)
        self._console.print(
            f"trial {record.trial:>3}  {outcome(record, score)}  {record.adapter}", highlight=False, markup=False
        )

    def end(self) -> None:
        self._bars.stop()


def default_progress() -> StudyProgress:
    """The terminal display where standard error is a terminal, lines elsewhere."""
    return Terminal() if sys.stderr.isatty() else PlainLines()
