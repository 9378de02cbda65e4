"""The frozen base: a model of transformers with a head for its task, in eval mode, its tokenizer, and what was found in
it.

One base is shared by every cell of a study. Its weights never change; whoever trains adapters and heads holds them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from lora_search.errors import ModelError
from lora_search.models.checkpoint import Checkpoint, find_checkpoint
from lora_search.models.quantization import (
    Quantization,
    brought_quantization,
    check_asked_for,
    check_installed,
    check_quantized,
    describe,
    loaded_in,
    outside_layers,
    quantized_modules,
    without_quantized_head,
)
from lora_search.models.structure import ModelStructure, inspect_model
from lora_search.models.task_head import TaskHead
from lora_search.spec.experiment import ModelSpec
from lora_search.spec.quoting import quoted, quoted_path

_TOKENS_TRIED, _PADDING_TRIED = 6, 3
_INITIALIZER_RANGE = 0.02  # standard deviation, of BERT and most after it
# What a config says about its labels, its origin and the library's version is no part of what the frozen base computes.
_NOT_THE_BASE = frozenset(
    {
        "architectures",
        "dtype",
        "id2label",
        "label2id",
        "num_labels",
        "problem_type",
        "quantization_config",  # of what is quantized each weight says how
        "transformers_version",
    }
)


@dataclass(frozen=True)
class FrozenBase:
    """A base model ready to carry adapters.

    Attributes:
        model: float32, or bf16 as its checkpoint (see ``load_base``), on the CPU; eval mode, no parameter requires a
            gradient.
        tokenizer: with a padding token, where padding has to be one. Pads on the right, or where the model reads that
            padding (XLNet) on the left.
        structure: where adapters go and what is trained whole.
        head: what it was loaded with.
        fingerprint: SHA-256 (hex) of everything frozen: equal for equal bases, whatever their heads and labels.
        resized: whether the checkpoint brings a head of another size, which a loader must be told to pass over.
        quantization: how its layers are kept, if that is in 4 bits.
        padding_side: the side its tokenizer pads on of itself: ``left`` or ``right``.
    """

    model: Any
    tokenizer: Any
    structure: ModelStructure
    head: TaskHead
    fingerprint: str
    resized: bool = False
    quantization: Quantization | None = None
    padding_side: str = "right"

    @property
    def label_names(self) -> tuple[str, ...]:
        """Label i of the model is ``label_names[i]``."""
        return self.head.label_names

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer as whoever uses the trained model needs it: it pads as in training, or, of a language
        model, on its own side again, for what goes on with a batch of texts reads their ends."""
        side = self.tokenizer.padding_side
        if self.head.frozen:
            self.tokenizer.padding_side = self.padding_side
        try:
            self.tokenizer.save_pretrained(folder)
        finally:
            self.tokenizer.padding_side = side


def load_base(spec: ModelSpec, head: TaskHead) -> FrozenBase:
    """Load a model with a head for its task.

    The parameters of ``structure.head_modules`` are drawn from a fixed seed, for a checkpoint that brings a trained
    classifier too, even one of the same labels: its head is trained anew, so that every study starts from its own seed
    and not from somebody's fine-tuning. Whoever trains them initialises them again.

    A language model comes in the precision of its checkpoint if that is bf16, for it may be large; all else in float32.
    What is quantized computes in that precision too.

    Raises:
        ModelError: not there, not a model, none with such a head, or not built as a LoRA needs it.
        MachineError: a package is missing that the checkpoint needs.
    """
    checkpoint = find_checkpoint(spec)
    config = _load_config(checkpoint, head)
    tokenizer, own_side = _load_tokenizer(checkpoint, pads=not head.frozen)
    quantization = _quantization(spec, checkpoint, config, head)
    model, report = _load_model(checkpoint, config, head, quantization)
    structure = inspect_model(model, _fresh_parameters(model, report), frozen_head=head.frozen)
    if quantization is not None:
        check_quantized(quantization, model, (module.name for module in structure.linear_modules))
    _check_tokenizer(checkpoint, tokenizer, model)
    _draw_head(model, structure.head_modules)
    model.eval()
    model.requires_grad_(False)
    if head.frozen:
        _check_causal(checkpoint, model)
    else:
        # Decoders find the last token of a text by skipping padding, so both sides must agree on what padding is.
        model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
        if own_side == "left" and _wants_padding_on_the_left(model, tokenizer):
            tokenizer.padding_side = "left"
    fingerprint = _fingerprint(model, structure.head_modules)
    resized = bool(report["mismatched_keys"])
    return FrozenBase(model, tokenizer, structure, head, fingerprint, resized, quantization, own_side)


def load_structure(spec: ModelSpec, head: TaskHead) -> ModelStructure:
    """The structure of a model from its config alone: no weights are read.

    A pooler the checkpoint lacks cannot be seen this way; ``load_base`` adds it to the head.

    Raises:
        ModelError, MachineError: as ``load_base``.
    """
    checkpoint = find_checkpoint(spec)
    config = _load_config(checkpoint, head)
    with checkpoint.reading(head.purpose):
        return structure_from_config(config, head, trust_remote_code=spec.trust_remote_code)


