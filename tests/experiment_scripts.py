"""Audits and benchmarks as modules: they are scripts beside the package, loaded by their paths."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def audit_module(name: str) -> ModuleType:
    """``experiments/audits/NAME.py``."""
    return _loaded(EXPERIMENTS / "audits" / f"{name}.py")


def benchmark_module(name: str) -> ModuleType:
    """``experiments/benchmarks/NAME.py``."""
    return _loaded(EXPERIMENTS / "benchmarks" / f"{name}.py")


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look their types up there
    spec.loader.exec_module(module)
    return module
