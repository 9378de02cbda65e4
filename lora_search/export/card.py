"""The model card of an export: how to use it, and the evidence for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_search.export.rendering import markdown_text, render
from lora_search.handover import Loading
from lora_search.metrics import THRESHOLD, metric_named
from lora_search.models import ranks_sentence
from lora_search.spec import facts
from lora_search.spec.quoting import cut
from lora_search.statistics.baselines import head_alone
from lora_search.statistics.judging import Judge
from lora_search.statistics.verdict import TrialSummary
from lora_search.statistics.wording import adapter_name, amount, percent_sure
from lora_search.store.reader import StudyTables
from lora_search.study.environment import versions
from lora_search.study.refit import Refit
from lora_search.tasks import task_of

_MOST_LABELS = 12
_LABEL_WIDTH = 60
_VERSIONS = ("lora-search", "peft", "transformers", "torch")


@dataclass(frozen=True)
class Row:
    """One trial in the card's table, every column as text."""

    roles: str
    trial: int
    adapter: str
    learning_rate: str
    score: str
    interval: str
    adapter_parameters: str
    head_parameters: str
    seconds: str


def model_card(tables: StudyTables, refit: Refit, loading: Loading, out: Path, difference: float) -> str:
    """README.md as text.

    Args:
        tables: the study.
        refit: what was trained.
        loading: how the export is loaded.
        out: where it will be.
        difference: the largest difference of a class probability through PEFT.
    """
    experiment, chosen, prepared = tables.experiment, refit.chosen, refit.prepared
    verdict, metric = chosen.verdict, experiment.verdict.metric
    corrected, probability = verdict["corrected_score"], verdict["probability_not_worse"]
    structure, modules = prepared.base.structure, refit.cell.modules
    spec = chosen.adapter.model_dump()
    return render(
        "README.md.jinja",
        {
            "study": experiment.name,
            "pipeline": task_of(experiment.model.task).pipeline,
            "offset": loading.offset,
            "base_name": experiment.model.base,
            "adapter": chosen.adapter,
            "adapter_name": adapter_name(spec),
            "nuisance": chosen.nuisance,
            "training": experiment.training,
            "seed": experiment.seed,
            "purpose": task_of(experiment.model.task).purpose.format(labels=_label_list(prepared.base.label_names)),
            "answers": task_of(experiment.model.task).on_words,
            "threshold": THRESHOLD,
            "names_labels": bool(prepared.base.label_names),
            "margin": amount(verdict["margin"], metric),
            "warnings": _warnings(refit),
            "snippet": usage(loading, out),
            "verdict": verdict,
            "metric": metric_named(metric).title,
            "rows": evidence_rows(tables, verdict, chosen.trial),
            "folds": experiment.cv.folds,
            "repeats": experiment.cv.repeats,
            "development": f"{len(refit.cell.train):,}",
            "probability": None if probability is None else percent_sure(probability),
            "confidence": f"{100 * verdict['confidence']:g} %",
            "corrected": None if corrected is None else f"{corrected:.4f}",
            "head_alone": _head_alone(tables, metric),
            "holdout": _holdout(refit, metric),
            "holdout_examples": len(refit.cell.evaluate),
            "difference": f"{difference:.1g}",
            "compared": task_of(experiment.model.task).compared,
            "data_name": experiment.data.train,
            "examples": f"{len(prepared.data):,}",
            "data_fingerprint": prepared.data.fingerprint,
            "model_fingerprint": prepared.base.fingerprint,
            "alpha": f"{chosen.adapter.alpha:g}",
            "scale": f"{chosen.adapter.scale:.4g}",
            "ranks": ranks_sentence(modules, refit.cell.ranks) if refit.cell.ranks else None,
            "module_leaves": ", ".join(dict.fromkeys(module.leaf for module in modules)),
            "layers": f"{chosen.adapter.layers}: {_numbers(module.layer for module in modules)} of"
            f" {structure.layer_count}, counted from 0",
            "learning_rate": f"{chosen.nuisance.learning_rate:.4g}",
            "steps": refit.result.steps,
            "max_length": prepared.data.report.max_length,
            "quantization": prepared.base.quantization,
            "precision": facts.PRECISION.of(tables.facts) or "fp32",
            "adapter_parameters": f"{int(chosen.row['adapter_parameters']):,}",
            "head_parameters": f"{structure.head_parameters:,}",
            "head_modules": ", ".join(f"`{name}`" for name in structure.head_modules),
            "versions": ", ".join(f"{name} {versions()[name]}" for name in _VERSIONS if name in versions()),
        },
    )


def usage(loading: Loading, out: Path) -> str:
    """Python that loads the export and answers to a text."""
    encoding = _listed(loading.tokenizer)
    trust = ", trust_remote_code=True" if loading.model.get("trust_remote_code") else ""
    texts = '["one text"], ["its pair"]' if loading.pairs else '["one text", "another"]'
    if loading.spaced is not None:
        texts = f"[[{', '.join(repr(loading.spaced + word) for word in ('one', 'sentence'))}]]"
    asked = f'encoded = tokenizer({texts}{encoding}, return_tensors="pt")'
    if loading.generates:
        asked = 'encoded = tokenizer("a text to go on with", return_tensors="pt")'
        if loading.talks:
            asked = (
                'encoded = tokenizer.apply_chat_template([{"role": "user", "content": "a question"}],'
                ' add_generation_prompt=True, return_dict=True, return_tensors="pt")'
            )
    if loading.quantization is not None:
        asked += ".to(model.device)"  # bitsandbytes takes the GPU where there is one
    # where the head has no bias to hold it
    answers = loading.reading.replace("[number", f"[number + {loading.offset!r}") if loading.offset else loading.reading
    imported, lines = _base(loading)
    return "\n".join(
        (
            *(["import torch"] if any("torch." in line for line in lines) else []),
            "from peft import PeftModel",
            f"from transformers import {', '.join(imported)}",
            "",
            f"adapter = {str(out)!r}  # this folder",
            *lines,
            "model = PeftModel.from_pretrained(base, adapter).eval()",
            f"tokenizer = AutoTokenizer.from_pretrained(adapter{trust})",
            asked,
            f"print({answers})",
        )
    )


