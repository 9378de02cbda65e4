"""Runs a study: asks for trials, trains their cells, writes each result as soon as it exists, and judges.

What happens next is a function of what is recorded: the sampler of a trial is seeded by its number, packs are formed
from the recorded trials, and a pack that was cut short is trained again as it was, recording what is missing. So an
interrupted study, run again, ends with the tables it would have had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Literal

import torch
from optuna.samplers import RandomSampler
from optuna.trial import TrialState

from lora_search.errors import StudyError
from lora_search.models import quiet_libraries
from lora_search.spec import Experiment, load_experiment
from lora_search.spec.paths import kind_of
from lora_search.statistics.doubts import HEAD_FACT, HOLDOUT_FACT
from lora_search.statistics.judging import judge
from lora_search.store.differences import differences
from lora_search.store.files import STUDY_FILE
from lora_search.store.ledger import Ledger
from lora_search.store.opening import quiet_optuna
from lora_search.store.reader import StudyTables, read_study
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.asking import TrialSource, note_score
from lora_search.study.cells import BUDGETS_FACT, CellRunner
from lora_search.study.environment import describe_environment
from lora_search.study.preparation import Prepared, measured_dtype, prepare, terminated_as_interrupt
from lora_search.study.progress import Silent, StudyProgress, default_progress
from lora_search.study.race import Racer, finalist_requests
from lora_search.study.refit import check_unchanged, refit_cell
from lora_search.study.schedule import generation_of, packs_of, rungs_of
from lora_search.study.trial_export import check_export
from lora_search.training import Engine, EngineSettings, lanes_of

Outcome = Literal["complete", "pruned", "failed"]
_OPTUNA_STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Interrupted(KeyboardInterrupt):
    """The run was interrupted; everything finished is recorded in ``folder``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"interrupted; {folder} holds everything that was finished")
        self.folder = folder


def run_study(
    experiment: Experiment | str | Path,
    results: str | Path = "results",
    *,
    progress: bool | StudyProgress | None = None,
) -> StudyTables:
    """Run a study, or go on with it, until its number of trials is reached.

    Args:
        experiment: an Experiment, or the path of its TOML file.
        results: the study's folder is ``results/<name>``.
        progress: False is silent; None shows a bar on a terminal and lines elsewhere.

    Returns:
        The study's tables; ``verdict()`` is its verdict.

    Raises:
        InputError: what the user can mend. Nothing has been written then.
        Interrupted: by Ctrl-C or SIGTERM. Calling again goes on.
    """
    if not isinstance(experiment, Experiment):
        experiment = load_experiment(experiment)
    if isinstance(progress, bool) or progress is None:
        progress = Silent() if progress is False else default_progress()
    folder = Path(results) / experiment.name
    with quiet_optuna(), quiet_libraries(), terminated_as_interrupt():
        prepared = _checked(prepare(experiment), folder)
        with Ledger.open(folder, experiment, describe_environment(prepared)) as ledger:
            try:
                return StudyRun(prepared, ledger, progress).run()
            except KeyboardInterrupt:
                ledger.write_tables()
                raise Interrupted(folder) from None
            finally:
                progress.end()


def _checked(prepared: Prepared, folder: Path) -> Prepared:
    """What can be found out before anything is written: that a new study's export will work, and that one which goes
    on does so over the data and the model it began with.

    Raises:
        ModelError: an export of it would fail.
        StudyError: data or model have changed under one name, or the study is damaged.
    """
    if kind_of(folder / STUDY_FILE, error=StudyError) != "file":
        return replace(prepared, notes=(*prepared.notes, *check_export(prepared)))
    tables = read_study(folder)
    if not differences(tables.experiment, prepared.experiment):  # which the ledger tells better
        check_unchanged(tables, data=prepared.data.fingerprint, model=prepared.base.fingerprint)
    return prepared