def structure_from_config(config: Any, head: TaskHead, *, trust_remote_code: bool = False) -> ModelStructure:
    """The structure of the model a config of transformers describes, built without memory for its weights.

    Raises:
        ModelError: not built as a LoRA needs it.
    """
    model = _without_weights(config, head, trust_remote_code)
    return inspect_model(model, frozen_head=head.frozen)


def _without_weights(config: Any, head: TaskHead, trust_remote_code: bool) -> Any:
    with torch.device("meta"):
        return head.model_class.from_config(config, trust_remote_code=trust_remote_code)


def _load_config(checkpoint: Checkpoint, head: TaskHead) -> Any:
    with checkpoint.reading():
        checkpoint.check_no_adapter()
        config = AutoConfig.from_pretrained(checkpoint.source, **head.labels, **checkpoint.arguments)
    _check_config(checkpoint, config)
    config.update(dict(head.config))
    config.get_text_config().use_cache = False
    return config


def _check_config(checkpoint: Checkpoint, config: Any) -> None:
    """What transformers would act on and should not.

    Raises:
        ModelError: weights quantized otherwise than to 4 bits by bitsandbytes, or attention to be fetched from the hub.
    """
    name = quoted_path(checkpoint.name)
    brought_quantization(config, checkpoint.name)
    attention = getattr(config, "_attn_implementation", None)
    if isinstance(attention, str) and "/" in attention and not checkpoint.trust_remote_code:
        raise ModelError.about(
            "model.trust_remote_code",
            f"must be true to fetch the code of {quoted(attention)} that {name} asks for and run it",
            got="false",
            hint="read that code first",
        )


def _load_tokenizer(checkpoint: Checkpoint, *, pads: bool) -> tuple[Any, str]:
    """The tokenizer, which is made to pad on the right, and the side it pads on of itself.

    Args:
        checkpoint: its files.
        pads: whether padding has to be a token. Where it is told by the attention mask alone, a tokenizer without one
            stays without: end-of-text in its place would be taken for padding by whoever trains with it next.
    """
    with checkpoint.reading():
        tokenizer = AutoTokenizer.from_pretrained(checkpoint.source, **checkpoint.arguments)
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        raise ModelError.about(
            "model.base", "must come with its tokenizer", got=f"{quoted_path(checkpoint.name)}, which has no vocabulary"
        )
    own_side, tokenizer.padding_side = tokenizer.padding_side, "right"
    if pads and tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise ModelError.about(
                "model.base",
                "must have a padding or end-of-text token",
                got=f"{quoted_path(checkpoint.name)}, whose tokenizer has neither",
            )
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, own_side


def _quantization(spec: ModelSpec, checkpoint: Checkpoint, config: Any, head: TaskHead) -> Quantization | None:
    """How the base is to be kept; None for as it is.

    Raises:
        ModelError: it cannot be quantized, since it is already. MachineError: the package is missing.
    """
    brought = brought_quantization(config, checkpoint.name)
    check_asked_for(spec, brought, checkpoint.gguf_file)
    if brought is not None:
        check_installed(brought.key, f"{quoted_path(checkpoint.name)}, which is quantized by it")
    elif spec.quantization is not None:
        check_installed("model.quantization", quoted(spec.quantization))
    else:
        return None
    with checkpoint.reading(head.purpose):
        model = _without_weights(config, head, spec.trust_remote_code)
        structure = inspect_model(model, frozen_head=head.frozen)
    linear = outside_layers(model, structure.stacks)
    if brought is None:
        return Quantization(str(spec.quantization), skipped=linear)
    return without_quantized_head(brought, config, (name for name in linear if name in structure.head_modules))


def _load_model(
    checkpoint: Checkpoint, config: Any, head: TaskHead, quantization: Quantization | None
) -> tuple[Any, dict[str, Any]]:
    """The model and what the loader says of it: ``missing_keys``, ``mismatched_keys``."""
    dtype = _dtype_of(config, head)
    # What the checkpoint lacks is drawn at random: from a fixed seed here, and without moving the caller's generator.
    with checkpoint.reading(head.purpose), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, report = head.model_class.from_pretrained(
            checkpoint.source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **checkpoint.arguments,
            **({} if quantization is None else quantization.loading),
        )
    loaded_in(model, dtype, quantization)
    return model, report


def _dtype_of(config: Any, head: TaskHead) -> torch.dtype:
    """Float32, or bf16 for a language model that is kept in it: those are large, and of its numbers float32 would hold
    no more. What is trained beside a classifier's base wants float32."""
    return torch.bfloat16 if head.frozen and config.get_text_config().dtype == torch.bfloat16 else torch.float32


