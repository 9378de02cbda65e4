"""A value inside a message: quoted, in one line, and never so long that it hides the message."""

from __future__ import annotations

import unicodedata
from typing import Any

VALUE_WIDTH = 80
"""Characters of a value a message shows at most."""

_PATH_WIDTH = 260  # a path tells most by its end, and may be there to be copied
_CONTAINERS = (list, tuple, dict, set, frozenset)


def cut(text: str, width: int = VALUE_WIDTH) -> str:
    """``text``, or its beginning and ``...``: at most ``width`` characters."""
    return text if len(text) <= width else f"{text[: max(0, width - 3)]}..."


def quoted(value: Any, width: int = VALUE_WIDTH) -> str:
    """A value as Python writes it, cut at ``width`` characters; what cannot be seen in a text is written as escapes.

    A text of a million characters is not turned into a million escapes first, nor a long list written out.
    """
    if isinstance(value, str):
        shown = repr(value[: width + 1])
        if not unicodedata.is_normalized("NFC", value[: width + 1]):
            shown = ascii(value[: width + 1])
        whole = len(value) <= width + 1 and len(shown) <= width
        return shown if whole else f"{shown[: width - 4]}...{shown[0]}"
    if isinstance(value, bytes):
        return cut(repr(value[: width + 1]), width)
    if isinstance(value, _CONTAINERS) and len(value) > width:
        return f"{type(value).__name__} of {len(value)} values"
    try:
        return cut(repr(value), width)
    except ValueError:  # a whole number of thousands of digits
        return f"a {type(value).__name__} too long to show"


def quoted_path(path: object) -> str:
    """As ``quoted``, of a path or a hub id, of which more is shown."""
    return quoted(str(path), _PATH_WIDTH)


def in_one_line(text: str, width: int) -> str:
    """What a library says, on one line and cut at ``width`` characters."""
    return cut(" ".join(text.split()), width)
