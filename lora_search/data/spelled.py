"""Lists spelled as texts: what becomes of a column of lists, arrays or sets in a csv.

JSON and Python put commas between values, numpy blanks. Python joins two strings that stand side by side, so that
numpy's ``['a' 'b']`` is no list for ``ast``: values are told apart here.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

# set(), frozenset({'a'}), array(['a'], dtype=object)
_CALL = re.compile(r"(?:frozenset|set|array)\((.*?)(?:,\s*dtype=[^()\[\]]*)?\)", re.DOTALL)
_VALUE = re.compile(r"""('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[^\s,'"()\[\]{}]+)(\s*,\s*|\s+|$)""", re.DOTALL)
_BRACKETS = ("[]", "()", "{}")


def is_bracketed(text: str) -> bool:
    """Whether a text, without blanks around it, looks like a list, a tuple, a set or an array of them."""
    inner = _inner(text)
    return inner[:1] + inner[-1:] in _BRACKETS


def spelled_list(text: str) -> list[Any] | None:
    """The list, tuple, set or array that a text spells; None if it spells none.

    Args:
        text: as JSON, Python or numpy write it; values are strings, numbers, true, false or none.
    """
    inner = _inner(text)
    if inner[:1] + inner[-1:] not in _BRACKETS:
        return None
    try:
        value = json.loads(inner)
    except (ValueError, RecursionError):
        return _values(inner[1:-1].strip())
    return value if isinstance(value, list) else None


def _inner(text: str) -> str:
    """What stands in the brackets of a call, if there is one: ``[]`` of ``set()``."""
    call = _CALL.fullmatch(text)
    return text if call is None else call[1].strip() or "[]"


def _values(text: str) -> list[Any] | None:
    """Values with commas between them, or with blanks between them; None for both, or anything else."""
    values, signs, place = [], set(), 0
    while place < len(text):
        found = _VALUE.match(text, place)
        if found is None:
            return None
        try:
            values.append(ast.literal_eval(found[1]))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return None
        place = found.end()
        if place < len(text):
            signs.add(found[2].strip())
    return values if len(signs) < 2 else None
