"""One writer per study folder.

The kernel holds the lock, so it goes when the process goes, however it goes; the file stays and means nothing by
itself. A lock is on a file and not on its name: whoever deletes the file lets the next run in, which makes another one
and locks that. So a run asks for its lock again before it records anything (``keep``).
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from typing import Self

from lora_search.errors import StudyError, StudyInUseError
from lora_search.store.files import LOCK_FILE

PATIENCE = 30.0  # seconds
_PAUSE = 0.1


class FolderLock:
    """An exclusive lock on a folder, held until ``release``."""

    def __init__(self, folder: Path, descriptor: int) -> None:
        self.folder = folder
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, folder: Path) -> Self:
        """Take the lock, or say at once who has it.

        Raises:
            StudyInUseError: another run has it.
            StudyError: the file system cannot lock.
            OSError: the lock's file cannot be made, or not be written to.
        """
        descriptor = _locked(folder)
        while not _is_named(folder, descriptor):  # deleted between its opening and its locking
            os.close(descriptor)
            descriptor = _locked(folder)
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{named(os.getpid())}\n".encode())
        except BaseException:  # a full disk: the lock goes with the descriptor
            os.close(descriptor)
            raise
        return cls(folder, descriptor)

    def keep(self) -> bool:
        """Take the lock again if its file was deleted, unless another run has come in meanwhile.

        Returns:
            whether it had to be taken again. Of a folder that is gone as a whole nothing is said here.

        Raises:
            StudyInUseError: another run writes there now.
            OSError: no file can be made there, or not be written to.
        """
        if self._descriptor is None or _is_named(self.folder, self._descriptor) or not self.folder.is_dir():
            return False
        again = type(self).acquire(self.folder)
        os.close(self._descriptor)
        self._descriptor = again._descriptor
        return True

    def release(self) -> None:
        """Let the next run in. A second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def named(process: int) -> str:
    """A process of this machine as the holder of a lock."""
    return f"process {process} on {os.uname().nodename}"


def holder_of(folder: Path) -> str | None:
    """Who has the lock of a folder, as ``process 12 on name``; None where nobody has it.

    Nobody has it where the file system cannot lock, either: that is told to whoever wants to have it.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _taken(descriptor, fcntl.LOCK_SH) else _name_in(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """A descriptor of the folder's lock file, which is made if need be, and locked."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        holder = _holder_after_waiting(descriptor)
    except BaseException as error:
        os.close(descriptor)
        if not isinstance(error, OSError):
            raise
        raise StudyError.about(folder, "must be on a file system that can lock files", got=error.strerror) from error
    if holder is not None:
        os.close(descriptor)
        raise StudyInUseError.about(folder, f"another run is writing to {folder}{f' ({holder})' if holder else ''}")
    return descriptor


def _is_named(folder: Path, descriptor: int) -> bool:
    """Whether the folder's lock file is the one that is open."""
    try:
        return os.path.samestat((folder / LOCK_FILE).stat(), os.fstat(descriptor))
    except OSError:
        return False


def _holder_after_waiting(descriptor: int) -> str | None:
    """None when the lock is taken; else who has it, an empty string if that is not said."""
    began = time.monotonic()
    while not _taken(descriptor):
        holder, waited = _name_in(descriptor), time.monotonic() - began
        # what a killed run forked has the lock too, and ends as soon as it notices; who asks for the holder has it for
        # a moment
        if waited > (PATIENCE if has_ended(holder) else _PAUSE):
            return holder
        time.sleep(_PAUSE)
    return None


def _taken(descriptor: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        # flock and not lockf: two runs inside one process (two notebook cells) must exclude each other as well.
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _name_in(descriptor: int) -> str:
    return os.pread(descriptor, 100, 0).decode(errors="replace").strip()


def has_ended(holder: str) -> bool:
    """Whether a holder, as ``process 12 on name``, is a process of this machine that is no more."""
    named = re.fullmatch(r"process (\d+) on (.+)", holder)
    if named is None or named[2] != os.uname().nodename:
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # there, and somebody else's
        return False
    return False
