"""PEFT's names for one slot's weights, so that what we train can be loaded by ``PeftModel.from_pretrained``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

PREFIX = "base_model.model."


def to_peft_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``MODULE.lora_A`` -> ``base_model.model.MODULE.lora_A.weight``; head tensors keep their name behind the prefix.

    Returns:
        contiguous tensors, as safetensors wants them.
    """
    return {
        PREFIX + (f"{name}.weight" if name.endswith((".lora_A", ".lora_B")) else name): value.contiguous()
        for name, value in state.items()
    }


def from_peft_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``to_peft_state``."""
    return {
        name.removeprefix(PREFIX).removesuffix(".weight") if ".lora_" in name else name.removeprefix(PREFIX): value
        for name, value in state.items()
    }
