"""The folder an export goes to: checked before anything is computed, filled beside its place, put there whole."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lora_search.errors import StudyError, retold
from lora_search.spec.paths import expanded, kind_of, path_errors_as
from lora_search.store.faults import refusal

RECORD_FILE = "export.json"
_MOST_NAMED = 3
_MOST_LETTERS = 40


class Place:
    """Where an export goes.

    Args:
        out: as the user gave it; new, an empty folder, or an earlier export of the same study.
        study: the name of the study.
        weights: whether there will be trained weights; those of an earlier export make way for nothing less.

    Raises:
        StudyError: something else is there, or nothing can be written there. Nothing has been touched.
    """

    def __init__(self, out: str | Path, *, study: str, weights: bool) -> None:
        self.out = expanded(out)
        self.path = Path(os.path.realpath(self.out))
        self._check(study, weights)

    @contextmanager
    def filled(self) -> Iterator[Path]:
        """A new folder beside the place; when the block ends it takes the place, and if it fails it is gone.

        Raises:
            StudyError: it cannot be written to, or not wholly: the disk may be full.
        """
        with self._temporary_folder() as temporary:
            new, old = temporary / "new", temporary / "old"
            with self._write_errors_as_study_errors(temporary):
                new.mkdir()
                yield new
            try:
                if self.path.exists():
                    self.path.rename(old)
                new.rename(self.path)
            except BaseException as error:
                if old.exists() and not self.path.exists():
                    old.rename(self.path)
                if isinstance(error, OSError):
                    raise StudyError.about(
                        self.out, f"must be a folder that can be replaced: {error.strerror}"
                    ) from error
                raise

    def _check(self, study: str, weights: bool) -> None:
        kind = kind_of(self.path, error=StudyError)
        if kind == "file":
            raise StudyError.about(self.out, "must be a folder to write the adapter to", got="a file")
        if kind == "folder" and self.path == Path.cwd():
            raise StudyError.about(self.out, "must not be the folder you are in, for it is written as a whole")
        if kind == "folder":
            record = _record_of(self.path)
            self._check_is_ours(record)
            self._check_may_be_replaced(record, study, weights)
        self._check_can_be_written()

    def _check_can_be_written(self) -> None:
        """By writing, for permissions do not tell: /proc lets the administrator in, and takes no folder from anyone."""
        parent = next(folder for folder in self.path.parents if kind_of(folder, error=StudyError) is not None)
        with self._new_folder_in(parent):
            pass

    @contextmanager
    def _temporary_folder(self) -> Iterator[Path]:
        """A folder on the disk of the place, gone after the block."""
        parent = self.path.parent
        with self._folder_errors_as_study_errors(parent):
            parent.mkdir(parents=True, exist_ok=True)
        with self._new_folder_in(parent) as folder:
            yield folder

    @contextmanager
    def _new_folder_in(self, parent: Path) -> Iterator[Path]:
        with self._folder_errors_as_study_errors(parent):
            # not the whole name, which may be as long as a name can be
            folder = TemporaryDirectory(dir=parent, prefix=f".{self.path.name[:_MOST_LETTERS]}-")
        with folder as name:
            yield Path(name)

    @contextmanager
    def _write_errors_as_study_errors(self, folder: Path) -> Iterator[None]:
        def tell(error: Exception) -> StudyError | None:
            refused = refusal(folder, error)
            rule = "must be a folder that can be written to"
            return None if refused is None else StudyError.about(self.out, rule, got=refused)

        with retold(tell):
            yield

    @contextmanager
    def _folder_errors_as_study_errors(self, parent: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StudyError.about(
                self.out, "must be in a folder that can be written to", got=f"{parent}: {error.strerror}"
            ) from error

    def _check_is_ours(self, record: Mapping[str, Any]) -> None:
        with path_errors_as(self.path, error=StudyError):
            present = contents(self.path)
        strangers = sorted(present - record["files"])
        if strangers:
            named = ", ".join(strangers[:_MOST_NAMED])
            rest = f" and {len(strangers) - _MOST_NAMED} more" if len(strangers) > _MOST_NAMED else ""
            raise StudyError.about(
                self.out, "must be new, empty or an earlier export", got=f"a folder with other files: {named}{rest}"
            )

    def _check_may_be_replaced(self, record: Mapping[str, Any], study: str, weights: bool) -> None:
        way_out = "give another folder, or remove this one first"
        if record.get("study", study) != study:
            raise StudyError.about(
                self.out,
                f"must be new, empty or an earlier export of {study}",
                got=f"one of {record['study']}",
                hint=way_out,
            )
        if record.get("weights") and not weights:
            raise StudyError.about(
                self.out,
                "must not hold trained weights if none are to take their place",
                got=f"those of trial {record.get('trial')}",
                hint=f"export with --weights, {way_out}",
            )


def contents(folder: Path) -> set[str]:
    """Every file below a folder, and every empty folder, by its path from there."""
    found = set()
    for parent, folders, files in os.walk(folder, onerror=_raise):
        here = Path(parent).relative_to(folder)
        found |= {(here / name).as_posix() for name in files}
        found |= {(here / name).as_posix() for name in folders if not any((Path(parent) / name).iterdir())}
    return found


def _raise(error: OSError) -> None:
    """A folder that cannot be listed is not an empty one."""
    raise error


def _record_of(folder: Path) -> dict[str, Any]:
    """The record of an earlier export, whose ``files`` are what it wrote; of none, that it wrote nothing."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
        if record["made_by"] == "lora-search":
            return {**record, "files": {str(name) for name in record["files"]}}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {"files": set()}
