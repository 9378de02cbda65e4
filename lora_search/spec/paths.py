"""Is it there? One way to ask, for paths that users write: what the file system refuses to say is the user's to mend.

``Path.exists`` answers or raises, as the mood of the error is: a folder nobody may look into and a name too long for
any file system come out as tracebacks. Here they are the caller's ``InputError``, one line that names the path.
"""

from __future__ import annotations

import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from lora_search.errors import InputError
from lora_search.spec.quoting import quoted_path

_GIT_LFS = b"version https://git-lfs"  # how the file begins that Git LFS puts in the place of another
Kind = Literal["file", "folder"]
UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
"""What reading a file may raise that cannot be opened, or whose compression is damaged or unknown."""


def kind_of(path: Path, *, error: type[InputError], key: str | None = None) -> Kind | None:
    """What is at a path, links followed: ``folder``, ``file`` (whatever is no folder), or None for nothing.

    Args:
        path: where to look.
        error: what to raise.
        key: the key of the experiment the path came from, for the message; None for a path that speaks for itself.

    Raises:
        InputError: of class ``error``; the path cannot be looked up.
    """
    with path_errors_as(path, error=error, key=key):
        try:
            mode = path.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError:  # a null byte, which no path has
            return None
        return "folder" if stat.S_ISDIR(mode) else "file"


def expanded(location: str | Path) -> Path:
    """A path as the user wrote it, ``~`` replaced by the home folder; ``~nobody`` stays as it is."""
    try:
        return Path(os.path.expanduser(location))
    except ValueError:  # a null byte, which no user's name has
        return Path(location)


@contextmanager
def path_errors_as(path: Path, *, error: type[InputError], key: str | None = None) -> Iterator[None]:
    """Turns what the file system raises inside the block into a mistake about ``path``.

    Args:
        path, error, key: as for ``kind_of``.

    Raises:
        InputError: of class ``error``.
    """
    try:
        yield
    except OSError as reason:
        rule = "must be a path that can be looked up"
        if key is None:
            raise error.about(path, rule, got=reason.strerror) from reason
        raise error.about(key, rule, got=f"{quoted_path(path)}: {reason.strerror}") from reason


def check_no_pointer(path: Path, *, error: type[InputError], key: str) -> None:
    """Check that a file is itself and not what Git LFS leaves in its place until it is fetched.

    Args:
        path, error, key: as for ``kind_of``.

    Raises:
        InputError: of class ``error``. OSError: the file cannot be read.
    """
    if not path.is_file():  # of a pipe nobody else could read what is read here
        return
    with path.open("rb") as file:
        if file.read(len(_GIT_LFS)) == _GIT_LFS:
            got = f"{quoted_path(path)}, a pointer of Git LFS"
            raise error.about(key, "must be fetched", got=got, hint="run git lfs pull where it was cloned")
