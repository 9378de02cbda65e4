"""Texts to go on with: conversations, prompts with their completions, or plain texts, ready to be split and encoded.

Five shapes of table are read, those in which such data are kept: ``messages`` (a list of objects with ``role`` and
``content``), ``conversations`` of ShareGPT (``from`` and ``value``), ``prompt`` and ``completion`` (texts, or
messages), ``instruction``, ``input`` and ``output`` of Alpaca, and ``text``. All become an :class:`Exchange`. Which it
is, the columns say: those the experiment names, else those that are there; and of conversations their turns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lora_search.data.dataset import Dataset
from lora_search.data.duplicates import copies, fold_groups
from lora_search.data.examples import about_rows, sample
from lora_search.data.messages import Exchange, calls_of_tools, exchanges_of
from lora_search.data.report import DataReport
from lora_search.data.sources import RawExamples, columns_of
from lora_search.data.table import Table
from lora_search.data.wording import counted, listed, rows_phrase
from lora_search.errors import DataError, MissingColumnError, Mistake
from lora_search.spec.experiment import DataSpec
from lora_search.spec.quoting import quoted, quoted_path

LABEL = "example"
"""The one stratum there is."""
_NO_COLUMN = "\0"


@dataclass(frozen=True)
class Shape:
    """A shape of table.

    Attributes:
        name: as in ``data.format``.
        wanted: key of the experiment -> the column it names, those that must be there.
        optional: the same for those that may be.
        phrase: what its rows are, in words.
    """

    name: str
    wanted: dict[str, str]
    optional: dict[str, str] = field(default_factory=dict)
    phrase: str = ""


@dataclass(frozen=True)
class ChatReport(DataReport):
    """As ``DataReport``, of exchanges.

    Attributes:
        shape: of the table, in words, and
        shape_found: whether it was looked for.
        tokens, trained: in all examples, and how many of them are trained; None before encoding.
        about_mask: what is trained, and how that was found out, as sentences.
        mask_warnings: what is odd about that.
    """

    shape: str = ""
    shape_found: bool = False
    tokens: int | None = None
    trained: int | None = None
    about_mask: tuple[str, ...] = ()
    mask_warnings: tuple[str, ...] = ()

    def _about_size(self) -> list[str]:
        found = ", as its columns say" if self.shape_found else ""
        sentences = [f"{counted(self.examples, 'example')}: {self.shape}{found}."]
        if self.sampled_from is not None:
            sentences.append(f"Sampled from {self.sampled_from} examples.")
        return [*sentences, *self._about_groups()]

    def _about_lengths(self) -> list[str]:
        sentences = super()._about_lengths()
        if self.tokens is not None and self.trained is not None:
            share = f"{100 * self.trained / max(1, self.tokens):.0f} %"
            sentences.append(f"{self.trained} of {counted(self.tokens, 'token')} are trained ({share}).")
        return [*sentences, *self.about_mask]

    def warnings(self) -> tuple[str, ...]:
        return (*super().warnings(), *(f"Warning: {sentence}" for sentence in self.mask_warnings))


@dataclass(frozen=True, eq=False)
class ChatDataset(Dataset):
    """n exchanges; ``texts`` are what a person reads of them, and all are of one stratum.

    Attributes:
        exchanges: n of them.
    """

    exchanges: tuple[Exchange, ...] = ()


def load_chat(spec: DataSpec, seed: int) -> ChatDataset:
    """Read, check and sample the exchanges of an experiment.

    Args:
        spec: ``[data]``.
        seed: the experiment's seed; decides which examples ``max_examples`` takes.

    Raises:
        DataError: the source cannot be read, has none of the shapes, or its rows cannot be used.
    """
    shape, table = _read(spec)
    columns = {key: table.columns[column] for key, column in _columns(shape, table)}
    exchanges = exchanges_of(shape.name, columns)
    if not exchanges:
        raise DataError.about("data.train", "must hold examples", got=f"no rows in {quoted_path(spec.train)}")
    groups = None if spec.group is None else _groups(table.columns[spec.group])
    texts = tuple(exchange.text for exchange in exchanges)
    rows = tuple(range(1, len(exchanges) + 1))
    raw = RawExamples(texts, None, (LABEL,) * len(rows), groups, rows)
    used, sampled_from = raw, None
    if spec.max_examples is not None and spec.max_examples < len(raw):
        used, sampled_from = sample(raw, spec.max_examples, seed), len(raw)
    kept = tuple(exchanges[row - 1] for row in used.rows)
    duplicates = copies(used)
    joined = fold_groups(len(used), used.groups, duplicates)
    report = ChatReport(
        source=spec.train,
        **about_rows(raw, used, duplicates),
        dropped={},
        sampled_from=sampled_from,
        label_counts={LABEL: len(used)},
        group_column=spec.group,
        notes=(*table.notes, *_about_messages(exchanges, columns)),
        shape=shape.phrase,
        shape_found=spec.format in (None, "auto"),
    )
    return ChatDataset(
        texts=used.texts,
        pairs=None,
        labels=np.zeros(len(used), dtype=np.int64),
        label_names=(LABEL,),
        groups=joined,
        rows=np.array(used.rows, dtype=np.int64),
        report=report,
        fingerprint=_fingerprint(kept, joined),
        exchanges=kept,
    )


def _shapes(spec: DataSpec) -> tuple[Shape, ...]:
    """The shapes there are, those that say more first; columns as the experiment names them."""
    messages = spec.messages or "messages"
    turns = spec.messages or "conversations"
    prompt, completion = spec.prompt or "prompt", spec.completion or "completion"
    return (
        Shape("messages", {"data.messages": messages}, phrase=f"messages of column {quoted(messages)}"),
        Shape("sharegpt", {"data.messages": turns}, phrase=f"ShareGPT conversations of column {quoted(turns)}"),
        Shape(
            "prompt-completion",
            {"data.prompt": prompt, "data.completion": completion},
            phrase=f"prompts ({quoted(prompt)}) and completions ({quoted(completion)})",
        ),
        Shape(
            "alpaca",
            {"instruction": "instruction", "output": "output"},
            {"input": "input"},
            phrase="Alpaca's instructions, inputs and outputs",
        ),
        Shape("text", {"data.text": spec.text}, phrase=f"texts of column {quoted(spec.text)}"),
    )


def _asked(spec: DataSpec) -> tuple[Shape, ...]:
    """The shapes that the source may have: of the declared kind, and of the columns that are named.

    Raises:
        DataError: columns of several kinds are named, or of another than the declared one.
    """
    shapes = _shapes(spec)
    if declared := spec.format not in (None, "auto"):
        shapes = tuple(shape for shape in shapes if shape.name == spec.format)
    default = DataSpec.model_fields["text"].default
    given = {"messages": spec.messages, "prompt": spec.prompt, "completion": spec.completion, "text": spec.text}
    named = {
        f"data.{key}": name for key, name in given.items() if name is not None and (key, name) != ("text", default)
    }
    fitting = tuple(shape for shape in shapes if named.keys() <= shape.wanted.keys())
    if fitting:
        return fitting
    if declared:
        foreign = [key for key in named if key not in shapes[0].wanted]
        rule = f"must be left out where data.format is {quoted(spec.format)}"
        raise DataError(Mistake(rule, key, quoted(named[key])) for key in foreign)
    rule = "must be of one kind: data.messages; data.prompt and data.completion; or data.text"
    raise DataError.about("data", rule, got=" and ".join(named))


def _read(spec: DataSpec) -> tuple[Shape, Table]:
    """The shape of the source, and its columns."""
    shapes = _asked(spec)
    # columns that are named, or a kind that is, say the shape: if they are not there, that is told
    shape = shapes[0] if len(shapes) < len(_shapes(spec)) else _found(spec, shapes)
    wanted = dict(shape.wanted)
    if spec.group is not None:
        wanted["data.group"] = spec.group
    try:
        table = columns_of(spec, {**wanted, **shape.optional})
    except DataError:
        if not shape.optional:
            raise
        table = columns_of(spec, wanted)
    if spec.format in (None, "auto") and (key := "data.messages") in shape.wanted:
        shape = _by_turns(shape, table.columns[wanted[key]], quoted(wanted[key]))
    return shape, table


def _found(spec: DataSpec, shapes: Sequence[Shape]) -> Shape:
    """The first shape whose columns the source has.

    Raises:
        DataError: it has those of none.
    """
    available = _available(spec)
    if available is None:
        # json may be a table only once a column is named; what is the matter with others, their own reader says
        return next((shape for shape in shapes if _reads(spec, shape)), shapes[0])
    fitting = [shape for shape in shapes if set(shape.wanted.values()) <= set(available)]
    if not fitting:
        raise DataError.about(
            "data.train",
            "must have the columns of a kind of example: messages; conversations; prompt and completion;"
            " instruction and output; or text",
            got=listed(available) or "none",
            hint="name yours with data.messages, data.prompt and data.completion, or data.text",
        )
    return fitting[0]


def _reads(spec: DataSpec, shape: Shape) -> bool:
    try:
        columns_of(spec, shape.wanted)
    except DataError:
        return False
    return True


def _available(spec: DataSpec) -> tuple[str, ...] | None:
    """The columns of the source; None where that does not look like a table until a column is named."""
    try:
        columns_of(spec, {"data.train": _NO_COLUMN})
    except MissingColumnError as error:
        return error.available
    except DataError:
        return None
    return None


def _columns(shape: Shape, table: Table) -> list[tuple[str, str]]:
    """(what a column is, its name), those that are there."""
    named = {**shape.wanted, **shape.optional}
    return [(key.rpartition(".")[2], column) for key, column in named.items() if column in table.columns]


def _groups(values: Sequence[Any]) -> tuple[str, ...]:
    missing = [row for row, group in enumerate(values, start=1) if group is None or not str(group).strip()]
    if missing:
        raise DataError.about("data.group", "every example must have its group", got=f"none in {rows_phrase(missing)}")
    return tuple(map(str, values))


def _by_turns(shape: Shape, values: Sequence[Any], column: str) -> Shape:
    """The shape that the turns of conversations have, whatever their column is called."""
    first = next((value[0] for value in values if isinstance(value, list) and value), None)
    if not isinstance(first, dict) or ("from" in first) == ("role" in first):
        return shape
    if "role" in first:
        return Shape("messages", shape.wanted, phrase=f"messages of column {column}")
    return Shape("sharegpt", shape.wanted, phrase=f"ShareGPT conversations of column {column}")


def _about_messages(exchanges: Sequence[Exchange], columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """What is in messages and not trained, as sentences."""
    sentences = []
    if calls := calls_of_tools(columns):
        sentences.append(
            f"{counted(calls, 'message calls a tool', 'messages call tools')}: of them the content alone is read."
        )
    if untrained := sum(len(exchange.untrained) for exchange in exchanges):
        has, have = "message has a weight of 0 and is", "messages have a weight of 0 and are"
        sentences.append(f"{counted(untrained, has, have)} not trained.")
    return sentences


def _fingerprint(exchanges: Sequence[Exchange], groups: npt.NDArray[np.int64]) -> str:
    digest = hashlib.sha256()
    for exchange, group in zip(exchanges, groups.tolist(), strict=True):
        weights = [exchange.untrained] if exchange.untrained else []
        parts = [exchange.messages, exchange.prompt, exchange.completion, group, *weights]
        digest.update(json.dumps(parts).encode("ascii"))
        digest.update(b"\n")
    return digest.hexdigest()
