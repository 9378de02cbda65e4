"""One writer per study folder.

The kernel holds the lock, so it goes when the process goes, however it goes; the file stays and means nothing by
itself.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from lora_search.errors import StudyError
from lora_search.store.files import LOCK_FILE


class FolderLock:
    """An exclusive lock on a folder, held until ``release``."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    @classmethod
    def acquire(cls, folder: Path) -> Self:
        """Take the lock, or say at once who has it.

        Raises:
            StudyError: another run has it, or the file system cannot lock.
        """
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            # flock and not lockf: two runs inside one process (two notebook cells) must exclude each other as well.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 100).decode(errors="replace").strip()
            os.close(descriptor)
            who = f" ({holder})" if holder else ""
            raise StudyError(f"{folder}: another run is writing to {folder}{who}") from error
        except OSError as error:
            os.close(descriptor)
            raise StudyError(
                f"{folder}: must be on a file system that can lock files, got: {error.strerror}"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {os.uname().nodename}\n".encode())
        return cls(descriptor)

    def release(self) -> None:
        """Let the next run in. A second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
