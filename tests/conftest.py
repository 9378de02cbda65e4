"""Settings every test needs before a library is imported."""

import os
import signal

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # a hub miss fails at once instead of after a long wait
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # a shell lets its background jobs ignore Ctrl-C, and so would whatever they start; the tests of Ctrl-C start a lot
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _migrations_read_once() -> None:
    from migrations import read_once

    read_once()
