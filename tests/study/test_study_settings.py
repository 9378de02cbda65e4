"""How a study that goes on computes: as it did, as far as that is about the study and not about a machine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lora_search.errors import MachineError
from lora_search.study.settings import moved_from, settings_of
from lora_search.training import lanes_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BUDGETS = {"token_budget": 512, "checkpointing": True}


def on(device: torch.device) -> Any:
    """What is asked of a prepared experiment whose precision is known."""
    return SimpleNamespace(device=device)


def test_on_the_same_kind_of_device_all_is_kept() -> None:
    kept = {"precision": "bf16", "device": "cpu", "lanes": 7, "budgets": BUDGETS}
    found = settings_of(on(CPU), kept)
    assert (found.device, found.dtype, found.lanes) == (CPU, torch.bfloat16, 7)
    assert (found.token_budget, found.checkpointing) == (512, True)


@pytest.mark.parametrize(
    "kept", [{"device": "cuda", "budgets": BUDGETS}, {"budgets": BUDGETS | {"token_budget": 16384}}]
)
def test_a_gpus_budget_is_not_a_cpus(kept: dict[str, Any]) -> None:
    """Also where a study kept no device yet: no CPU ever found room for so many tokens."""
    facts = {"precision": "fp32", "lanes": 7, **kept}
    assert moved_from(CPU, facts) == "cuda"
    found = settings_of(on(CPU), facts)
    assert (found.dtype, found.lanes) == (torch.float32, lanes_of(CPU))
    assert (found.token_budget, found.checkpointing) == (None, False)


def test_a_study_of_before_devices_were_kept_goes_on_as_it_was() -> None:
    facts = {"precision": "fp32", "lanes": 2, "budgets": BUDGETS}
    assert moved_from(CPU, facts) is None
    assert settings_of(on(CPU), facts).token_budget == 512


def test_a_precision_the_machine_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: False)
    with pytest.raises(MachineError, match=r"this study ran in bf16, which this machine does not have; go on where it"):
        settings_of(on(GPU), {"precision": "bf16", "device": "cuda"})
