"""A trial in PEFT's words: the content of ``adapter_config.json``.

Only fields PEFT has had for years are written, so that its older versions read them too; the others have defaults that
mean a plain LoRA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lora_search.errors import ModelError
from lora_search.models import LinearModule, ModelStructure, peft_patterns, peft_targets
from lora_search.spec import AdapterSpec, ModelSpec, Nuisance
from lora_search.spec.locations import HubId, resolve
from lora_search.tasks import task_of


def adapter_config(
    structure: ModelStructure,
    modules: Sequence[LinearModule],
    ranks: Mapping[str, int],
    adapter: AdapterSpec,
    nuisance: Nuisance,
    model: ModelSpec,
    *,
    inference: bool,
) -> dict[str, Any]:
    """The fields of ``peft.LoraConfig``, as JSON values.

    Args:
        structure: the model.
        modules: what the adapter adapts. ranks: of those whose rank is not the adapter's, by name.
        adapter, nuisance: the trial.
        model: ``[model]`` of the experiment.
        inference: whether weights come with it. Without, the config is for training, and PEFT freezes an adapter it is
            told is for inference.
    """
    targets = peft_targets(structure, modules)
    patterns = peft_patterns(modules, ranks, adapter.rank)
    alphas = {key: whole(adapter.alpha_at(rank)) for key, rank in patterns.items()}
    return {
        "peft_type": "LORA",
        "task_type": task_of(model.task).peft_type,
        "base_model_name_or_path": base_location(model),
        "revision": model.revision,
        "inference_mode": inference,
        "r": adapter.rank,
        "lora_alpha": whole(adapter.alpha),
        "lora_dropout": nuisance.dropout,
        "use_rslora": adapter.scaling == "rslora",
        "target_modules": list(targets.target_modules),
        "layers_to_transform": None if targets.layers_to_transform is None else list(targets.layers_to_transform),
        "layers_pattern": None,
        "modules_to_save": list(targets.modules_to_save),
        "fan_in_fan_out": all(module.kind == "conv1d" for module in modules),
        "bias": adapter.bias,
        "init_lora_weights": True,
        **({"use_dora": True} if adapter.use_dora else {}),
        **({"rank_pattern": patterns, "alpha_pattern": alphas} if patterns else {}),
    }


def base_location(model: ModelSpec) -> str:
    """Where PEFT finds the base: its hub id, or the absolute path of its folder.

    Raises:
        ModelError: nothing is there.
    """
    place = resolve(model.base, key="model.base", error=ModelError, bare_hub_ids=True)
    if isinstance(place, HubId):
        return place.name
    folder = place.parent if place.is_file() else place
    return str(Path(folder).absolute())


def whole(number: float) -> int | float:
    """16.0 as 16: PEFT's alpha is whole by habit, and other readers insist."""
    return int(number) if float(number).is_integer() else number
