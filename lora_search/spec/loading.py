"""experiment.toml -> Experiment, and back.

All mistakes are reported at once, one line each, as ``FILE: key.path: rule, got VALUE``; for a value given on the
command line FILE is ``--set`` or ``--trials``.

Local paths (``data.train``, ``model.base``) are looked up from the current directory first, then from the folder of the
experiment file; one that exists is kept as an absolute path, so that the study resumes from anywhere. What exists in
neither place stays as written: it may be a hub id, and whoever opens it reports it.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lora_search.errors import ExperimentError, InputError, Mistake
from lora_search.spec.experiment import Experiment
from lora_search.spec.locations import HUB_PREFIX, PACKAGE_PREFIX
from lora_search.spec.mistakes import KeyPath, is_key, mistakes_of, shown_value
from lora_search.spec.paths import expanded
from lora_search.spec.quoting import cut, in_one_line
from lora_search.spec.suggestions import closest
from lora_search.spec.toml import toml_document

_REASON_WIDTH = 200  # characters of a library's message worth repeating
_BACKSLASHES = """; a path with backslashes goes in single quotes: 'C:\\data\\a.csv'"""
_SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class Override:
    """A value from the command line that takes the place of the file's.

    Attributes:
        path: the key path, ``("search", "rank")``.
        value: as TOML would give it.
        source: what a mistake in it is blamed on, ``--set`` or ``--trials``.
    """

    path: tuple[str, ...]
    value: Any
    source: str


def load_experiment(path: str | Path, overrides: Sequence[str] = (), trials: int | None = None) -> Experiment:
    """Read an experiment file and fill in every default.

    Args:
        path: the TOML file.
        overrides: ``KEY=VALUE`` each, in the order given; a later one wins.
        trials: replaces ``search.trials``, over any override.

    Raises:
        ExperimentError: every mistake in the file and the overrides.
    """
    path = expanded(path)
    given, mistakes = _read_overrides(overrides)
    if trials is not None:
        given.append(Override(("search", "trials"), trials, "--trials"))
    try:
        raw = _read_toml(path)
    except ExperimentError as error:
        raise ExperimentError([*error.details, *mistakes]) from error.__cause__
    for override in given:
        _set(raw, override)
    experiment = None
    try:
        # By way of JSON, where pydantic's strict mode takes a list for a tuple but neither "8" nor true for a number.
        document = json.dumps(raw, default=str)
    except (ValueError, RecursionError) as error:  # what TOML's hexadecimal may hold, and no number of ours is
        got = "a number too long or values nested too deeply"
        raise ExperimentError.about(path, "must hold plain values", got=got) from error
    try:
        experiment = Experiment.model_validate_json(document, strict=True)
    except ValidationError as error:
        mistakes += mistakes_of(error, raw, lambda key: _source(key, path, given))
    if experiment is None or mistakes:
        raise ExperimentError(mistakes)
    return with_local_paths(experiment, path.parent)


def parse_override(text: str) -> Override:
    """``search.rank=[1, 2]`` -> the key path and the value, read as TOML or else as plain text.

    Raises:
        ExperimentError: it is not ``KEY=VALUE``.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # bytes of the command line that are no text
        raise ExperimentError.about("--set", "must be UTF-8 text", got=ascii(cut(text))) from None
    key, equals, value = text.partition("=")
    parts = tuple(part.strip() for part in key.split("."))
    if not equals or not all(parts):
        raise ExperimentError.about("--set", "must be KEY=VALUE", got=shown_value(text))
    try:
        table = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits, or too many brackets
        table = {}
    # A line break in VALUE could smuggle in further keys; then it was text.
    return Override(parts, table["value"] if table.keys() == {"value"} else value.strip(), "--set")


