"""How a study's trainings are computed: found out once, kept, and checked where the study goes on.

A run, a resumed run and a refit all ask here, so that they compute alike. What a study has recorded is kept as far as
it is about the study, and found anew where it was about another machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from lora_search.errors import MachineError
from lora_search.spec import facts
from lora_search.study.preparation import Prepared, measured_dtype
from lora_search.training import Engine, EngineSettings, choose_dtype, lanes_of
from lora_search.training.memory import first_token_budget

_NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def settings_of(prepared: Prepared, kept: Mapping[str, Any]) -> EngineSettings:
    """Device, precision, lanes and budgets of a study's trainings.

    The precision is the study's, wherever it goes on: in another one its scores could not be compared. Lanes and
    budgets suit the device they were found on, and are found anew on another kind of device: a GPU's token budget would
    fill a CPU's memory.

    Args:
        prepared: the experiment, on this machine.
        kept: the study's facts; none of a study that begins.

    Raises:
        MachineError: the study ran in a precision that this machine lacks.
    """
    device = prepared.device
    precision = facts.PRECISION.of(kept)
    dtype = measured_dtype(prepared) if precision is None else _recorded_dtype(prepared, precision)
    if moved_from(device, kept) is not None:
        return EngineSettings(device, dtype, lanes=lanes_of(device))
    lanes = facts.LANES.of(kept) or lanes_of(device)
    budgets = facts.BUDGETS.of(kept)
    if budgets is None:
        return EngineSettings(device, dtype, lanes=lanes)
    return EngineSettings(device, dtype, lanes=lanes, **budgets)


def moved_from(device: torch.device, kept: Mapping[str, Any]) -> str | None:
    """The kind of device on which lanes and budgets were found, where that is another one; None where it is not."""
    found_on = facts.DEVICE.of(kept)
    if found_on is None:  # a study of before it was kept; no CPU began with more, and none finds room for more
        budgets = facts.BUDGETS.of(kept)
        too_many = budgets is not None and budgets["token_budget"] > first_token_budget(
            torch.device("cpu"), torch.float32, 1
        )
        found_on = "cuda" if too_many else device.type
    return None if found_on == device.type else found_on


def facts_of(engine: Engine) -> dict[str, Any]:
    """What a study keeps of how its engine computes, by the names of the facts."""
    settings = engine.settings
    return {
        facts.PRECISION.name: _NAMES[settings.dtype],
        facts.DEVICE.name: settings.device.type,
        facts.LANES.name: settings.lanes,
        facts.BUDGETS.name: engine.budgets,
    }


def tightest(one: facts.Budgets, other: facts.Budgets) -> facts.Budgets:
    """What two workers both have room for."""
    return {
        "token_budget": min(one["token_budget"], other["token_budget"]),
        "checkpointing": one["checkpointing"] or other["checkpointing"],
    }


def _recorded_dtype(prepared: Prepared, precision: str) -> torch.dtype:
    try:
        return choose_dtype(precision, prepared.device, 1)
    except MachineError as error:
        raise MachineError.about(
            "training.precision",
            f"this study ran in {precision}, which this machine does not have",
            hint="go on where it does, or run a study of another name here",
        ) from error
