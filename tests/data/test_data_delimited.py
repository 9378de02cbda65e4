"""csv and tsv: quotes are read with certainty or not at all, and no row vanishes into another."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lora_search.data.delimited import read_delimited
from lora_search.data.table import Table
from lora_search.errors import DataError

WANTED = {"data.text": "text", "data.label": "label"}
RULE = "data.train: a quote that begins a field of a.csv must be closed at its end and doubled inside it, got "


def read(text: str, delimiter: str = ",", wanted: dict[str, str] = WANTED) -> Table:
    return read_delimited(text.encode(), "a.csv", wanted, delimiter)


def mistake(text: str, delimiter: str = ",") -> str:
    with pytest.raises(DataError) as caught:
        read(text, delimiter)
    (sentence,) = caught.value.mistakes
    return sentence


def table(*rows: str, header: str = "text,label") -> str:
    return "\n".join((header, *rows)) + "\n"


PLAIN = [f"text {number},{'ab'[number % 2]}" for number in range(8)]


def test_a_stray_quote_that_another_ends_is_told_with_its_lines() -> None:
    rows = [*PLAIN]
    rows[2], rows[5] = f'"{rows[2]}', f'"{rows[5]}'
    assert mistake(table(*rows)) == RULE + "one in line 4 that runs on to line 7"


@pytest.mark.parametrize("last", [3, 4, 6])
def test_a_stray_quote_that_swallows_whole_rows_is_told_with_their_number(last: int) -> None:
    rows = [*PLAIN]
    rows[2] = f'"{rows[2]}'
    rows[last] = rows[last].replace(",", '",')
    taken = last - 2
    assert mistake(table(*rows)) == (
        f"{RULE}one in line 4 that runs on to line {last + 2} and takes in {taken} row{'s' * (taken > 1)}; if that is"
        " the text, save the data as jsonl or parquet"
    )


def test_a_stray_quote_where_the_label_comes_first() -> None:
    rows = ["a,one", 'b,"two', "a,three", 'b,four"', "a,five"]
    assert "one in line 3 that runs on to line 5 and takes in 2 rows" in mistake(table(*rows, header="label,text"))


def test_a_stray_quote_in_a_label() -> None:
    rows = ["one,a", 'two,"b', "three,a", 'four,b"', "five,b"]
    assert "one in line 3 that runs on to line 5 and takes in 2 rows" in mistake(table(*rows))


def test_a_quote_that_is_never_closed() -> None:
    assert mistake(table("one,a", '"two,b', "three,a")) == RULE + "one in line 3 that is never closed"


def test_a_text_goes_on_after_its_quote() -> None:
    assert mistake(table('"Great" film,a', "two,b")) == RULE + "a field in line 2 that goes on after its quote"


def test_texts_of_several_lines_and_commas_are_texts() -> None:
    letter = "Dear Sir,\nyes, it is\r\nso, and so, on\n\nYours, a"
    written = io.StringIO(newline="")
    csv.writer(written).writerows([("text", "label"), (letter, "a"), ("two", "b"), (f"{letter}\n", "a")])
    assert read(written.getvalue()).columns == {"text": [letter, "two", f"{letter}\n"], "label": ["a", "b", "a"]}


PAIRS = {"data.prompt": "prompt", "data.completion": "completion"}


def test_a_text_of_lines_with_a_comma_each_is_a_text() -> None:
    steps = "Steps:\n1, preheat\n2, bake"
    found = read(table(f'1,"{steps}"', "2,x", "1,z", header="label,text"))
    assert found.columns == {"text": [steps, "x", "z"], "label": ["1", "2", "1"]}
    letter = "Dear Ann, Bob,\nyes\nor no, a"
    assert read(table(f'"{letter}",a', "two,b")).columns["text"] == [letter, "two"]


def test_a_stray_quote_in_a_table_written_with_blanks_behind_its_commas() -> None:
    rows = ["a, one", "b, two", "a, three", "b, four", "a, five"]
    text = table(*rows, header="label, text").replace("a, one", 'a,"one').replace("a, three", 'a, three"')
    with pytest.raises(DataError, match="runs on to line 4 and takes in 2 rows"):
        read(text, wanted={"data.label": "label", "data.text": " text"})


@pytest.mark.parametrize("last", [3, 4, 6])
def test_a_stray_quote_among_numbers_is_told_though_no_two_are_the_same(last: int) -> None:
    rows = [f"text {number},{number}.5" for number in range(8)]
    rows[2] = f'"{rows[2]}'
    rows[last] = rows[last].replace(",", '",')
    assert f"takes in {last - 2} row" in mistake(table(*rows))


def test_a_stray_quote_where_each_label_has_a_column() -> None:
    rows = [f"text {number},{number % 2},1" for number in range(6)]
    rows[1], rows[3] = f'"{rows[1]}', rows[3].replace(",", '",', 1)
    with pytest.raises(DataError, match="one in line 3 that runs on to line 5 and takes in 2 rows"):
        read(table(*rows, header="text,a,b"), wanted={"data.text": "text", "data.label[0]": "a", "data.label[1]": "b"})


@pytest.mark.parametrize("answer", ["Hello.\nSure, I can.", "Hello.\nSure,I can.", "Oh, well.\nSure", "a\nb, c\nd"])
def test_texts_of_several_lines_without_labels_are_read_and_told(answer: str) -> None:
    found = read(table("one,two", f'how?,"{answer}"', "three,four", header="prompt,completion"), wanted=PAIRS)
    assert found.columns == {"prompt": ["one", "how?", "three"], "completion": ["two", answer, "four"]}
    lines = f"lines 3 to {3 + answer.count(chr(10))}"
    assert found.notes == (f"1 row has a text of several lines in a.csv, the first in {lines}.",)


def test_a_stray_quote_without_labels_is_told_where_three_lines_are_rows() -> None:
    with pytest.raises(DataError, match="one in line 2 that runs on to line 4 and takes in 2 rows"):
        read(table('q,"a', "r,b", 's,c"', "t,d", header="prompt,completion"), wanted=PAIRS)


BACKSLASHED = '"he said \\"{}\\"{} then left",a\n"two",b\n'


@pytest.mark.parametrize(("word", "comma"), [("yes", ""), ("yes", ","), ("it, no", ","), ("", "")])
def test_quotes_written_with_a_backslash_are_read_right_and_told(word: str, comma: str) -> None:
    found = read("text,label\n" + BACKSLASHED.format(word, comma))
    assert found.columns == {"text": [f'he said "{word}"{comma} then left', "two"], "label": ["a", "b"]}
    assert found.notes == ('a.csv writes a quote inside a text as \\" and not as two; it is read so.',)


def test_a_backslash_before_the_closing_quote_is_a_backslash() -> None:
    found = read(table('"C:\\temp\\",a', '"two ""so""",b'))
    assert found.columns["text"] == ["C:\\temp\\", 'two "so"']
    assert found.notes == ()


