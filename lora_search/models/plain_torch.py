"""PyTorch as it comes, whatever the program around has set.

A script or a notebook may compute in float64, without gradients, within autocast or on another device, and those are
settings of the whole process or thread. A study says dtypes, devices and gradients of its own, and otherwise relies on
what PyTorch begins with, as the libraries do that it loads models with.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

_AUTOCAST = ("cpu", "cuda")


@contextmanager
def plain_torch() -> Iterator[None]:
    """Inside the block new tensors are float32 on the CPU and gradients are recorded, in full precision; what the
    caller had set is back after it, also after an error or an interrupt."""
    dtype = torch.get_default_dtype()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for device in _AUTOCAST:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.get_default_device().type != "cpu":  # otherwise it would cost every operation some time
            stack.enter_context(torch.device("cpu"))
        if dtype != torch.float32:
            stack.callback(torch.set_default_dtype, dtype)
            torch.set_default_dtype(torch.float32)
        yield
