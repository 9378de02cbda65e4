"""Conversations, prompts with completions and texts: every shape of table, and what is refused of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lora_search.data.chat import ChatDataset, load_chat
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec

ASKED = [{"role": "user", "content": "one ?"}, {"role": "assistant", "content": "two"}]
FROM = [{"from": "human", "value": "one ?"}, {"from": "gpt", "value": "two"}]


def loaded(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl", **keys: Any) -> ChatDataset:
    path = folder / name
    if name.endswith("jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif name.endswith("json"):
        path.write_text(json.dumps(rows))
    else:
        pd.DataFrame(rows).to_parquet(path)
    return load_chat(DataSpec(train=str(path), **keys), seed=0)


def mistakes(folder: Path, rows: list[dict[str, Any]], **keys: Any) -> tuple[str, ...]:
    with pytest.raises(DataError) as caught:
        loaded(folder, rows, **keys)
    return caught.value.mistakes


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.parquet"])
@pytest.mark.parametrize(
    ("row", "messages", "said"),
    [
        ({"messages": ASKED}, (("user", "one ?"), ("assistant", "two")), "messages of column 'messages'"),
        (
            {"conversations": FROM},
            (("user", "one ?"), ("assistant", "two")),
            "ShareGPT conversations of column 'conversations'",
        ),
        (
            {"instruction": "add", "input": "1 1", "output": "2"},
            (("user", "add\n\n1 1"), ("assistant", "2")),
            "Alpaca's instructions, inputs and outputs",
        ),
        (
            {"instruction": "add", "input": "", "output": "2"},
            (("user", "add"), ("assistant", "2")),
            "Alpaca's instructions, inputs and outputs",
        ),
    ],
)
def test_a_shape_is_found_by_its_columns_and_told(
    tmp_path: Path, name: str, row: dict[str, Any], messages: tuple[tuple[str, str], ...], said: str
) -> None:
    dataset = loaded(tmp_path, [row] * 4, name)
    assert dataset.exchanges[0].messages == messages
    assert dataset.report.sentences()[0] == f"4 examples: {said}, as its columns say."
    assert len(set(dataset.groups.tolist())) == 1, "copies stay together"


def test_prompts_with_completions_and_texts(tmp_path: Path) -> None:
    pair = loaded(tmp_path, [{"prompt": "a ", "completion": "b", "text": "c"}])
    assert (pair.exchanges[0].prompt, pair.exchanges[0].completion) == ("a ", "b")
    text = loaded(tmp_path, [{"prompt": "a ", "completion": "b", "text": "c"}], format="text")
    assert (text.exchanges[0].prompt, text.exchanges[0].completion) == ("", "c")
    assert text.report.sentences()[0] == "1 example: texts of column 'text'."
    talk = loaded(tmp_path, [{"prompt": ASKED[:1], "completion": ASKED[1:]}])
    assert talk.exchanges[0].last_only
    assert talk.exchanges[0].messages == (("user", "one ?"), ("assistant", "two"))
    named = loaded(tmp_path, [{"talk": FROM, "film": 7}] * 2, messages="talk", group="film")
    assert named.exchanges[0].messages[1] == ("assistant", "two")
    assert "2 groups" not in " ".join(named.report.sentences())
    assert "1 groups (film), each whole in one fold." in named.report.sentences()


def test_the_turns_say_the_shape_whatever_the_column_is_called(tmp_path: Path) -> None:
    asked = loaded(tmp_path, [{"conversations": ASKED}] * 2)
    assert asked.exchanges[0].messages == (("user", "one ?"), ("assistant", "two"))
    assert asked.report.sentences()[0] == "2 examples: messages of column 'conversations', as its columns say."
    told = loaded(tmp_path, [{"messages": FROM}] * 2)
    assert told.report.sentences()[0] == (
        "2 examples: ShareGPT conversations of column 'messages', as its columns say."
    )


EVERYTHING = {
    "messages": ASKED,
    "question": "q",
    "answer": "a",
    "instruction": "i",
    "output": "o",
    "text": "t",
    "story": "s",
}


def test_columns_that_are_named_say_the_shape(tmp_path: Path) -> None:
    pair = loaded(tmp_path, [EVERYTHING], prompt="question", completion="answer").exchanges[0]
    assert (pair.messages, pair.prompt, pair.completion) == ((), "q", "a")
    assert loaded(tmp_path, [EVERYTHING], text="story").exchanges[0].completion == "s"
    assert loaded(tmp_path, [EVERYTHING]).exchanges[0].messages[0] == ("user", "one ?")


@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        (
            {"prompt": "question", "completion": "anwser"},
            ["data.completion: must be a column of rows.jsonl, got 'anwser', did you mean 'answer'? "],
        ),
        ({"prompt": "question"}, ["data.completion: must be a column of rows.jsonl, got 'completion' (columns: "]),
        ({"messages": "chat"}, ["data.messages: must be a column of rows.jsonl, got 'chat' (columns: "]),
        ({"text": "stroy"}, ["data.text: must be a column of rows.jsonl, got 'stroy', did you mean 'story'? "]),
        (
            {"messages": "messages", "text": "story"},
            [
                "data: must be of one kind: data.messages; data.prompt and data.completion; or data.text, got"
                " data.messages and data.text"
            ],
        ),
        (
            {"format": "text", "messages": "messages", "prompt": "question"},
            [
                "data.messages: must be left out where data.format is 'text', got 'messages'",
                "data.prompt: must be left out where data.format is 'text', got 'question'",
            ],
        ),
    ],
)
def test_columns_that_are_named_are_never_passed_over(tmp_path: Path, keys: dict[str, str], lines: list[str]) -> None:
    said = mistakes(tmp_path, [EVERYTHING], **keys)
    assert [line[: len(start)] for line, start in zip(said, lines, strict=True)] == lines


PAIRS = [{"prompt": f"a{row}", "completion": f"b{row}"} for row in range(3)]
ALPACA = [{"instruction": f"a{row}", "input": "x", "output": f"b{row}"} for row in range(3)]


@pytest.mark.parametrize("rows", [PAIRS, ALPACA, [{"messages": ASKED}] * 3, [{"conversations": FROM}] * 3])
@pytest.mark.parametrize("way", ["columns", "by index", "rows by id", "splits"])
def test_every_json_that_other_tasks_read(tmp_path: Path, rows: list[dict[str, Any]], way: str) -> None:
    columns: Any = {column: [row[column] for row in rows] for column in rows[0]}
    written = {
        "columns": columns,
        "by index": {column: dict(enumerate(values)) for column, values in columns.items()},
        "rows by id": {f"id{number}": row for number, row in enumerate(rows)},
        "splits": {"train": columns, "test": columns},
    }[way]
    (tmp_path / "data.json").write_text(json.dumps(written))
    dataset = load_chat(DataSpec(train=str(tmp_path / "data.json")), seed=0)
    assert dataset.exchanges == loaded(tmp_path, rows).exchanges


def test_an_input_may_be_left_out_in_any_json(tmp_path: Path) -> None:
    columns = {"instruction": {"0": "a", "1": "b"}, "output": {"0": "c", "1": "d"}}
    (tmp_path / "data.json").write_text(json.dumps(columns))
    dataset = load_chat(DataSpec(train=str(tmp_path / "data.json")), seed=0)
    assert [each.messages[0][1] for each in dataset.exchanges] == ["a", "b"]


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": role} for role in roles]}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"messages": []}, "data.messages: must end with what the assistant says, got no message in data row 1"),
    "a string": ({"messages": "hi"}, "data.messages: must be a list of messages, got str in data row 1"),
    "no role": (
        {"messages": [{"content": "hi"}]},
        "data.messages: every message must have 'role' and 'content', got keys content in data row 1",
    ),
    "an unknown role": (
        turns("user", "bot"),
        "data.messages: 'role' must be one of system, developer, user, assistant, tool, got 'bot' in data row 1",
    ),
    "two of one": (
        turns("user", "user", "assistant"),
        "data.messages: must begin with the user (after a system message, if any) and take turns, got 'user' after"
        " 'user' in data row 1",
    ),
    "the assistant first": (
        turns("assistant", "user", "assistant"),
        "data.messages: must begin with the user (after a system message, if any) and take turns, got 'assistant'"
        " first in data row 1",
    ),
    "the user last": (
        turns("user", "assistant", "user"),
        "data.messages: must end with what the assistant says, got 'user' last in data row 1",
    ),
    "nothing said": (
        {"messages": [ASKED[0], {"role": "assistant", "content": " "}]},
        "data.messages: what the assistant says must be filled in, got an empty message in data row 1",
    ),
    "parts": (
        {"messages": [ASKED[0], {"role": "assistant", "content": [{"type": "text", "text": "hi"}]}]},
        "data.messages: must be a string, got list in data row 1",
    ),
    "a call and no content": (
        {"messages": [ASKED[0], {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        "data.messages: must be a string, for calls of tools are not read, got none beside a call in data row 1",
    ),
    "a weight between": (
        {"messages": [ASKED[0], {**ASKED[1], "weight": 0.5}]},
        "data.messages: the weight of a message must be 0 or 1, got 0.5 in data row 1",
    ),
    "no weight at all": (
        {"messages": [ASKED[0], {**ASKED[1], "weight": 0}]},
        "data.messages: must have a message to be trained, got a weight of 0 for all that the assistant says in data"
        " row 1",
    ),
    "no weight of the completion": (
        {"prompt": [*ASKED, ASKED[0]], "completion": [{**ASKED[1], "weight": 0}]},
        "data.completion: must have a message to be trained, got a weight of 0 for all that the assistant says in data"
        " row 1",
    ),
    "an unknown speaker": (
        {"conversations": [{"from": "narrator", "value": "once"}]},
        "data.messages: 'from' must be one of human, user, gpt, assistant, chatgpt, bing, bard, model, system, tool,"
        " observation, function_response, got 'narrator' in data row 1",
    ),
    "an empty completion": (
        {"prompt": "a", "completion": ""},
        "data.completion: must be filled in, got an empty one in data row 1",
    ),
    "a number": ({"prompt": "a", "completion": 7}, "data.completion: must be a string, got int in data row 1"),
    "an empty output": (
        {"instruction": "a", "input": "", "output": None},
        "output: must be filled in, got an empty one in data row 1",
    ),
    "an empty text": ({"text": "\n"}, "data.text: must be filled in, got an empty one in data row 1"),
    "other columns": (
        {"question": "a", "answer": "b"},
        "data.train: must have the columns of a kind of example: messages; conversations; prompt and completion;"
        " instruction and output; or text, got 'question', 'answer'; name yours with data.messages, data.prompt and"
        " data.completion, or data.text",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, what: str) -> None:
    row, line = REFUSED[what]
    assert mistakes(tmp_path, [row]) == (line,)


def test_every_kind_of_mistake_is_told_with_its_rows(tmp_path: Path) -> None:
    rows = [{"messages": ASKED}, turns("user"), turns("user", "bot"), turns("user")]
    said = mistakes(tmp_path, rows)
    assert said[0].endswith("got 'user' last in data rows 2, 4")
    assert said[1].endswith("got 'bot' in data row 3")


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_weights_and_calls_of_tools_are_told(tmp_path: Path, name: str) -> None:
    called = {"role": "assistant", "content": "so", "tool_calls": [{"id": "1"}], "weight": 0}
    rows = [{"messages": [ASKED[0], called, {"role": "tool", "content": "5"}, ASKED[1]]}, {"messages": ASKED}]
    dataset = loaded(tmp_path, rows, name)
    assert [each.untrained for each in dataset.exchanges] == [(1,), ()]
    assert dataset.report.sentences()[1:] == (
        "1 message calls a tool: of them the content alone is read.",
        "1 message has a weight of 0 and is not trained.",
    )
    called["weight"] = 1
    assert loaded(tmp_path, rows, name).fingerprint != dataset.fingerprint


def test_a_declared_shape_needs_its_columns(tmp_path: Path) -> None:
    (line,) = mistakes(tmp_path, [{"messages": ASKED}], format="text")
    assert line.startswith("data.text: must be a column of rows.jsonl, got 'text'")


def test_groups_must_be_there(tmp_path: Path) -> None:
    rows = [{"text": "a", "film": "x"}, {"text": "b", "film": None}]
    (line,) = mistakes(tmp_path, rows, group="film")
    assert line == "data.group: every example must have its group, got none in data row 2"


def test_a_sample_keeps_rows_and_its_seed(tmp_path: Path) -> None:
    rows = [{"text": f"text {number}"} for number in range(30)]
    dataset = loaded(tmp_path, rows, max_examples=10)
    assert [rows[row - 1]["text"] for row in dataset.rows] == [each.completion for each in dataset.exchanges]
    assert "Sampled from 30 examples." in dataset.report.sentences()
