"""Looks a study folder over, and mends what can be mended without losing anything: ``lora-search doctor STUDY``.

``study.db`` is the truth. What is made from it is made again; a cell whose predictions are gone or are not those that
were recorded is forgotten, so that the study, run again, trains it again; what a crash left half written is removed.
Before anything is changed in ``study.db`` a copy of it is put beside it, another one each time. A damaged database is
told, never touched; and so is one in PostgreSQL, whose administrator has its backups.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from lora_search.errors import StudyError
from lora_search.spec import facts
from lora_search.spec.paths import kind_of
from lora_search.store.address import DatabaseAddress, address_in
from lora_search.store.copying import copies_of, copy_database
from lora_search.store.database import VERSION, check_integrity, connect_writing, delete_baseline, format_of
from lora_search.store.derived import derived_files
from lora_search.store.faults import storage_errors_as_study_errors
from lora_search.store.files import (
    BACKUP_FILE,
    PREDICTIONS_FOLDER,
    RESCUED_FILE,
    STUDY_FILE,
    VERDICT_FILE,
    json_text,
    write_atomically,
)
from lora_search.store.formats import upgrade
from lora_search.store.lock import FolderLock
from lora_search.store.predictions import (
    Key,
    examples_path,
    predictions_path,
    read_cell_predictions,
    read_examples,
)
from lora_search.store.reader import StudyTables, read_study, tables_of
from lora_search.store.reading import read_from
from lora_search.store.records import CellKey

_MOST_LISTED = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: the thing.
        found: how it is, and what was done about it.
        sound: whether nothing is wrong with it any more.
    """

    what: str
    found: str
    sound: bool = True


def mend_study(folder: Path) -> list[Finding]:
    """Look at everything in a study folder and mend what can be mended, unless a run is writing there.

    Returns:
        what was found, in order; everything, sound or not.

    Raises:
        StudyError: there is no study, or none that can be read, or it cannot be written to.
    """
    if address_in(folder) is None and kind_of(folder / STUDY_FILE, error=StudyError) != "file":
        read_study(folder)  # which says what is there instead
    try:
        read_from(folder, check_integrity)
        tables = read_study(folder)
    except StudyError as error:
        return [*_leftover_database(folder), Finding("database", "; ".join(error.mistakes), sound=False)]
    try:
        lock = FolderLock.acquire(folder)
    except (StudyError, OSError) as error:
        said = "; ".join(error.mistakes) if isinstance(error, StudyError) else f"got {error.strerror}"
        return [Finding("folder", f"cannot be written to now, so nothing is mended: {said}"), *_looks(tables)]
    address = address_in(folder)
    try:
        with storage_errors_as_study_errors(folder):
            return list(_mended(folder) if address is None else _brought(tables, address))
    finally:
        lock.release()


# -- only looking ------------------------------------------------------------------------------------------------


def _looks(tables: StudyTables) -> Iterator[Finding]:
    yield Finding("database", _summary(tables))
    yield _of_predictions(tables, broken_cells(tables), "")
    yield _of_examples(tables)
    changed = [name for name, text in derived_files(tables).items() if _text(tables.folder / name) != text]
    yield Finding("files made from it", f"not up to date: {_listed(changed)}" if changed else "all there", not changed)


def broken_cells(tables: StudyTables) -> dict[Key, str]:
    """The complete cells, and trainings of baselines, whose predictions are missing, damaged or not those recorded, and
    what is wrong with them."""
    found: dict[Key, str] = {}
    counts = tables.cells.set_index(["trial", "repeat", "fold"])["examples"]
    for key, checksum in _checksums(tables).items():
        try:
            examples, _ = read_cell_predictions(tables.folder, key, checksum)
        except StudyError as error:
            found[key] = error.mistakes[0]
            continue
        # a baseline's training trained on all else, and is known by its checksum
        if isinstance(key, CellKey) and len(examples) != counts[key.trial, key.repeat, key.fold]:
            found[key] = f"{predictions_path(tables.folder, key)}: has {len(examples)} examples"
    return found


def _checksums(tables: StudyTables) -> dict[Key, str | None]:
    """Of every prediction file there has to be."""
    found: dict[Key, str | None] = {}
    found.update(tables.checksums.items())
    found.update(tables.baseline_checksums.items())
    return found


def _summary(tables: StudyTables) -> str:
    version = read_from(tables.folder, format_of)
    return f"sound: {len(tables.trials)} trials, {len(tables.cells)} trainings, format {version}"


def _of_predictions(tables: StudyTables, broken: Mapping[Key, str], mended: str) -> Finding:
    checksums = _checksums(tables)
    if broken:
        why = "; ".join(list(broken.values())[:_MOST_LISTED])
        return Finding("predictions", f"{len(broken)} of {len(checksums)} are broken{mended}: {why}", bool(mended))
    unknown = sum(checksum is None for checksum in checksums.values())
    as_recorded = "as they were recorded" if not unknown else f"readable, {unknown} of them without a checksum"
    orphans = _orphans(tables)
    kept = f"; {len(orphans)} more belong to no recorded training: {_listed(orphans)}" if orphans else ""
    return Finding("predictions", f"all {len(checksums)} are there and {as_recorded}{kept}")


