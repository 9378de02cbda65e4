"""Does any input get anything but an answer or a clean mistake? Experiment files, overrides and data files at random.

    python experiments/audits/fuzz.py [--inputs 100000] [--seed 0] [--out FILE]

Half of the inputs are experiment files (with overrides), half are data files of every format. They are random text,
right files with bytes changed, and right structures with values changed, by Hypothesis, which also makes a failing one
small. Each must be read, or refused with an ``InputError`` whose mistakes are one readable line each. An experiment
that is read must be the same when it is written out and read again.

Results go to results/audits/fuzz.json. ``tests/functional/test_functional_bad_inputs.py`` runs a few hundred.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import io
import json
import lzma
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import lora_search
from lora_search.data import load_dataset
from lora_search.errors import InputError
from lora_search.spec import experiment_to_toml, load_experiment
from lora_search.spec.experiment import DataSpec, Experiment
from lora_search.spec.toml import toml_document
from lora_search.study.environment import commit_of, hardware, versions

ROOT = Path(__file__).resolve().parents[2]
LONGEST_LINE = 700
"""Characters of a mistake, the path of the temporary folder aside: a rule, and a few values cut to 80 each."""

RIGHT: dict[str, Any] = {
    "name": "films",
    "seed": 0,
    "model": {"base": "owner/model"},
    "data": {"train": "data.csv", "text": "text", "label": "label"},
    "cv": {"folds": 2, "repeats": 1},
    "search": {
        "rank": [1, 2],
        "targets": ["query+value"],
        "layers": ["all", "top-1/2"],
        "learning_rate": 0.001,
        "rank_pattern": ["uniform", "mlp:0.5"],
    },
    "training": {"epochs": 1, "precision": "fp32"},
    "baselines": {"include": ["majority", "head"], "learning_rate": {"head": [0.01]}},
    "verdict": {"metric": "accuracy", "margin": 0.01},
}
_TABLES = {name: list(field.annotation.model_fields) for name, field in Experiment.model_fields.items()
           if hasattr(field.annotation, "model_fields")}  # fmt: skip

CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = st.text(CHARACTERS, max_size=12) | st.sampled_from(
    ["", "all", "top-1/2", "top-0", "top-9999999999999", "query+value", "q_proj,v_proj", "accuracy", "auto", "lora",
     "attention:2,mlp:0.5", "mlp:1e400", "eva",
     "package:json/x", "hub:a/b", "~", "~\0", "../x", "a\0b", "1", "0,1", "-1", "0x10", "x" * 400]
)  # fmt: skip
NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, -1, 2**31, 2**32, 2**63, 10**30, 10**400, 1e308, 1e-320])
LEAVES = WORDS | NUMBERS | st.booleans() | st.dates() | st.datetimes()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3), max_leaves=6
)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Experiment files: the right one with some values changed, or of other text, or with bytes changed."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.text(CHARACTERS).map(str.encode) | st.binary())
    tables = json.loads(json.dumps(RIGHT))
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from([*_TABLES, "name", "seed"]) | WORDS)
        table = tables.setdefault(name, {}) if name in _TABLES else None
        if isinstance(table, dict) and draw(st.integers(0, 5)):
            table[draw(st.sampled_from(_TABLES[name]) | WORDS)] = draw(VALUES)
        else:
            tables[name] = draw(VALUES)
    return draw(_changed(toml_document(tables).encode()))


def _changed(content: bytes) -> st.SearchStrategy[bytes]:
    """Mostly as it is; else cut, or with a few bytes replaced, put in or taken out."""

    @st.composite
    def change(draw: st.DrawFn) -> bytes:
        changed = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            place = draw(st.integers(0, max(0, len(changed))))
            length = draw(st.sampled_from([0, 0, 1, 1, 2, 10, len(changed)]))
            changed[place : place + length] = draw(
                st.sampled_from([b"", b'"', b"\\", b"\n", b"\r", b",", b"[", b"{", b"\xff", b"\0"])
                | st.binary(max_size=4)
            )
        return bytes(changed)

    return st.just(content) | st.just(content) | change()


OVERRIDES = st.lists(
    st.text(max_size=20)
    | st.builds(
        "{}.{}={}".format,
        st.sampled_from(list(_TABLES)),
        st.sampled_from(["folds", "rank", "train", "base", "margin", "a.b", ""]),
        st.text(max_size=20) | st.sampled_from(["[1, 2]", "{ low = 1 }", "[" * 2000, "1\nseed = 2", "0x" + "f" * 5000]),
    ),
    max_size=2,
)

CELLS = st.text(st.sampled_from(' ab,;"\\\n\r\t\0é\u200b'), max_size=8) | st.text(CHARACTERS, max_size=8)
KEYS = st.sampled_from(["text", "label", "data", "columns", "index", "train"]) | st.text(max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5)
    | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
ROWS = st.lists(st.tuples(CELLS, CELLS | st.sampled_from(["a", "b"])), max_size=12)
RECORDS = st.lists(
    st.fixed_dictionaries({}, optional={"text": JSON | st.text(), "label": JSON | st.sampled_from("ab")}), max_size=8
)


def _as_csv(rows: list[tuple[str, str]], delimiter: str, quoting: Any) -> bytes:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, quoting=quoting, escapechar="\\", lineterminator="\n")
    writer.writerows([("text", "label"), *rows])
    return written.getvalue().encode()


def _as_parquet(rows: list[tuple[str, str]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [text for text, _ in rows], "label": [label for _, label in rows]}), buffer)
    return buffer.getvalue()


def _zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.csv", content)
    return buffer.getvalue()


def _zstandard(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return compressed


_PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": _zstandard, ".zip": _zip,
}  # fmt: skip


@st.composite
def data_files(draw: st.DrawFn) -> tuple[str, bytes]:
    """(name, content): a table in one of the formats, right or changed, sometimes compressed."""
    kind = draw(st.sampled_from([".csv", ".csv", ".tsv", ".json", ".jsonl", ".parquet"]))
    if draw(st.integers(0, 7)) == 0:
        content = draw(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
    elif kind in (".csv", ".tsv"):
        quoting = draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONE]))
        content = _as_csv(draw(ROWS), "," if kind == ".csv" else "\t", quoting)
    elif kind == ".parquet":
        content = _as_parquet([(a.replace("\0", ""), b) for a, b in draw(ROWS)])
    elif kind == ".jsonl":
        content = "".join(json.dumps(record) + "\n" for record in draw(RECORDS)).encode()
    else:
        content = json.dumps(draw(RECORDS | JSON)).encode()
    content, name = draw(_changed(content)), f"data{kind}"
    if draw(st.integers(0, 5)) == 0:
        suffix = draw(st.sampled_from(list(_PACK)))
        return name + suffix, draw(_changed(_PACK[suffix](content)))
    return name, content


def try_document(document: bytes, overrides: list[str], folder: Path) -> str:
    """``read``, or the rule the file breaks. Anything else is an error.

    Raises:
        AssertionError: an unreadable mistake, or an experiment that is another when it is read again.
    """
    path = folder / "spec.toml"
    path.write_bytes(document)
    try:
        experiment = load_experiment(path, overrides)
    except InputError as error:
        return _rule(error, folder)
    path.write_text(experiment_to_toml(experiment), encoding="utf-8")
    assert load_experiment(path) == experiment
    return "read"


def try_data(name: str, content: bytes, folder: Path) -> str:
    """As ``try_document``, for a data file."""
    path = folder / name
    path.write_bytes(content)
    try:
        dataset = load_dataset(DataSpec(train=str(path)), 0)
        sentences = dataset.report.sentences()
    except InputError as error:
        return _rule(error, folder)
    finally:
        path.unlink()
    assert all("\n" not in sentence for sentence in sentences), sentences
    return "read"


def _rule(error: InputError, folder: Path) -> str:
    assert error.mistakes
    for mistake in error.mistakes:
        line = mistake.replace(str(folder), "")
        assert line.strip(), "an empty mistake"
        assert "\n" not in line, f"a mistake of several lines: {line!r}"
        assert len(line) <= LONGEST_LINE, f"a mistake of {len(line)} characters: {line!r}"
    first = error.mistakes[0].replace(str(folder), "")
    return re.sub(r"\d+", "N", re.split(r", got |: \S+ cannot|'", first)[0])[:80]


def fuzz(inputs: int, start: int, folder: Path) -> dict[str, Counter[str]]:
    """Try so many inputs; what became of them, by kind.

    Raises:
        Exception: what escaped, of the smallest input found that lets it escape.
    """
    became: dict[str, Counter[str]] = {"experiment": Counter(), "data": Counter()}
    how = settings(
        max_examples=max(1, inputs // 2),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )

    @seed(start)
    @how
    @given(document=documents(), overrides=OVERRIDES)
    def experiments(document: bytes, overrides: list[str]) -> None:
        became["experiment"][try_document(document, overrides, folder)] += 1

    @seed(start)
    @how
    @given(file=data_files())
    def data(file: tuple[str, bytes]) -> None:
        became["data"][try_data(*file, folder)] += 1

    experiments()
    data()
    return became


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "audits" / "fuzz.json")
    arguments = parser.parse_args()
    begun = datetime.now(UTC)
    with TemporaryDirectory() as folder:
        became = fuzz(arguments.inputs, arguments.seed, Path(folder))
    found = {
        "what": "experiment files, overrides and data files at random: read, or refused in clean lines",
        "date": begun.isoformat(timespec="seconds"),
        "commit": commit_of(Path(lora_search.__file__).parent),
        "hardware": hardware(),
        "versions": versions(),
        "inputs": arguments.inputs,
        "seed": arguments.seed,
        "seconds": round((datetime.now(UTC) - begun).total_seconds()),
        "escaped": 0,
        **{kind: dict(counts.most_common()) for kind, counts in became.items()},
    }
    arguments.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for kind, counts in became.items():
        print(f"{kind}: {counts['read']} of {counts.total()} read, {counts.total() - counts['read']} refused by"
              f" {len(counts) - 1} rules; nothing else came out")  # fmt: skip


if __name__ == "__main__":
    main()
