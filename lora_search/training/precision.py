"""The precision the frozen base computes in.

bf16 matrix products are several times faster than fp32 where the processor has instructions for them, and slower where
it has not; what else a layer does is hardly faster in bf16, or slower. So ``auto`` times a product, and where that is
faster what a layer does in a step.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lora_search.errors import MachineError
from lora_search.models.quantization import compute_in
from lora_search.training.attention import use_cpu_attention

_CLEARLY_FASTER = 1.3
_ROUNDS = 12
_ROWS = 256
_SLOTS, _RANK = 8, 8
_WIDEST = 1024
"""Of a wider layer products take nearly all the time, and of these what they take of a layer this wide."""
_ROTARY = "inv_freq"
"""How the names of rotary frequencies end. transformers too keeps them in float32 whatever the weights are in: rounded,
they would turn far tokens by the wrong angle."""


def choose_dtype(requested: str, device: torch.device, width: int) -> torch.dtype:
    """The precision of the frozen base.

    Args:
        requested: ``fp32``, ``bf16`` or ``auto``; auto takes bf16 on a GPU that has it, and on a CPU where a product of
            the model's width and the step of a layer both run clearly faster.
        device: where the base will run.
        width: hidden size of the model.

    Raises:
        MachineError: bf16 asked for on a device that has none.
    """
    if requested == "fp32":
        return torch.float32
    # emulated, it is slower than float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        if requested == "bf16":
            raise MachineError.about("training.precision", "must be fp32 on this GPU, which has no bf16", got="bf16")
        return torch.float32
    if requested == "bf16" or device.type == "cuda":
        return torch.bfloat16
    width = min(width, _WIDEST)
    faster = _is_clearly_faster(_product, width) and _is_clearly_faster(_layer_step, width)
    return torch.bfloat16 if faster else torch.float32


_Work = Callable[[int, torch.dtype], Callable[[], object]]
"""Makes, for a width and a precision, what is timed."""


def _is_clearly_faster(work: _Work, width: int) -> bool:
    """Whether some work on the CPU takes clearly less time in bf16 than in float32, by the fastest of a few runs.

    In one thread, taking turns, and each over in some milliseconds: another process that runs on the same cores for a
    while, or no longer, slows both alike or neither. Threads that wait for each other would show only that.
    """
    runs = {dtype: work(width, dtype) for dtype in (torch.float32, torch.bfloat16)}
    fastest = dict.fromkeys(runs, math.inf)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(_ROUNDS):
            for dtype, run in runs.items():
                start = time.perf_counter()
                run()
                fastest[dtype] = min(fastest[dtype], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return fastest[torch.float32] > _CLEARLY_FASTER * fastest[torch.bfloat16]


def _product(width: int, dtype: torch.dtype) -> Callable[[], object]:
    """(rows, width) x (width, 4 width)."""
    x, weight = torch.ones(_ROWS, width, dtype=dtype), torch.ones(4 * width, width, dtype=dtype)
    return lambda: nn.functional.linear(x, weight)


def _layer_step(width: int, dtype: torch.dtype) -> Callable[[], object]:
    """Forward and backward of what an adapted layer is made of, attention aside: frozen products, those of the slots of
    a small pack, an activation, sums and norms."""
    x = torch.ones(_SLOTS, _ROWS // _SLOTS, width, dtype=dtype, requires_grad=True)
    shapes = ((width, width), (4 * width, width), (width, 4 * width))
    square, up, down = (torch.ones(shape, dtype=dtype) for shape in shapes)
    a, b = (torch.ones(_SLOTS, rows, columns, dtype=dtype) for rows, columns in ((width, _RANK), (_RANK, width)))

    def step() -> object:
        h = x
        for _ in range(4):
            h = nn.functional.linear(h, square) + torch.bmm(torch.bmm(h, a), b)
        h = nn.functional.layer_norm(h + x, [width])
        inner = nn.functional.gelu(nn.functional.linear(h, up))
        return torch.autograd.grad(nn.functional.layer_norm(nn.functional.linear(inner, down) + h, [width]).sum(), x)

    return step


@contextmanager
def fast_products(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Inside the block a GPU multiplies float32 matrices in TF32, several times faster: float32 sums of products of
    numbers with 10 bits after the point. Elsewhere, and for a base in bf16, nothing changes."""
    if device.type != "cuda" or dtype != torch.float32:
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are one: ``cuda`` is the current GPU."""
    return one.type == other.type and _index(one) == _index(other)


def _index(device: torch.device) -> int:
    index: int | None = device.index
    if index is None:
        return torch.cuda.current_device() if device.type == "cuda" else 0
    return index


def in_precision(model: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The frozen model on ``device`` in ``dtype``: itself where it is that already (and only attends another way, in
    bf16 on a CPU), else a copy; the original stays as it is."""
    own = next(model.parameters())
    if own.dtype == dtype and same_device(own.device, device):
        if device.type == "cpu" and dtype == torch.bfloat16:
            use_cpu_attention(model)
        return model
    # transformers' own ``to`` would refuse a quantized model, of which only what is no codes changes its precision
    converted = nn.Module.to(copy.deepcopy(model), device=device, dtype=dtype)
    compute_in(converted, dtype)
    for name, buffer in model.named_buffers():
        if name.endswith(_ROTARY):
            converted.get_buffer(name).data = buffer.to(device)
    if device.type == "cpu" and dtype == torch.bfloat16:
        use_cpu_attention(converted)
    return converted
