"""Plain values as TOML text, for the resolved experiment and for quoting a value back to the user.

The standard library reads TOML and does not write it. This writes the part an experiment needs: tables of tables,
strings, numbers, booleans, lists and inline tables; ``None`` is an absent key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"^[A-Za-z0-9_-]+\Z")
_ESCAPES = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def toml_value(value: Any) -> str:
    """One value as it would stand to the right of ``=``; a date or anything else foreign as its ``str``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = [f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items() if item is not None]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    return str(value)


def toml_key(key: str) -> str:
    """One key, quoted where TOML asks for it."""
    return key if _BARE_KEY.match(key) else _quoted(key)


def toml_document(values: Mapping[str, Any]) -> str:
    """A document of plain keys first and then one table per mapping; mappings inside a table are written inline."""
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    blocks = [_lines(plain)] if plain else []
    blocks += [[f"[{toml_key(name)}]", *_lines(table)] for name, table in tables.items()]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _lines(table: Mapping[str, Any]) -> list[str]:
    return [f"{toml_key(key)} = {toml_value(value)}" for key, value in table.items() if value is not None]


def _quoted(text: str) -> str:
    return '"' + "".join(_ESCAPES.get(character) or _escaped(character) for character in text) + '"'


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04X}" if code < 0x20 or code == 0x7F else character
