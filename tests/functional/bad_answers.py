"""Bad inputs of the tasks that answer with numbers or any number of labels; and what all such tables are made of."""

from __future__ import annotations

import json
from typing import Any

Case = tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], tuple[str, str]]
"""What is wrong, tables of the experiment to change, and the data, as in ``bad_inputs.Bad``."""


def in_table(table: str, **values: Any) -> dict[str, Any]:
    return {table: values}


def rows(text: str, *, header: str = "text,label") -> tuple[str, str]:
    return "data.csv", f"{header}\n{text}"


def labelled(*labels: str) -> tuple[str, str]:
    return rows("".join(f"film {number},{label}\n" for number, label in enumerate(labels)))


def json_file(value: Any, name: str = "data.json") -> tuple[str, str]:
    return name, json.dumps(value)


NUMBERS = {"model": {"task": "regression"}, "verdict": {"metric": "pearson"}}
NUMBERED: list[Case] = [
    ("a number that is text", NUMBERS, labelled("1.5", "high", "2", "low")),
    ("a number with a comma", NUMBERS, rows('film a,"1,5"\nfilm b,2\n')),
    ("a number without end", NUMBERS, labelled("1", "2", "inf", "3")),
    ("a truth for a number", NUMBERS, json_file([{"text": "film", "label": True}, {"text": "plot", "label": 1}])),
    ("numbers that are none", NUMBERS, ("data.jsonl", '{"text": "a", "label": NaN}\n{"text": "b", "label": 1}\n')),
    ("one number in every row", NUMBERS, labelled(*["3"] * 6)),
    ("numbers of years that hardly differ", NUMBERS, labelled("2001", "2001.5", "2001", "2002")),
    ("numbers past all measure", NUMBERS, labelled("1e200", "-1e200", "0")),
    ("fewer numbers than folds", {**NUMBERS, "cv": {"folds": 5}}, labelled("1", "2", "3")),
    ("a metric of classes for numbers", {**NUMBERS, "verdict": {"metric": "accuracy"}}, labelled("1", "2")),
    ("an error without a margin", {**NUMBERS, "verdict": {"metric": "rmse"}}, labelled("1", "2")),
    ("a margin below nothing", {**NUMBERS, "verdict": {"metric": "rmse", "margin": -1}}, labelled("1", "2")),
    ("labels to drop among numbers", {**NUMBERS, "data": {"drop_labels": ["1"]}}, labelled("1", "2")),
    ("an error in classes", in_table("verdict", metric="rmse", margin=1.5)),
]

SETS = {"model": {"task": "multi-label-classification"}, "verdict": {"metric": "micro_f1"}}
FLAGS = {**SETS, "data": {"label": ["sad", "odd"]}}


def sets(*labels: Any) -> tuple[str, str]:
    return json_file([{"text": f"film {number}", "label": names} for number, names in enumerate(labels)])


def flags(*values: str) -> tuple[str, str]:
    return rows("".join(f"film {number},{row}\n" for number, row in enumerate(values)), header="text,sad,odd")


LABEL_SETS: list[Case] = [
    ("lists that are all empty", SETS, sets([], [], [], [])),
    ("one label in all lists", SETS, sets(["sad"], [], ["sad"])),
    ("lists of lists", SETS, sets([["sad"]], ["odd"], ["sad"])),
    ("lists that are numbers", SETS, sets(1, 2)),
    ("a list that is missing", SETS, sets(["sad"], None, ["odd"])),
    ("a label of every example", SETS, sets(["sad", "odd"], ["sad"], ["sad"])),
    ("a column of flags without any", FLAGS, flags("1,0", "0,0", "1,0")),
    ("flags that are neither 0 nor 1", FLAGS, flags("1,0", "0,yes", "2,1")),
    ("flags that are missing", FLAGS, ("data.jsonl", '{"text": "a", "sad": 1, "odd": null}\n')),
    ("a column of flags that is not there", {**SETS, "data": {"label": ["sad", "old"]}}, flags("1,0", "0,1")),
    ("flags as lists", {**FLAGS, "data": {"label": ["sad", "odd"], "label_separator": ","}}, flags("1,0", "0,1")),
    ("flags that are the text", {**SETS, "data": {"label": ["sad", "text"]}}, flags("1,0", "0,1")),
    ("flags for one label each", in_table("data", label=["sad", "odd"]), flags("1,0", "0,1")),
    ("a separator of classes", in_table("data", label_separator=";")),
    ("two signs between labels", SETS, rows('a,"sad, odd"\nb,sad;odd\n')),
    ("a rare label", SETS, sets(*[["sad"], ["odd"]] * 3, ["rare", "sad"])),
    ("a label to leave out that nobody has", {**SETS, "data": {"drop_labels": ["sed"]}}, sets(["sad"], ["odd"])),
    ("a metric of one class each", {**SETS, "verdict": {"metric": "accuracy"}}, sets(["sad"], ["odd"])),
]

ANSWERS: list[Case] = [*NUMBERED, *LABEL_SETS]