def _of_examples(tables: StudyTables) -> Finding:
    try:
        count = len(read_examples(tables.folder))
    except StudyError as error:
        return Finding("examples", error.mistakes[0], sound=False)
    if not count and len(tables.cells):
        missing = f"{examples_path(tables.folder)} is missing; it is written again when the study goes on"
        return Finding("examples", missing, sound=False)
    return Finding("examples", f"{count} labels and groups")


def _orphans(tables: StudyTables) -> list[str]:
    expected = {predictions_path(tables.folder, key).name for key in _checksums(tables)}
    folder = tables.folder / PREDICTIONS_FOLDER
    found = sorted(path.name for kind in ("trial", "baseline") for path in folder.glob(f"{kind}-*.npz"))
    return [name for name in found if name not in expected]


def _leftover_database(folder: Path) -> list[Finding]:
    copies = [path for name in (RESCUED_FILE, BACKUP_FILE) for path in copies_of(folder / name)]
    return [Finding("copy of the database", f"{path}; rename it to {STUDY_FILE} if it is whole") for path in copies]


# -- mending -----------------------------------------------------------------------------------------------------


def _mended(folder: Path) -> Iterator[Finding]:
    yield from _without_leftovers(folder)
    kept: Path | None = None
    with closing(connect_writing(folder)) as connection:
        before = format_of(connection)
        if before != VERSION:
            kept = copy_database(connection, folder / BACKUP_FILE)
            upgrade(folder, connection)
            yield Finding("format", f"was {before} and is {VERSION} now; as it was: {kept}")
        tables = tables_of(folder, connection)
        yield Finding("database", _summary(tables))
        broken = broken_cells(tables)
        if broken:
            kept = kept or copy_database(connection, folder / BACKUP_FILE)
            _forget(connection, tables, broken)
            (folder / VERDICT_FILE).unlink(missing_ok=True)
        done = f" and forgotten, to be trained again when the study goes on (as it was: {kept})"
        yield _of_predictions(tables, broken, done if broken else "")
        tables = tables_of(folder, connection)
    yield _of_examples(tables)
    yield _written(tables)
    yield from _leftover_database(folder)


def _brought(tables: StudyTables, address: DatabaseAddress) -> Iterator[Finding]:
    """A folder brought up to date with the database elsewhere that its study is in."""
    yield from _without_leftovers(tables.folder)
    yield Finding("database", f"{_summary(tables)}, in {address.storage}")
    yield _of_predictions(tables, broken_cells(tables), "")
    yield _of_examples(tables)
    yield _written(tables)


def _written(tables: StudyTables) -> Finding:
    """The files that are made from a database, made anew where they are not up to date."""
    written = []
    for name, text in derived_files(tables).items():
        if _text(tables.folder / name) != text:
            write_atomically(tables.folder / name, text)
            written.append(name)
    return Finding("files made from it", f"written again: {_listed(written)}" if written else "all there, up to date")


def _without_leftovers(folder: Path) -> Iterator[Finding]:
    """Files that a write which never ended left; a write that ends renames its own."""
    found = [*folder.glob(".*.tmp*"), *(folder / PREDICTIONS_FOLDER).glob(".*.tmp*")]
    removed = [path for path in found if path.is_file()]
    for path in removed:
        path.unlink(missing_ok=True)
    if removed:
        yield Finding("leftovers", f"removed, of writes that were cut short: {_listed(path.name for path in removed)}")


def _forget(connection: sqlite3.Connection, tables: StudyTables, broken: Iterable[Key]) -> None:
    """Take cells out, and set out again what was concluded from them: their trials, the verdict, and the facts that
    say so of themselves (``Fact.without``)."""
    keys = sorted(key for key in broken if isinstance(key, CellKey))
    planned = tables.experiment.cv.repeats
    with connection:
        for key in keys:
            row = (key.trial, key.repeat, key.fold)
            connection.execute("delete from lora_cells where trial = ? and repeat = ? and fold = ?", row)
        for other in broken:
            if not isinstance(other, CellKey):
                delete_baseline(connection, other)
        for trial in sorted({key.trial for key in keys if key.repeat < planned}):
            connection.execute("update lora_trials set state = 'running', failure = null where trial = ?", (trial,))
        connection.execute("delete from lora_study where key = 'verdict'")
        lost = {(key.trial, key.repeat, key.fold) for key in keys}
        for fact in facts.ALL:
            kept = fact.of(tables.facts)
            left = None if kept is None else fact.without(kept, lost, planned)
            if left != kept:
                row_of_facts = (fact.name, json_text(fact.to_json(left)))
                connection.execute("insert or replace into lora_facts values (?, ?)", row_of_facts)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    rest = f" and {len(listed) - _MOST_LISTED} more" if len(listed) > _MOST_LISTED else ""
    return f"{', '.join(listed[:_MOST_LISTED])}{rest}"
