"""The floors that the README describes are those that import-linter holds."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_readme_describes_the_floors_that_are_held():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    section = (ROOT / "README.md").read_text().partition("## How the code is laid out")[2].partition("\n## ")[0]
    described = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in section.splitlines() if row.startswith("| `")]
    assert described == [re.findall(r"\w+", floor) for floor in held]


def test_every_room_is_on_a_floor():
    package = ROOT / "lora_search"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    modules = {path.stem for path in package.glob("[!_]*.py")}
    section = (ROOT / "README.md").read_text().partition("## How the code is laid out")[2].partition("\n## ")[0]
    assert rooms | modules == {
        name
        for row in section.splitlines()
        if row.startswith("| `")
        for name in re.findall(r"`(\w+)`", row.split("|")[1])
    }
