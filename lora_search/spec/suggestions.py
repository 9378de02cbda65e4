"""Did you mean ...? One way to guess it, for keys, choices and names alike."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher


def closest(word: str, choices: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The choice most like ``word`` (letter case aside), or ``None`` when nothing comes near.

    Args:
        word: what was written.
        choices: what could have been meant.
        cutoff: least similarity in (0, 1], as ``difflib`` measures it; 1 is the same word.
    """
    if len(word) > _LONGEST_WORD:
        return None
    likeness = {choice: SequenceMatcher(None, word.lower(), choice.lower()).ratio() for choice in choices}
    best = max(likeness, key=lambda choice: likeness[choice], default=None)
    return best if best is not None and likeness[best] >= cutoff else None


_LONGEST_WORD = 200
"""Characters of a word that may be a slip of another; comparing longer ones takes long."""


class ChoiceError(ValueError):
    """A value is none of the choices.

    Args:
        rule: what the value must be.
        suggestion: what was probably meant, if anything came near.
    """

    def __init__(self, rule: str, suggestion: str | None = None) -> None:
        self.rule = rule
        self.suggestion = suggestion
        super().__init__(rule if suggestion is None else f"{rule}, did you mean {suggestion}?")
