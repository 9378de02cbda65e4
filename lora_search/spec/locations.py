"""Where a model or a dataset is: ``package:NAME/PATH``, a path on this machine, or a hub id.

A package file is found through the import system's own search, without importing the package: its code does not run.
The caller says which key of the experiment the location came from and which error to raise, so that a missing dataset
is a ``DataError`` about ``data.train`` and a missing model a ``ModelError`` about ``model.base``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from lora_search.errors import InputError
from lora_search.spec.paths import expanded, kind_of
from lora_search.spec.quoting import quoted, quoted_path

PACKAGE_PREFIX = "package:"
HUB_PREFIX = "hub:"

_COMPARED_WIDTH = 300  # longer names no file system has, and comparing them takes long
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?$")


@dataclass(frozen=True)
class HubId:
    """A name on the hub: ``OWNER/NAME``, or ``NAME`` alone for the oldest ones."""

    name: str


def resolve(location: str, *, key: str, error: type[InputError], bare_hub_ids: bool = False) -> Path | HubId:
    """A location as the user wrote it -> what is there.

    Args:
        location: ``package:NAME/PATH``, ``hub:OWNER/NAME`` or a path (``~`` is the home folder).
        key: the key of the experiment it came from, for messages: ``data.train``.
        error: what to raise.
        bare_hub_ids: whether ``OWNER/NAME`` without ``hub:`` is a hub id when no such path exists, as it is for models.

    Returns:
        An existing path, or a hub id, of which nothing is known yet.

    Raises:
        InputError: of class ``error``; nothing is there, or it is no location.
    """
    if location.startswith(HUB_PREFIX):
        name = location.removeprefix(HUB_PREFIX)
        if not _HUB_ID.match(name):
            raise error.about(key, f"must be {HUB_PREFIX}OWNER/NAME", got=quoted_path(location))
        return HubId(name)
    if bare_hub_ids and _HUB_ID.match(location) and kind_of(Path(location), key=key, error=error) is None:
        return HubId(location)
    return locate(location, key=key, error=error)


def locate(location: str, *, key: str = "location", error: type[InputError] = InputError) -> Path:
    """``package:NAME/PATH`` or a path on this machine -> an existing file or folder.

    Args:
        location: what the user wrote.
        key: the key of the experiment it came from, for messages.
        error: what to raise.

    Raises:
        InputError: of class ``error``; the package is not installed, nothing is there, or it cannot be looked up.
    """
    if location.startswith(PACKAGE_PREFIX):
        return _locate_in_package(location, key, error)
    path = expanded(location)
    if kind_of(path, key=key, error=error) is not None:
        return path
    near = _nearest(path.name, _names_in(path.parent))
    hint = f"a hub id is written {HUB_PREFIX}{location}" if near is None and _looks_like_hub(location) else ""
    raise error.about(key, "must be an existing file or folder", got=quoted_path(location), meant=near, hint=hint)


def _locate_in_package(location: str, key: str, error: type[InputError]) -> Path:
    name, _, inner = location.removeprefix(PACKAGE_PREFIX).partition("/")
    parts = PurePosixPath(inner).parts
    if not name.isidentifier() or not parts or ".." in parts or inner.startswith("/"):
        rule = f"must be {PACKAGE_PREFIX}NAME/PATH, a file or folder inside a package"
        hint = "NAME is the one that is imported, with _ for -" if "-" in name else ""
        raise error.about(key, rule, got=quoted_path(location), hint=hint)
    folders = _package_folders(name)
    if not folders:
        raise error.about(
            key,
            "must name an installed package",
            got=f"{quoted_path(location)}: no package {quoted(name)} in this Python",
            hint="install it with pip first",
        )
    for folder in folders:
        if kind_of(path := folder.joinpath(*parts), key=key, error=error) is not None:
            return path
    siblings = [other for folder in folders for other in _names_in(folder.joinpath(*parts[:-1]))]
    got = f"{quoted_path(location)}: package {quoted(name)} has no {quoted_path(inner)}"
    raise error.about(key, "must exist in the package", got=got, meant=_nearest(parts[-1], siblings))


def _package_folders(name: str) -> list[Path]:
    try:
        spec = find_spec(name)
    except ValueError:  # a module that runs as a script has no spec, and no files of its own
        return []
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


def _looks_like_hub(location: str) -> bool:
    """``owner/name`` or ``name``, and no file suffix that says it was meant as a file."""
    return bool(_HUB_ID.match(location)) and not Path(location).suffix


def _names_in(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError):  # ValueError: a null byte
        return []


def _nearest(name: str, choices: Iterable[str]) -> str | None:
    near = get_close_matches(name, list(choices), n=1) if len(name) <= _COMPARED_WIDTH else []
    return quoted_path(near[0]) if near else None
