"""Every error this package raises on purpose.

::

    LoraSearchError             raised itself where an export does not predict what was trained
    ├── InputError              the user's input is wrong; the CLI exits with 2 and prints one line per mistake
    │   ├── ExperimentError     the experiment file or an override
    │   ├── DataError           the dataset: missing file, wrong column, unusable rows, impossible folds
    │   ├── ModelError          the base model: not found, no head for the task, no such target or layer
    │   ├── StudyError          the study folder: none there, another experiment's, damaged
    │   └── MachineError        this machine lacks what was asked for (a package, a device, a precision)
    └── MixedRowsError          rows of several adapters where a layer can take one only (``adapters.rows``): the engine
                                computes them apart, and nobody else sees it
    KeyboardInterrupt
    └── Interrupted             a run was interrupted; it says where its results are (``study.runner``)

A training that goes to NaN or infinity raises nothing: it is a failed cell, and the study goes on. Anything else that
escapes is a bug, and the CLI shows its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence


class LoraSearchError(Exception):
    """Root of the tree."""


class InputError(LoraSearchError):
    """The user's input is wrong.

    Args:
        mistakes: one sentence, or one per mistake. Each names the parameter, the rule and the value received.
    """

    def __init__(self, mistakes: str | Sequence[str]) -> None:
        self.mistakes: tuple[str, ...] = (mistakes,) if isinstance(mistakes, str) else tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class ExperimentError(InputError):
    """The experiment file or an override breaks a rule."""


class DataError(InputError):
    """The dataset cannot be read, or cannot be used as it is."""


class ModelError(InputError):
    """The base model cannot be loaded, or does not have what the experiment names."""


class StudyError(InputError):
    """The study folder is missing, damaged, or belongs to another experiment."""


class MachineError(InputError):
    """This machine lacks what was asked for: a package, a device, a precision."""
