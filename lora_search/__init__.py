"""Which LoRA rank do you need? The smallest adapter that is not worse than the best, with evidence.

::

    from lora_search import Experiment, run_study, open_study, export_adapter

    study = run_study("experiments/quickstart.toml")
    print(study.verdict()["sentence"])
    export_adapter(study, "my-adapter", weights=True)

Everything heavy is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lora_search.export import export_adapter
    from lora_search.plots import figures
    from lora_search.plots.notebook import open_study
    from lora_search.reporting import write_report
    from lora_search.spec import Experiment, load_experiment
    from lora_search.study import plan_study, run_study

__all__ = [
    "Experiment",
    "export_adapter",
    "figures",
    "load_experiment",
    "open_study",
    "plan_study",
    "run_study",
    "write_report",
]

_MODULE_OF = {
    "Experiment": ("lora_search.spec", "Experiment"),
    "export_adapter": ("lora_search.export", "export_adapter"),
    "figures": ("lora_search.plots", "figures"),
    "load_experiment": ("lora_search.spec", "load_experiment"),
    "open_study": ("lora_search.plots.notebook", "open_study"),
    "plan_study": ("lora_search.study", "plan_study"),
    "run_study": ("lora_search.study", "run_study"),
    "write_report": ("lora_search.reporting", "write_report"),
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _MODULE_OF[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
