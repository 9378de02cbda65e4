"""Tables for spreadsheets: no cell of a text column is taken for a formula.

A spreadsheet computes what begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return, and what it computes may
fetch or run things (OWASP, "CSV Injection"). An apostrophe before it makes it text again. Numbers stay numbers.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

_BEGINNINGS = ("=", "+", "-", "@", "\t", "\r", "\n")


def without_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """The same table with an apostrophe before every text that a spreadsheet would compute."""
    harmless = {
        name: column.map(_harmless) if column.dtype == object or isinstance(column.dtype, pd.StringDtype) else column
        for name, column in frame.items()
    }
    return pd.DataFrame(harmless, index=frame.index)


def _harmless(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_BEGINNINGS) else value
