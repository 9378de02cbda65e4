"""Every error this package raises on purpose.

::

    LoraSearchError             raised itself where an export does not predict what was trained
    ├── InputError              the user's input is wrong; the CLI exits with 2 and prints one line per mistake
    │   ├── ExperimentError     the experiment file or an override
    │   ├── DataError           the dataset: missing file, wrong column, unusable rows, impossible folds
    │   │   └── MissingColumnError    it has no such column; it says which there are
    │   ├── ModelError          the base model: not found, no head for the task, no such target or layer
    │   ├── StudyError          the study, its folder or its database: none there, another experiment's, damaged
    │   │   └── StudyInUseError       another run is writing to it
    │   └── MachineError        this machine lacks what was asked for (a package, a device, a precision)
    └── MixedRowsError          rows of several adapters where a layer can take one only (``adapters.rows``): the engine
                                computes them apart, and nobody else sees it
    KeyboardInterrupt
    └── Interrupted             a run was interrupted; it says where its results are (``study.runner``)

A training that goes to NaN or infinity raises nothing: it is a failed cell, and the study goes on. Anything else that
escapes is a bug, and the CLI shows its traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

Kind = TypeVar("Kind", bound=BaseException)


class LoraSearchError(Exception):
    """Root of the tree."""


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong, told as ``SOURCE: KEY: RULE, got VALUE, did you mean MEANT?; HINT``.

    Attributes:
        rule: what must hold, or what is the matter: ``must be at least 1``. Alone it is a sentence of its own.
        key: what it is about: a key of the experiment (``search.rank[2]``), an option, a path.
        got: the value received, as it is shown.
        meant: what was probably meant instead.
        hint: what else helps: the way out, or in parentheses what there is to choose from.
        source: where the key was given: a file, an option; empty where it speaks for itself.
    """

    rule: str
    key: str = ""
    got: str | None = None
    meant: str | None = None
    hint: str = ""
    source: str = ""

    def __str__(self) -> str:
        subject = "".join(f"{part}: " for part in (self.source, self.key) if part)
        got = "" if self.got is None else f", got {self.got}"
        meant = "" if self.meant is None else f", did you mean {self.meant}?"
        pause = " " if self.hint.startswith("(") else "; "
        return f"{subject}{self.rule}{got}{meant}{pause if self.hint else ''}{self.hint}"


class InputError(LoraSearchError):
    """The user's input is wrong.

    Args:
        mistakes: one, or several; a sentence is a mistake that is about no one key.

    Attributes:
        details: every mistake in its parts.
    """

    def __init__(self, mistakes: str | Mistake | Iterable[str | Mistake]) -> None:
        several = (mistakes,) if isinstance(mistakes, (str, Mistake)) else mistakes
        self.details = tuple(Mistake(each) if isinstance(each, str) else each for each in several)
        super().__init__(self.details)

    @classmethod
    def about(cls, key: object, rule: str, *, got: object = None, meant: str | None = None, hint: str = "") -> Self:
        """An error of one mistake about ``key`` (see ``Mistake``)."""
        return cls(Mistake(rule, str(key), None if got is None else str(got), meant, hint))

    @property
    def mistakes(self) -> tuple[str, ...]:
        """One line per mistake."""
        return tuple(str(mistake) for mistake in self.details)

    def __str__(self) -> str:
        return "\n".join(self.mistakes)

    def change(self, change: Callable[[Mistake], Mistake]) -> None:
        """Have every mistake told otherwise, by whoever knows more of where a key came from."""
        self.details = tuple(change(mistake) for mistake in self.details)
        self.args = (self.details,)


class ExperimentError(InputError):
    """The experiment file or an override breaks a rule."""


class DataError(InputError):
    """The dataset cannot be read, or cannot be used as it is."""


class MissingColumnError(DataError):
    """The dataset has no such column.

    Attributes:
        available: the columns there are.
    """

    available: tuple[str, ...] = ()


class ModelError(InputError):
    """The base model cannot be loaded, or does not have what the experiment names."""


class StudyError(InputError):
    """The study is missing, damaged, or belongs to another experiment; or its database does not answer."""


class StudyInUseError(StudyError):
    """Another run is writing to the study."""


class MachineError(InputError):
    """This machine lacks what was asked for: a package, a device, a precision."""


@contextmanager
def retold(tell: Callable[[Exception], LoraSearchError | None]) -> Iterator[None]:
    """Inside the block an error that there are words for is raised in these; any other, and one of ours, as it is.

    Args:
        tell: an error, as one of ours; None where it has no words for it.
    """
    try:
        yield
    except LoraSearchError:  # told already
        raise
    except Exception as error:
        told = tell(error)
        if told is None:
            raise
        raise told from error


def behind(error: BaseException | None, kind: type[Kind]) -> Kind | None:
    """The first error of a kind behind what others made of it, itself included; None where there is none."""
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
