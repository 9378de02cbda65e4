"""What the engine's tests have in common, which keeps them quick."""

import gc

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """The models are tiny, and threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _short_collections():
    """Where memory runs out the engine collects garbage: among what a test made, and not in all of the libraries."""
    gc.freeze()
    yield
    gc.unfreeze()
