"""Where a study is kept that is no file: a PostgreSQL database, by an address that holds no secret.

The address is told in messages, kept in ``storage.json`` of the study's folder, and seen by whoever lists the processes
of the machine. So a password in it is refused, wherever it came from, and not repeated. libpq finds one by itself: in
``PGPASSWORD``, in ``~/.pgpass`` (or ``PGPASSFILE``), or in the file that ``PGSERVICEFILE`` names.

A folder may come from someone else, and name a server of theirs. So no server is told a password in clear, unless the
user's own environment says otherwise (``PGREQUIREAUTH``), which no address may.

A study's folder stays what commands are given: beside such a study it holds the files made from it, and copies of its
predictions. ``storage.json`` says where the study itself is.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qsl, quote

from lora_search.errors import StudyError
from lora_search.spec.names import is_study_name
from lora_search.spec.paths import kind_of
from lora_search.store.files import STORAGE_FILE, write_atomically

_FORM = "postgresql://USER@HOST:PORT/DATABASE"
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^:@/?#,\[\]\s]*)(?::[0-9]{1,5})?"
_OPTION = r"[a-z_]+=[^&#\s]*"
_ADDRESS = re.compile(
    rf"postgres(?:ql)?://(?:[^:@/?#\s]*@)?{_HOST}(?:,{_HOST})*(?:/[^/?#@\s]*)?(?:\?{_OPTION}(?:&{_OPTION})*)?"
)
_PASSWORD = re.compile(r"://[^/?#]*:[^/?#]*@|[?&][^=&]*password[^=&]*=", re.IGNORECASE)
_IN_CLEAR = "password"
_PROOFS = ("none", "scram-sha-256", "md5", "gss", "sspi")
"""What ``require_auth`` may name: ways that tell a server no password."""
_NEW = "new:"
"""Begins the name of a schema that is not whole yet; no study's name has a colon."""
_LONGEST = 63 - len(_NEW)
"""PostgreSQL cuts longer names."""


@dataclass(frozen=True)
class DatabaseAddress:
    """A study in a database.

    Attributes:
        storage: the database, as libpq reads it.
        study: the study's name.
    """

    storage: str
    study: str

    def __str__(self) -> str:
        return f"study {self.study} in {self.storage}"

    @property
    def schema(self) -> str:
        """The schema that holds its tables, and Optuna's: one a study, as others have a file each."""
        name = f"lora_search_{self.study}"
        if len(name) <= _LONGEST:
            return name
        return f"{name[: _LONGEST - 9]}-{sha256(name.encode()).hexdigest()[:8]}"

    @property
    def new_schema(self) -> str:
        """What that schema is called until all tables are in it."""
        return f"{_NEW}{self.schema}"

    def for_optuna(self) -> str:
        """The same for tools that look into Optuna's tables by way of SQLAlchemy and psycopg, and may not write."""
        options = f'-csearch_path="{self.schema}" -cdefault_transaction_read_only=on'
        _, _, rest = self.storage.partition("://")
        return f"postgresql+psycopg://{rest}{'&' if '?' in rest else '?'}options={quote(options)}"


def authentication() -> str:
    """How a server may ask who one is, as libpq's ``require_auth`` says it, where the address is no stricter."""
    return os.environ.get("PGREQUIREAUTH") or f"!{_IN_CLEAR}"


def checked_storage(storage: str, key: str = "--storage") -> str:
    """The address of a database, if it is one and holds no password.

    Raises:
        StudyError: it is none. What was received is not told, for a mistyped one may hold a password too.
    """
    if _PASSWORD.search(storage):
        raise StudyError.about(
            key,
            "must hold no password, which others see where processes are listed",
            hint="put it into ~/.pgpass or PGPASSWORD",
        )
    if not _ADDRESS.fullmatch(storage):
        raise StudyError.about(key, f"must be {_FORM}, with % codes for special characters, and without a password")
    for option, methods in parse_qsl(storage.partition("?")[2], keep_blank_values=True):
        named = set(methods.split(","))
        if option == "require_auth" and f"!{_IN_CLEAR}" not in named and not named <= set(_PROOFS):
            rule = f"may require no other ways than {', '.join(_PROOFS)}"
            raise StudyError.about(key, rule, hint="PGREQUIREAUTH may, which is yours alone")
    return storage


def address_in(folder: Path) -> DatabaseAddress | None:
    """Where the study of a folder is kept, by its ``storage.json``; None where there is no such file.

    Raises:
        StudyError: the file is damaged, or cannot be looked up.
    """
    path = folder / STORAGE_FILE
    if kind_of(path, error=StudyError) != "file":
        return None
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return DatabaseAddress(checked_storage(said["storage"], str(path)), _checked_study(said["study"]))
    except OSError as error:
        raise StudyError.about(path, "must be readable", got=error.strerror) from error
    except (ValueError, KeyError, TypeError) as error:
        hint = "delete it, and run the study with --storage"
        raise StudyError.about(path, "must say where the study is kept", got="a damaged file", hint=hint) from error


def _checked_study(name: str) -> str:
    """The name of a study, which becomes that of a schema.

    Raises:
        ValueError: no experiment can have it.
    """
    if not is_study_name(name):
        raise ValueError("no name of a study")
    return name


def write_address(folder: Path, address: DatabaseAddress) -> None:
    """Say in a study's folder where the study is kept."""
    write_atomically(folder / STORAGE_FILE, json.dumps(asdict(address), indent=2) + "\n")
