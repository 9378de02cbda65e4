"""A frozen base in 4 bits, as QLoRA has it (Dettmers et al. 2023), quantized by bitsandbytes through transformers.

The matrices of the layers are kept as 4-bit codes (NF4 or FP4), 64 of them under one scale, and the scales in 8 bits
(double quantization): 4.13 bits a parameter. They are computed with in the precision of the rest of the base, and never
trained. Embeddings, norms, biases, a pooler and the head are not quantized.

A base is quantized on the CPU, wherever it runs, so that it is the same base on every device; and it computes without
bitsandbytes' format for CPUs with bf16 instructions, through which no gradient goes.

Eight bits (LLM.int8) are refused: there the features that any row of a batch has an outlier in are computed apart, so
that an adapter's numbers would depend on its company in a pack.

bitsandbytes is imported where a base is quantized, and nowhere else: it is an extra
(``pip install 'lora-search[quantized]'``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lora_search.errors import MachineError, ModelError
from lora_search.spec.experiment import ModelSpec
from lora_search.spec.quoting import in_one_line, quoted, quoted_path

METHOD = "bitsandbytes"
_KINDS = ("nf4", "fp4")
_SKIPPED = "llm_int8_skip_modules"  # of 4 bits too
_NOTEWORTHY_SHARE = 0.01
_REASON_WIDTH = 200  # characters of a library's message worth repeating


@dataclass(frozen=True)
class Quantization:
    """How the layers of a base are kept.

    Attributes:
        kind: ``nf4`` or ``fp4``.
        double: whether the scales are quantized too.
        brought: whether the checkpoint came so, and says so itself.
        skipped: dotted names of modules that are left as they are: the linear ones outside of the layers. Of a base
            that comes quantized those that its config names, and the head's, of which that may know nothing; none
            where that config may stay as it is.
    """

    kind: str
    double: bool = True
    brought: bool = False
    skipped: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The key of the experiment that asks for it."""
        return "model.base" if self.brought else "model.quantization"

    @property
    def arguments(self) -> dict[str, Any]:
        """Of ``BitsAndBytesConfig``; none where the checkpoint has its own."""
        if self.brought:
            return {}
        return {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": self.kind,
            "bnb_4bit_use_double_quant": self.double,
            _SKIPPED: list(self.skipped),
        }

    @property
    def call(self) -> str:
        """The same as Python; empty where the checkpoint has its own."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"BitsAndBytesConfig({given})" if given else ""

    @property
    def loading(self) -> dict[str, Any]:
        """Keyword arguments with which ``from_pretrained`` quantizes on the CPU."""
        from transformers import BitsAndBytesConfig

        given: dict[str, Any] = {"device_map": {"": "cpu"}}
        if self.arguments:
            given["quantization_config"] = BitsAndBytesConfig(**self.arguments)  # type: ignore[no-untyped-call]
        return given


def brought_quantization(config: Any, name: str) -> Quantization | None:
    """How a checkpoint says that its weights are quantized; None where they are not.

    Args:
        config: of transformers.
        name: of the checkpoint, for messages.

    Raises:
        ModelError: in another way than to 4 bits by bitsandbytes.
    """
    said = getattr(config, "quantization_config", None)
    if not said:
        return None
    values: dict[str, Any] = said if isinstance(said, dict) else said.to_dict()
    method, kind = values.get("quant_method"), values.get("bnb_4bit_quant_type", "fp4")
    how = f"{quoted_path(name)}, quantized with {getattr(method, 'value', method) or 'an unknown method'}"
    if method == METHOD and not values.get("load_in_4bit"):
        how += " to 8 bits, where an adapter's numbers depend on its company"
    elif method == METHOD and values.get("bnb_4bit_quant_storage", "uint8") != "uint8":
        how += f", its codes stored as {values['bnb_4bit_quant_storage']} and not as uint8"
    elif method == METHOD and kind in _KINDS:
        return Quantization(kind, bool(values.get("bnb_4bit_use_double_quant")), brought=True)
    raise ModelError.about(
        "model.base",
        "must have its weights as floating-point numbers, in 4 bits of bitsandbytes or in a GGUF file",
        got=how,
        hint="name the model it was made from",
    )


def without_quantized_head(quantization: Quantization, config: Any, head: Iterable[str]) -> Quantization:
    """A base that comes quantized, to which a head is added that is not.

    Args:
        quantization: how it comes.
        config: of transformers, of that base; it is told so.
        head: dotted names of the head's linear modules; none of a head that is the base's own.
    """
    added = tuple(head)
    if not added:
        return quantization
    own = config.quantization_config.get(_SKIPPED) or ()
    found = replace(quantization, skipped=tuple(dict.fromkeys((*own, *added))))
    skip_in(config, found.skipped)
    return found


def skip_in(config: Any, skipped: Iterable[str]) -> None:
    """Tell the config of a base that comes quantized what is left as it is."""
    config.quantization_config[_SKIPPED] = list(skipped)


def check_asked_for(spec: ModelSpec, brought: Quantization | None, gguf_file: str | None) -> None:
    """Check ``model.quantization`` against what the base is.

    Raises:
        ModelError: it cannot be quantized, since it is already.
    """
    if spec.quantization is None:
        return
    if brought is not None:
        what = f"comes quantized ({brought.kind})"
    elif gguf_file is not None:
        what = "is a GGUF file"
    else:
        return
    got = f"{quoted(spec.quantization)} for {quoted_path(spec.base)}"
    raise ModelError.about("model.quantization", f"must be left out for a base that {what}", got=got)


def check_installed(key: str, got: str) -> None:
    """Check that there is bitsandbytes.

    Raises:
        MachineError: there is none, or none that can be imported.
    """
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise MachineError.about(
            key, "needs bitsandbytes, which is not installed", got=got, hint="pip install 'lora-search[quantized]'"
        ) from error


def check_device(quantization: Quantization, device: torch.device) -> None:
    """Check that 4 bits can be computed with on a device.

    Raises:
        MachineError: not by the bitsandbytes that is installed.
    """
    from bitsandbytes import functional

    try:
        codes, state = functional.quantize_4bit(torch.ones(64, 64, device=device), quant_type=quantization.kind)
        functional.dequantize_4bit(codes, state)
    except Exception as error:  # of a library that was built for other devices it may be any
        reason = in_one_line(str(error), _REASON_WIDTH) or type(error).__name__
        rule = f"needs a bitsandbytes that computes on this device ({device.type})"
        raise MachineError.about(quantization.key, rule, got=f"{quantization.kind}: {reason}") from error


def outside_layers(model: nn.Module, stacks: Collection[str]) -> tuple[str, ...]:
    """Dotted names of the linear modules outside of some stacks of layers."""
    inside = tuple(f"{stack}." for stack in stacks)
    return tuple(
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not name.startswith(inside)
    )


def is_quantized(module: nn.Module) -> bool:
    """Whether a module's weight is kept as codes."""
    return getattr(getattr(module, "weight", None), "quant_state", None) is not None


