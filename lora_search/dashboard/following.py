"""Studies in PostgreSQL whose run is on another machine: their databases are asked now and then whether something was
recorded, and the folder here is touched, which is what pages follow."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lora_search.dashboard.shelf import Shelf
from lora_search.dashboard.watching import process_of
from lora_search.errors import InputError
from lora_search.store.address import DatabaseAddress, address_in
from lora_search.store.files import STORAGE_FILE
from lora_search.store.postgresql import revisions

_SECONDS = 2.0
_LONGEST = 60.0


class Follower:
    """Asks the databases of a shelf's studies.

    Args:
        shelf: the studies.
        ask: what tells revisions, of studies of one database.
    """

    def __init__(
        self, shelf: Shelf, ask: Callable[[str, list[DatabaseAddress]], Mapping[DatabaseAddress, str]] = revisions
    ) -> None:
        self._shelf = shelf
        self._ask = ask
        self._known: dict[DatabaseAddress, str] = {}

    def turn(self) -> bool:
        """Ask once, and touch the folders of what was recorded since.

        Returns:
            whether all databases answered.
        """
        folders: dict[DatabaseAddress, list[Path]] = {}
        for folder in self._shelf.folders().values():
            with contextlib.suppress(InputError):
                address = address_in(folder)
                if address is not None:
                    folders.setdefault(address, []).append(folder)
        answered = True
        for storage in sorted({address.storage for address in folders}):
            mine = [address for address in folders if address.storage == storage]
            try:
                found = self._ask(storage, mine)
            except InputError:  # told where the study is read
                answered = False
                for address in mine:  # to be looked at again when it does
                    self._known.pop(address, None)
                continue
            for address, revision in found.items():
                if self._known.get(address) != revision:
                    self._known[address] = revision
                    for folder in folders[address]:
                        _touch(folder)
        return answered


def _touch(folder: Path) -> None:
    if process_of(folder) is None:  # a run on this machine does it itself
        with contextlib.suppress(OSError):
            os.utime(folder / STORAGE_FILE)


@contextlib.contextmanager
def following(shelf: Shelf) -> Iterator[None]:
    """While the block runs a thread follows what is recorded elsewhere; less often while a database does not answer."""
    ended, follower = threading.Event(), Follower(shelf)

    def follow() -> None:
        pause = _SECONDS
        while not ended.wait(pause):
            pause = _SECONDS if follower.turn() else min(2 * pause, _LONGEST)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
