"""The tree drawn in errors.py is the one there is."""

from __future__ import annotations

import importlib
import pkgutil
import re

import lora_search
from lora_search import errors
from lora_search.errors import LoraSearchError

_LINE = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>[A-Z]\w+)")


def drawn() -> set[tuple[str, str]]:
    """(parent, child) pairs of the drawing."""
    pairs, above = set(), []
    for line in (errors.__doc__ or "").splitlines():
        match = _LINE.match(line)
        if match is None or not (line.startswith("    ") or above):
            continue
        depth = len(match["indent"])
        above = [(indent, name) for indent, name in above if indent < depth]
        if above:
            pairs.add((above[-1][1], match["name"]))
        above.append((depth, match["name"]))
    return {(parent, child) for parent, child in pairs if parent != KeyboardInterrupt.__name__}


def there() -> set[tuple[str, str]]:
    for module in pkgutil.walk_packages(lora_search.__path__, "lora_search."):
        importlib.import_module(module.name)

    def below(error: type[Exception]) -> set[tuple[str, str]]:
        children = [child for child in error.__subclasses__() if child.__module__.startswith("lora_search.")]
        return {(error.__name__, child.__name__) for child in children}.union(*map(below, children))

    return below(LoraSearchError)


def test_the_drawing_is_the_tree() -> None:
    assert drawn() == there()
    assert drawn(), "the drawing was found"
