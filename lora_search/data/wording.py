"""How the errors about data say where and how much: rows, columns, near misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from lora_search.errors import DataError, Mistake

_ROWS_SHOWN = 5
_COLUMNS_SHOWN = 20
_NAME_WIDTH = 40


def rows_phrase(rows: Sequence[int]) -> str:
    """Row numbers, the first few and the count: ``data row 7``, ``14 data rows (3, 9, 11, 12, 20, ...)``.

    They are of data, for a line of a file is something else: the header is one, and a text may run over several.
    """
    shown = ", ".join(str(row) for row in rows[:_ROWS_SHOWN])
    if len(rows) > _ROWS_SHOWN:
        return f"{len(rows)} data rows ({shown}, ...)"
    return f"data row{'s' if len(rows) > 1 else ''} {shown}"


def labels_phrase(counts: Mapping[str, int]) -> str:
    """Labels and how many examples have them: ``fresh (7403), rotten (5405)``."""
    return ", ".join(f"{label} ({count})" for label, count in sorted(counts.items()))


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``name``, quoted; None when none is near. Case does not count."""
    by_folded = {choice.casefold(): choice for choice in choices}
    near = get_close_matches(name.casefold(), list(by_folded), n=1)
    return repr(by_folded[near[0]]) if near else None


def require_columns(where: str, available: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Check that the table has the columns the experiment names.

    Args:
        where: the table, for messages.
        available: its columns.
        wanted: key of the experiment -> column it names: ``{"data.text": "quote"}``.

    Raises:
        DataError: one mistake per column that is missing, with what there is, or that is there more than once.
    """
    listed = ", ".join(_shortened(name) for name in available[:_COLUMNS_SHOWN])
    more = f" and {len(available) - _COLUMNS_SHOWN} more" if len(available) > _COLUMNS_SHOWN else ""
    mistakes = [
        Mistake(
            f"must be a column of {where}",
            key,
            repr(column),
            nearest(column, available),
            hint=f"(columns: {listed or 'none'}{more})",
        )
        for key, column in wanted.items()
        if column not in available
    ]
    mistakes += [
        Mistake(f"must be one column of {where}", key, f"{column!r}, the name of {available.count(column)}")
        for key, column in wanted.items()
        if available.count(column) > 1
    ]
    if mistakes:
        raise DataError(mistakes)


def _shortened(name: str) -> str:
    return (name or "''") if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 3]}..."
