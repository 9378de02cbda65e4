"""The most memory that a process and the processes it forked took at a time; imports nothing that takes any itself.

A page that several of them share counts once: what is summed is the proportional set size of each
(/proc/PID/smaps_rollup, Linux). The kernel keeps no peak of it, so a process of its own looks every few milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PAUSE = 0.01


def proportional(process: int) -> int:
    """Bytes of a process; 0 where it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def family(process: int) -> list[int]:
    """The process and those it has forked, of any of its threads."""
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            children.extend(map(int, (thread / "children").read_text(encoding="ascii").split()))
    return [process, *children]


class Peak:
    """``bytes``, when the block that watches has ended."""

    bytes = 0


@contextlib.contextmanager
def watched() -> Iterator[Peak]:
    """Inside the block this process is watched, and what it forks."""
    command = [sys.executable, __file__, str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdin is not None
        assert watcher.stdout is not None
        watcher.stdout.readline()
        peak = Peak()
        yield peak
        watcher.stdin.close()
        peak.bytes = int(watcher.stdout.readline())


def main() -> None:
    process, most = int(sys.argv[1]), 0
    print("watching", flush=True)
    while not select.select([sys.stdin], [], [], _PAUSE)[0]:
        most = max(most, sum(proportional(each) for each in family(process) if each != os.getpid()))
    print(most, flush=True)


if __name__ == "__main__":
    main()
