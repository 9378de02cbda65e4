"""Memory that several processes compute in."""

from __future__ import annotations

import math
import mmap

import torch
from torch import Tensor


def shared_zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Zeros on the CPU that the processes forked from this one share with it: what one writes, all read.

    Not ``Tensor.share_memory_()``: that takes space of /dev/shm, of which a container has 64 MiB.
    """
    if not math.prod(shape):
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(mmap.mmap(-1, math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)
