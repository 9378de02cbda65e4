"""A world so small that a whole study of it takes seconds, and the command line called as a user calls it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import on_postgresql
import pytest
import torch
from browsing import browser_found
from tiny_world import settings, write_experiment, write_model, write_sentences

from lora_search import cli, run_study
from lora_search.spec import Experiment
from lora_search.training import frozen_forward
from lora_search.training.pooled import find_pooled_token

collect_ignore = [] if browser_found() else ["test_functional_dashboard.py"]
COMMAND = str(Path(sys.executable).with_name("lora-search"))


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class World:
    model: Path
    data: Path

    def settings(self, **tables: Any) -> dict[str, Any]:
        return settings(self.model, self.data, **tables)

    def experiment(self, **tables: Any) -> Experiment:
        return Experiment.model_validate(self.settings(**tables))

    def file(self, folder: Path, **tables: Any) -> Path:
        return write_experiment(folder / "critics.toml", self.settings(**tables))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The model is tiny, and threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


_SEARCHED: dict[tuple[Any, ...], Any] = {}


@pytest.fixture(autouse=True, scope="module")  # a session's would go on when tests of models follow
def _one_search_per_model() -> Iterator[None]:
    """Which of the last layer's tokens a head reads is found by trying, a dozen times a model: for the models of these
    tests, which are few, once."""

    def find(model: Any, last_layer: str, linear_modules: Any, storage: Any, batch: Any) -> Any:
        ends = (batch.arguments["input_ids"].shape[1], batch.arguments["attention_mask"][:, 0].tolist())
        key = (type(model), model.config.to_json_string(), last_layer, tuple(linear_modules), str(ends))
        if key not in _SEARCHED:
            _SEARCHED[key] = find_pooled_token(model, last_layer, linear_modules, storage, batch)
        return _SEARCHED[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frozen_forward, "find_pooled_token", find)
        yield


@pytest.fixture(autouse=True, scope="session")
def _studies_in_databases(request: pytest.FixtureRequest) -> Iterator[None]:
    """Where it is asked for (see ``on_postgresql``)."""
    with pytest.MonkeyPatch.context() as patch:
        if on_postgresql.WANTED:
            server = request.getfixturevalue("postgresql_server")
            patch.setenv(on_postgresql.SERVER, server.storage.rpartition("/")[0])
        with on_postgresql.studies_in_databases():
            yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("world")
    return World(write_model(folder / "model"), write_sentences(folder / "critics.csv"))


@pytest.fixture(scope="session")
def finished(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished study; for reading only."""
    return run_study(world.experiment(), tmp_path_factory.mktemp("results"), progress=False).folder


@pytest.fixture
def plain_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what the sliders of a page need, which takes most of the time: for tests of something else in a page."""
    monkeypatch.setattr("lora_search.reporting.page.judgement_grid", lambda *_: None)


@pytest.fixture
def lora_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """``lora_search("run", "critics.toml")``: the command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["lora-search", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code
        else:
            code = 0
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """``shell("lora-search run critics.toml")``: a process of its own, in an empty folder."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"}

    def start(line: str, **settings: Any) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        return subprocess.Popen(
            line, shell=True, executable="/bin/bash", cwd=tmp_path, env=environment, text=True, **pipes
        )

    return start