def _base(loading: Loading) -> tuple[list[str], list[str]]:
    """What is imported of transformers, and the lines that make ``base``."""
    imported, arguments, kept = [loading.auto_class, "AutoTokenizer"], _listed(loading.model), loading.quantization
    if kept is not None and kept.call:
        imported.append("BitsAndBytesConfig")
        arguments += f", quantization_config={kept.call}"
    lines = []
    if loading.skipped:
        imported.append("AutoConfig")
        arguments = f", config=config{_listed(loading.model_arguments)}"
        lines = [
            f"config = AutoConfig.from_pretrained({loading.base!r}{_listed(loading.config_arguments)})",
            f'config.quantization_config["llm_int8_skip_modules"] = {list(loading.skipped)!r}',
        ]
    lines.append(f"base = {loading.auto_class}.from_pretrained({loading.base!r}{arguments})")
    if kept is not None and kept.brought:
        lines.append("torch.nn.Module.float(base)  # a base that comes quantized passes dtype over")
    return imported, lines


def _listed(arguments: Mapping[str, Any]) -> str:
    """Keyword arguments as Python, behind others."""
    return "".join(f", {key}={value!r}" for key, value in arguments.items())


def evidence_rows(tables: StudyTables, verdict: Mapping[str, Any], exported: int) -> list[Row]:
    """The recommended, the best, what people would guess, and the exported; a trial that is several of them once."""
    roles: dict[int, list[str]] = {}
    for role in ("recommended", "best"):
        if verdict[role] is not None:
            roles.setdefault(int(verdict[role]["trial"]), []).append(role)
    guesses = tables.trials[(tables.trials["origin"] == "guess") & (tables.trials["state"] == "complete")]
    if len(guesses):
        roles.setdefault(int(guesses["trial"].iloc[0]), []).append("usual guess")
    roles.setdefault(exported, [])
    roles[exported].append("exported")
    if roles[exported] == ["recommended", "exported"]:
        roles[exported] = ["recommended"]
    judge = Judge(tables)
    return [_row(tables, judge.summary(trial), trial, ", ".join(names)) for trial, names in roles.items()]


def _row(tables: StudyTables, summary: TrialSummary | None, trial: int, roles: str) -> Row:
    record = tables.trials[tables.trials["trial"] == trial].iloc[0]
    score = float(record["score_mean"]) if summary is None else summary.score_mean
    low, high = (math.nan, math.nan) if summary is None else summary.score_interval
    spec = {name: record[name] for name in ("rank", "targets", "layers", "use_dora", "rank_pattern")}
    return Row(
        roles=roles,
        trial=trial,
        adapter=f"{adapter_name(spec)}, alpha {record['alpha']:g}",
        learning_rate=f"{record['learning_rate']:.3g}",
        score=f"{score:.4f}" if math.isfinite(score) else "-",
        interval=f"{low:.4f} to {high:.4f}" if math.isfinite(low + high) else "-",
        adapter_parameters=f"{record['adapter_parameters']:,}",
        head_parameters=f"{record['head_parameters']:,}",
        seconds=f"{record['seconds']:.1f} s",
    )


def _holdout(refit: Refit, metric: str) -> str | None:
    """What this adapter scores on the hold-out, if the study has looked at it, and for this very trial.

    To be told sooner, or of whichever trial one cares to export, would be to choose by it.
    """
    told = refit.chosen.is_recommended and refit.chosen.verdict["holdout_score"] is not None
    return f"{refit.result.scores[metric]:.4f}" if told else None


def _head_alone(tables: StudyTables, metric: str) -> str | None:
    """What training no adapter scores, if the study found out."""
    scores = [cell.scores[metric] for cell in head_alone(tables) if cell.failure is None]
    return f"{sum(scores) / len(scores):.4f}" if scores else None


def _warnings(refit: Refit) -> tuple[str, ...]:
    chosen = refit.chosen
    recommended = chosen.verdict["recommended"]
    if chosen.is_recommended or recommended is None:
        return (*chosen.notes, *chosen.verdict["warnings"])
    other = f"Trial {chosen.trial} was asked for; the study recommends trial {recommended['trial']}."
    return (other, *chosen.notes, *chosen.verdict["warnings"])


def _label_list(names: Sequence[str]) -> str:
    if len(names) > _MOST_LABELS:
        return f"{len(names)} labels"
    quoted = [f"*{markdown_text(cut(name, _LABEL_WIDTH).strip())}*" for name in names]
    return " and ".join(part for part in (", ".join(quoted[:-1]), *quoted[-1:]) if part)


def _numbers(layers: Any) -> str:
    return ", ".join(str(layer) for layer in sorted(set(layers)))
