"""Words to tokens: labels on first word-pieces, windows, and tokenizers of several kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from lora_search.data.tagged import TaggedDataset, load_tagged
from lora_search.data.tagged_encoding import UNLABELLED, EncodedSentences, encode_tagged, space_before
from lora_search.errors import DataError, ModelError
from lora_search.spec.experiment import DataSpec

WORDS = [["ada", "lovelace", "wrote", "to", "babbage"], ["nothing"], ["london", "\u200b", "calls"]]
TAGS = [["B-P", "I-P", "O", "O", "B-P"], ["O"], ["B-L", "O", "O"]]


@pytest.fixture
def dataset(tmp_path: Path) -> TaggedDataset:
    path = tmp_path / "data.jsonl"
    rows = [{"tokens": words, "tags": tags} for words, tags in zip(WORDS, TAGS, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return load_tagged(DataSpec(train=str(path)), 0)


def word_pieces() -> PreTrainedTokenizerFast:
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ada", "love", "##lace", "wrote", "to", "bab", "##bage",
                  "nothing", "london", "calls", "we"]  # fmt: skip
    inner = BertWordPieceTokenizer({word: number for number, word in enumerate(vocabulary)})
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner._tokenizer, **names)


def byte_level(prefix_space: bool) -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        special_tokens=["<pad>", "<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([" we wrote to ada and to london"] * 4, trainer)
    inner.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1), add_prefix_space=prefix_space)
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def labelled(data: EncodedSentences, tokenizer: Any) -> list[list[tuple[str, str]]]:
    """(token, tag) of every labelled token of every row."""
    return [
        [
            (tokenizer.convert_ids_to_tokens(int(ids[place])), data.label_names[int(target[place])])
            for place in np.flatnonzero(target != UNLABELLED)
        ]
        for ids, target in zip(data.input_ids, data.targets, strict=True)
    ]


def test_the_first_piece_of_a_word_carries_its_tag(dataset: TaggedDataset) -> None:
    tokenizer = word_pieces()
    data = encode_tagged(dataset, tokenizer, 64)
    rows = labelled(data, tokenizer)
    assert rows[0] == [("ada", "B-P"), ("love", "I-P"), ("wrote", "O"), ("to", "O"), ("bab", "B-P")]
    assert data.lengths.tolist() == [9, 3, 4]
    assert data.input_ids[0][[0, -1]].tolist() == [2, 3]


def test_a_word_without_a_token_is_not_seen_and_told(dataset: TaggedDataset) -> None:
    data = encode_tagged(dataset, word_pieces(), 64)
    assert data.seen[2].tolist() == [0, 2]
    assert data.tags[2].shape == (3,)
    (warning,) = data.report.warnings()
    assert warning == "Warning: 1 word gives no token at all; they are answered with O."


def test_a_long_sentence_is_windows_and_every_word_is_answered_once(dataset: TaggedDataset) -> None:
    tokenizer = word_pieces()
    whole, cut = encode_tagged(dataset, tokenizer, 64), encode_tagged(dataset, tokenizer, 6)
    assert len(cut) == len(whole) == 3
    assert cut.lengths.max() <= 6
    rows = cut.rows_of(np.array([0]))
    assert len(rows) > 1
    together = [pair for row in rows for pair in labelled(cut, tokenizer)[row]]
    assert together == labelled(whole, tokenizer)[0]
    assert cut.examples_of_rows.tolist() == [0] * len(rows) + [1, 2]
    assert cut.widths.tolist() == [6, 3, 4]
    assert cut.report.sentences()[-2].startswith("1 sentence is longer than 6 tokens and read in windows")
    assert cut.fingerprint != whole.fingerprint


@pytest.mark.parametrize("prefix_space", [True, False])
def test_words_become_the_tokens_they_are_inside_a_text(dataset: TaggedDataset, prefix_space: bool) -> None:
    tokenizer = byte_level(prefix_space)
    assert space_before(tokenizer) == ("" if prefix_space else " ")
    data = encode_tagged(dataset, tokenizer, 64)
    assert data.input_ids[0].tolist() == tokenizer(" ada lovelace wrote to babbage")["input_ids"]
    assert [tag for _, tag in labelled(data, tokenizer)[0]] == TAGS[0]


def test_word_pieces_need_no_space() -> None:
    assert space_before(word_pieces()) == ""


def test_no_room_for_a_word_is_said(dataset: TaggedDataset) -> None:
    with pytest.raises(DataError, match="must have room for a word beside 2 special tokens, got 2"):
        encode_tagged(dataset, word_pieces(), 2)


def test_a_tokenizer_that_does_not_tell_words_apart_is_refused(dataset: TaggedDataset) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="must have a tokenizer that tells words apart"):
        encode_tagged(dataset, Slow(), 64)  # type: ignore[arg-type]
