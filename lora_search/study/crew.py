"""The study's hands: has tasks done by an executor, whatever becomes of its workers, and tells how far they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import TypeVar

from lora_search.errors import MachineError, Mistake
from lora_search.store.faults import GOING_ON
from lora_search.study.executors.tasks import Died, Executor, Finished, Outcome, Pack, Refused, Task
from lora_search.study.progress import StudyProgress, counted, pack_title
from lora_search.training import Step

AGAIN = 2
"""How often a task is done anew after the worker that was at it died."""

AnyTask = TypeVar("AnyTask", bound=Task)


class Crew:
    """Has tasks done.

    Args:
        executor: who does them.
        progress: who is told.
    """

    def __init__(self, executor: Executor, progress: StudyProgress) -> None:
        self.executor = executor
        self.progress = progress

    def waves(self, tasks: Sequence[AnyTask]) -> list[list[AnyTask]]:
        """Tasks that are under way together: all, or with one worker each for itself."""
        if self.executor.workers == 1:
            return [[task] for task in tasks]
        return [list(tasks)] if tasks else []

    def done(self, tasks: Sequence[AnyTask]) -> Iterator[tuple[AnyTask, Outcome]]:
        """Have tasks done; each with what came of it as soon as that exists, in whatever order.

        Raises:
            MachineError: a task of which every worker died, or no worker is left.
        """
        for wave in self.waves(tasks):
            self.progress.pack(self._title(wave), sum(task.work for task in wave))
            yield from self._done(wave)

    def quietly(self, task: AnyTask) -> Iterator[tuple[AnyTask, Outcome]]:
        """As ``done``, of a task that takes no steps."""
        yield from self._done([task])

    def _done(self, tasks: Sequence[AnyTask]) -> Iterator[tuple[AnyTask, Outcome]]:
        together = Together(tasks)
        known = {id(task): task for task in tasks}
        deaths: Counter[int] = Counter()
        for task in tasks:
            self.executor.submit(task)
        for event in self.executor.events(lambda task, step: self.progress.step(together.hear(task, step))):
            match event:
                case Finished(done, outcome):
                    together.end(done)
                    yield known[id(done)], outcome
                case Died(lost, reason):
                    deaths[id(lost)] += 1
                    self._train_again(lost, reason, deaths[id(lost)])
                    together.begin_again(lost)
                case Refused(reason):
                    self.progress.note(f"a worker is left out: {reason}")

    def _train_again(self, task: Task, reason: str, deaths: int) -> None:
        if deaths > AGAIN:
            rule = f"workers died {deaths} times over {task.title}: {reason}"
            raise MachineError(Mistake(rule, hint=f"{GOING_ON}, or takes less memory with fewer workers"))
        self.progress.note(f"a worker died over {task.title}, which begins anew: {reason}")
        self.executor.submit(task)

    def _title(self, wave: Sequence[Task]) -> str:
        if len(wave) == 1:
            return wave[0].title
        keys = [training.key for task in wave if isinstance(task, Pack) for training in task.trainings]
        shown = pack_title(keys) if keys else "what there is to compare with"
        return f"{shown}, in {counted(len(wave), 'pack')}"


class Together:
    """The steps of tasks that are under way together, as those of one: for a display of one at a time.

    Args:
        tasks: all of them; those that wait have not begun.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._work = {id(task): max(task.work, 1e-9) for task in tasks}
        self._share = dict.fromkeys(self._work, 0.0)
        self._losses: dict[int, float] = {}

    def hear(self, task: Task, step: Step) -> Step:
        """What a step of one of them comes to for all; of one alone the step itself."""
        if len(self._work) == 1:
            return step
        self._share[id(task)] = step.step / step.steps
        self._losses[id(task)] = step.loss
        share = sum(self._work[key] * done for key, done in self._share.items()) / sum(self._work.values())
        at = max(1, int(share * step.steps))
        epoch = 1 + (at - 1) * step.epochs // step.steps
        return Step(at, step.steps, epoch, step.epochs, step.tokens, fmean(self._losses.values()), step.losses)

    def end(self, task: Task) -> None:
        """One of them is through."""
        self._share[id(task)] = 1.0
        self._losses.pop(id(task), None)

    def begin_again(self, task: Task) -> None:
        """Nothing came of what one of them did so far."""
        self._share[id(task)] = 0.0
        self._losses.pop(id(task), None)
