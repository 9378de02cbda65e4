"""What a trained head answers, in the label's own unit.

A head is trained on standardised numbers (see ``tasks.regression``). Written to a file it answers in the unit of the
label, so that nobody has to know how it was trained: with y = centre + spread * (W h + b), the exported weight is
spread * W and the exported bias spread * b + centre. Heads of decoders have no bias; what cannot be written is told,
as a number to be added.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lora_search.data import EncodedExamples
from lora_search.models import FrozenBase, answering_module
from lora_search.tasks import Standardises, as_trained_on, task_of


def exported_state(
    state: Mapping[str, Tensor], base: FrozenBase, data: EncodedExamples, train: NDArray[np.int64]
) -> dict[str, Tensor]:
    """The weights as they are written: those of a head that answers with numbers in the unit of these.

    Args:
        state: as ``AdapterPack.state`` names them.
        base: what they were trained over.
        data: the examples. train: those that were trained on.

    Raises:
        ModelError: the head ends in no linear module.
    """
    found = _standardised(base, data, train)
    if found is None:
        return dict(state)
    module = _answering(base)
    weight, bias = f"{module}.weight", f"{module}.bias"
    scaled = {name: found.spread * state[name] for name in (weight, bias) if name in state}
    if bias in scaled:
        scaled[bias] = scaled[bias] + found.centre
    return {**state, **scaled}


def offset_of(base: FrozenBase, data: EncodedExamples, train: NDArray[np.int64]) -> float:
    """What has to be added to the numbers of an exported head; 0 where it has a bias, or answers no numbers.

    Args:
        base, data, train: as in ``exported_state``.
    """
    found = _standardised(base, data, train)
    if found is None or base.model.get_submodule(_answering(base)).bias is not None:
        return 0.0
    return found.centre


def _standardised(base: FrozenBase, data: EncodedExamples, train: NDArray[np.int64]) -> Standardises | None:
    objective = as_trained_on(task_of(base.head.task).objective(data), train)
    return objective if isinstance(objective, Standardises) else None


def _answering(base: FrozenBase) -> str:
    return answering_module(base.model, base.structure.head_modules, 1)
