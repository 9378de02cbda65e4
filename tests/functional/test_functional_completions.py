"""A language model from the first command to the exported adapter, on sixty exchanges and a Llama of three layers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from peft import PeftModel
from tiny_decoder import conversations, pairs, write_decoder, write_rows
from tiny_world import changed, settings, write_experiment
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lora_search import export_adapter, open_study, run_study
from lora_search.adapters import from_peft_state, merge_into
from lora_search.errors import InputError, ModelError
from lora_search.plots.predicted import predictions_view
from lora_search.spec import Experiment, facts
from lora_search.store.reader import read_predictions, read_study
from lora_search.study import prepare
from lora_search.study.examples import study_examples
from lora_search.study.plan import plan_study


def experiment_of(model: Path | str, data: Path | str, /, **tables: Any) -> dict[str, Any]:
    """Two trials at one learning rate in two folds."""
    values = settings(
        model, data, model={"task": "causal-lm"}, data={"max_length": 32}, search={"trials": 2, "layers": ["all"]},
        verdict={"metric": "completion_loss", "margin": 0.1},
    )  # fmt: skip
    return changed(values, tables)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its tokenizer pads on the left, as those of models that talk do."""
    folder = write_decoder(tmp_path_factory.mktemp("decoder") / "model")
    AutoTokenizer.from_pretrained(folder, padding_side="left").save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("chats") / "chats.jsonl", conversations())


@pytest.fixture(scope="module")
def study(decoder: Path, chats: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    experiment = Experiment.model_validate(experiment_of(decoder, chats))
    return run_study(experiment, tmp_path_factory.mktemp("results"), progress=False).folder


def test_what_is_recorded_are_sums_that_score_what_the_cells_scored(study: Path) -> None:
    tables = open_study(study)
    assert set(tables.cells["state"]) == {"complete"}
    assert set(tables.trials["head_parameters"]) == {0}
    frame = read_predictions(study)
    for row in tables.cells.itertuples():
        mine = frame[(frame["trial"] == row.trial) & (frame["fold"] == row.fold)][["p0", "p1", "p2"]].to_numpy()
        nats, tokens, right = mine.sum(axis=0, dtype=np.float64)
        assert row.score == row.completion_loss == pytest.approx(nats / tokens, rel=1e-6)
        assert row.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-6)
        assert row.completion_accuracy == pytest.approx(right / tokens)
    trained = frame[frame["trial"] == 0].sort_values("example")["p1"].to_numpy()
    assert trained.tolist() == [8 if number % 4 == 0 else 4 for number in range(60)]
    assert predictions_view(tables, [0, 1]) is None, "there are no labels to be confused"
    assert study_examples(study)[0].text.startswith("user: ")


def test_a_lower_loss_wins_and_is_told_in_nats(study: Path) -> None:
    tables = open_study(study)
    means = tables.trials.set_index("trial")["score_mean"]
    verdict = json.loads((study / "verdict.json").read_text())
    assert verdict["best"]["trial"] == int(means.idxmin())
    assert verdict["best"]["score_mean"] == pytest.approx(means.min())
    low, high = verdict["best"]["score_interval"]
    assert 0 <= low < means.min() < high
    assert "0.1 nats" in verdict["sentence"]
    (worse,) = (each for each in verdict["comparisons"] if each["trial"] != verdict["best"]["trial"])
    assert worse["difference"] == pytest.approx(means.max() - means.min())
    low, high = verdict["corrected_interval"]
    assert 0 <= low <= verdict["corrected_score"] <= high
    alone = facts.HEAD_ALONE.of(read_study(study).facts)
    assert alone is not None
    assert all(cell.scores["completion_loss"] > means.max() for cell in alone), (
        "what was trained is better than nothing"
    )
    (base,) = verdict["baselines"]["compared"]
    assert (base["title"], base["trainable_parameters"]) == ("base as it is", 0)
    assert base["score_mean"] == pytest.approx(np.mean([cell.scores["completion_loss"] for cell in alone]))
    assert base["difference"] == pytest.approx(means.min() - base["score_mean"]), "positive where it is the better one"


def test_the_page_shows_losses_as_they_are_and_less_above_more(study: Path) -> None:
    from lora_search.plots.landscape import landscape
    from lora_search.plots.web.judged import judged_view
    from lora_search.plots.web.payload import study_payload

    tables = read_study(study)
    verdict = tables.verdict() or {}
    scene = landscape(tables.trials, tables.cells, verdict)
    means = tables.trials.set_index("trial")["score_mean"]
    assert {point.trial: point.score for point in scene.points} == pytest.approx((-means).to_dict())
    unit = scene.unit
    assert unit.score(-2.5) == "2.500"
    assert unit.difference(-0.25) == "+0.250"
    assert unit.amount(0.1) == "0.1\N{NO-BREAK SPACE}nats"
    assert unit.axis == "completion loss (nats, less is better)"
    judged = judged_view(tables, verdict)
    payload = study_payload(tables, judged)
    assert payload["trials"]["score_mean"] == pytest.approx((-means).tolist(), rel=1e-4)
    assert f"{means.min():.3f}" in judged["html"]["summary"]
    assert "nats to the best" in judged["html"]["summary"]
    (alone,) = judged["baselines"]
    assert alone["name"] == "base as it is"
    assert alone["score"] < -means.max()
    csv = pd.read_csv(study / "trials.csv")
    assert (csv["score_mean"] > 0).all(), "the tables have the loss as it is"


