"""Memory: how much activations take, how much there is, and running out of it told apart from other errors."""

from __future__ import annotations

import errno
import gc
import math
from pathlib import Path

import torch

LEAST_TOKEN_BUDGET = 64
"""Padded tokens per micro-batch below which halving would not help."""

LARGE_TOKEN_BUDGET = 2048
"""Padded tokens per micro-batch above which halving costs less time than computing layers twice would."""

_CPU_TOKEN_BUDGETS = {torch.float32: 1024, torch.bfloat16: 2048}
"""Larger micro-batches take more memory and are hardly faster; in bf16 a token takes half as much."""
_GPU_TOKEN_BUDGETS = (LARGE_TOKEN_BUDGET, 65536)
_SHARE_FOR_ACTIVATIONS = 0.25
_SHARE_FOR_CACHE = 0.25
_MOST_CACHED = 2 * 1024**3

_FLOATS_PER_TOKEN_LAYER = 34
"""What a transformer block keeps of a token for its backward, in units of its width."""

_OUT_OF_MEMORY = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
"""What errors say that are of no class of their own."""


def activation_bytes(tokens: int, layers: int, width: int, dtype: torch.dtype, *, checkpointing: bool) -> int:
    """Bytes that ``layers`` blocks of ``width`` features keep of ``tokens`` for their backward, about.

    With gradient checkpointing every block keeps its input, and one at a time, in the backward pass, all of it.
    """
    per_token = layers + _FLOATS_PER_TOKEN_LAYER if checkpointing else layers * _FLOATS_PER_TOKEN_LAYER
    return tokens * per_token * width * dtype.itemsize


def free_bytes(device: torch.device) -> int | None:
    """Bytes that can still be taken on ``device``; None where the system does not say."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for the next tensor
        return torch.cuda.mem_get_info(device)[0] + held
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def cache_memory() -> int:
    """Bytes of memory, not of a device, that cached states may take."""
    free = free_bytes(torch.device("cpu"))
    return _MOST_CACHED if free is None else min(_MOST_CACHED, int(_SHARE_FOR_CACHE * free))


def first_token_budget(device: torch.device, dtype: torch.dtype, bytes_per_token: int) -> int:
    """Padded tokens per micro-batch to begin with: on a GPU as many as a quarter of the free memory holds the
    activations of, a power of two; what does not fit after all is found out by trying, and halved."""
    if device.type != "cuda":
        return _CPU_TOKEN_BUDGETS[dtype]
    least, most = _GPU_TOKEN_BUDGETS
    fitting = _SHARE_FOR_ACTIVATIONS * (free_bytes(device) or 0) / bytes_per_token
    return int(min(most, max(least, 2 ** math.floor(math.log2(max(1.0, fitting))))))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller micro-batch could have avoided the error."""
    if isinstance(error, OSError):  # of a fork, or of memory shared with one
        return error.errno == errno.ENOMEM
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    )


def release_memory(device: torch.device) -> None:
    """Free what an error left behind, before smaller micro-batches are tried.

    To be called outside its ``except`` block: inside, the error still holds all that was computed. On a GPU torch keeps
    freed memory in pieces of the old sizes; what is allocated next has others.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