@contextmanager
def naming_sources(path: str | Path, overrides: Sequence[str] = ()) -> Iterator[None]:
    """Inside the block, mistakes about keys of an experiment are told with where the key was given, as those of
    ``load_experiment`` are: ``FILE: model.base: ...``.

    Args:
        path, overrides: of the experiment.
    """
    given = [parse_override(text) for text in overrides]

    def named(mistake: Mistake) -> Mistake:
        if mistake.source or not is_key(mistake.key):
            return mistake
        return replace(mistake, source=_source(tuple(mistake.key.partition("[")[0].split(".")), Path(path), given))

    try:
        yield
    except InputError as error:
        error.change(named)
        raise


def experiment_to_toml(experiment: Experiment) -> str:
    """The experiment as a file with every default written out; reading it gives the same experiment."""
    return toml_document(experiment.model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the experiment file, for completion and checks in an editor."""
    return {"$schema": _SCHEMA_DIALECT, **Experiment.model_json_schema()}


def with_local_paths(experiment: Experiment, folder: Path = Path()) -> Experiment:
    """The experiment with every local path that exists as an absolute one (see above).

    Args:
        experiment: as it was written.
        folder: of its file, where what is not in the current directory is looked for.
    """
    data = experiment.data.model_copy(update={"train": _local(experiment.data.train, folder)})
    model = experiment.model.model_copy(update={"base": _local(experiment.model.base, folder)})
    return experiment.model_copy(update={"data": data, "model": model})


def _read_overrides(texts: Sequence[str]) -> tuple[list[Override], list[Mistake]]:
    overrides: list[Override] = []
    mistakes: list[Mistake] = []
    for text in texts:
        try:
            overrides.append(parse_override(text))
        except ExperimentError as error:
            mistakes += error.details
    return overrides, mistakes


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ExperimentError.about(path, "no such file", meant=_neighbour(path)) from error
    except IsADirectoryError as error:
        raise ExperimentError.about(path, "must be an experiment file", got="a folder") from error
    except UnicodeDecodeError as error:
        raise ExperimentError.about(path, "must be UTF-8 text", got=f"other bytes at position {error.start}") from error
    except OSError as error:
        raise ExperimentError.about(path, f"cannot be read: {error.strerror}") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ExperimentError.about(path, _syntax_mistake(str(error), text)) from error
    except RecursionError as error:
        got = "lists or tables nested too deeply to read"
        raise ExperimentError.about(path, "must hold plain values", got=got) from error
    except ValueError as error:  # a whole number of thousands of digits
        got = "a number of thousands of digits"
        raise ExperimentError.about(path, "must hold plain values", got=got) from error


def _neighbour(path: Path) -> str | None:
    """An experiment file beside the missing one with a name much like it."""
    names = [found.name for found in path.parent.glob("*.toml")] if path.parent.is_dir() else []
    nearest = closest(path.name, names, 0.7)
    return None if nearest is None else str(path.parent / nearest)


def _syntax_mistake(message: str, text: str) -> str:
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if match is None:
        return message
    where = f"line {match[2]}, column {match[3]}" if match[2] else f"line {len(text.splitlines()) or 1}, at its end"
    hint = _BACKSLASHES if "escape" in match[1] or "hex value" in match[1] else ""
    return f"{where}: {in_one_line(match[1][0].lower() + match[1][1:], _REASON_WIDTH)}{hint}"


def _set(raw: dict[str, Any], override: Override) -> None:
    table = raw
    for part in override.path[:-1]:
        if not isinstance(table.get(part), dict):
            table[part] = {}
        table = table[part]
    table[override.path[-1]] = override.value


def _source(path: KeyPath, file: Path, overrides: Sequence[Override]) -> str:
    """Who is to blame for a mistake at ``path``: the last override of it, of a table around it or of a key within."""
    for override in reversed(overrides):
        shared = min(len(path), len(override.path))
        if path[:shared] == override.path[:shared]:
            return override.source
    return str(file)


def _local(location: str, folder: Path) -> str:
    if location.startswith((HUB_PREFIX, PACKAGE_PREFIX)):
        return location
    written = expanded(location)
    for start in (Path(), folder):
        try:
            if (start / written).exists():
                return os.path.abspath(start / written)
        except OSError:  # a name no file system takes, or a folder that may not be looked into
            return location
    return location
