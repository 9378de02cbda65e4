"""The lock of a study's folder: nobody is kept out by one that was never had, and nobody is taken for its holder."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from lora_search.errors import StudyError
from lora_search.store import lock
from lora_search.store.lock import FolderLock, holder_of, named


def test_the_holder_is_named_as_long_as_it_has_the_lock(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    taken = FolderLock.acquire(tmp_path)
    assert holder_of(tmp_path) == named(os.getpid()) == f"process {os.getpid()} on {os.uname().nodename}"
    taken.release()
    assert holder_of(tmp_path) is None


@pytest.mark.parametrize("call", ["ftruncate", "write"])
def test_a_full_disk_keeps_no_later_run_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            FolderLock.acquire(tmp_path)
    FolderLock.acquire(tmp_path).release()


def test_an_interrupt_while_waiting_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    taken = FolderLock.acquire(tmp_path)
    monkeypatch.setattr(lock.time, "sleep", interrupted)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(KeyboardInterrupt):
        FolderLock.acquire(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
    taken.release()


def test_where_files_cannot_be_locked_nobody_has_a_lock_and_nobody_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lockless(*arguments: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    FolderLock.acquire(tmp_path).release()
    monkeypatch.setattr(fcntl, "flock", lockless)
    assert holder_of(tmp_path) is None
    with pytest.raises(StudyError, match=r"must be on a file system that can lock files, got No locks available$"):
        FolderLock.acquire(tmp_path)
