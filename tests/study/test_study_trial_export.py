"""What an export would refuse is found out by plan and run, before anything is trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    XLNetConfig,
    XLNetLMHeadModel,
)
from word_tokenizer import WORDS, save_tokenizer

from lora_search import Experiment, export_adapter, run_study
from lora_search.errors import InputError, ModelError
from lora_search.spec.experiment import SearchSpec
from lora_search.study import plan_study, prepare, trial_export
from lora_search.study.trial_export import check_export

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Experiment]:
    """An experiment on the model in ``base``, over 24 texts of 1 to 60 words."""

    def made(texts: list[str] | None = None, **data: Any) -> Experiment:
        draw = np.random.default_rng(0)
        if texts is None:
            texts = [" ".join(draw.choice(WORDS, 1 + number * 59 // 23)) + f" w{number}" for number in range(24)]
        rows = [{"text": text, "label": "ab"[number % 2], "pair": "w1 w2"} for number, text in enumerate(texts)]
        (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return Experiment.model_validate(
            {
                "name": "tried",
                "model": {"base": str(tmp_path / "base")},
                "data": {"train": str(tmp_path / "data.jsonl"), **data},
                "cv": {"folds": 2},
                "search": {"rank": [1, 2], "targets": ["query+value"], "layers": ["all"], "trials": 1},
                "training": {"epochs": 1, "precision": "fp32"},
                "verdict": {"metric": "accuracy", "extra_repeats": 0},
            }
        )

    return made


KLUE = ["<pad>", "<s>", "</s>", "<unk>"]


def save_roberta(folder: Path, positions: int = 130) -> None:
    """RoBERTa whose config pads with 1 and whose tokenizer pads with 0."""
    size = save_tokenizer(folder, KLUE)
    sizes = {"vocab_size": size, "max_position_embeddings": positions, "type_vocab_size": 1, **SMALL}
    config = AutoConfig.for_model(
        "roberta", pad_token_id=1, bos_token_id=1, eos_token_id=2, initializer_range=0.3, **sizes
    )
    torch.manual_seed(0)
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder)


@pytest.mark.parametrize("positions", [130, 24])
def test_positions_count_from_the_models_padding_whatever_the_tokenizer_pads_with(
    tmp_path: Path, experiment: Callable[..., Experiment], positions: int
) -> None:
    save_roberta(tmp_path / "base", positions)
    prepared = prepare(experiment())
    assert check_export(prepared) == ()
    assert prepared.data.report.max_length == positions - 2


def test_a_study_of_such_a_model_is_exported(tmp_path: Path, experiment: Callable[..., Experiment]) -> None:
    save_roberta(tmp_path / "base", 24)
    study = run_study(experiment(), tmp_path / "results", progress=False)
    export_adapter(study, tmp_path / "out", weights=True, progress=False)
    assert "pad_token_id" not in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("architectures", [["BertForMultipleChoice"], None])
def test_a_head_of_another_kind_is_passed_over_by_the_export_too(
    tmp_path: Path, experiment: Callable[..., Experiment], architectures: list[str] | None
) -> None:
    size = save_tokenizer(tmp_path / "base", KLUE)
    AutoModelForMultipleChoice.from_config(AutoConfig.for_model("bert", vocab_size=size, **SMALL)).save_pretrained(
        tmp_path / "base"
    )
    config = tmp_path / "base" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "architectures": architectures}))
    assert check_export(prepare(experiment())) == ()


@pytest.mark.parametrize(
    ("ends", "said"), [(True, "got 2 in data row 5, and 1 in most"), (False, "puts no token 3 into")]
)
def test_an_encoder_decoder_needs_the_end_of_every_text(
    tmp_path: Path, experiment: Callable[..., Experiment], ends: bool, said: str
) -> None:
    sizes = {"vocab_size": save_tokenizer(tmp_path / "base", KLUE), "d_model": 16, "d_ff": 32, "d_kv": 8}
    config = AutoConfig.for_model(
        "t5", num_layers=2, num_heads=2, decoder_start_token_id=0, eos_token_id=2 if ends else 3, **sizes
    )
    AutoModel.from_config(config).save_pretrained(tmp_path / "base")
    texts = [f"w{number} w{number + 1}" for number in range(20)]
    with pytest.raises(ModelError, match=said):
        prepare(experiment([*texts[:4], "w1 </s> w3", *texts[5:]] if ends else texts))


def save_bert(folder: Path, *added: str, **settings: Any) -> None:
    sizes = {"vocab_size": save_tokenizer(folder, KLUE, *added), **SMALL, **settings}
    torch.manual_seed(0)
    AutoModel.from_config(AutoConfig.for_model("bert", **sizes)).save_pretrained(folder)


def test_tokens_the_model_has_no_rows_for(tmp_path: Path, experiment: Callable[..., Experiment]) -> None:
    save_bert(tmp_path / "base", "<user>", "<url>")
    texts = [f"w{number} w{number + 1}" for number in range(20)]
    note = (
        "The tokenizer knows 46 tokens, the model has rows for 44: it cannot read a text with '<user>', which the data"
    )
    assert any(line.startswith(note) for line in prepare(experiment(texts)).notes)
    with pytest.raises(ModelError) as caught:
        prepare(experiment([*texts[:3], "<url> w1", *texts[4:]]))
    (mistake,) = caught.value.mistakes
    assert "tokenizer knows 46 tokens while the model has rows for 44: '<url>' in data row 4 has none" in mistake


def test_more_kinds_of_token_than_the_model_tells_apart(tmp_path: Path, experiment: Callable[..., Experiment]) -> None:
    save_bert(tmp_path / "base", type_vocab_size=1)
    config = tmp_path / "base" / "tokenizer_config.json"
    names = ["input_ids", "token_type_ids", "attention_mask"]
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_input_names": names}))
    assert prepare(experiment()).data.token_type_ids is not None
    with pytest.raises(ModelError, match="which has 1 and is given 2; a text pair needs a model"):
        prepare(experiment(text_pair="pair"))


def test_a_model_that_reads_its_padding_is_refused_in_one_line(
    tmp_path: Path, experiment: Callable[..., Experiment]
) -> None:
    """XLNet has no linear modules in its attention; it classifies by the last token of the row, and here its tokenizer
    pads on the right, where it should not."""
    size = save_tokenizer(tmp_path / "base", KLUE)
    sizes = {"vocab_size": size, "d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32}
    XLNetLMHeadModel(XLNetConfig(**sizes, pad_token_id=0, bos_token_id=1, eos_token_id=2)).save_pretrained(
        tmp_path / "base"
    )
    with pytest.raises(InputError) as caught:
        plan_study(experiment())
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("search.targets: must exist in the model, got query+value")
    assert "a LoRA goes on linear modules only" in mistake
    on_mlp = experiment().model_copy(update={"search": SearchSpec(rank=(1,), targets=("mlp",), trials=1)})
    with pytest.raises(InputError) as caught:
        plan_study(on_mlp)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("model.base: must ")


@pytest.mark.parametrize("run", [plan_study, run_study])
def test_whatever_the_export_would_refuse_is_told_before_anything_is_written(
    tmp_path: Path, experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    save_bert(tmp_path / "base")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial_export, "initial_a", lambda key, name, rank, size: torch.full((rank, size), torch.nan))
    with pytest.raises(
        ModelError, match=r"must predict through PEFT what it predicts here, got .* nothing was trained"
    ):
        run(experiment())
    monkeypatch.setattr(trial_export, "initial_a", lambda key, name, rank, size: torch.zeros(rank + 1, size))
    with pytest.raises(ModelError, match=r"must be a model whose adapters PEFT can load, got .* nothing was trained"):
        run(experiment())
    assert not (tmp_path / "results").exists()


def test_a_base_of_weights_that_are_no_numbers_is_told(tmp_path: Path, experiment: Callable[..., Experiment]) -> None:
    save_bert(tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    (broken,) = [name for name in weights if name.endswith("layer.1.output.dense.weight")]
    weights[broken][0, 0] = torch.nan
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        check_export(prepare(experiment()))
    assert caught.value.mistakes == (
        "model.base: must have finite weights, for what it predicts is not finite, got NaN or infinite values in"
        f" bert.{broken} of '{tmp_path / 'base'}'",
    )


def test_a_base_that_fits_but_once_is_noted_and_not_tried(
    tmp_path: Path, experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bert(tmp_path / "base")
    prepared = prepare(experiment())
    monkeypatch.setattr(trial_export, "free_bytes", lambda device: 1000)
    assert check_export(prepared)[0].startswith(
        "the export is not tried beforehand: it needs a second copy of the base"
    )


def test_a_study_that_goes_on_is_not_tried_again(
    tmp_path: Path, experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bert(tmp_path / "base")
    run_study(experiment(), tmp_path / "results", progress=False)

    def never(prepared: object) -> tuple[str, ...]:
        raise AssertionError("a second copy of the base for nothing")

    monkeypatch.setattr("lora_search.study.runner.check_export", never)
    run_study(experiment(), tmp_path / "results", progress=False)


def test_the_temporary_folder_is_gone(
    tmp_path: Path, experiment: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_bert(tmp_path / "base")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    check_export(prepare(experiment()))
    assert list((tmp_path / "temporary").iterdir()) == []
    shutil.rmtree(tmp_path / "temporary")
