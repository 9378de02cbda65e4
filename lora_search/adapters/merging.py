"""An adapter written into the weights of its model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_search.adapters.frozen import is_kept_as_codes, matrix_of
from lora_search.adapters.variants import BIAS, MAGNITUDE


def merge_into(model: nn.Module, state: Mapping[str, Tensor], scale: float) -> None:
    """Write one slot's weights into the model itself: W0 + scale * B A, scaled to its magnitudes if it has any, the
    biases and the head tensors, in place.

    Args:
        model: the module tree the state was trained on.
        state: what ``AdapterPack.state`` returned.
        scale: the slot's scale.

    Raises:
        ValueError: W0 is kept as codes, which cannot hold the sum.
    """
    with torch.no_grad():
        for name, value in state.items():
            module_name, kind = name.replace(f".{BIAS}", ".bias").rsplit(".", 1)
            module = model.get_submodule(module_name)
            if kind == "lora_A":
                if is_kept_as_codes(module):
                    raise ValueError(
                        f"{module_name}: the weight must be floating-point numbers to merge an update into"
                    )
                weight = matrix_of(module)
                weight += scale * (state[f"{module_name}.lora_B"] @ value)
                magnitude = state.get(f"{module_name}.{MAGNITUDE}")
                if magnitude is not None:
                    weight *= (magnitude / weight.norm(dim=1)).unsqueeze(1)
            elif not kind.startswith("lora_"):
                getattr(module, kind).copy_(value)
