"""The frozen base: loading it, and finding by inspection what of it a LoRA can adapt and what is trained whole."""

from lora_search.models.base import FrozenBase, load_base, load_structure, no_embedding, structure_from_config
from lora_search.models.checkpoint import quiet_libraries
from lora_search.models.heads import answering_module
from lora_search.models.peft_targets import PeftTargets, peft_patterns, peft_targets
from lora_search.models.plain_torch import plain_torch
from lora_search.models.positions import position_limit, positions_follow_padding
from lora_search.models.quantization import Quantization, check_device, quantization_note, scales_of, stored_bytes
from lora_search.models.ranks import Explained, module_ranks, ranked_modules, ranks_sentence
from lora_search.models.structure import LinearModule, ModelStructure, inspect_model
from lora_search.models.targets import (
    TargetRow,
    adapter_parameters,
    fused_notes,
    resolve_targets,
    structure_notes,
    target_groups,
    target_notes,
    targets_table,
    trained_parameters,
)
from lora_search.models.task_head import TaskHead

__all__ = [
    "Explained",
    "FrozenBase",
    "LinearModule",
    "ModelStructure",
    "PeftTargets",
    "Quantization",
    "TargetRow",
    "TaskHead",
    "adapter_parameters",
    "answering_module",
    "check_device",
    "fused_notes",
    "inspect_model",
    "load_base",
    "load_structure",
    "module_ranks",
    "no_embedding",
    "peft_patterns",
    "peft_targets",
    "plain_torch",
    "position_limit",
    "positions_follow_padding",
    "quantization_note",
    "quiet_libraries",
    "ranked_modules",
    "ranks_sentence",
    "resolve_targets",
    "scales_of",
    "stored_bytes",
    "structure_from_config",
    "structure_notes",
    "target_groups",
    "target_notes",
    "targets_table",
    "trained_parameters",
]
