"""The matrix of a frozen linear module, however it is kept.

``nn.Linear`` has W as (out, in), transformers' Conv1D as (in, out), and bitsandbytes' modules as codes of 4 bits with a
state that says what they stand for (Dettmers et al. 2023, equation 5). Only for these a matrix is made, each time it is
asked for: to keep it would be to have the base in full again.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def matrix_of(module: nn.Module) -> Tensor:
    """W (out, in) of a frozen linear module: a view, or what its codes stand for, in the precision it computes in."""
    weight: Tensor = module.weight  # type: ignore[assignment]
    state = _state_of(module)
    if state is not None:
        from bitsandbytes.functional import dequantize_4bit

        made: Tensor = dequantize_4bit(weight.detach(), state)
        return made
    return weight.detach() if isinstance(module, nn.Linear) else weight.detach().t()


def is_kept_as_codes(module: nn.Module) -> bool:
    """Whether a change of ``matrix_of`` would be lost, for it is not what is kept."""
    return _state_of(module) is not None


def _state_of(module: nn.Module) -> Any:
    return getattr(module.weight, "quant_state", None)
