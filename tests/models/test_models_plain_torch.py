"""A study computes as PyTorch begins, and leaves what the caller has set as it was."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from lora_search.models import plain_torch


def settings() -> tuple[Any, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


AS_IT_COMES = (torch.float32, torch.device("cpu"), True, False, False)


@pytest.fixture(params=["no_grad", "inference_mode"])
def _changed(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        with getattr(torch, request.param)(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_changed")
def test_inside_torch_is_as_it_comes_and_afterwards_as_it_was_set() -> None:
    before = settings()
    assert all(now != first for now, first in zip(before[:3], AS_IT_COMES[:3], strict=True))
    with plain_torch():
        assert settings() == AS_IT_COMES
    assert settings() == before
    with pytest.raises(KeyboardInterrupt), plain_torch():
        raise KeyboardInterrupt
    assert settings() == before


def test_where_nothing_was_changed_nothing_is() -> None:
    with plain_torch():
        assert settings() == AS_IT_COMES
    assert settings() == AS_IT_COMES
