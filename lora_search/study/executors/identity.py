"""Whether a worker computes what this process would: the same packages, the same data, the same model."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from lora_search.study.environment import commit_of, versions
from lora_search.study.preparation import Prepared

_OWN_FOLDER = Path(__file__).parents[2]


@dataclass(frozen=True)
class Identity:
    """What decides whether two processes compute the same.

    Attributes:
        packages: versions by name, Python's and this checkout's commit among them.
        data, model: fingerprints.
    """

    packages: dict[str, str]
    data: str
    model: str


def identity_of(prepared: Prepared) -> Identity:
    """Of this process."""
    commit = commit_of(_OWN_FOLDER)
    packages = versions() | {"Python": platform.python_version()} | ({} if commit is None else {"commit": commit})
    return Identity(packages, prepared.data.fingerprint, prepared.base.fingerprint)


def difference(ours: Identity, theirs: Identity) -> str | None:
    """What is in the way of a worker, as a sentence without its subject; None where nothing is."""
    for name in sorted(ours.packages.keys() | theirs.packages.keys(), key=lambda name: (name == "commit", name)):
        here, there = ours.packages.get(name, "none"), theirs.packages.get(name, "none")
        if here != there:
            return f"must run {name} {here} as this process does, got {there}"
    for what, here, there in (("data", ours.data, theirs.data), ("model", ours.model, theirs.model)):
        if here != there:
            return f"must load the {what} that this process loads, and has other content under the same name"
    return None
