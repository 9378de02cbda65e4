"""From what the experiment says (``query+value``, ``q_proj,v_proj``; ``top-1/2``) to the modules of a model."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lora_search.errors import Mistake, ModelError
from lora_search.models.roles import projections_of
from lora_search.models.structure import Kind, LinearModule, ModelStructure
from lora_search.spec.adapter import AdapterSpec
from lora_search.spec.names import TARGET_GROUPS, layer_indices
from lora_search.spec.quoting import cut
from lora_search.spec.suggestions import ChoiceError

_NOTEWORTHY_SHARE = 0.01
_NAMES_SHOWN = 4
_NAME_WIDTH = 60


def resolve_targets(structure: ModelStructure, targets: str, layers: str) -> tuple[LinearModule, ...]:
    """The modules one adapter spec adapts, in the order of ``structure.linear_modules``.

    Args:
        structure: the model.
        targets: a group or module names joined by commas, as ``canonical_targets`` writes them. A name matches as in
            PEFT, the whole dotted name of a module or its end after a dot, but only inside the layer stack.
        layers: as ``canonical_layers`` writes them.

    Raises:
        ModelError: no such module or layer; says what there is.
    """
    try:
        indices = layer_indices(layers, structure.layer_count)
    except ChoiceError as error:
        raise ModelError.about("search.layers", error.rule, got=error.got) from error
    named = _in_group(structure, targets) if targets in TARGET_GROUPS else _by_name(structure, targets.split(","))
    chosen = tuple(module for module in named if module.layer in indices)
    if not chosen:
        raise ModelError.about(
            "search.targets", f"must name modules of layers {layers}", got=f"{targets}, which only other layers have"
        )
    return chosen


def adapter_parameters(modules: Iterable[LinearModule], rank: int) -> int:
    """Parameters of a LoRA of this rank, sum of r (in + out): A is (r, in), B is (out, r) (Hu et al. 2021, 4.1)."""
    return sum(rank * (module.in_features + module.out_features) for module in modules)


def trained_parameters(
    modules: Iterable[LinearModule], adapter: AdapterSpec, ranks: Mapping[str, int] | None = None
) -> int:
    """Parameters that an adapter trains of these modules: A and B, a magnitude for each row of a DoRA's matrices, and
    the biases where it trains them.

    Args:
        modules, adapter: the adapter.
        ranks: of modules whose rank is not the adapter's, by name.
    """
    modules, ranks = tuple(modules), ranks or {}
    beside = sum(
        module.out_features * (adapter.use_dora + (module.has_bias and adapter.bias == "lora_only"))
        for module in modules
    )
    return sum(adapter_parameters([module], ranks.get(module.name, adapter.rank)) for module in modules) + beside


def target_groups(module: LinearModule) -> tuple[str, ...]:
    """The groups a module belongs to, narrowest first."""
    groups = []
    if "query" in module.role.projects or "value" in module.role.projects:
        groups.append("query+value")
    return (*groups, module.role.part, "all-linear")


def target_notes(structure: ModelStructure, targets: str) -> tuple[str, ...]:
    """What the user should know about how a choice was resolved; one sentence each, usually none."""
    if targets != "query+value":
        return ()
    return tuple(
        f"query+value is {leaf} in this model: one module computes {_listed(projects)} together and is adapted whole"
        for leaf, projects in _fused(structure)
        if "key" in projects
    )


def fused_notes(structure: ModelStructure) -> tuple[str, ...]:
    """Which modules are several in one, and so are adapted together; a sentence each, usually none."""
    gated = dict.fromkeys(module.leaf for module in structure.linear_modules if module.role.gated)
    fused = [*_fused(structure), *((leaf, ("a gate", "what it gates")) for leaf in gated)]
    return tuple(
        f"{leaf} computes {_listed(parts)} together: an adapter on it is on all of that" for leaf, parts in fused
    )


def structure_notes(structure: ModelStructure) -> tuple[str, ...]:
    """What of the model no adapter goes on, if it is enough to matter; a sentence each, usually none."""
    notes = []
    if structure.decoder_name is not None:
        notes.append(
            f"adapters go on the encoder's layers, {structure.stack_name}; the decoder, {structure.decoder_name},"
            " stays as it is and is computed in full"
        )
    frozen = sum(weight.parameters for weight in structure.frozen_weights)
    share = frozen / max(1, structure.layer_parameters)
    if share < _NOTEWORTHY_SHARE:
        return tuple(notes)
    names = [weight.leaf for weight in sorted(structure.frozen_weights, key=lambda weight: -weight.parameters)]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    listed = f"{', '.join(names[:_NAMES_SHOWN])}{more}"
    rest = f"{share:.0%} of the weights of the layers stay frozen whatever the targets"
    if "expert" in names[0]:
        notes.append(
            f"a mixture of experts: adapters go on {_listed(_places(structure))}, not on the experts. {rest}:"
            f" {listed} are in no linear module"
        )
    else:
        notes.append(f"{rest}: {listed} are in no linear module, and a LoRA goes on linear modules only")
    return tuple(notes)


def _fused(structure: ModelStructure) -> list[tuple[str, tuple[str, ...]]]:
    """(leaf, what it projects to) of the modules that project to several of query, key and value."""
    found = {m.leaf: m.role.projects for m in structure.linear_modules if len(m.role.projects) > 1}
    return sorted(found.items())


def _places(structure: ModelStructure) -> list[str]:
    """Where in a layer its linear modules are, in a few words."""
    rest = {m.leaf.rpartition(".")[0] for m in structure.linear_modules if m.role.part == "mlp"}
    innermost = [name for name in rest if not any(other.startswith(f"{name}.") for other in rest)]
    return [
        *(["attention"] if any(m.role.part == "attention" for m in structure.linear_modules) else []),
        *sorted(innermost),
    ]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


@dataclass(frozen=True)
class TargetRow:
    """One targetable module as ``lora-search targets`` lists it.

    Attributes:
        leaf: dotted name inside a layer.
        kind: ``linear`` or ``conv1d``.
        in_features, out_features: its shape.
        layers: the layers that have it, in this shape.
        groups: the target groups it belongs to.
        parameters_per_rank: parameters of an adapter of rank 1 on it, in all of ``layers``.
    """

    leaf: str
    kind: Kind
    in_features: int
    out_features: int
    layers: tuple[int, ...]
    groups: tuple[str, ...]
    parameters_per_rank: int


def targets_table(structure: ModelStructure) -> tuple[TargetRow, ...]:
    """One row per module name, shape and role, in the order the model declares them."""
    rows: dict[tuple[object, ...], list[LinearModule]] = {}
    for module in structure.linear_modules:
        rows.setdefault((module.leaf, module.kind, module.in_features, module.out_features, module.role), []).append(
            module
        )
    return tuple(
        TargetRow(
            leaf=modules[0].leaf,
            kind=modules[0].kind,
            in_features=modules[0].in_features,
            out_features=modules[0].out_features,
            layers=tuple(module.layer for module in modules),
            groups=target_groups(modules[0]),
            parameters_per_rank=adapter_parameters(modules, 1),
        )
        for modules in rows.values()
    )


def _in_group(structure: ModelStructure, group: str) -> tuple[LinearModule, ...]:
    members = tuple(module for module in structure.linear_modules if group in target_groups(module))
    if not members:
        raise ModelError.about(
            "search.targets",
            "must exist in the model",
            got=f"{group}, but no linear module of its layers is that",
            hint="; ".join((_available_modules(structure), *structure_notes(structure))),
        )
    return members


def _by_name(structure: ModelStructure, names: list[str]) -> tuple[LinearModule, ...]:
    mistakes = [_unknown_name(structure, n) for n in names if not any(_matches(m, n) for m in structure.linear_modules)]
    if mistakes:
        raise ModelError(mistakes)
    return tuple(module for module in structure.linear_modules if any(_matches(module, name) for name in names))


def _matches(module: LinearModule, name: str) -> bool:
    return module.name == name or module.name.endswith(f".{name}")


def _unknown_name(structure: ModelStructure, name: str) -> Mistake:
    shown = cut(name, _NAME_WIDTH)
    outside = [full for full in structure.module_names if full == name or full.endswith(f".{name}")]
    if outside:
        rule, got = "must name linear modules inside the layers", f"{shown}, which is {outside[0]}"
        return Mistake(rule, "search.targets", got, hint=_available_modules(structure))
    rule, meant = "must name linear modules of the model", _meant(structure, name)
    return Mistake(rule, "search.targets", shown, meant, _available_modules(structure))


def _meant(structure: ModelStructure, name: str) -> str | None:
    """The module that does in this model what the name says (``q_proj`` -> ``query``), or the nearest spelling."""
    leaves = dict.fromkeys(module.leaf for module in structure.linear_modules)
    short_names = {leaf: leaf.rpartition(".")[2] for leaf in leaves}
    projects = projections_of(name.rpartition(".")[2])
    for module in structure.linear_modules:
        if projects and set(projects) <= set(module.role.projects):
            return short_names[module.leaf]
    near = difflib.get_close_matches(name, [*TARGET_GROUPS, *leaves, *short_names.values()], n=1)
    return near[0] if near else None


def _available_modules(structure: ModelStructure) -> str:
    return f"(its layers have {', '.join(dict.fromkeys(module.leaf for module in structure.linear_modules))})"
