"""The commit a result says it was computed with: the package's own, or none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lora_search.study.environment import commit_of


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit, of a package and of a file beside it."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (tmp_path / "README.md").touch()
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "everything")
    return tmp_path


def test_a_checkout_has_its_commit(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout / "package") == commit
    (checkout / "README.md").write_text("changed")
    assert commit_of(checkout / "package") == commit, "what is not the package computes nothing"
    (checkout / "package" / "__init__.py").write_text("changed = True")
    assert commit_of(checkout / "package") == f"{commit}-dirty"


def test_a_module_that_was_never_committed_is_a_change(checkout: Path) -> None:
    (checkout / "package" / "new.py").touch()
    assert commit_of(checkout / "package") == f"{git(checkout, 'rev-parse', 'HEAD')}-dirty"


@pytest.mark.parametrize("ignored", [True, False])
def test_a_package_installed_inside_somebodys_repository_has_none(checkout: Path, ignored: bool) -> None:
    if ignored:
        (checkout / ".gitignore").write_text(".venv\n")
    installed = checkout / ".venv" / "lib" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    assert commit_of(installed) is None


def test_a_package_outside_any_repository_has_none(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    assert commit_of(tmp_path) is None


def test_without_git_there_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout / "package") is None
