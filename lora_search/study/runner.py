"""Runs a study: asks for trials, trains their cells, writes each result as soon as it exists, and judges.

What happens next is a function of what is recorded: the sampler of a trial is seeded by its number, packs are formed
from the recorded trials, and a pack that was cut short is trained again as it was, recording what is missing. So an
interrupted study, run again, ends with the tables it would have had.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from optuna import Study
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from lora_search.errors import StudyInUseError
from lora_search.metrics import direction
from lora_search.models import plain_torch, quiet_libraries
from lora_search.spec import AdapterSpec, Experiment, Nuisance, facts, load_experiment, with_local_paths
from lora_search.spec.paths import expanded
from lora_search.statistics.judging import judge
from lora_search.statistics.verdict import Verdict
from lora_search.store.differences import differences
from lora_search.store.ledger import Ledger
from lora_search.store.opening import quiet_optuna
from lora_search.store.reader import StudyTables, tables_of
from lora_search.store.records import CellKey, TrialRecord
from lora_search.store.storages import Storage, storage_of
from lora_search.study.asking import note_score
from lora_search.study.baselines import check_baselines
from lora_search.study.cells import CellRunner
from lora_search.study.comparing import BaselineRunner
from lora_search.study.crew import Crew
from lora_search.study.environment import describe_environment
from lora_search.study.executors import executor_of
from lora_search.study.executors.tasks import Executor, Training
from lora_search.study.explained import with_explained
from lora_search.study.faults import refusals_as_input_errors
from lora_search.study.live import LiveFile
from lora_search.study.preparation import Prepared, Terminated, prepare, terminated_as_interrupt
from lora_search.study.progress import Silent, StudyProgress, default_progress
from lora_search.study.race import finalist_requests
from lora_search.study.refit import ATTEMPTS, anew, check_unchanged, refit_key
from lora_search.study.schedule import Step
from lora_search.study.settings import moved_from
from lora_search.study.trial_export import check_export
from lora_search.study.tuning import search_of
from lora_search.study.turns import await_turn
from lora_search.training import Engine

UNTRAINED = -1
"""In place of a trial: nothing was trained."""
_OPTUNA_STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Interrupted(KeyboardInterrupt):
    """The run was interrupted, by Ctrl-C or, if ``terminated``, by SIGTERM; everything finished is in ``folder``."""

    def __init__(self, folder: Path, *, terminated: bool = False) -> None:
        super().__init__(f"interrupted; {folder} holds everything that was finished")
        self.folder = folder
        self.terminated = terminated


def run_study(
    experiment: Experiment | str | Path,
    results: str | Path = "results",
    *,
    progress: bool | StudyProgress | None = None,
    storage: str | None = None,
    join: bool = False,
) -> StudyTables:
    """Run a study, or go on with it, until its number of trials is reached.

    Args:
        experiment: an Experiment, or the path of its TOML file. Local paths in it that exist are kept as absolute ones.
        results: the study's folder is ``results/<name>``.
        progress: False is silent; None shows a bar on a terminal and lines elsewhere.
        storage: ``postgresql://USER@HOST:PORT/DATABASE`` keeps the study there, and goes on with it from anywhere; None
            is where it is already, and for a new one its folder.
        join: where another run has the study, here or on any machine, wait, and go on in its place if it ends before
            the study does; instead of being refused.

    Returns:
        The study's tables; ``verdict()`` is its verdict.

    Raises:
        InputError: what the user can mend. Nothing has been written then.
        StudyInUseError: another run has the study.
        Interrupted: by Ctrl-C or SIGTERM. Calling again goes on.
    """
    experiment = with_local_paths(experiment) if isinstance(experiment, Experiment) else load_experiment(experiment)
    if isinstance(progress, bool) or progress is None:
        progress = Silent() if progress is False else default_progress()
    folder = expanded(results) / experiment.name
    with quiet_optuna(), quiet_libraries(), plain_torch(), terminated_as_interrupt():
        place = storage_of(folder, experiment.name, storage)
        while True:
            if join:
                await_turn(place, progress)
            try:
                return _run(experiment, folder, place, storage, progress)
            except StudyInUseError:  # of several that waited one came first
                if not join:
                    raise


def _run(
    experiment: Experiment, folder: Path, place: Storage, storage: str | None, progress: StudyProgress
) -> StudyTables:
    is_new = not place.exists()  # told at once, and not when data and model are loaded
    prepared = _checked(prepare(experiment), folder, None if is_new else place)
    environment = describe_environment(prepared)
    with (
        refusals_as_input_errors(folder),
        executor_of(prepared, Engine, progress.note) as executor,
        Ledger.open(folder, experiment, environment, storage) as ledger,
    ):
        progress = LiveFile(progress, folder)
        try:
            return StudyRun(prepared, ledger, progress, executor).run()
        except KeyboardInterrupt as interrupt:
            ledger.write_tables()
            raise Interrupted(folder, terminated=isinstance(interrupt, Terminated)) from None
        finally:
            progress.end()


def _checked(prepared: Prepared, folder: Path, place: Storage | None) -> Prepared:
    """What can be found out before anything is written: that a new study's export will work, and that one which goes
    on does so over the data and the model it began with.

    Raises:
        ModelError: an export of it would fail.
        InputError: a baseline that this model cannot be compared with.
        StudyError: data or model have changed under one name, or the study is damaged.
    """
    check_baselines(prepared)
    if place is None:
        prepared = with_explained(prepared, {})
        return replace(prepared, notes=(*prepared.notes, *check_export(prepared)))
    tables = place.read(lambda connection: tables_of(folder, connection))
    if differences(tables.experiment, prepared.experiment):  # which the ledger tells better
        return prepared
    check_unchanged(tables, data=prepared.data.fingerprint, model=prepared.base.fingerprint)
    return with_explained(prepared, tables.facts)


class StudyRun:
    """One run of a study, over an open ledger.

    Args:
        prepared: the experiment.
        ledger: where everything is recorded, by this run alone.
        progress: who is told.
        executor: who trains.
    """

    def __init__(self, prepared: Prepared, ledger: Ledger, progress: StudyProgress, executor: Executor) -> None:
        self.prepared = prepared
        self.experiment = prepared.experiment
        self.ledger = ledger
        self.progress = progress
        if prepared.explained is not None and ledger.fact(facts.EXPLAINED) is None:
            ledger.set_fact(facts.EXPLAINED, {name: list(shares) for name, shares in prepared.explained.items()})
        kept = ledger.facts()
        found = executor.begin(kept)
        self._device = found[facts.DEVICE.name]
        self._moved_from = moved_from(torch.device(self._device), kept)
        ledger.set_facts(found)
        crew = Crew(executor, progress)
        self.cells = CellRunner(prepared, ledger, crew, progress, self._device)
        self.search = search_of(prepared, ledger)
        if self.search.different is not None:
            ledger.set_fact(facts.ADAPTERS, self.search.different)
        if self.search.adapters is not None:
            ledger.set_fact(facts.COMPARED, self.search.adapters)
        self.baselines = BaselineRunner(prepared, ledger, crew, progress)

    def run(self) -> StudyTables:
        """Until every trial is finished and the verdict is as good as the budget makes it. Returns the tables."""
        self.ledger.set_fact(facts.DATA_FINGERPRINT, self.prepared.data.fingerprint)
        self.ledger.set_fact(facts.MODEL_FINGERPRINT, self.prepared.base.fingerprint)
        data = self.prepared.data
        self.ledger.write_examples(data.labels, data.groups, data.answers)
        self._begin()
        for note in self.prepared.notes:
            self.cells.note(note)
        if self._moved_from is not None:
            self.cells.note(
                f"this study ran on {self._moved_from} before and goes on on {self._device}, which rounds otherwise"
            )
        if self.prepared.base.head.frozen:
            self._score_base_alone()
        for step in self.search.steps():
            self._take(step)
        self._train_finalists()
        if not self.prepared.base.head.frozen:
            self._train_baselines()
        self._score_holdout(self._judge())
        return self.ledger.tables()

    # -- setting out ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        known = {record.trial: record for record in self.ledger.trials()}
        done = sum(self.cells.work_of(known[key.trial]) for key in self.ledger.cell_keys())
        scores = self.ledger.tables().trials.query("state == 'complete'")["score_mean"]
        sign = direction(self.experiment.verdict.metric)
        best = None if scores.empty else sign * float((sign * scores).max())
        cells, ahead = self._remaining()
        self.progress.begin(self.experiment.name, self.search.total, cells, done, ahead, best, sign < 0)

    def _remaining(self) -> tuple[int, float]:
        """Cells to train and their work, if no more trials are stopped early and finalists ask for nothing."""
        lacking, unasked = self.search.ahead()
        layers = self.prepared.base.structure.layer_count
        expected = fmean(layers - min(m.layer for m in modules) for modules in self.prepared.modules.values())
        work = sum(cells * self.cells.work_of(record) for cells, record in lacking)
        work += unasked * expected + self.baselines.work_left()
        return sum(cells for cells, _ in lacking) + unasked, work

    # -- training ------------------------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        """Close what is through, train what is wanted; a trial of which a training failed has failed."""
        records = {record.trial: record for record in self.ledger.trials()}
        still_open = {trial for trial, record in records.items() if facts.is_open(record.state, record.failure)}
        closed = [ending for ending in step.finished if ending[0] in still_open]
        self._finish([(records[trial], state, reason) for trial, state, reason in closed])
        if step.cells:
            self.cells.train(step.cells, records)
            failures = self._failures({key.trial for key in step.cells})
            self._finish([(records[trial], "failed", failures[trial]) for trial in failures if trial in still_open])
        self.progress.expect(self._remaining()[1])
        self.ledger.write_tables()
        if any(state == "complete" for _, state, _ in closed):
            self._judge()

    def _failures(self, trials: Collection[int]) -> dict[int, str]:
        """Those of which a cell failed, and why."""
        cells = self.ledger.tables().cells
        failed = cells[(cells["state"] == "failed") & cells["trial"].isin(list(trials))]
        return {int(trial): str(why) for trial, why in zip(failed["trial"], failed["failure"], strict=True)}

    def _train_finalists(self) -> None:
        """What a stopped trial lacks that may be the best after all, and extra repeats for the few comparisons that
        decide the verdict, until it is decided or they are spent."""
        for wanted in finalist_requests(self.experiment, self.ledger):
            records = {record.trial: record for record in self.ledger.trials()}
            keys = [CellKey(request.trial, request.repeat, request.fold) for request in wanted]
            readmitted = [trial for trial in sorted({key.trial for key in keys}) if records[trial].state == "pruned"]
            for trial in readmitted:
                self.progress.note(f"trial {trial} was stopped and may be the best after all: training what it lacks")
            self.progress.expect(sum(self.cells.work_of(records[key.trial]) for key in keys))
            self.cells.train(keys, records)
            # in Optuna, where a trial ends once, it stays as it ended first
            failures = self._failures({key.trial for key in keys})
            sound = [trial for trial in failures if records[trial].state != "failed"]
            self._finish([(records[trial], "failed", failures[trial]) for trial in sound])
            self._finish([(records[trial], "complete", None) for trial in readmitted if trial not in failures])
            self._judge()

    def _score_base_alone(self) -> None:
        """What the base scores as it is, where there is no head to train: what every adapter begins at."""
        if self.ledger.fact(facts.HEAD_ALONE) is None:
            adapter = AdapterSpec(rank=1, alpha=1.0, targets="all-linear", layers="all")
            nuisance = Nuisance(learning_rate=1.0)
            keys = [CellKey(UNTRAINED, 0, fold) for fold in range(self.experiment.cv.folds)]
            trainings = [Training(key, adapter, nuisance, adapted=False) for key in keys]
            results = self.cells.train_apart(trainings, "the base as it is, to compare with", 0.0).cells
            alone = (facts.HeadAlone(UNTRAINED, r.key.repeat, r.key.fold, r.scores, r.failure) for r in results)
            self.ledger.set_fact(facts.HEAD_ALONE, tuple(alone))

    def _train_baselines(self) -> None:
        """What no adapter scores, where there is one to compare with it."""
        verdict = judge(self.ledger.tables())
        if verdict.best is None:
            return
        self.baselines.train()
        named = {summary.trial for summary in (verdict.recommended, verdict.best) if summary is not None}
        self.baselines.measure(named)

    def _score_holdout(self, verdict: Verdict) -> None:
        """Score the hold-out, once: by the recommended trial, refitted, after the verdict no longer depends on it.

        It is kept while the verdict may still change its mind, and where the training that was to score it failed.
        """
        recommended, kept = verdict.recommended, self.ledger.fact(facts.HOLDOUT)
        if recommended is None or not len(self.prepared.splits.holdout):
            return
        if kept is not None and (kept.failure is None or kept.trial == recommended.trial):
            return
        if verdict.status != "decided":
            self.cells.note("the hold-out is kept until the verdict is decided")
            return
        record = next(record for record in self.ledger.trials() if record.trial == recommended.trial)
        work = self.cells.work_of(record)
        for attempt in range(ATTEMPTS):
            self.progress.expect(work)
            outcome = self.cells.train_apart(
                [Training(refit_key(self.experiment, record.trial, attempt), record.adapter, record.nuisance)],
                f"trial {record.trial} on all examples, to score the hold-out",
                work,
            )
            if not outcome.stalled:
                break
            self.cells.note(anew(record.trial, attempt + 1))
        (result,) = outcome.cells
        self.ledger.set_fact(facts.HOLDOUT, facts.HoldoutScore(record.trial, result.scores, result.failure))
        self._judge()

    def _finish(self, endings: Sequence[tuple[TrialRecord, facts.Ending, str | None]]) -> None:
        """Close trials, each in Optuna first: a run that ends in between finds it finished there and closes it here."""
        if not endings:
            return
        rows = self.ledger.tables().trials.set_index("trial")
        # a sampler that draws nothing: TPE would sample for a trial as soon as it is looked at again
        study = self.ledger.optuna_study(RandomSampler())
        for record, state, reason in endings:
            cells = int(rows["cells"][record.trial])
            score = float(rows["score_mean"][record.trial]) if cells else None
            self.ledger.patiently(partial(self._tell, study, record, state, score, cells))
            self.ledger.set_trial_state(record.trial, state, reason)
            self.progress.trial(replace(record, state=state, failure=reason), None if state == "failed" else score)

    def _tell(self, study: Study, record: TrialRecord, state: facts.Ending, score: float | None, cells: int) -> None:
        if state == "complete":
            assert score is not None, "complete trials have cells"
            merit = direction(self.experiment.verdict.metric) * score
            study.tell(record.trial, [merit, float(record.adapter_parameters)], skip_if_finished=True)
        else:
            if state == "pruned" and score is not None:
                note_score(study, record.trial, score, cells)
            study.tell(record.trial, state=_OPTUNA_STATES[state], skip_if_finished=True)

    def _judge(self) -> Verdict:
        verdict = judge(self.ledger.tables())
        self.ledger.write_verdict(verdict.to_dict())
        self.ledger.write_tables()
        return verdict
