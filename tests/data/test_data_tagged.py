"""Sentences with tags from every kind of source, and every mistake in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from lora_search.data.examples import merged_strata
from lora_search.data.tagged import TaggedDataset, load_tagged
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec
from lora_search.tasks import task_of

TOKENS = [["Ada", "Lovelace", "wrote"], ["in", "London"], ["nothing", "here"]]
TAGS = [["B-PER", "I-PER", "O"], ["O", "B-LOC"], ["O", "O"]]
CONLL = "-DOCSTART- -X- O\n\nAda NNP B-PER\nLovelace NNP I-PER\nwrote VB O\n\nin IN O\nLondon NNP B-LOC\n\n" \
    "-DOCSTART- -X- O\n\nnothing NN O\nhere RB O\n"  # fmt: skip


def written(folder: Path, tokens: Any = TOKENS, tags: Any = TAGS, **columns: Any) -> Path:
    path = folder / "data.jsonl"
    rows = zip(tokens, tags, *columns.values(), strict=True)
    keys = ("tokens", "tags", *columns)
    path.write_text("".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows), encoding="utf-8")
    return path


def load(path: Path | str, seed: int = 0, **keys: Any) -> TaggedDataset:
    return load_tagged(DataSpec(train=str(path), **keys), seed)


def words_of(dataset: TaggedDataset) -> list[list[str]]:
    return [[dataset.label_names[tag] for tag in tags] for tags in dataset.tags]


def mistakes(path: Path | str, **keys: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        load(path, **keys)
    return caught.value.mistakes


def stored() -> datasets.Dataset:
    names = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "tags": datasets.List(datasets.ClassLabel(names=names))}
    )
    numbers = [[names.index(tag) for tag in each] for each in TAGS]
    return datasets.Dataset.from_dict({"tokens": TOKENS, "tags": numbers}, features=features)


@pytest.mark.parametrize("kind", ["jsonl", "json", "columns", "parquet", "features", "saved", "conll", "tabs"])
def test_every_source_gives_the_same_sentences(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "data"
    if kind == "jsonl":
        path = written(tmp_path)
    elif kind == "json":
        path = tmp_path / "data.json"
        path.write_text(json.dumps([{"tokens": a, "tags": b} for a, b in zip(TOKENS, TAGS, strict=True)]))
    elif kind == "columns":
        path = tmp_path / "data.json"
        path.write_text(json.dumps({"tokens": TOKENS, "tags": TAGS}))
    elif kind == "parquet":
        path = tmp_path / "data.parquet"
        datasets.Dataset.from_dict({"tokens": TOKENS, "tags": TAGS}).to_parquet(path)
    elif kind == "features":
        path = tmp_path / "data.parquet"
        stored().to_parquet(path)
    elif kind == "saved":
        stored().save_to_disk(path)
    else:
        path = tmp_path / f"data.{'conll' if kind == 'conll' else 'txt'}"
        path.write_text(CONLL.replace(" ", "\t") if kind == "tabs" else CONLL)
    dataset = load(path)
    assert [list(words) for words in dataset.tokens] == TOKENS
    assert words_of(dataset) == TAGS
    assert dataset.texts[0] == "Ada Lovelace wrote"
    assert dataset.scheme == "IOB2"
    assert dataset.label_names[0] == "O"
    documents = kind in ("conll", "tabs")
    assert dataset.groups.tolist() == ([0, 0, 1] if documents else [0, 1, 2])
    assert dataset.report.sentences()[0] == "3 sentences of 7 words, entities: LOC (1), PER (1)."
    assert ("2 groups (document), each whole in one fold." in dataset.report.sentences()) == documents


def test_other_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    rows = [{"w": a, "ner": b, "doc": 7} for a, b in zip(TOKENS, TAGS, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load(path, tokens="w", tags="ner", group="doc")
    assert words_of(dataset) == TAGS
    assert dataset.groups.tolist() == [0, 0, 0]
    conll = tmp_path / "data.conll"
    conll.write_text("0 Ada B-PER x\n1 wrote O x\n")
    assert words_of(load(conll, tokens="1", tags="2")) == [["B-PER", "O"]]


@pytest.mark.parametrize("odd", ["\x85", "\u2028", "\u00a0", "\x0c", "10\u00a0000", "a\u2028b", "\x1c"])
@pytest.mark.parametrize("sign", [" ", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_of_a_conll_file_only_line_ends_end_lines_and_only_spaces_or_tabs_part_columns(
    tmp_path: Path, odd: str, sign: str, end: str
) -> None:
    path = tmp_path / "data.conll"
    lines = [sign.join(fields) for fields in (("Ada", "N", "B-PER"), (odd, "N", "O"), ("so", "N", "O"))]
    path.write_bytes(end.join((*lines, f" {sign}", *lines, "")).encode())
    dataset = load(path)
    assert dataset.tokens == (("Ada", odd, "so"),) * 2
    assert words_of(dataset) == [["B-PER", "O", "O"]] * 2


def test_a_sentence_is_of_the_rarest_type_it_has(tmp_path: Path) -> None:
    tags = [["B-a", "B-b"], ["B-a", "O"], ["B-a", "O"], ["B-b", "O"], ["B-c", "B-a"], ["O", "O"]]
    dataset = load(written(tmp_path, [[f"w{n}", "v"] for n in range(6)], tags))
    assert [dataset.label_of(example) for example in range(6)] == ["b", "a", "a", "b", "c", "no entity"]


def test_rare_strata_become_one() -> None:
    labels = np.array([0] * 9 + [1] * 2 + [2] * 2 + [3])
    assert merged_strata(labels, 5).tolist() == [0] * 9 + [4] * 5
    assert merged_strata(labels, 6).tolist() == [0] * 14
    assert merged_strata(labels, 1).tolist() == labels.tolist()


def test_a_sample_is_of_every_stratum_in_proportion_and_the_same_again(tmp_path: Path) -> None:
    tokens = [[f"w{n}"] for n in range(100)]
    tags = [["B-a"] if n % 2 else ["O"] for n in range(98)] + [["B-b"], ["B-c"]]
    path = written(tmp_path, tokens, tags)
    dataset = load(path, max_examples=20)
    assert len(dataset) == 20
    assert abs(sum(dataset.label_of(n) == "a" for n in range(20)) - 10) <= 2
    assert dataset.fingerprint == load(path, max_examples=20).fingerprint
    assert dataset.fingerprint != load(path, max_examples=20, seed=1).fingerprint
    assert "Sampled from 100 sentences, each rarest type of entity in proportion." in dataset.report.sentences()


def documents(folder: Path, sizes: list[int]) -> Path:
    path = folder / "data.conll"
    sentence = "Ada{n} NNP B-PER\nwrote{n} VB O\n\n"
    numbers = iter(range(1000))
    path.write_text(
        "".join(
            "-DOCSTART- -X- O\n\n" + "".join(sentence.format(n=next(numbers)) for _ in range(size)) for size in sizes
        )
    )
    return path


@pytest.mark.parametrize(
    ("sizes", "holdout", "torn"), [([20], 0.0, 0), ([10] * 4, 0.0, 4), ([10] * 5, 0.2, 5), ([10] * 5, 0.0, None),
    ([10] * 7, 0.2, None)]
)  # fmt: skip
def test_documents_fewer_than_folds_are_no_groups(
    tmp_path: Path, sizes: list[int], holdout: float, torn: int | None
) -> None:
    dataset = load_tagged(DataSpec(train=str(documents(tmp_path, sizes)), holdout=holdout), seed=0, folds=5)
    splits = task_of("token-classification").split(dataset, folds=5, holdout=holdout, seed=0)
    assert all(len(splits.fold(0, fold).evaluate) for fold in range(5))
    whole = f"{len(sizes)} groups (document), each whole in one fold."
    assert (whole in dataset.report.sentences()) == (torn is None)
    assert len(set(dataset.groups.tolist())) == (len(sizes) if torn is None else sum(sizes))
    said = (f"Warning: {torn} documents are too few for the folds: sentences of one document are trained and evaluated"
            " on, which may flatter the scores.",)  # fmt: skip
    assert dataset.report.warnings() == (said if torn else ())


def test_copies_of_a_sentence_stay_together(tmp_path: Path) -> None:
    dataset = load(written(tmp_path, [["a", "b"], ["A", "b"], ["c"]], [["B-x", "O"], ["B-x", "O"], ["O"]]))
    assert dataset.groups.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("tokens", "tags", "line"),
    [
        (
            [["a", "b"], ["c"]],
            [["B-x"], ["O"]],
            "data.tags: every word must have its tag, got more or fewer tags than words in data row 1",
        ),
        ([["a"], []], [["B-x"], []], "data.tokens: every sentence must have a word, got none in data row 2"),
        ([["a", " "]], [["B-x", "O"]], "data.tokens: every word must have a character, got blanks in data row 1"),
        ([["a", 3]], [["B-x", "O"]], "data.tokens: every word must be a string, got something else in data row 1"),
        (["a b"], [["B-x", "O"]], "data.tokens: column 'tokens' must hold lists, got str in data row 1"),
        (
            [["a", "b"]],
            [[1, 0]],
            "data.tags: must be strings, or numbers with names in the source, got others in data row 1",
        ),
        ([["a"]], [["O"]], "data.tags: must mark entities, got O for every word"),
        (
            [["a"]],
            [["PER"]],
            "data.tags: must be O, or a prefix and a type as in B-PER, got 'PER' in data row 1",
        ),
        (
            [["a", "b"], ["c", "d"]],
            [["B-x", "I-x"], ["O", "I-x"]],
            "data.tags: must keep to IOB2, got 'I-x' after O in data row 2; name the scheme in data.scheme, or mend"
            " these tags",
        ),
    ],
)
def test_every_mistake_is_one_line(tmp_path: Path, tokens: Any, tags: Any, line: str) -> None:
    assert mistakes(written(tmp_path, tokens, tags)) == (line,)


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert mistakes(path, tags="ner") == (
        "data.tags: must be a column of data.jsonl, got 'ner' (columns: tokens, tags)",
    )
    assert mistakes(path, tags="tokens") == (
        "data.tags: must not be the column the model reads (data.tokens), got 'tokens'",
    )
    conll = tmp_path / "data.conll"
    conll.write_text(CONLL)
    assert mistakes(conll, tags="ner") == (
        "data.tags: must be the number of a column, from 0, of a CoNLL file, got 'ner'",
    )
    assert mistakes(conll, tags="5") == (
        "data.tags: every word must have 6 columns or more, got 3 in line 3 of data.conll",
    )
    assert mistakes(conll, group="doc") == ("data.group: must be left out: a CoNLL file has documents, got 'doc'",)
    conll.write_text("alone\n")
    assert mistakes(conll) == ("data.tokens: every word must have 2 columns or more, got 1 in line 1 of data.conll",)
    conll.write_text("\n\n")
    assert mistakes(conll)[0].startswith("data.train: must hold sentences, got none in ")


def test_a_set_of_the_hub_that_cannot_be_reached_is_said() -> None:
    (line,) = mistakes("hub:nobody/no-such-set")
    assert line.startswith("data.train: 'hub:nobody/no-such-set' cannot be reached")
