"""experiment.toml -> Experiment: what the user wrote, validated and frozen."""

from lora_search.spec import facts
from lora_search.spec.adapter import ADAPTER_FIELDS, AdapterSpec, Nuisance, rank_pattern_words, variants_of
from lora_search.spec.experiment import DataSpec, Experiment, ModelSpec
from lora_search.spec.fields import Range
from lora_search.spec.loading import experiment_to_toml, json_schema, load_experiment, naming_sources, with_local_paths
from lora_search.spec.names import EVA, TARGET_GROUPS, UNIFORM, layer_indices
from lora_search.spec.suggestions import closest

__all__ = [
    "ADAPTER_FIELDS",
    "EVA",
    "TARGET_GROUPS",
    "UNIFORM",
    "AdapterSpec",
    "DataSpec",
    "Experiment",
    "ModelSpec",
    "Nuisance",
    "Range",
    "closest",
    "experiment_to_toml",
    "facts",
    "json_schema",
    "layer_indices",
    "load_experiment",
    "naming_sources",
    "rank_pattern_words",
    "variants_of",
    "with_local_paths",
]