def test_tabs_without_quoting_keep_their_quotes_as_letters() -> None:
    found = read('text\tlabel\n" he said\ta\n"Great" film\tb\n"so\tb\n', "\t")
    assert found.columns == {"text": ['" he said', '"Great" film', '"so'], "label": ["a", "b", "b"]}
    assert found.notes == ("a.csv has quotes that are not closed in their field; all its quotes are read as letters.",)


def test_tabs_with_quoting_are_read_as_quoted() -> None:
    found = read('text\tlabel\n"one\ttwo\nthree"\ta\nfour\tb\n', "\t")
    assert found.columns == {"text": ["one\ttwo\nthree", "four"], "label": ["a", "b"]}
    assert found.notes == ()


def test_tabs_that_are_of_neither_kind_are_refused() -> None:
    assert "must be closed at its end" in mistake('text\tlabel\n"one\ttwo\ta\nfour\tb\n', "\t")


def test_longer_rows_are_told_with_line_and_number() -> None:
    assert mistake(table("one,a", "two, too,b", "three,a", "four, five,a", "six, six, six,a")) == (
        "data.train: the rows of a.csv must have at most the 2 fields of its header, got 3 in line 3, and more than 2"
        " in 2 others; a text with a comma in it must be in quotes"
    )


def test_shorter_rows_lack_their_last_fields() -> None:
    assert read(table("one,a", "two")).columns == {"text": ["one", "two"], "label": ["a", ""]}


