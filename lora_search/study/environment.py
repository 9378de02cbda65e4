"""What a result was computed with: versions, hardware, seeds, fingerprints."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from lora_search.study.preparation import Prepared

_OWN_FOLDER = Path(__file__).parents[1]
_PACKAGES = (
    "lora-search",
    "torch",
    "transformers",
    "datasets",
    "optuna",
    "scikit-learn",
    "numpy",
    "scipy",
    "pandas",
    "peft",
    "tokenizers",
    "bitsandbytes",
)


def describe_environment(prepared: Prepared) -> dict[str, Any]:
    """JSON values for environment.json."""
    experiment = prepared.experiment
    folds = {
        f"repeat {repeat} fold {fold}": prepared.splits.fold(repeat, fold).fingerprint
        for repeat in range(experiment.cv.repeats)
        for fold in range(experiment.cv.folds)
    }
    return {
        "python": platform.python_version(),
        "versions": versions(),
        "commit": commit_of(_OWN_FOLDER),
        "hardware": hardware(),
        "seed": experiment.seed,
        "model": {
            "class": type(prepared.base.model).__name__,
            "fingerprint": prepared.base.fingerprint,
            "layers": prepared.base.structure.layer_count,
            "hidden_size": prepared.base.structure.hidden_size,
            "head_parameters": prepared.base.structure.head_parameters,
            **({} if prepared.base.quantization is None else {"quantization": prepared.base.quantization.kind}),
        },
        "data": {
            "fingerprint": prepared.data.fingerprint,
            "examples": len(prepared.data.labels),
            "duplicate_examples": prepared.data.report.duplicate_examples,
            "labels": list(prepared.data.label_names),
            "holdout_fingerprint": prepared.splits.holdout_fingerprint,
            "holdout_examples": len(prepared.splits.holdout),
            "folds": folds,
            "notes": list(prepared.notes),
        },
    }


def versions() -> dict[str, str]:
    """Installed versions of what computes results."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """The machine, as far as it matters for speed and rounding."""
    cuda = torch.cuda.is_available()
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "amx_bf16": "amx_bf16" in (_of_processor("flags") or "").split(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
    }


def _processor() -> str:
    return _of_processor("model name") or platform.processor() or platform.machine()


def _of_processor(fact: str) -> str | None:
    """What Linux says of the first core, by its name for it; None where there is no such line."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith(fact):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return None


def commit_of(package: Path) -> str | None:
    """The commit of the checkout a package runs from, ``-dirty`` after it if the package differs from it.

    None for a package that is installed: in an environment inside somebody's repository, git would give their commit.

    Args:
        package: its folder.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = _git(package, "rev-parse", "HEAD")
    changes = _git(package, "status", "--porcelain", "--", ".")
    return f"{commit}-dirty" if commit and changes else commit


def _git(folder: Path, *arguments: str) -> str | None:
    """What git answers in a folder; None if it refuses or is not there."""
    try:
        done = subprocess.run(
            # no locks: a run that starts must not be in the way of somebody's commit
            ["git", "--no-optional-locks", *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
