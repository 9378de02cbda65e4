"""The trained weights in an export: written, proved, and explained in the model card, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save

from lora_search.adapters import to_peft_state
from lora_search.data import Dataset
from lora_search.export.card import model_card
from lora_search.handover import Loading, check_reload, exported_state
from lora_search.store.reader import StudyTables
from lora_search.study.refit import Refit


@dataclass(frozen=True, eq=False)
class Weights:
    """What was trained, ready to be written.

    Attributes:
        tables: the study.
        refit: the trained trial.
        dataset: the study's texts.
        loading: how the export is loaded.
        out: where the export will be.
    """

    tables: StudyTables
    refit: Refit
    dataset: Dataset
    loading: Loading
    out: Path

    def write(self, folder: Path) -> None:
        """Write ``adapter_model.safetensors``, the tokenizer and ``README.md`` beside ``adapter_config.json``.

        Raises:
            LoraSearchError: loaded through PEFT, the folder predicts something else.
        """
        base, data = self.refit.prepared.base, self.refit.prepared.data
        state = exported_state(self.refit.state, base, data, self.refit.cell.train)
        weights = save(to_peft_state(state), metadata={"format": "pt"})
        (folder / "adapter_model.safetensors").write_bytes(weights)  # save_file makes it unreadable for others
        base.save_tokenizer(folder)
        difference = check_reload(folder, self.refit.predict, base, data, self.dataset, self.loading)
        card = model_card(self.tables, self.refit, self.loading, self.out, difference)
        (folder / "README.md").write_text(card, encoding="utf-8")
