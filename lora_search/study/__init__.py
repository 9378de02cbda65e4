"""The search itself: which trials, which cells next, who trains them, what is recorded."""

from lora_search.study.doctor import examine_machine
from lora_search.study.plan import Plan, plan_study
from lora_search.study.preparation import Prepared, prepare
from lora_search.study.runner import Interrupted, run_study

__all__ = ["Interrupted", "Plan", "Prepared", "examine_machine", "plan_study", "prepare", "run_study"]
