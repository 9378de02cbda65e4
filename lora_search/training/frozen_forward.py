"""The forward of a frozen model with its caches: from the lowest adapted layer on, for the token its head reads.

Knows the model and the dataset, and nothing of cells, steps or memory that runs out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lora_search.adapters import AdapterPack, SlotAdapter, on_device
from lora_search.errors import MachineError
from lora_search.models.base import FrozenBase
from lora_search.training.attention import attention_without_plans
from lora_search.training.batches import IntArray, MicroBatchPlanner, layer_overhead, micro_batch_overhead
from lora_search.training.inputs import TokenStorage
from lora_search.training.memory import cache_memory, is_out_of_memory
from lora_search.training.pooled import PooledLayer, PooledToken, find_pooled_token
from lora_search.training.precision import fast_products, in_precision
from lora_search.training.prefix import PrefixCache
from lora_search.training.probing import ForwardFacts, probe
from lora_search.training.readout import FrozenReadout, find_readout

_ROWS_TO_COMPARE = 4


@dataclass(frozen=True)
class RunningModel:
    """A frozen model in a precision that its own code runs in.

    Attributes:
        model, dtype: on the device of its storage.
        facts: how its forward treats rows.
        readout: the head of a language model, passed over; None for any other, or where it cannot be.
        note: what the user should know about the precision; None where it is the one asked for.
    """

    model: nn.Module
    dtype: torch.dtype
    facts: ForwardFacts
    readout: FrozenReadout | None = None
    note: str | None = None


def running_model(base: FrozenBase, storage: TokenStorage, dtype: torch.dtype, *, asked: str) -> RunningModel:
    """Have ``base`` in ``dtype``, or in float32 where its own code fails in that and the experiment leaves it open.

    Args:
        base: left as it is.
        storage: the dataset, on the device the model is wanted on.
        dtype: the precision to try.
        asked: ``training.precision`` of the experiment.

    Raises:
        MachineError: the model cannot compute in the precision the experiment names.
    """
    modules = [*(module.name for module in base.structure.linear_modules), *base.structure.head_modules]
    model = in_precision(base.model, dtype, storage.device)
    try:
        return _running(base, model, dtype, storage, modules)
    except RuntimeError as error:
        if dtype == torch.float32 or is_out_of_memory(error):
            raise
        name = type(model).__name__
        if asked != "auto":
            raise MachineError.about(
                "training.precision", f"must be fp32 for {name}, whose own code fails in bf16", got=f"bf16 ({error})"
            ) from error
    plain = in_precision(base.model, torch.float32, storage.device)
    note = f"{name} runs in fp32: its own code fails in bf16"
    return replace(_running(base, plain, torch.float32, storage, modules), note=note)


def _running(
    base: FrozenBase, model: nn.Module, dtype: torch.dtype, storage: TokenStorage, modules: Sequence[str]
) -> RunningModel:
    with attention_without_plans(storage.device):
        readout = find_readout(model, storage.device) if base.head.frozen else None
        with _passed_over(readout):
            return RunningModel(model, dtype, probe(model, storage, modules), readout)


def _passed_over(readout: FrozenReadout | None) -> AbstractContextManager[None]:
    return nullcontext() if readout is None else readout.passed_over()


class FrozenForward:
    """What runs the frozen model for packs of adapters.

    Args:
        base: the model as it was loaded; left as it is.
        running: the same, as it computes.
        storage: the dataset.
        prefix_cache: whether states that enter the lowest adapted layer are kept.
        cache_memory_bytes: of them in memory; None for what the machine can spare.
        cache_folder: where the others lie.
        cache_tokens: padded tokens per micro-batch while they are computed.
        pooled_token: whether the last layer may be computed for one token of each row.
    """

    def __init__(
        self,
        base: FrozenBase,
        running: RunningModel,
        storage: TokenStorage,
        *,
        prefix_cache: bool,
        cache_memory_bytes: int | None,
        cache_folder: Path | None,
        cache_tokens: int,
        pooled_token: bool,
    ) -> None:
        self.structure = base.structure
        self.model, self.dtype, self.facts = running.model, running.dtype, running.facts
        self.readout = running.readout
        self.storage = storage
        config = base.model.config.get_text_config()
        self.head_deviation = float(getattr(config, "initializer_range", None) or 0.02)
        # what is kept was computed with padding
        self._keeps_states = prefix_cache and not self.facts.sees_padding
        self._layer_overhead = layer_overhead(
            storage.device, self.dtype, base.structure.layer_parameters // base.structure.layer_count
        )
        self.prefix = PrefixCache(
            self.model,
            base.structure.stack_name,
            [module.leaf for module in base.structure.linear_modules],
            storage,
            memory_budget=cache_memory() if cache_memory_bytes is None else cache_memory_bytes,
            token_budget=cache_tokens,
            overhead=self._layer_overhead,
            folder=cache_folder,
        )
        # a language model reads every token
        self.pooled = self._find_pooled_token(base.model) if pooled_token and not base.head.frozen else None
        self.pooled_layer = PooledLayer(self.model, self.pooled)

    def _find_pooled_token(self, model: nn.Module) -> PooledToken | None:
        """Found in the base as it was loaded, in float32."""
        examples = self.storage.spread(_ROWS_TO_COMPARE)
        batch = self.storage.batch(examples, int(self.storage.lengths[examples].max()))
        return find_pooled_token(
            model,
            f"{self.structure.stack_name}.{self.structure.layer_count - 1}",
            [module.name for module in self.structure.linear_modules],
            self.storage,
            batch.to(next(model.parameters()).device),
        )

    # -- what a pack asks beforehand -----------------------------------------------------------------------------

    def new_pack(self, slots: Sequence[SlotAdapter], lanes: int) -> AdapterPack:
        """Adapters and heads of so many slots over this model."""
        return AdapterPack(
            self.model,
            slots,
            self.structure.head_modules,
            head_deviation=self.head_deviation,
            dtype=self.dtype,
            lanes=lanes,
            tokens_first=self.facts.tokens_first,
        )

    def resumes(self, depth: int) -> bool:
        """Have the states that enter layer ``depth`` ready, unless the model is to be run in full."""
        with attention_without_plans(self.storage.device), _passed_over(self.readout):
            return self._keeps_states and self.prefix.prepare(depth)

    def mixes_slots(self, modules: Collection[str]) -> bool:
        """Whether rows of several slots may be computed together where ``modules`` are not the frozen ones."""
        return self.facts.shared.isdisjoint(modules)

    def planner(self, depth: int, token_budget: int) -> MicroBatchPlanner:
        """What cuts the rows of a step that computes layers from ``depth`` on."""
        layers = self.structure.layer_count - depth
        overhead = micro_batch_overhead(layers, self.pooled is not None, self._layer_overhead)
        return MicroBatchPlanner(self.storage.lengths, token_budget, overhead, not self.facts.sees_padding)

    def layers(self, depth: int) -> Sequence[nn.Module]:
        """The layers from ``depth`` on."""
        return list(self.prefix.stack)[depth:]

    def token_count(self, examples: IntArray) -> int:
        """Tokens of some examples, without padding."""
        return int(self.storage.lengths[examples].sum())

    # -- running -------------------------------------------------------------------------------------------------

    @contextmanager
    def running(self, pack: AdapterPack, resumed_at: int | None) -> Iterator[None]:
        """Inside the block the model runs with the slots of ``pack``, from layer ``resumed_at`` on (None: in full)."""
        with ExitStack() as stack:
            # not around the checks of what gives the same: they look for smaller differences
            stack.enter_context(fast_products(self.storage.device, self.dtype))
            stack.enter_context(attention_without_plans(self.storage.device))
            stack.enter_context(_passed_over(self.readout))
            if resumed_at is not None:
                stack.enter_context(self.prefix.resumed(resumed_at, self.pooled.spared if self.pooled else ()))
            stack.enter_context(pack.attached())
            stack.enter_context(self.pooled_layer.pooling())
            yield

    def logits(self, examples: IntArray, width: int, resumed_at: int | None) -> Tensor:
        """The model's answer to ``examples`` padded to ``width`` tokens, (rows, ...) in its precision: logits, or the
        states (rows, width, features) that ``readout`` makes logits of.

        To be called inside ``running``, once the pack knows the rows.
        """
        batch = self.storage.batch(examples, width)
        if resumed_at is not None:
            self.prefix.feed(resumed_at, batch)
        self.pooled_layer.feed(batch)
        answered = self.model(**batch.arguments)
        return answered.logits if self.readout is None else self.readout.take()

    def pooled_tokens(self, examples: IntArray) -> Tensor | None:
        """int64 (rows,), which token of each row the head reads; None for the first."""
        if self.pooled is None or self.pooled.position == "first":
            return None
        return on_device(self.storage.lengths[examples] - 1, self.storage.device)
