"""One recorded study and one server for all tests that only look; browser tests where there is a browser."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from browsing import browser_found
from dashboard_builders import record, served

from lora_search.dashboard import create_app

collect_ignore = [] if browser_found() else ["test_dashboard_browser.py"]


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    record(folder / "film-quotes")
    return folder


@pytest.fixture(scope="session")
def site(results):
    with served(create_app(results)) as found:
        yield found


@pytest.fixture(scope="session")
def axe():
    """The script of axe-core, from a package that ships it; only the script is used, so the package is not imported."""
    [folder] = find_spec("axe_playwright_python").submodule_search_locations
    return (Path(folder) / "axe.min.js").read_text(encoding="utf-8")
