"""Did you mean ...? One way to guess it, for keys, choices and names alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher

from lora_search.errors import Mistake

_LONGEST_WORD = 200  # characters of a word that may be a slip of another; comparing longer ones takes long


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


def one_of(choices: Sequence[str]) -> str:
    """The rule that a value is one of these: ``must be fp32, bf16 or auto``."""
    return "must be " + " or ".join(part for part in (", ".join(choices[:-1]), choices[-1]) if part)


class ChoiceError(ValueError):
    """A value is none of the choices.

    Args:
        rule: what the value must be.
        suggestion: what was probably meant, if anything came near.
        got: what it is, where that is not what was written as a whole.
    """

    def __init__(self, rule: str, suggestion: str | None = None, got: str | None = None) -> None:
        self.rule = rule
        self.suggestion = suggestion
        self.got = got
        super().__init__(str(Mistake(rule, got=got, meant=suggestion)))
