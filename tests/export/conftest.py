"""Studies of tiny models over a few made-up sentences, run once for all tests of the export."""

import pytest
from export_builders import MODELS, run_tiny_study, save_base, save_data

from lora_search.store.reader import read_study


@pytest.fixture(scope="session")
def data_file(tmp_path_factory):
    return save_data(tmp_path_factory.mktemp("data") / "fruit.csv")


@pytest.fixture(scope="session")
def study_of(tmp_path_factory, data_file):
    """``study_of("bert")``: the tables of a finished study, the same for every test that asks."""
    made = {}

    def study(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            base = save_base(folder / "base", kind)
            made[kind] = run_tiny_study(folder / "results", base, data_file, **MODELS[kind].experiment)
        return read_study(made[kind].folder)

    return study
