"""The experiments that the README shows are experiments: of keys their tasks have, and without a contradiction."""

import re
from pathlib import Path

from lora_search.spec import load_experiment
from lora_search.tasks import task_of
from lora_search.tasks.keys import check_keys

README = Path(__file__).parents[2] / "README.md"
WANTED = {"name": "shown", "model.base": "base", "data.train": "train.csv", "verdict.metric": "accuracy"}
"""What a part of a file leaves to the reader."""


def test_what_the_readme_shows_of_files_is_read_and_asks_each_task_for_what_it_has(tmp_path):
    shown = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    tasks = set()
    for number, text in enumerate(shown):
        whole = text.startswith("name = ")
        missing = {} if whole else {key: value for key, value in WANTED.items() if f"{key} = " not in text}
        file = tmp_path / f"{number}.toml"
        file.write_text("".join(f'{key} = "{value}"\n' for key, value in missing.items()) + text, encoding="utf-8")
        experiment = load_experiment(file)
        check_keys(experiment, task_of(experiment.model.task))
        assert experiment.model.quantization is None or "full" not in experiment.baselines.include
        tasks.add(experiment.model.task)
    assert len(tasks) == 5
