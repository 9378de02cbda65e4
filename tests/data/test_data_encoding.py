"""Encoding: the tokenizer's own ids, unpadded; what was cut is counted; the fingerprint follows what training sees."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lora_search.data import Dataset, encode, load_dataset
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec

Make = Callable[..., Dataset]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """A BERT tokenizer in which each letter between spaces is a token."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY))
    settings = {"tokenizer_class": "BertTokenizer", "model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    return loaded


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(rows: list[dict[str, Any]], **more: Any) -> Dataset:
        path = tmp_path / "train.json"
        path.write_text(json.dumps(rows))
        return load_dataset(DataSpec(train=str(path), **more), seed=0)

    return made


ROWS = [{"text": "a b c", "label": "y"}, {"text": "d", "label": "x"}, {"text": "e f g h i", "label": "y"}]


def ids(words: str) -> list[int]:
    return [VOCABULARY.index(word) for word in words.split()]


def test_texts_become_unpadded_ids_of_their_own_length(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    encoded = encode(make(ROWS), tokenizer, 16)
    assert [row.tolist() for row in encoded.input_ids] == [
        ids("[CLS] a b c [SEP]"),
        ids("[CLS] d [SEP]"),
        ids("[CLS] e f g h i [SEP]"),
    ]
    assert {row.dtype for row in encoded.input_ids} == {np.dtype(np.int64)}
    assert encoded.lengths.tolist() == [5, 3, 7]
    assert encoded.labels.tolist() == [1, 0, 1]
    assert encoded.label_names == ("x", "y")
    assert encoded.groups.tolist() == [0, 1, 2]
    assert len(encoded) == 3
    assert encoded.report.truncated == 0
    assert encoded.report.sentences() == ("3 examples of 2 labels: x (1), y (2).",)


def test_pairs_are_told_apart_by_token_type(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    rows = [{**row, "reply": "z z"} for row in ROWS]
    encoded = encode(make(rows, text_pair="reply"), tokenizer, 16)
    assert encoded.token_type_ids is not None
    assert encoded.input_ids[1].tolist() == ids("[CLS] d [SEP] z z [SEP]")
    assert encoded.token_type_ids[1].tolist() == [0, 0, 0, 1, 1, 1]


def test_what_is_cut_is_counted_once_and_only_if_cut(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    encoded = encode(make(ROWS), tokenizer, 5)
    assert encoded.lengths.tolist() == [5, 3, 5], "the first fits exactly"
    assert encoded.input_ids[2].tolist() == ids("[CLS] e f g [SEP]")
    assert encoded.report.truncated == 1
    assert encoded.report.truncated_share == pytest.approx(1 / 3)
    assert encoded.report.sentences()[-1] == "1 example is cut at 5 tokens (33.3%)."


def test_the_longer_text_of_a_pair_is_cut(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    rows = [{**row, "reply": "z"} for row in ROWS]
    encoded = encode(make(rows, text_pair="reply"), tokenizer, 7)
    assert encoded.input_ids[2].tolist() == ids("[CLS] e f g [SEP] z [SEP]")
    assert encoded.report.truncated == 1


def test_the_tokenizers_limit_lowers_max_length_and_is_said(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    rows = [*ROWS, {"text": "a " * 100, "label": "x"}]
    encoded = encode(make(rows), tokenizer, 256)
    assert encoded.lengths.max() == 64
    assert encoded.report.sentences()[-2:] == (
        "max_length 256 is lowered to 64, the tokenizer's limit.",
        "1 example is cut at 64 tokens (25.0%).",
    )


@pytest.mark.parametrize("limit", [-1, 0, 3, float("inf"), float("nan"), int(1e30)])
def test_a_tokenizers_limit_that_is_none_lowers_nothing(
    tokenizer: PreTrainedTokenizerBase, make: Make, monkeypatch: pytest.MonkeyPatch, limit: float
) -> None:
    monkeypatch.setattr(tokenizer, "model_max_length", limit)
    encoded = encode(make([*ROWS, {"text": "a " * 100, "label": "x"}]), tokenizer, 8)
    assert (encoded.report.max_length, encoded.report.asked_length, encoded.report.truncated) == (8, None, 1)


def test_many_examples_are_encoded_as_one_by_one(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    texts = [" ".join(letters[(number * step) % 26] for step in range(1, 3 + number % 5)) for number in range(2500)]
    encoded = encode(make([{"text": text, "label": number % 2} for number, text in enumerate(texts)]), tokenizer, 16)
    assert [row.tolist() for row in encoded.input_ids] == [ids(f"[CLS] {text} [SEP]") for text in texts]


def test_a_tokenizer_without_token_types_gives_none(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    plain = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, model_input_names=["input_ids"])
    encoded = encode(make(ROWS), plain, 16)
    assert encoded.token_type_ids is None
    assert encoded.lengths.tolist() == [5, 3, 7]


def test_a_text_of_no_tokens_is_named_by_its_row(make: Make) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    bare = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    bare.normalizer = normalizers.Replace("\u200b", "")
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    dataset = make([{"text": text, "label": label} for text, label in (("drop", "z"), ("a", "x"), ("\u200b", "y"))])
    with pytest.raises(DataError) as caught:
        encode(dataset, PreTrainedTokenizerFast(tokenizer_object=bare), 16)
    assert caught.value.mistakes == ("data.text: must give at least one token, got none from the text in data row 3",)


LETTERS = [{"text": "a b c d", "label": "y"}, {"text": "a b c e", "label": "x"}, {"text": "z", "label": "y"}]


def test_texts_that_are_cut_to_the_same_are_told_and_stay_in_one_fold(
    tokenizer: PreTrainedTokenizerBase, make: Make
) -> None:
    whole, encoded = encode(make(LETTERS), tokenizer, 16), encode(make(LETTERS), tokenizer, 5)
    assert whole.groups.tolist() == [0, 1, 2]
    assert encoded.groups.tolist() == [0, 0, 1]
    assert encoded.report.sentences()[-1] == (
        "Warning: 2 of 3 examples are alike once encoded, though their texts differ (cut at 5 tokens, or of characters"
        " the tokenizer does not know or drops); copies as encoded stay in one fold."
    )


def test_texts_of_unknown_characters_are_told(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    rows = [
        *LETTERS,
        {"text": "ልጅ", "label": "x"},
        {"text": "ውሃ", "label": "y"},
        {"text": "\u200b\u200b", "label": "y"},
    ]
    encoded = encode(make(rows), tokenizer, 16)
    assert encoded.groups.tolist() == [0, 1, 2, 3, 3, 4]
    assert encoded.report.alike == 2
    assert encoded.report.sentences()[-1] == (
        "Warning: 3 of 6 examples are empty but for special and unknown tokens once encoded."
    )


def test_copies_of_one_text_are_told_as_such_and_not_as_alike(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    encoded = encode(make([*LETTERS, {"text": "A b C  d", "label": "y"}]), tokenizer, 16)
    assert encoded.report.alike == 0
    assert encoded.groups.tolist() == [0, 1, 2, 0]


def test_examples_that_are_all_alike_are_refused(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    with pytest.raises(DataError, match="must differ once encoded, 2 of 2 examples are alike once encoded"):
        encode(make(LETTERS[:2]), tokenizer, 5)


def test_the_fingerprint_follows_what_training_sees(tokenizer: PreTrainedTokenizerBase, make: Make) -> None:
    original = encode(make(ROWS), tokenizer, 16).fingerprint

    def changed(position: int, **change: str) -> str:
        rows = [{**row, **change} if number == position else row for number, row in enumerate(ROWS)]
        return encode(make(rows), tokenizer, 16).fingerprint

    assert changed(0, text="A  b c") == original, "an uncased tokenizer sees no difference"
    assert changed(0, text="a b z") != original
    assert changed(0, label="x") != original
    assert changed(1, label="w") != original, "names are part of a model"
    assert encode(make(ROWS), tokenizer, 5).fingerprint != original
    dataset = make(ROWS)
    assert encode(replace(dataset, groups=np.zeros(3, dtype=np.int64)), tokenizer, 16).fingerprint != original
