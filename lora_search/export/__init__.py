"""The winner as PEFT files: an adapter config, and on request the trained weights with a model card, and a recipe that
trains the same adapter with another trainer.

::

    export_adapter("results/quickstart", "my-adapter", weights=True)

Nothing heavy is imported before it is needed: an adapter config alone reads the base model and trains nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_search.store.reader import StudyTables

__all__ = ["RECIPES", "export_adapter", "peft_config_of"]

RECIPES: tuple[str, ...] = ("trl", "axolotl", "llamafactory")
"""Trainers a recipe can be written for."""


def export_adapter(
    study: StudyTables | str | Path,
    out: str | Path,
    *,
    trial: int | None = None,
    weights: bool = False,
    recipe: str | None = None,
    progress: bool = True,
) -> Path:
    """Write one trial's adapter as PEFT files.

    Always ``adapter_config.json``, and ``export.json``, which says where it came from. With ``weights`` the trial is
    trained on all examples but the hold-out, and ``adapter_model.safetensors``, the tokenizer and ``README.md`` (the
    model card with the evidence) are written; then the folder is loaded through PEFT, and its predictions must be
    those of this package's own model. With ``recipe`` a folder ``recipe`` holds a script or config for that trainer
    and the training examples it reads.

    Everything is written beside ``out`` and put in its place as a whole, or not at all.

    Args:
        study: the study, or its folder.
        out: folder to write; must be new, empty or an earlier export of the same study, which is replaced, unless
            it holds trained weights and this one would not.
        trial: its number; None for the one the verdict recommends. While the study is undecided, that is its
            recommendation as things stand, and a warning is shown and recorded.
        weights: whether to train and write the weights.
        recipe: ``trl``, ``axolotl`` or ``llamafactory``.
        progress: whether warnings and progress are shown on standard error.

    Returns:
        ``out``.

    Raises:
        StudyError: no such study or trial, nothing to recommend, an unknown recipe, or ``out`` holds something else.
        InputError: the data or the model cannot be loaded.
        LoraSearchError: the written adapter, loaded through PEFT, predicts something else. Nothing is left in ``out``.
    """
    from lora_search.export.adapter import write_export
    from lora_search.export.display import Display

    return write_export(study, out, trial=trial, weights=weights, recipe=recipe, display=Display(shown=progress))


def peft_config_of(study: StudyTables | str | Path, trial: int | None = None) -> dict[str, Any]:
    """``adapter_config.json`` of a trial, as a dictionary that ``peft.LoraConfig`` takes.

    Reads the base model, for which modules it lacks decides what is trained besides the adapter.

    Args:
        study: the study, or its folder.
        trial: its number; None for the one the verdict recommends.

    Raises:
        StudyError: no such study or trial, nothing to recommend, or the model has changed since.
        ModelError: the model cannot be loaded.
    """
    from lora_search.export.adapter import config_of_trial

    return config_of_trial(study, trial)