def test_line_ends_of_all_kinds_and_blank_lines() -> None:
    for end in ("\n", "\r\n", "\r"):
        found = read(end.join(("text,label", "one,a", "", "  ", "two,b", "")))
        assert found.columns == {"text": ["one", "two"], "label": ["a", "b"]}


@pytest.mark.parametrize("line", ["sep={}", "SEP={}", '"sep={}"'])
@pytest.mark.parametrize("sign", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_tells_excel_the_separator_tells_it(line: str, sign: str, end: str) -> None:
    rows = [line.format(sign), *(sign.join(row) for row in (("text", "label"), ("one", "a"), ("two", "b")))]
    assert read(end.join(rows)).columns == {"text": ["one", "two"], "label": ["a", "b"]}
    assert "3 in line 4" in mistake(end.join([*rows[:3], f"two{sign}b{sign}c"]))


def test_null_characters_stay_in_their_text() -> None:
    assert read(table("o\0ne,a", "two,b")).columns["text"] == ["o\0ne", "two"]


def test_the_csv_modules_limit_is_put_back() -> None:
    before = csv.field_size_limit()
    read(table("x" * (before + 1) + ",a"))
    assert csv.field_size_limit() == before


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))


@given(rows=st.lists(st.tuples(TEXTS, TEXTS), min_size=1), delimiter=st.sampled_from([",", "\t"]))
def test_what_the_csv_module_writes_is_read_as_it_was(rows: list[tuple[str, str]], delimiter: str) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("text", "label"), *rows])
    try:
        found = read(written.getvalue(), delimiter)
    except DataError as error:
        refused = str(error)
        found = None
    if found is None:
        assert "takes in" in refused, "only a text that looks like rows may be refused"
        return
    assert list(zip(found.columns["text"], found.columns["label"], strict=True)) == rows


@given(content=st.text(st.sampled_from('ab,"\\\n\t ;')), delimiter=st.sampled_from([",", "\t"]))
def test_any_text_is_read_or_refused_and_no_row_is_lost(content: str, delimiter: str) -> None:
    """As many rows as lines, where no line break is inside quotes."""
    header = f"a{delimiter}b"
    assume("\\" not in content)
    try:
        found = read(f"{header}\n{content}", delimiter, {"data.text": "a", "data.label": "b"})
    except DataError:
        return
    values = [value for column in found.columns.values() for value in column]
    lines = [line for line in content.split("\n") if line.strip() or delimiter in line]
    inside = sum(value.count("\n") for value in values)
    blank_inside = sum(value.count("\n") for value in values if "\n" in value)
    assert len(found.columns["a"]) + inside >= len(lines)
    assert len(found.columns["a"]) + inside - blank_inside <= len(lines)


def test_a_file_of_nothing() -> None:
    assert mistake("") == "data.train: a.csv must hold a header and rows, got an empty file"
    assert mistake("\n \n") == "data.train: a.csv must hold a header and rows, got an empty file"


def test_many_rows_are_read_quickly_enough_to_be_tried_three_ways(tmp_path: Path) -> None:
    rows = [f'"text \\"{number}\\" so",{number % 2}' for number in range(20_000)]
    assert len(read(table(*rows)).columns["text"]) == 20_000
