"""The last layer of a classifier, computed for the one token its head reads.

A head that reads the first token (BERT) or the last (Llama) makes no use of what the last layer's feed-forward block
computes for all others. Their rows are dropped in front of a module of the last layer; attention before it still sees
every token. Where a residual stream goes round that module, its other rows keep a meaningless sum that nobody reads.
Nor does anybody read what attention finds for the others: neither their queries are computed nor what these would find,
zeros stand for both.

Which modules and which token is found out, not assumed: the logits of a few rows must stay the same.
Where they do not for any module (a head that averages over tokens, say), every token is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lora_search.training.inputs import PaddedBatch, TokenStorage
from lora_search.training.logits import same_logits
from lora_search.training.queries import CheckedAttention, OneQuery, among_all, one_token

_TOLERANCE = 1e-5

Position = Literal["first", "last"]


@dataclass(frozen=True)
class PooledToken:
    """What of a model's last layer the head reads.

    Attributes:
        module: in front of this module the other tokens are dropped.
        position: the token that is kept.
        spared: the linear modules that see one token of a row.
        filled: those of them that come before ``module``, where the others are still there: zeros stand for these.
        attention: the module that attends from one token of a row; None where it cannot be told to (see ``queries``).
    """

    module: str
    position: Position
    spared: frozenset[str] = frozenset()
    filled: frozenset[str] = frozenset()
    attention: str | None = None


class PooledLayer:
    """A model of which ``pooled.module`` and what follows it sees one token of each row.

    Args:
        model: given hooks inside ``pooling`` only.
        pooled: None leaves the model as it is.
    """

    def __init__(self, model: nn.Module, pooled: PooledToken | None) -> None:
        self.model = model
        self.pooled = pooled
        self.attended = False
        self._mask: Tensor | None = None

    @contextmanager
    def pooling(self) -> Iterator[None]:
        """Inside the block other tokens are dropped; ``feed`` before each forward."""
        hooks: list[RemovableHandle] = []
        attending = None
        try:
            if self.pooled is not None:
                for name in (self.pooled.module, *self.pooled.filled):
                    module = self.model.get_submodule(name)
                    hooks.append(module.register_forward_pre_hook(self._drop, with_kwargs=True))
                    if name in self.pooled.filled:
                        hooks.append(module.register_forward_hook(self._spread))
                if self.pooled.attention is not None:
                    attending = self.model.get_submodule(self.pooled.attention)
                    attending.forward = partial(self._attend, attending.forward)
            yield
        finally:
            for hook in hooks:
                hook.remove()
            if attending is not None:
                vars(attending).pop("forward", None)

    def feed(self, batch: PaddedBatch) -> None:
        """Say what the next forward computes."""
        self._mask = batch.arguments["attention_mask"]

    def _drop(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return tuple(map(self._kept, args)), {name: self._kept(value) for name, value in kwargs.items()}

    def _kept(self, value: Any) -> Any:
        """(rows, tokens, ...) as (rows, 1, ...); anything else as it is."""
        mask, places = self._now()
        if not isinstance(value, Tensor) or value.dim() < 3 or value.shape[:2] != mask.shape:
            return value
        return one_token(value, places)

    def _spread(self, module: nn.Module, args: Any, value: Tensor) -> Tensor:
        """(rows, 1, features) as (rows, tokens, features), zeros where there was nothing."""
        mask, places = self._now()
        return among_all(value, places, mask.shape[1])

    def _attend(self, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with OneQuery(self._now()[1]) as queries:
            result = forward(*args, **kwargs)
        self.attended = queries.attended
        return result

    def _now(self) -> tuple[Tensor, Tensor | None]:
        """The attention mask, (rows, tokens), and which token of each row is kept; None for the first."""
        assert self._mask is not None, "fed before each forward"
        assert self.pooled is not None, "hooked only then"
        return self._mask, None if self.pooled.position == "first" else self._mask.sum(1) - 1


@torch.no_grad()
def find_pooled_token(
    model: nn.Module, last_layer: str, linear_modules: Sequence[str], storage: TokenStorage, batch: PaddedBatch
) -> PooledToken | None:
    """The way to compute least of the last layer with the same logits, if there is one.

    Args:
        model: in float32, where the same is the same to a few roundings.
        last_layer: dotted name of the last layer of its stack.
        linear_modules: dotted names of the model's linear modules.
        storage: the dataset.
        batch: a few rows of it, of different lengths.
    """
    expected = model(**batch.arguments).logits
    if expected.dim() > 2:  # a head that answers for every token
        return None
    ours = [name for name in linear_modules if name.startswith(f"{last_layer}.")]

    called = _in_order(model, last_layer, batch)

    def tried(pooled: PooledToken) -> dict[str, int] | None:
        """Tokens that the linear modules saw, or None where the logits were others, or no attention was met."""
        layer = PooledLayer(model, pooled)
        layer.feed(batch)
        # what a model's own code does with fewer tokens than it expects can be any error
        with _seen_tokens(model, ours) as seen, layer.pooling(), CheckedAttention(), suppress(Exception):
            same = same_logits(model(**batch.arguments).logits, expected, _TOLERANCE)
            if same and (pooled.attention is None or layer.attended):
                return seen
        return None

    for position in _positions(model, storage):
        for module in called:
            if module in linear_modules:  # which an adapter may stand around
                continue
            seen = tried(PooledToken(module, position))
            spared = frozenset(name for name, tokens in (seen or {}).items() if tokens == 1)
            if spared:  # whatever is called later spares less
                filled: frozenset[str] = frozenset()
                for name in ours:
                    if name not in spared and tried(PooledToken(module, position, filled=filled | {name})):
                        filled |= {name}
                found = PooledToken(module, position, spared | filled, filled)
                # the innermost around the attention
                before = [name for name in called[: called.index(module)] if name not in linear_modules]
                attending = (replace(found, attention=name) for name in reversed(before))
                return next(filter(tried, attending), found)
    return None


def _positions(model: nn.Module, storage: TokenStorage) -> tuple[Position, ...]:
    """Models that read the last token take the last that is not padding: not the last of a text that ends with one."""
    padding = getattr(model.config, "pad_token_id", None)
    return ("first",) if padding is not None and storage.any_ends_with(int(padding)) else ("first", "last")


def _in_order(model: nn.Module, last_layer: str, batch: PaddedBatch) -> list[str]:
    """The modules inside a layer in the order they are called."""
    called: list[str] = []

    def note(name: str) -> Any:
        return lambda module, args: called.append(name)

    prefix = f"{last_layer}."
    hooks = [
        module.register_forward_pre_hook(note(name))
        for name, module in model.named_modules()
        if name.startswith(prefix)
    ]
    try:
        model(**batch.arguments)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(called))


@contextmanager
def _seen_tokens(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Tokens of a row that each module was called on."""
    seen: dict[str, int] = {}

    def note(name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            if args and args[0].dim() == 3:
                seen[name] = args[0].shape[1]

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(note(name)) for name in names]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
