"""Settings every test needs before a library is imported."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # a hub miss fails at once instead of after a long wait
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

MEMORY = Path("/dev/shm")
if "TMPDIR" not in os.environ and MEMORY.is_mount() and shutil.disk_usage(MEMORY).free > 4 * 1024**3:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)  # thousands of commits, each of which would wait for a disk

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell lets its background jobs ignore Ctrl-C, and so would whatever they start; the tests of Ctrl-C start a lot
    signal.signal(signal.SIGINT, signal.default_int_handler)


# the long form of what is tried at random is experiments/audits/fuzz.py; a machine that others use has no deadlines
hypothesis.settings.register_profile("suite", max_examples=50, deadline=None)
hypothesis.settings.load_profile("suite")

LONGEST = ("kills", "signals", "executors", "resume", "rates", "racing")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest first, so that no worker waits for it in the end."""
    names = [f"test_functional_{name}.py" for name in LONGEST]
    items.sort(key=lambda item: names.index(item.path.name) if item.path.name in names else len(names))


@pytest.fixture(autouse=True, scope="session")
def _migrations_read_once() -> None:
    from migrations import read_once

    read_once()


@pytest.fixture(autouse=True, scope="session")
def _a_small_forest() -> Iterator[None]:
    """The figure of importance, for which forests are grown for seconds, in a tenth of them; its own tests have all."""
    from lora_search.plots import importance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "_REPEATS", 2)
        patch.setattr(importance, "_TREES", 10)
        yield


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Any]:
    """A server of PostgreSQL's for the session, whose password is in the environment."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'lora-search[postgresql]')")
    from postgresql_server import PASSWORD, Server, missing

    if (reason := missing()) is not None:
        pytest.skip(reason)
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        yield server
    server.close()


@pytest.fixture
def postgresql(postgresql_server: Any) -> Any:
    """That server, without a study."""
    postgresql_server.empty()
    return postgresql_server
