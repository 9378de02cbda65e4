"""Whether a worker computes what this process would: the same packages, the same data, the same model."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

from lora_search.study.environment import versions
from lora_search.study.preparation import Prepared

_OWN_FOLDER = Path(__file__).parents[2]


@dataclass(frozen=True)
class Identity:
    """What decides whether two processes compute the same.

    Attributes:
        packages: versions by name, Python's among them.
        code: fingerprint of this package, whose version does not tell one checkout from another.
        data, model: fingerprints.
    """

    packages: dict[str, str]
    code: str
    data: str
    model: str


def identity_of(prepared: Prepared) -> Identity:
    """Of this process."""
    packages = versions() | {"Python": platform.python_version()}
    if prepared.base.quantization is None:  # nothing is computed with it
        packages.pop("bitsandbytes", None)
    return Identity(packages, _code(), prepared.data.fingerprint, prepared.base.fingerprint)


def difference(ours: Identity, theirs: Identity) -> str | None:
    """What is in the way of a worker, as a sentence without its subject; None where nothing is."""
    for name in sorted(ours.packages.keys() | theirs.packages.keys()):
        here, there = ours.packages.get(name, "none"), theirs.packages.get(name, "none")
        if here != there:
            return f"must run {name} {here} as this process does, got {there}"
    for what in ("code", "data", "model"):
        if getattr(ours, what) != getattr(theirs, what):
            return f"must load the {what} that this process loads, and has other content under the same name"
    return None


def _code() -> str:
    found = hashlib.sha256()
    for path in sorted(_OWN_FOLDER.rglob("*.py")):
        found.update(str(path.relative_to(_OWN_FOLDER)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()
