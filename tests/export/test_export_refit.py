"""The refit: on everything but the hold-out, in the study's precision, of the study's own data."""

from dataclasses import replace

import numpy as np
import pytest
from export_builders import run_tiny_study, save_base, save_data

from lora_search.errors import StudyError
from lora_search.study import prepare
from lora_search.study import refit as refit_module
from lora_search.study.refit import chosen_trial, refit, refit_cell
from lora_search.training import Engine


def test_it_trains_on_everything_but_the_hold_out(study_of):
    study, steps = study_of("bert"), []
    fitted = refit(study, 1, steps.append)
    splits = fitted.prepared.splits
    assert fitted.chosen.trial == 1
    np.testing.assert_array_equal(fitted.cell.train, splits.development)
    np.testing.assert_array_equal(fitted.result.examples, splits.holdout)
    assert (fitted.result.train_examples, fitted.result.steps, len(splits.holdout)) == (48, 6, 12)
    assert [step.step for step in steps] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(fitted.predict(splits.holdout), fitted.result.probabilities, atol=1e-5)


def test_without_a_hold_out_there_is_nothing_to_score(tmp_path, data_file):
    study = run_tiny_study(tmp_path, save_base(tmp_path / "base", "bert"), data_file, holdout=0.0)
    fitted = refit(study)
    assert len(fitted.cell.train) == 60
    assert np.isnan(fitted.result.scores["accuracy"])
    assert fitted.predict(np.arange(5)).shape == (5, 3)


def test_its_order_of_examples_is_no_folds_and_no_other_trials(study_of):
    first, second = refit(study_of("bert"), 0).cell, refit(study_of("bert"), 1).cell
    assert first.order_key == second.order_key
    folds = {(cell.repeat, cell.fold) for cell in study_of("bert").cells.itertuples()}
    assert (first.key.repeat, first.key.fold) not in folds


def test_the_recorded_precision_is_used_and_predictions_are_fp32(study_of):
    study = study_of("bert")
    bf16 = refit(replace(study, facts={**study.facts, "precision": "bf16"}))
    fp32 = refit(study)
    assert not np.array_equal(bf16.state["classifier.weight"], fp32.state["classifier.weight"])
    assert bf16.prepared.base.model.dtype == fp32.prepared.base.model.dtype
    holdout = bf16.prepared.splits.holdout
    assert np.abs(bf16.predict(holdout) - bf16.result.probabilities).max() > 1e-6  # the study's own were rounded
    assert bf16.predict(holdout).dtype == np.float32


def test_data_that_changed_since_the_study_is_refused(tmp_path):
    data = save_data(tmp_path / "fruit.csv")
    study = run_tiny_study(tmp_path, save_base(tmp_path / "base", "bert"), data)
    data.write_text(data.read_text("utf-8").replace("cider", "sour"), encoding="utf-8")
    with pytest.raises(StudyError, match="the data must be what the study ran on, and has changed since"):
        refit(study)


def test_a_diverged_training_is_an_error_with_its_reason(study_of):
    study = study_of("bert")
    trials = study.trials.assign(learning_rate=1e30)
    with pytest.raises(StudyError, match=r"trial 0 must train to the end on all 48 training examples, but the loss"):
        refit(replace(study, trials=trials), 0)


@pytest.mark.parametrize(("unlucky", "trainings", "told"), [(1, 2, "a training"), (9, 3, "2 trainings")])
def test_a_training_that_teaches_nothing_is_begun_anew(study_of, monkeypatch, unlucky, trainings, told):
    study, seen = study_of("bert"), []

    class Unlucky(Engine):
        def train(self, cells, pack, listener=None):
            (cell,) = cells
            seen.append(cell)
            stalls = cell.may_stall and len(seen) <= unlucky
            return [replace(trained, stalled=stalls) for trained in super().train(cells, pack, listener)]

    monkeypatch.setattr(refit_module, "Engine", Unlucky)
    fitted = refit(study, 1)
    folds = study.experiment.cv.folds
    assert [cell.key.fold for cell in seen] == [folds + attempt for attempt in range(trainings)]
    assert len({cell.order_key for cell in seen}) == trainings
    assert fitted.cell is seen[-1]
    assert fitted.chosen.notes[-1] == (
        f"Trial 1 was begun anew with other draws: {told} of it on all examples taught nothing; a smaller learning rate"
        " may be safer."
    )


def test_where_nothing_is_stopped_early_nothing_is_begun_anew(study_of):
    study = study_of("bert")
    experiment = study.experiment.model_copy(
        update={"training": study.experiment.training.model_copy(update={"stop_stalled": False})}
    )
    assert not refit_cell(prepare(experiment), 0, *adapter_of(study)).may_stall
    assert refit_cell(prepare(study.experiment), 0, *adapter_of(study)).may_stall


def adapter_of(study):
    chosen = chosen_trial(study, 0)
    return chosen.adapter, chosen.nuisance


def test_many_trials_are_listed_as_a_range(study_of):
    study = study_of("bert")
    many = study.trials.loc[[0] * 20].assign(trial=range(20))
    with pytest.raises(StudyError, match="must be one of 0 to 19 in"):
        chosen_trial(replace(study, trials=many), 20)
    with pytest.raises(StudyError, match=r"must be one of the trials recorded \(none yet\)"):
        chosen_trial(replace(study, trials=study.trials.head(0)), 0)
