"""How many floating-point operations the matrix products of a training take: of the frozen linear modules alone.

Counted is what has to be computed for real tokens: no padding, and neither attention's own products nor those of
adapters and heads, which are small beside. Gradients with respect to frozen weights do not exist. So a module costs one
product per token on the way forward, and one on the way back in training, for its input's gradient, but for

- layers below the lowest adapted one: no gradient goes there, and where their states are cached they are computed once;
- the first modules of the lowest adapted layer (query, key and value, as a rule): their input is frozen, so it has no
  gradient, and where their results are cached these too are computed once;
- modules of the last layer that see one token of a row.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from lora_search.models.structure import LinearModule
from lora_search.training import Engine


@dataclass(frozen=True)
class Work:
    """What a training goes over, counted over cells and epochs: tokens and rows (texts), trained on and predicted."""

    trained_tokens: int
    trained_rows: int
    predicted_tokens: int
    predicted_rows: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of products: ``forward``, and of ``input_gradient``."""

    forward: int
    input_gradient: int

    @property
    def total(self) -> int:
        return self.forward + self.input_gradient


def product_flops(
    modules: Iterable[LinearModule],
    work: Work,
    *,
    lowest: int = 0,
    first: Collection[str] = (),
    cached: Collection[str] = (),
    cached_tokens: int | None = None,
    spared: Collection[str] = (),
) -> Flops:
    """Operations of a training.

    Args:
        modules: the linear modules of the stack.
        work: what it goes over.
        lowest: the lowest adapted layer.
        first: names of the modules whose input is frozen although they are in that layer.
        cached: those of them whose results are cached.
        cached_tokens: tokens for which what is cached was computed; None without a cache, where the layers below
            ``lowest`` are computed like any other.
        spared: names of the modules that see one token of a row.
    """
    forward = backward = 0
    for module in modules:
        product = 2 * module.in_features * module.out_features
        spares = module.name in spared
        trained = work.trained_rows if spares else work.trained_tokens
        predicted = work.predicted_rows if spares else work.predicted_tokens
        if cached_tokens is not None and (module.layer < lowest or module.name in cached):
            forward += product * cached_tokens
        else:
            forward += product * (trained + predicted)
        if module.layer >= lowest and module.name not in first:
            backward += product * trained
    return Flops(forward, backward)


def pack_flops(engine: Engine, work: Work, lowest: int, cached_tokens: int) -> Flops:
    """Operations of a pack whose lowest adapted layer is ``lowest``, as an engine that resumes from it trains it.

    Args:
        cached_tokens: tokens for which the cache was filled in the training itself; 0 where it was before.
    """
    kept = engine.forward.prefix.kept_modules(lowest)
    pooled = engine.forward.pooled
    return product_flops(
        engine.base.structure.linear_modules,
        work,
        lowest=lowest,
        first=kept,
        cached=kept - (pooled.filled if pooled else frozenset()),
        cached_tokens=cached_tokens if engine.forward.prefix.prepare(lowest) else None,
        spared=pooled.spared if pooled else (),
    )
