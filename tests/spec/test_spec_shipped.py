"""The experiment files that come with the project are experiments."""

from pathlib import Path

from lora_search.spec import load_experiment

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FILES = sorted([*EXPERIMENTS.glob("*.toml"), *EXPERIMENTS.glob("hub/*.toml")])


def test_experiments_of_this_project_can_be_read_and_share_no_folder() -> None:
    names = [load_experiment(path).name for path in FILES]
    assert len(set(names)) == len(names) >= 10
