"""What ``export_adapter`` does, in order: check, train, write beside the place, prove, put in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from lora_search.errors import StudyError
from lora_search.export.display import Display
from lora_search.export.place import RECORD_FILE, Place, contents
from lora_search.export.recipes import Recipe, check_recipe
from lora_search.export.weights import Weights
from lora_search.handover import adapter_config, loading_of
from lora_search.models import load_base, plain_torch, quiet_libraries, ranked_modules, resolve_targets
from lora_search.spec import facts
from lora_search.store.files import json_text
from lora_search.store.reader import StudyTables, read_study
from lora_search.study import Prepared
from lora_search.study.environment import versions
from lora_search.study.preparation import terminated_as_interrupt
from lora_search.study.refit import (
    ChosenTrial,
    Refit,
    check_unchanged,
    chosen_trial,
    prepared_again,
    refit_chosen,
)
from lora_search.tasks import Task, task_of


class Part(Protocol):
    """Something an export holds besides its config."""

    def write(self, folder: Path) -> None: ...


def write_export(
    study: StudyTables | str | Path,
    out: str | Path,
    *,
    trial: int | None,
    weights: bool,
    recipe: str | None,
    display: Display,
) -> Path:
    """As ``lora_search.export.export_adapter``, with somebody to tell."""
    with (
        quiet_libraries(),
        plain_torch(),
        terminated_as_interrupt(),
    ):  # so that what is half written goes, and does not stay beside the place
        return _write_export(_tables(study), out, trial, weights, recipe, display)


def _write_export(
    tables: StudyTables, out: str | Path, trial: int | None, weights: bool, recipe: str | None, display: Display
) -> Path:
    chosen = chosen_trial(tables, trial)
    check_recipe(recipe, chosen, tables.experiment.model.task)
    place = Place(out, study=tables.experiment.name, weights=weights)
    for note in chosen.notes:
        display.note(note)
    parts: list[Part] = []
    if weights or recipe is not None:
        fitted = _train(tables, chosen, display) if weights else None
        prepared = prepared_again(tables) if fitted is None else fitted.prepared
        config = _config(prepared, chosen, inference=weights)
        dataset, pairs = prepared.dataset, tables.experiment.data.text_pair is not None
        train = prepared.splits.development
        loading = loading_of(tables.experiment.model, prepared.base, prepared.data, train, pairs=pairs)
        if fitted is not None:
            parts.append(Weights(tables, fitted, dataset, loading, place.path))
        if recipe is not None:
            written = Recipe(recipe, chosen, config, prepared, dataset, loading)
            for note in written.notes:
                display.note(note)
            parts.append(written)
    else:
        config = _config_alone(tables, chosen)
    with place.filled() as folder:
        _write_json(folder / "adapter_config.json", config)
        for part in parts:
            part.write(folder)
        files = sorted({*contents(folder), RECORD_FILE})
        _write_json(folder / RECORD_FILE, _record(tables, chosen, weights, recipe, files))
    return place.out


def config_of_trial(study: StudyTables | str | Path, trial: int | None) -> dict[str, Any]:
    """As ``lora_search.export.peft_config_of``."""
    tables = _tables(study)
    return _config_alone(tables, chosen_trial(tables, trial))


def _tables(study: StudyTables | str | Path) -> StudyTables:
    return study if isinstance(study, StudyTables) else read_study(study)


def _task(tables: StudyTables) -> Task:
    return task_of(tables.experiment.model.task)


def _train(tables: StudyTables, chosen: ChosenTrial, display: Display) -> Refit:
    with display.training(f"training trial {chosen.trial} on all training examples") as listener:
        fitted = refit_chosen(tables, chosen, listener)
    for note in fitted.chosen.notes[len(chosen.notes) :]:
        display.note(note)
    return fitted


def _config(prepared: Prepared, chosen: ChosenTrial, *, inference: bool) -> dict[str, Any]:
    ranked = prepared.modules_of(chosen.adapter), prepared.ranks_of(chosen.adapter)
    model = prepared.experiment.model
    return adapter_config(prepared.base.structure, *ranked, chosen.adapter, chosen.nuisance, model, inference=inference)


def _config_alone(tables: StudyTables, chosen: ChosenTrial) -> dict[str, Any]:
    """The config from the base model, without reading the data."""
    labels = tables.environment.get("data", {}).get("labels")
    if not labels:
        raise StudyError.about(tables.folder, "must say its labels in environment.json", got=repr(labels))
    base = load_base(tables.experiment.model, _task(tables).head(labels))
    check_unchanged(tables, model=base.fingerprint)
    named = resolve_targets(base.structure, chosen.adapter.targets, chosen.adapter.layers)
    ranked = ranked_modules(named, chosen.adapter, facts.EXPLAINED.of(tables.facts))
    model = tables.experiment.model
    return adapter_config(base.structure, *ranked, chosen.adapter, chosen.nuisance, model, inference=False)


def _record(
    tables: StudyTables, chosen: ChosenTrial, weights: bool, recipe: str | None, files: list[str]
) -> dict[str, Any]:
    """export.json: where the files come from; by it an export is known when it is to be replaced."""
    data = tables.environment.get("data", {})
    return {
        "made_by": "lora-search",
        "study": tables.experiment.name,
        "trial": chosen.trial,
        "adapter": chosen.adapter.model_dump(),
        **chosen.nuisance.model_dump(),
        "weights": weights,
        "recipe": recipe,
        "verdict": {"status": chosen.verdict["status"], "sentence": chosen.verdict["sentence"]},
        "recommended": chosen.is_recommended,
        "warnings": [*chosen.notes, *chosen.verdict["warnings"]],
        "labels": data.get("labels"),
        "facts": {
            fact.name: fact.of(tables.facts)
            for fact in (facts.DATA_FINGERPRINT, facts.MODEL_FINGERPRINT, facts.PRECISION)
        },
        "experiment": tables.experiment.model_dump(mode="json"),
        "versions": versions(),
        "files": files,
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json_text(value), encoding="utf-8")