class StudyRun:
    """One run of a study, over an open ledger."""

    def __init__(self, prepared: Prepared, ledger: Ledger, progress: StudyProgress) -> None:
        self.prepared = prepared
        self.experiment = prepared.experiment
        self.ledger = ledger
        self.progress = progress
        engine = Engine(prepared.base, prepared.data, self.experiment.training, self._settings())
        ledger.set_fact("precision", "bf16" if engine.settings.dtype == torch.bfloat16 else "fp32")
        self.source = TrialSource(prepared, ledger)
        self.cells = CellRunner(prepared, ledger, engine, progress)
        self.racer = Racer(self.experiment, ledger, self.source.total)

    def run(self) -> StudyTables:
        """Until every trial is finished and the verdict is as good as the budget makes it. Returns the tables."""
        for what, of in (("data", self.prepared.data), ("model", self.prepared.base)):
            self.ledger.set_fact(f"{what} fingerprint", of.fingerprint)
        self.ledger.write_examples(self.prepared.data.labels, self.prepared.data.groups)
        self.source.begin()
        self._begin()
        for note in self.prepared.notes:
            self.cells.note(note)
        while True:
            trials = self.source.generation()
            unfinished = [record for record in trials if record.state == "running"]
            if not unfinished:
                break
            self._train_generation(unfinished)
            self._judge()
        self._train_finalists()
        self._train_head_alone()
        self._judge()
        self._score_holdout()
        return self.ledger.tables()

    # -- setting out ---------------------------------------------------------------------------------------------

    def _settings(self) -> EngineSettings:
        """Device, precision, lanes and budgets; found once and kept, so that a resumed study computes as it did."""
        kept = self.ledger.fact("precision")
        dtype = measured_dtype(self.prepared) if kept is None else _DTYPES[kept]
        lanes = self.ledger.fact("lanes")
        if lanes is None:
            lanes = lanes_of(self.prepared.device)
            self.ledger.set_fact("lanes", lanes)
        return EngineSettings(self.prepared.device, dtype, lanes=lanes, **(self.ledger.fact(BUDGETS_FACT) or {}))

    def _begin(self) -> None:
        known = {record.trial: record for record in self.ledger.trials()}
        done = sum(self.cells.work_of(known[key.trial]) for key in self.ledger.cell_keys())
        scores = self.ledger.tables().trials.query("state == 'complete'")["score_mean"]
        best = None if scores.empty else float(scores.max())
        cells, ahead = self._ahead()
        self.progress.begin(self.experiment.name, self.source.total, cells, done, ahead, best)

    def _ahead(self) -> tuple[int, float]:
        """Cells to train and their work, if no more trials are stopped early and finalists ask for nothing."""
        planned = self.experiment.cv.folds * self.experiment.cv.repeats
        known = self.ledger.trials()[: self.source.total]
        recorded = Counter(key.trial for key in self.ledger.cell_keys())
        lacking = [(planned - recorded[record.trial], record) for record in known if record.state == "running"]
        unasked = (self.source.total - len(known)) * planned
        layers = self.prepared.base.structure.layer_count
        expected = fmean(layers - min(m.layer for m in modules) for modules in self.prepared.modules.values())
        work = sum(cells * self.cells.work_of(record) for cells, record in lacking)
        return sum(cells for cells, _ in lacking) + unasked, work + unasked * expected

    # -- training ------------------------------------------------------------------------------------------------

    def _train_generation(self, trials: Sequence[TrialRecord]) -> None:
        """Rung by rung, until every trial is complete, failed or out of the race."""
        running = {record.trial: record for record in trials}
        rungs = rungs_of(generation_of(trials[0].trial), self.experiment.cv.folds, self.experiment.cv.repeats)
        for rung in rungs:
            keys = [CellKey(trial, *column) for column in rung for trial in running]
            for pack in packs_of(self.prepared, running, keys):
                self.cells.train(pack, running)
            for trial, failure in self._failures(running).items():
                self._finish(running.pop(trial), "failed", failure)
            if rung is not rungs[-1]:
                for loss in self.racer.look(*rung[-1]):
                    if loss.trial in running:
                        self._finish(running.pop(loss.trial), "pruned", loss.reason)
            self.progress.expect(self._ahead()[1])
            self.ledger.write_tables()
        for record in running.values():
            self._finish(record, "complete", None)

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
            for pack in packs_of(self.prepared, records, keys):
                self.cells.train(pack, records)
            failures = self._failures(readmitted)
            for trial in readmitted:  # in Optuna, where a trial ends once, it stays stopped
                self._finish(records[trial], "failed" if trial in failures else "complete", failures.get(trial))
            self._judge()

    def _train_head_alone(self) -> None:
        """What no adapter at all would score, at the best trial's learning rate: what every adapter has to beat."""
        best = judge(self.ledger.tables()).best
        kept = self.ledger.fact(HEAD_FACT)
        if best is None or (kept is not None and all(cell.get("trial") == best.trial for cell in kept)):
            return
        record = next(record for record in self.ledger.trials() if record.trial == best.trial)
        keys = [CellKey(record.trial, 0, fold) for fold in range(self.experiment.cv.folds)]
        cells = [replace(self.prepared.cell(key, record.adapter, record.nuisance), modules=()) for key in keys]
        self._announce("the head alone, to compare with", len(cells))
        scores = [
            {
                "trial": record.trial,
                "repeat": trained.result.key.repeat,
                "fold": trained.result.key.fold,
                **trained.result.scores,
            }
            for trained in self.cells.engine.train(cells, pack=-1, listener=self.progress.step)
            if trained.result.state == "complete"
        ]
        self.ledger.set_fact(HEAD_FACT, scores)

    def _score_holdout(self) -> None:
        """Score the hold-out, once: by the recommended trial, refitted, after the verdict no longer depends on it."""
        recommended = judge(self.ledger.tables()).recommended
        if recommended is None or not len(self.prepared.splits.holdout) or self.ledger.fact(HOLDOUT_FACT) is not None:
            return
        record = next(record for record in self.ledger.trials() if record.trial == recommended.trial)
        cell = refit_cell(self.prepared, record.trial, record.adapter, record.nuisance)
        self._announce(f"trial {record.trial} on all examples, to score the hold-out", self.cells.work_of(record))
        (trained,) = self.cells.engine.train([cell], pack=-1, listener=self.progress.step)
        if trained.result.state == "complete":
            self.ledger.set_fact(HOLDOUT_FACT, {"trial": record.trial, "scores": dict(trained.result.scores)})
            self._judge()

    def _announce(self, title: str, work: float) -> None:
        """A training that is no cell of the study, after all of them."""
        self.progress.expect(work)
        self.progress.pack(title, work)

    def _finish(self, record: TrialRecord, state: Outcome, reason: str | None) -> None:
        """Close a trial, in Optuna first: a run that ends in between finds it finished there and closes it here."""
        trials = self.ledger.tables().trials
        row = trials.loc[trials["trial"] == record.trial].iloc[0]
        score = float(row["score_mean"])
        # a sampler that draws nothing: TPE would sample for a trial as soon as it is looked at again
        study = self.ledger.optuna_study(RandomSampler())
        if state == "complete":
            study.tell(record.trial, [score, float(record.adapter_parameters)], skip_if_finished=True)
        else:
            if state == "pruned":
                note_score(study, record.trial, score, int(row["cells"]))
            study.tell(record.trial, state=_OPTUNA_STATES[state], skip_if_finished=True)
        self.ledger.set_trial_state(record.trial, state, reason)
        self.progress.trial(replace(record, state=state, failure=reason), None if state == "failed" else score)

    def _judge(self) -> None:
        self.ledger.write_verdict(judge(self.ledger.tables()).to_dict())
        self.ledger.write_tables()