def numbers_of(parameter: Tensor) -> int:
    """How many numbers a parameter is, of codes how many they stand for."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())


def quantized_modules(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """(name, module) of those that are."""
    return ((name, module) for name, module in model.named_modules() if is_quantized(module))


def loaded_in(model: nn.Module, dtype: torch.dtype, quantization: Quantization | None) -> None:
    """Make a model what ``from_pretrained`` was asked for: of a base that comes quantized it passes the precision over,
    and has what is no codes in the checkpoint's.

    Args:
        model: as it was loaded; changed.
        dtype: that was asked for.
        quantization: how it is kept.
    """
    if quantization is None:
        return
    if quantization.brought:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
    compute_in(model, dtype)


def compute_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Have the quantized modules of a model compute in a precision, the same way in training as in evaluation."""
    for _, module in quantized_modules(model):
        module.compute_dtype, module.compute_type_is_set = dtype, True
        module.support_avx512bf16_for_cpu = False
        module.quant_state = module.weight.quant_state  # a copy of a model has two
        module.quant_state.dtype = dtype


def scales_of(model: nn.Module) -> list[Tensor]:
    """What is kept beside the codes, which no list of parameters or buffers has."""
    found = []
    for _, module in quantized_modules(model):
        state = module.weight.quant_state
        found += [
            state.absmax,
            state.code,
            *([state.offset, state.state2.absmax, state.state2.code] if state.nested else []),
        ]
    return found


def stored_bytes(model: nn.Module) -> int:
    """Bytes of a model's parameters, as they are kept."""
    return sum(tensor.nbytes for tensor in (*model.parameters(), *scales_of(model)))


def describe(weight: Any) -> str:
    """How a weight was made codes: ``nf4 64 double``."""
    state = weight.quant_state
    return f"{state.quant_type} {state.blocksize} {'double' if state.nested else 'single'} {tuple(state.shape)}"


def check_quantized(quantization: Quantization, model: nn.Module, layers: Iterable[str]) -> None:
    """Check what became of a base that was loaded so.

    Args:
        quantization: that was asked for, or came with it.
        model: the base.
        layers: names of the linear modules of its layers.

    Raises:
        ModelError: bitsandbytes left out all of them.
    """
    if not any(is_quantized(model.get_submodule(name)) for name in layers):
        rule = f"must be left out for {type(model).__name__}, of whose layers bitsandbytes quantizes no module"
        raise ModelError.about(quantization.key, rule, got=quoted(quantization.kind))


def quantization_note(quantization: Quantization, model: nn.Module, stacks: Iterable[str]) -> str:
    """That a base is in 4 bits, and what of its layers is not, if it is enough to matter: a sentence."""
    whole = 0
    left: dict[str, int] = {}
    for stack in stacks:
        for layer in model.get_submodule(stack).children():
            for name, module in layer.named_modules():
                for kind, parameter in module.named_parameters(recurse=False):
                    numbers = numbers_of(parameter)
                    whole += numbers
                    if parameter.dim() > 1 and not is_quantized(module):
                        leaf = f"{name}.{kind}".removesuffix(".weight")
                        left[leaf] = left.get(leaf, 0) + numbers
    said = f"the base is in 4 bits ({quantization.kind}{', double quantization' if quantization.double else ''})"
    share = sum(left.values()) / max(1, whole)
    if share < _NOTEWORTHY_SHARE:
        return said
    return f"{said}, but for {share:.0%} of its layers' weights, which bitsandbytes leaves out: {', '.join(left)}"
