"""A frozen model run from a middle layer on, given the states that enter it.

Layers below and the embeddings are replaced by modules that compute nothing, and the input of the layer is exchanged
for the given states. Modules of that layer whose results are known as well answer with these. Masks and position terms
still come from the model's own forward, so nothing of an architecture is written down here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Read = Callable[[str], Tensor]


class _PassThrough(nn.Module):
    """Stands for a layer that is not computed: hands its input on, in the shape the layer would."""

    def __init__(self, layer: nn.Module, tuple_length: int) -> None:
        super().__init__()
        object.__setattr__(self, "_layer", layer)  # not a submodule: its weights must not be moved or listed
        self._tuple_length = tuple_length

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_layer"), name)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return (hidden_states, *[None] * (self._tuple_length - 1)) if self._tuple_length else hidden_states


class _NoEmbedding(nn.Module):
    """Stands for an embedding whose result is not used: zeros of its shape, without memory."""

    def __init__(self, embedding: nn.Module, width: int, dtype: torch.dtype) -> None:
        super().__init__()
        object.__setattr__(self, "_embedding", embedding)
        self.width, self.dtype = width, dtype

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(object.__getattribute__(self, "_embedding"), name)

    def forward(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return torch.zeros((), dtype=self.dtype, device=input_ids.device).expand(*input_ids.shape, self.width)


class ResumableModel:
    """A model that can be run from a layer of its stack.

    Args:
        model: changed only inside ``resumed``.
        stack_name: dotted name of its layer stack.
    """

    def __init__(self, model: nn.Module, stack_name: str) -> None:
        self.model = model
        self.stack: nn.ModuleList = model.get_submodule(stack_name)  # type: ignore[assignment]
        self._read: Read | None = None

    @contextmanager
    def resumed(self, depth: int, tuple_length: int, known: Collection[str] = ()) -> Iterator[None]:
        """Inside the block the model computes layers from ``depth`` on, from what is given to ``feed`` before each
        forward.

        Args:
            depth: the first layer that is computed.
            tuple_length: a layer returns a tuple of so many, or a tensor where that is 0.
            known: dotted names inside layer ``depth`` of the modules whose results are read too, not computed.
        """
        replaced = {index: self.stack[index] for index in range(depth)}
        embeddings = list(self._embeddings())
        answering = {name: self.stack[depth].get_submodule(name) for name in known}
        hook = self.stack[depth].register_forward_pre_hook(self._exchange, with_kwargs=True)
        try:
            for index, layer in replaced.items():
                self.stack[index] = _PassThrough(layer, tuple_length)
            for owner, name, stand_in in embeddings:
                setattr(owner, name, stand_in)
            for name, module in answering.items():
                module.forward = partial(self._known, name)
            yield
        finally:
            hook.remove()
            for index, layer in replaced.items():
                self.stack[index] = layer
            for owner, name, stand_in in embeddings:
                setattr(owner, name, object.__getattribute__(stand_in, "_embedding"))
            for module in answering.values():
                vars(module).pop("forward", None)

    def feed(self, read: Read) -> None:
        """Give the next forward, and its backward, what is known: ``read("")`` are the states that enter the layer,
        (rows, tokens, features), ``read(name)`` the results of a module. Asked again it reads again, for what it gives
        may be written to."""
        self._read = read

    def _embeddings(self) -> Iterator[tuple[nn.Module, str, nn.Module]]:
        """(owner, attribute, stand-in) of the modules whose only result is the input of the stack."""
        base: Any = self.model.get_submodule(str(self.model.base_model_prefix))
        dtype = next(self.model.parameters()).dtype
        table = base.get_input_embeddings()
        width = getattr(table, "embedding_dim", None)
        whole = getattr(base, "embeddings", None)
        if width is None:
            return
        if whole is None:
            for owner in base.modules():
                for name, child in owner.named_children():
                    if child is table:
                        yield owner, name, _NoEmbedding(table, width, dtype)
        else:
            yield base, "embeddings", _NoEmbedding(whole, width, dtype)

    def _known(self, name: str, *args: Any, **kwargs: Any) -> Tensor:
        assert self._read is not None, "fed before each forward"
        return self._read(name)

    def _exchange(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states = self._known("")
        if args:
            return (states, *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": states}
