"""The quick start as a script: the study of ``quickstart.toml``, its report and its adapter."""

from pathlib import Path

from lora_search import export_adapter, run_study, write_report

here = Path(__file__).parent
study = run_study(here / "quickstart.toml", results=here.parent / "results")
print(study.verdict()["sentence"])
print("report: ", write_report(study.folder))
print("adapter:", export_adapter(study, study.folder / "export", weights=True))
