"""The export tried with an untrained adapter before anything is trained: what it would refuse is found out first.

The dearest mistake is the one that shows after the study: an adapter that PEFT cannot load on this base, or loads and
predicts something else with. So an adapter of the search space, its weights drawn at random, is written to a temporary
folder and loaded as the export's model card says, beside a second copy of the base; both must predict the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from lora_search.adapters import to_peft_state
from lora_search.adapters.frozen import matrix_of
from lora_search.adapters.initial import initial_a, initial_head_weight, key_of
from lora_search.adapters.variants import BIAS, MAGNITUDE
from lora_search.errors import InputError, LoraSearchError, ModelError
from lora_search.models import LinearModule
from lora_search.spec import UNIFORM, AdapterSpec, Nuisance
from lora_search.spec.quoting import in_one_line, quoted_path
from lora_search.store.records import CellKey
from lora_search.study.preparation import Prepared
from lora_search.training import Cell, Engine, EngineSettings
from lora_search.training.memory import free_bytes

_EXAMPLES = 8
_BATCH = 3  # so that what is padded far by one side is padded little by the other: it must make no difference
_DEVIATION = 0.05  # of B: enough that an adapter in the wrong place shows
_REASON_WIDTH = 200  # characters of a library's message worth repeating
_COPIES = 1.5  # of the base, in memory: the second copy, and what loading it takes


def check_export(prepared: Prepared) -> tuple[str, ...]:
    """Try an export of an untrained adapter.

    Returns:
        Notes, as sentences: that it was not tried for want of memory; usually none.

    Raises:
        ModelError: PEFT cannot load an adapter of this base, or predicts something else with it.
    """
    base = prepared.experiment.model.base
    parameters = list(prepared.base.model.parameters())
    # compared in float32, but for the codes of 4 bits, which stay
    whole = sum(4 * each.numel() if each.is_floating_point() else each.nbytes for each in parameters)
    # one that is not is copied here too
    needed = _COPIES * whole + (whole if parameters[0].dtype != torch.float32 else 0)
    free = free_bytes(torch.device("cpu"))
    if free is not None and free < needed:
        gibibytes = needed / 1024**3
        return (
            f"the export is not tried beforehand: it needs a second copy of the base, {gibibytes:.1f} GiB of memory",
        )
    try:
        _write_and_reload(prepared, _widest(prepared))
    except InputError:
        raise
    except LoraSearchError as error:
        raise ModelError.about(
            "model.base",
            "must predict through PEFT what it predicts here",
            got=f"{quoted_path(base)}, for which an untrained adapter gives other predictions when it is exported",
            hint=f"nothing was trained ({error})",
        ) from error
    except Exception as error:  # a model of an unknown kind can fail anywhere inside the libraries
        reason = in_one_line(str(error), _REASON_WIDTH) or "no reason given"
        raise ModelError.about(
            "model.base",
            "must be a model whose adapters PEFT can load",
            got=f"{quoted_path(base)}, for which the export of an untrained adapter fails",
            hint=f"nothing was trained ({type(error).__name__}: {reason})",
        ) from error
    return ()


def _widest(prepared: Prepared) -> AdapterSpec:
    """The adapter of the space on the most modules, of the lowest rank; with ranks that differ where there are any."""
    search = prepared.experiment.search
    targets, layers = max(prepared.modules, key=lambda choice: len(prepared.modules[choice]))
    plain = search.adapter(min(search.rank), 1.0, targets, layers, any(search.use_dora), UNIFORM)
    uneven = (
        search.adapter(rank, 1.0, targets, layers, any(search.use_dora), pattern)
        for rank in sorted(search.rank)
        for pattern in search.rank_pattern
    )
    return next((spec for spec in uneven if len(set(prepared.ranks_of(spec).values())) > 1), plain)


def _write_and_reload(prepared: Prepared, adapter: AdapterSpec) -> None:
    from lora_search.handover import (
        adapter_config,
        check_reload,
        exported_state,
        loading_of,
    )  # PEFT, which takes its time

    experiment, base, data = prepared.experiment, prepared.base, prepared.data
    nuisance = Nuisance(learning_rate=1e-3)
    modules, ranks = prepared.modules_of(adapter), prepared.ranks_of(adapter)
    state = _untrained(prepared, adapter, modules)
    train, nothing = prepared.splits.development, np.empty(0, dtype=np.int64)
    cell = Cell(CellKey(0, 0, 0), adapter, nuisance, modules, train, nothing, experiment.seed, ranks=ranks)
    # what of the last layer can be left out takes longer to find than these few rows to compute
    settings = EngineSettings(torch.device("cpu"), torch.float32, prefix_cache=False, pooled_token=False)
    engine = Engine(base, data, experiment.training, settings)

    def predict(examples: NDArray[np.int64]) -> NDArray[np.float32]:
        return engine.predict(cell, state, examples)

    config = adapter_config(base.structure, modules, ranks, adapter, nuisance, experiment.model, inference=True)
    loading = loading_of(experiment.model, base, data, train, pairs=experiment.data.text_pair is not None)
    with TemporaryDirectory(prefix="lora-search-") as name:
        folder = Path(name)
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        written = to_peft_state(exported_state(state, base, data, train))
        save_file(written, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        base.save_tokenizer(folder)
        check_reload(folder, predict, base, data, prepared.dataset, loading, most=_EXAMPLES, batch=_BATCH)


def _untrained(prepared: Prepared, adapter: AdapterSpec, modules: tuple[LinearModule, ...]) -> dict[str, Tensor]:
    """Weights as a slot of a pack has them, A and B drawn at random; the head as it was loaded."""
    key = key_of("trial export")
    state: dict[str, Tensor] = {}
    for module in modules:
        rank = prepared.ranks_of(adapter).get(module.name, adapter.rank)
        state[f"{module.name}.lora_A"] = initial_a(key, module.name, rank, module.in_features)
        shape = (module.out_features, rank)
        state[f"{module.name}.lora_B"] = initial_head_weight(key, f"{module.name}.lora_B", shape, _DEVIATION)
        frozen = prepared.base.model.get_submodule(module.name)
        moved = 1.0 + initial_head_weight(key, module.name, shape[:1], _DEVIATION)
        if adapter.use_dora:
            state[f"{module.name}.{MAGNITUDE}"] = moved * matrix_of(frozen).float().norm(dim=1)
        if module.has_bias and adapter.bias == "lora_only":
            state[f"{module.name}.{BIAS}"] = moved + frozen.bias.detach().float()
    for head in prepared.base.structure.head_modules:
        for name, parameter in prepared.base.model.get_submodule(head).named_parameters(recurse=False):
            state[f"{head}.{name}"] = parameter.detach()
    return state
