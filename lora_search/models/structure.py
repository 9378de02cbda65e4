"""Where a LoRA can go in a model, found by looking at the model.

A transformer with a head is read as: something before the *stack* (embeddings), the stack (one ``ModuleList`` of
identically-typed blocks, run one after the other), something after it, and the *head* that turns the result into
logits. Adapters go on the linear modules inside the stack. The head, and whatever else the checkpoint did not bring, is
trained whole; that of a language model is the base's own and stays as it is. Of a model that reads with an encoder and
answers with a decoder, the stack is the encoder's, and the decoder is something after it.

Nothing is computed with the model's weights, so a model on the meta device will do. This module does not know how
models are loaded (``base``) or what the user calls their modules (``targets``).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_search.errors import ModelError
from lora_search.models.heads import find_head, modules_to_save, no_head
from lora_search.models.quantization import is_quantized, numbers_of
from lora_search.models.roles import Role, block_roles

Kind = Literal["linear", "conv1d"]


@dataclass(frozen=True)
class LinearModule:
    """One linear module of the stack.

    Attributes:
        name: dotted name in the model, as ``model.get_submodule`` takes it.
        layer: index of its block in the stack, from 0 at the input.
        leaf: dotted name inside the block, the same in every layer.
        in_features, out_features: y (..., out_features) = x (..., in_features) W^T + b.
        kind: ``linear`` holds W as (out, in), ``conv1d`` (GPT-2, unless quantized) as (in, out).
        role: what the block uses it for.
        has_bias: whether there is a b.
    """

    name: str
    layer: int
    leaf: str
    in_features: int
    out_features: int
    kind: Kind
    role: Role
    has_bias: bool = False


@dataclass(frozen=True)
class FrozenWeight:
    """A matrix, or a stack of them, in the layers that no adapter can go on, for no linear module computes with it.

    Attributes:
        leaf: dotted name inside the block.
        parameters: how many numbers, in all layers together.
    """

    leaf: str
    parameters: int


@dataclass(frozen=True)
class ModelStructure:
    """What of a model is adapted, what is trained whole, what stays.

    Attributes:
        stack_name: dotted name of the ``ModuleList`` of blocks.
        layer_count: number of blocks.
        hidden_size: features of a token between the layers.
        linear_modules: the targetable modules: by layer, and within a layer in the order the block declares them.
        head_modules: leaf modules trained whole: the task head, and any pooler the checkpoint lacked.
        modules_to_save: the same as PEFT wants it: its suffix match finds exactly those modules, or what contains them.
        head_parameters: number of parameters of ``head_modules``.
        module_names: every module of the model, to tell which names a suffix would match.
        frozen_weights: what of the layers cannot be adapted; the experts of a mixture, most of all.
        layer_parameters: number of parameters of all layers.
        decoder_name: dotted name of the second stack of an encoder-decoder; None of any other model.
    """

    stack_name: str
    layer_count: int
    hidden_size: int
    linear_modules: tuple[LinearModule, ...] = field(repr=False)
    head_modules: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    head_parameters: int
    module_names: tuple[str, ...] = field(repr=False)
    frozen_weights: tuple[FrozenWeight, ...] = ()
    layer_parameters: int = 0
    decoder_name: str | None = None

    @property
    def stacks(self) -> tuple[str, ...]:
        """Dotted names of all stacks of layers."""
        return (self.stack_name,) if self.decoder_name is None else (self.stack_name, self.decoder_name)


def inspect_model(model: nn.Module, fresh: Collection[str] = (), *, frozen_head: bool = False) -> ModelStructure:
    """Read the structure of a classifier, or of a language model, of transformers.

    Args:
        model: on any device. The ``base_model_prefix`` of a classifier tells the base from the head.
        fresh: names of the parameters the checkpoint lacked. Empty: as if it brought the base and no head.
        frozen_head: whether the head is the base's own, as a language model's: nothing is trained whole.

    Raises:
        ModelError: no single stack of identical blocks, shared layers, a head of unsupported modules, or a checkpoint
            that lacks weights of the base.
    """
    stack_name, blocks, decoder_name = _find_stack(model)
    head = no_head(fresh) if frozen_head else find_head(model, stack_name, fresh)
    linear_modules = tuple(
        linear for layer, block in enumerate(blocks) for linear in _block_modules(f"{stack_name}.{layer}", layer, block)
    )
    if not linear_modules:
        raise ModelError.about("model.base", f"must have linear modules in its layers, {type(model).__name__} has none")
    return ModelStructure(
        stack_name=stack_name,
        layer_count=len(blocks),
        hidden_size=_hidden_size(model, {module.in_features for module in linear_modules}),
        linear_modules=linear_modules,
        head_modules=head,
        modules_to_save=modules_to_save(model, head),
        head_parameters=sum(p.numel() for name in head for p in model.get_submodule(name).parameters()),
        module_names=tuple(name for name, _ in model.named_modules() if name),
        frozen_weights=_frozen_weights(blocks),
        layer_parameters=sum(map(numbers_of, blocks.parameters())),
        decoder_name=decoder_name,
    )


def _find_stack(model: nn.Module) -> tuple[str, nn.ModuleList, str | None]:
    """(name, blocks, name of the decoder's stack or None)."""
    what = type(model).__name__
    stacks = _outermost_lists(model)
    if not stacks:
        raise ModelError.about(
            "model.base", f"must have a stack of transformer layers, {what} has none that can be found"
        )
    decoder_name = None
    if (
        len(stacks) == 2
        and getattr(getattr(model, "config", None), "is_encoder_decoder", False)
        and "decoder" in stacks[1][0]
    ):
        decoder_name = stacks.pop()[0]
    if len(stacks) > 1:
        names = ", ".join(name for name, _ in stacks)
        raise ModelError.about("model.base", f"must have one stack of layers, {what} has {len(stacks)}: {names}")
    name, blocks = stacks[0]
    kinds = sorted({type(block).__name__ for block in blocks})
    if len(kinds) > 1 or kinds == ["ModuleList"]:
        raise ModelError.about("model.base", f"must have layers of one kind, {what} has {', '.join(kinds)} in {name}")
    declared = getattr(getattr(model, "config", None), "num_hidden_layers", len(blocks))
    own = len({id(block) for block in blocks})
    if declared != len(blocks) or own < len(blocks):
        raise ModelError.about(
            "model.base",
            f"must have its own weights in every layer, {what} runs {declared} layers on {own} set(s) of weights",
            hint="an adapter of ALBERT or its kin is one on all layers at once: PEFT can train it, there is nothing"
            " here to choose",
        )
    return name, blocks, decoder_name


def _hidden_size(model: nn.Module, widths: Collection[int]) -> int:
    """Features of a token between the layers, as the config has them if its model has some module that reads so many.
    Else, or if it does not say, the least that a module reads, although attention may be narrower inside.

    Args:
        model: with a config, or without.
        widths: what the modules of its layers read.
    """
    config = getattr(model, "config", None)
    said = None if config is None else getattr(config.get_text_config(), "hidden_size", None)
    return said if isinstance(said, int) and said in widths else min(widths)


def _outermost_lists(model: nn.Module, prefix: str = "") -> list[tuple[str, nn.ModuleList]]:
    """The ``ModuleList`` objects that hold linear modules and are not inside another one."""
    found: list[tuple[str, nn.ModuleList]] = []
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            if any(_kind(module) for module in child.modules()):
                found.append((prefix + name, child))
        else:
            found.extend(_outermost_lists(child, f"{prefix}{name}."))
    return found


def _block_modules(block_name: str, layer: int, block: nn.Module) -> list[LinearModule]:
    kinds = {leaf: (module, kind) for leaf, module in block.named_modules() if (kind := _kind(module))}
    shapes = {leaf: _shape(module) for leaf, (module, _) in kinds.items()}
    roles = block_roles(shapes)
    return [
        LinearModule(
            f"{block_name}.{leaf}", layer, leaf, *shapes[leaf], kind, roles[leaf], has_bias=module.bias is not None
        )
        for leaf, (module, kind) in kinds.items()
    ]


def _frozen_weights(blocks: nn.ModuleList) -> tuple[FrozenWeight, ...]:
    found: dict[str, int] = {}
    for block in blocks:
        for name, parameter in block.named_parameters():
            owner = block.get_submodule(name.rpartition(".")[0])
            if (
                parameter.dim() > 1
                and _kind(owner) is None
                and not isinstance(owner, nn.Embedding | nn.modules.conv._ConvNd)
            ):
                found[name] = found.get(name, 0) + parameter.numel()
    return tuple(FrozenWeight(leaf, parameters) for leaf, parameters in found.items())


def _kind(module: nn.Module) -> Kind | None:
    # nn.MultiheadAttention reads the weights of its output projection and never calls it: an adapter would do nothing.
    if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return None
    if isinstance(module, nn.Linear):
        # bitsandbytes' module has a forward of its own, and codes for a weight
        return (
            "linear"
            if is_quantized(module) or type(module).forward is nn.Linear.forward or _is_linear(module)
            else None
        )
    return "conv1d" if isinstance(module, Conv1D) else None


def _is_linear(module: nn.Linear) -> bool:
    """Whether a subclass with its own forward still computes x W^T + b: Falcon's does, the router of Phi-MoE does not.

    Tried with weights made up for it, for the model may be without any.
    """
    weight = torch.linspace(-1.0, 1.0, module.out_features)[:, None].expand(-1, module.in_features)
    bias = None if module.bias is None else torch.linspace(0.0, 1.0, module.out_features)
    x = torch.linspace(-1.0, 2.0, module.in_features)[None]
    made_up = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    try:
        y = torch.func.functional_call(module, made_up, (x,))
    except Exception:  # what a forward raises that wants something else than x can be any error
        return False
    expected = nn.functional.linear(x, weight, bias)
    return isinstance(y, torch.Tensor) and y.shape == expected.shape and torch.allclose(y, expected, rtol=1e-4)


def _shape(module: nn.Module) -> tuple[int, int]:
    """(in_features, out_features)."""
    if isinstance(module, nn.Linear):  # whose weight may be codes, in another shape
        return module.in_features, module.out_features
    rows, columns = module.get_parameter("weight").shape
    return rows, columns
