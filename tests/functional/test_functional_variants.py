"""DoRA, rsLoRA, LoRA+ and trained biases, from the experiment file to PEFT."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from tiny_world import assert_same_study
from transformers import AutoModelForSequenceClassification

from lora_search import Experiment, export_adapter, plan_study, run_study, write_report
from lora_search.adapters import from_peft_state, merge_into
from lora_search.statistics.wording import adapter_name
from lora_search.store.ledger import Ledger
from lora_search.store.reader import read_study
from lora_search.study import Interrupted
from lora_search.study.refit import refit

SEARCH = {"rank": [2], "alpha_over_rank": [1, 2], "use_dora": [False, True], "bias": "lora_only", "scaling": "rslora"}
PLACE = {"targets": ["query+value"], "layers": ["top-1"], "dropout": [0.1], "trials": 4}


def experiment_of(world) -> Experiment:
    return world.experiment(search={**SEARCH, **PLACE}, training={"loraplus_lr_ratio": 4.0})


@pytest.fixture(scope="module")
def study(world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_study(experiment_of(world), tmp_path_factory.mktemp("variants"), progress=False).folder


def test_both_kinds_are_compared_and_told_apart(study: Path) -> None:
    trials = read_study(study).trials
    assert sorted(trials["use_dora"]) == [False, False, True, True]
    assert set(trials["bias"]) == {"lora_only"}
    # query and value, (32 -> 32) each: A and B of rank 2, two biases, and two magnitudes of a DoRA
    counted = dict(zip(trials["use_dora"], trials["adapter_parameters"], strict=True))
    assert counted == {False: 2 * (2 * 64 + 32), True: 2 * (2 * 64 + 32 + 32)}
    written = pd.read_csv(study / "trials.csv")
    assert written["use_dora"].tolist() == trials["use_dora"].tolist()
    names = {adapter_name(row) for row in trials.to_dict("records")}
    assert names == {"rank 2 on query+value of the top layer", "DoRA of rank 2 on query+value of the top layer"}


def test_an_interrupted_study_goes_on_to_the_same(
    study: Path, world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def interrupted(self: object, record: object) -> None:
        asked.append(record)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return add_trial(self, record)

    add_trial = Ledger.add_trial
    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add_trial", interrupted)
        with pytest.raises(Interrupted):
            run_study(experiment_of(world), tmp_path, progress=False)
    resumed = run_study(experiment_of(world), tmp_path, progress=False).folder
    assert_same_study(resumed, study)


def test_what_is_exported_is_pefts_dora(study: Path, tmp_path: Path) -> None:
    tables = read_study(study)
    number = int(tables.trials.loc[tables.trials["use_dora"], "trial"].iloc[0])
    row = tables.trials.iloc[number]
    # loaded through PEFT in there, and refused if it predicted anything else
    out = export_adapter(study, tmp_path / "out", trial=number, weights=True, recipe="trl", progress=False)
    config = LoraConfig.from_pretrained(out)
    assert (config.use_dora, config.use_rslora, config.bias) == (True, True, "lora_only")
    model = AutoModelForSequenceClassification.from_pretrained(config.base_model_name_or_path, num_labels=2)
    trainable = get_peft_model(model, LoraConfig(**json.loads((out / "adapter_config.json").read_text())))
    weights = from_peft_state(load_file(out / "adapter_model.safetensors"))
    counted = sum(value.numel() for name, value in weights.items() if not name.startswith("classifier"))
    assert counted == row["adapter_parameters"]
    assert trainable.peft_config["default"].use_dora
    card = (out / "README.md").read_text()
    assert "| trained besides A and B | magnitudes (DoRA) and biases of the modules |" in card
    assert "of B and of vectors 4.0 times it (LoRA+)" in card
    script = (out / "recipe" / "train.py").read_text()
    compile(script, "train.py", "exec")
    for words in ("use_dora=True,", "bias='lora_only',", "loraplus_lr_ratio=4.0,", "import create_loraplus_optimizer"):
        assert words in script.replace('"', "'")

    fitted = refit(tables, number)
    merged = copy.deepcopy(fitted.prepared.base.model)
    merge_into(merged, weights, fitted.chosen.adapter.scale)
    ids = torch.from_numpy(fitted.prepared.data.input_ids[4])[None]
    with torch.no_grad():
        got = merged(input_ids=ids).logits.softmax(-1)[0].numpy()
    np.testing.assert_allclose(got, fitted.predict(np.array([4]))[0], atol=1e-5)


def test_the_report_says_what_was_trained(study: Path, plain_reports: None) -> None:
    page = write_report(study).read_text(encoding="utf-8")
    assert "Those called DoRA learn the magnitude of each row" in page
    assert "The biases of the adapted modules are trained too." in page
    assert "is 4.0 times the one told (LoRA+" in page


def test_kinds_share_the_model_of_the_learning_rate(world) -> None:
    search = {**SEARCH, **PLACE, "learning_rate": "auto", "trials": 12}
    plan = plan_study(world.experiment(search=search))
    assert plan.adapters == 4
    assert (plan.smallest, plan.largest) == (2 * (2 * 64 + 32), 2 * (2 * 64 + 64))
