"""LoRA over a frozen model: many slots at once, each with its own rank, targets and head."""

from lora_search.adapters.initial import initial_a, initial_head_weight, key_of
from lora_search.adapters.merging import merge_into
from lora_search.adapters.pack import AdapterPack, Block, SlotAdapter
from lora_search.adapters.peft_names import from_peft_state, to_peft_state
from lora_search.adapters.rows import MixedRowsError, Rows
from lora_search.adapters.transfer import on_device

__all__ = [
    "AdapterPack",
    "Block",
    "MixedRowsError",
    "Rows",
    "SlotAdapter",
    "from_peft_state",
    "initial_a",
    "initial_head_weight",
    "key_of",
    "merge_into",
    "on_device",
    "to_peft_state",
]
