"""Tables for spreadsheets: no cell of a text column is taken for a formula.

A spreadsheet computes what begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, and what it computes may
fetch or run things (OWASP, "CSV Injection"). An apostrophe before it makes it text again. A carriage return inside a
text would begin a row in some readers, and becomes a line feed. Numbers stay numbers.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\n")


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with an apostrophe before every text that a spreadsheet would compute."""
    harmless = {
        name: column.map(_harmless) if column.dtype == object or isinstance(column.dtype, pd.StringDtype) else column
        for name, column in frame.items()
    }
    return pd.DataFrame(harmless, index=frame.index)


def csv_text(frame: pd.DataFrame) -> str:
    """A table as the text of a CSV file, moments in UTC by ISO 8601, without formulas."""
    text: str = without_formulas(frame).to_csv(index=False, lineterminator="\n", date_format="%Y-%m-%dT%H:%M:%SZ")
    return text


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{text}" if text.startswith(_BEGINNINGS) else text
