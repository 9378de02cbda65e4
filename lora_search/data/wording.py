"""How the errors about data say where and how much: rows, columns, near misses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from lora_search.errors import DataError, MissingColumnError, Mistake
from lora_search.spec.quoting import cut, quoted

_ROWS_SHOWN = 5
_NAMES_SHOWN = 20
_LABELS_SHOWN = 12
_NAME_WIDTH = 40
_COMPARED_WIDTH = 200  # longer names are no slips of each other, and comparing them takes long


def rows_phrase(rows: Sequence[int]) -> str:
    """Row numbers, the first few and the count: ``data row 7``, ``14 data rows (3, 9, 11, 12, 20, ...)``.

    They are of data, for a line of a file is something else: the header is one, and a text may run over several.
    """
    shown = ", ".join(str(row) for row in rows[:_ROWS_SHOWN])
    if len(rows) > _ROWS_SHOWN:
        return f"{len(rows)} data rows ({shown}, ...)"
    return f"data row{'s' if len(rows) > 1 else ''} {shown}"


def labels_phrase(counts: Mapping[str, int]) -> str:
    """Labels and how many examples have them, the first dozen: ``fresh (7403), rotten (5405)``."""
    shown = ", ".join(f"{_label(label)} ({counts[label]})" for label in list(counts)[:_LABELS_SHOWN])
    return shown + (f" and {len(counts) - _LABELS_SHOWN} more" if len(counts) > _LABELS_SHOWN else "")


def _label(label: str) -> str:
    """As it is where it can be read as it is, else quoted."""
    return cut(label, _NAME_WIDTH) if label.isprintable() and label == label.strip() else quoted(label, _NAME_WIDTH)


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 row``, ``3 rows``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(names: Iterable[str]) -> str:
    """Names in quotes, the first twenty."""
    quotes = [quoted(str(name), _NAME_WIDTH) for name in names]
    more = f" and {len(quotes) - _NAMES_SHOWN} more" if len(quotes) > _NAMES_SHOWN else ""
    return ", ".join(quotes[:_NAMES_SHOWN]) + more


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice most like ``name``, quoted; None when none is near. Case does not count."""
    by_folded = {choice.casefold(): choice for choice in choices if len(choice) <= _COMPARED_WIDTH}
    near = get_close_matches(name.casefold(), list(by_folded), n=1) if len(name) <= _COMPARED_WIDTH else []
    return quoted(by_folded[near[0]]) if near else None


def require_columns(where: str, available: Sequence[str], wanted: Mapping[str, str]) -> None:
    """Check that the table has the columns the experiment names.

    Args:
        where: the table, for messages.
        available: its columns.
        wanted: key of the experiment -> column it names: ``{"data.text": "quote"}``.

    Raises:
        MissingColumnError: columns are missing; one mistake for each, with what there is.
        DataError: a column is there more than once.
    """
    columns = ", ".join(cut(" ".join(name.split()), _NAME_WIDTH) or "''" for name in available[:_NAMES_SHOWN])
    more = f" and {len(available) - _NAMES_SHOWN} more" if len(available) > _NAMES_SHOWN else ""
    mistakes = [
        Mistake(
            f"must be a column of {where}",
            key,
            quoted(column),
            nearest(column, available),
            hint=f"(columns: {columns or 'none'}{more})",
        )
        for key, column in wanted.items()
        if column not in available
    ]
    missing = bool(mistakes)
    mistakes += [
        Mistake(f"must be one column of {where}", key, f"{quoted(column)}, the name of {available.count(column)}")
        for key, column in wanted.items()
        if available.count(column) > 1
    ]
    if missing:
        error = MissingColumnError(mistakes)
        error.available = tuple(available)
        raise error
    if mistakes:
        raise DataError(mistakes)
