"""Texts that differ and become the same tokens: they stay in one fold, and a study of them is told as it was made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tiny_world import sentences, write_experiment, write_sentences

from lora_search.spec import load_experiment
from lora_search.study import prepare, run_study
from lora_search.study.examples import study_examples


def test_copies_as_encoded_stay_in_one_fold_and_can_be_read_again(world, tmp_path: Path) -> None:
    rows = sentences()
    unknown = [(f"zebra{number} the film", "fresh") for number in range(4)]
    data = write_sentences(tmp_path / "data.csv", [*rows, *unknown])
    spec = write_experiment(tmp_path / "spec.toml", world.settings(data={"train": str(data)}, search={"trials": 1}))
    prepared = prepare(load_experiment(spec))
    copies = range(len(rows), len(rows) + len(unknown))
    for fold in range(2):
        assert np.isin(prepared.splits.fold(0, fold).evaluate, copies).sum() in (0, len(unknown))
    assert any("4 of 64 examples are alike once encoded" in note for note in prepared.notes)
    study = run_study(load_experiment(spec), tmp_path / "results", progress=False)
    assert [example.text for example in study_examples(study.folder)] == [text for text, _ in [*rows, *unknown]]