def _fresh_parameters(model: Any, report: dict[str, Any]) -> frozenset[str]:
    """Parameters the checkpoint lacks, or has for another number of labels.

    A head of another size is somebody's classifier, and all of it is theirs: none of it counts as pretrained.
    """
    parameters = {name for name, _ in model.named_parameters()}
    resized = {name for name, *_ in report["mismatched_keys"]}
    fresh = parameters & (set(report["missing_keys"]) | resized)
    base = f"{model.base_model_prefix}."
    if any(not name.startswith(base) for name in resized):
        fresh |= {name for name in parameters if not name.startswith(base)}
    return frozenset(fresh)


def _draw_head(model: Any, head_modules: Collection[str]) -> None:
    """A head of its own: under a classifier of zeros all logits are alike, and nothing that compares them can fail."""
    generator = torch.Generator().manual_seed(0)
    deviation = getattr(model.config.get_text_config(), "initializer_range", None) or _INITIALIZER_RANGE
    with torch.no_grad():
        for module in map(model.get_submodule, head_modules):
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() > 1:
                    parameter.normal_(0.0, deviation, generator=generator)
                else:  # the weight of a norm, or a bias
                    parameter.fill_(1.0 if name == "weight" else 0.0)


def _check_tokenizer(checkpoint: Checkpoint, tokenizer: Any, model: Any) -> None:
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.vocab_size > rows:
        raise ModelError.about(
            "model.base",
            (
                f"must come with its own tokenizer, the one of {quoted_path(checkpoint.name)} has "
                f"{tokenizer.vocab_size} tokens for {rows} embeddings"
            ),
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        raise no_embedding("its padding token", tokenizer.pad_token_id, checkpoint.name, tokenizer, rows)


def no_embedding(what: str, token: int, base: str, tokenizer: Any, rows: int, where: str = "") -> ModelError:
    """That the model cannot read a token its tokenizer makes.

    Args:
        what: must have an embedding.
        token: that has none, by its number.
        base: the model, as the user wrote it.
        tokenizer: of the model, which has
        rows: embeddings.
        where: the token is.
    """
    return ModelError.about(
        "model.base",
        f"must have an embedding for {what}",
        got=f"{quoted_path(base)}, whose tokenizer knows {len(tokenizer.get_vocab())} tokens while the model has rows"
        f" for {rows}: {quoted(tokenizer.convert_ids_to_tokens(token))}{where} has none",
        hint="save the model after resize_token_embeddings, or take the token out of the tokenizer",
    )


@torch.no_grad()
def _check_causal(checkpoint: Checkpoint, model: Any) -> None:
    """Check that what a language model answers to a token does not depend on the tokens after it.

    Raises:
        ModelError: it does, as an encoder's (BERT) does that is loaded as one.
    """
    ids = torch.arange(1, 1 + _TOKENS_TRIED)[None]
    other = ids.clone()
    other[:, -1] += 1
    one, two = (model(input_ids=each).logits[0, :-1].float() for each in (ids, other))
    if not torch.allclose(one, two, rtol=1e-3, atol=1e-3 * float(one.abs().max())):
        raise ModelError.about(
            "model.base",
            "must be a language model that goes on with a text from what came before",
            got=f"{quoted_path(checkpoint.name)}, which looks ahead",
            hint="BERT and its kin are for model.task = 'text-classification' or 'token-classification'",
        )


@torch.no_grad()
def _wants_padding_on_the_left(model: Any, tokenizer: Any) -> bool:
    """Whether padding on the right changes what a classifier answers, and padding on the left does not: XLNet reads the
    last token of the row, whatever it is."""
    text = torch.arange(1, 1 + _TOKENS_TRIED)[None]
    padding = torch.full((1, _PADDING_TRIED), int(tokenizer.pad_token_id))
    mask = torch.ones_like(text)

    def changes(side: str) -> bool:
        alone = model(input_ids=text, attention_mask=mask).logits
        parts = [(text, mask), (padding, torch.zeros_like(padding))]
        ids, seen = zip(*(parts if side == "right" else reversed(parts)), strict=True)
        logits = model(input_ids=torch.cat(ids, 1), attention_mask=(at := torch.cat(seen, 1))).logits
        if logits.dim() > 2:  # an answer for every token
            logits = logits[:, at[0].bool()]
        return not torch.allclose(logits, alone, rtol=1e-3, atol=1e-3 * float(alone.abs().max()))

    try:
        return changes("right") and not changes("left")
    except Exception:  # a model's own code may want more of a text than this one has
        return False


def _fingerprint(model: Any, head_modules: Collection[str]) -> str:
    digest = hashlib.sha256()
    config = {
        key: value
        for key, value in model.config.to_diff_dict().items()
        if key not in _NOT_THE_BASE and not key.startswith("_")
    }
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    codes = {f"{name}.weight": module.weight for name, module in quantized_modules(model)}
    # without the scales of codes, which are rounded by a sum that processors order in ways of their own
    passed_over = {*head_modules, *codes}
    for name, tensor in sorted(model.state_dict().items()):
        if name.rpartition(".")[0] not in passed_over:
            if name in codes:
                digest.update(describe(codes[name]).encode())
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