def test_the_exported_adapter_generates_what_ours_does(study: Path, decoder: Path, tmp_path: Path) -> None:
    out = export_adapter(study, tmp_path / "adapter", weights=True, progress=False)
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["task_type"] == "CAUSAL_LM"
    assert config["modules_to_save"] == []
    card = (out / "README.md").read_text()
    assert "was trained to go on with texts" in card
    assert "nothing else was trained" in card
    base = AutoModelForCausalLM.from_pretrained(decoder)
    theirs = PeftModel.from_pretrained(base, out).eval()
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.pad_token is None, "end-of-text is no padding"
    assert tokenizer.padding_side == "left", "a batch of texts is gone on with at their ends"
    from safetensors.torch import load_file

    ours = AutoModelForCausalLM.from_pretrained(decoder)
    merge_into(ours, from_peft_state(load_file(out / "adapter_model.safetensors")), config["lora_alpha"] / config["r"])
    prompts = [[{"role": "user", "content": text}] for text in ("a dull plot ?", "the witty cast ?", "it ?")]
    said = set()
    for prompt in prompts:
        asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True, return_tensors="pt")
        mine, other = (
            model.generate(**asked, max_new_tokens=8, do_sample=False, pad_token_id=0) for model in (ours, theirs)
        )
        assert torch.equal(mine, other)
        said.add(tokenizer.decode(mine[0]))
    assert len(said) == len(prompts)
    snippet = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert snippet is not None
    exec(compile(snippet[1].replace("max_new_tokens=64", "max_new_tokens=4"), "card", "exec"), {})


def test_plan_shows_an_example_with_what_is_trained(decoder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", pairs())
    plan = plan_study(Experiment.model_validate(experiment_of(decoder, data)))
    shown = next(note for note in plan.notes if "⟦" in note)
    assert re.search(r"\? ⟦(fresh|rotten) \w+</s>⟧$", shown)
    assert "in the head" not in str(plan)
    assert "head alone" not in str(plan)
    assert any(note.startswith("The loss is on the completion") for note in plan.notes)


def test_rates_are_found_from_what_the_base_scores(decoder: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", pairs())
    values = experiment_of(
        decoder, data, search={"learning_rate": {"low": 1e-3, "high": 0.1}, "rank": [1, 4], "trials": 6}
    )
    found = run_study(Experiment.model_validate(values), tmp_path / "results", progress=False)
    tables = open_study(found.folder)
    assert set(tables.trials["state"]) <= {"complete", "pruned"}
    assert (tables.trials["state"] == "complete").any()
    assert tables.trials["learning_rate"].nunique() > 1


WRONG = {
    "a metric of classes": (
        {"verdict": {"metric": "accuracy"}},
        "verdict.metric: must be completion_loss or completion_accuracy for causal-lm, got 'accuracy'",
    ),
    "a column of labels": ({"data": {"label": "kind"}}, "data.label: must be left out for causal-lm, got 'kind'"),
    "tokens": ({"data": {"tokens": "words"}}, "data.tokens: must be left out for causal-lm, got 'words'"),
}


@pytest.mark.parametrize("what", WRONG)
def test_keys_of_other_tasks_are_one_line(decoder: Path, chats: Path, what: str) -> None:
    tables, line = WRONG[what]
    with pytest.raises(InputError) as caught:
        prepare(Experiment.model_validate(experiment_of(decoder, chats, **tables)))
    assert caught.value.mistakes == (line,)


def test_a_base_that_looks_ahead_is_refused(chats: Path, tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "model")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    encoder = AutoConfig.for_model("bert", vocab_size=len(AutoTokenizer.from_pretrained(folder)), **sizes)
    AutoModelForCausalLM.from_config(encoder).save_pretrained(folder)
    with pytest.raises(ModelError) as caught:
        prepare(Experiment.model_validate(experiment_of(folder, chats)))
    (line,) = caught.value.mistakes
    assert line.startswith("model.base: must be a language model that goes on with a text from what came before, got")


def test_a_decoder_without_its_head_is_refused(decoder: Path, chats: Path, tmp_path: Path) -> None:
    headless = write_decoder(tmp_path / "model", tie_word_embeddings=False)
    model = AutoModelForCausalLM.from_pretrained(headless)
    model.model.save_pretrained(headless)
    with pytest.raises(ModelError) as caught:
        prepare(Experiment.model_validate(experiment_of(headless, chats)))
    (line,) = caught.value.mistakes
    assert line.startswith("model.base: must bring all of its weights, the checkpoint lacks 1 of them, lm_head.weight")


def test_the_command_line_runs_it(decoder: Path, chats: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from lora_search.cli import main

    spec = write_experiment(tmp_path / "chat.toml", experiment_of(decoder, chats, search={"trials": 1}))
    monkeypatch.setattr("sys.argv", ["lora-search", "run", str(spec), "--results", str(tmp_path / "results")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "completion_loss" in capsys.readouterr().out
