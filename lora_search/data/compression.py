"""The bytes of a file that may be compressed, and the ending that says what they are.

``.gz``, ``.bz2``, ``.xz``, ``.zst`` and ``.zip`` (one file in it) are told by the name, as pandas tells them.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from lora_search.errors import DataError
from lora_search.spec.paths import UNREADABLE, check_no_pointer
from lora_search.spec.quoting import in_one_line, quoted

_KEY = "data.train"
_REASON_WIDTH = 200  # characters of a library's message worth repeating
_MEMBERS_SHOWN = 5
_ENCRYPTED = 0x1  # of a zip member's flags


def content_of(path: Path) -> tuple[bytes, str]:
    """What a file holds, decompressed, and its ending less that of the compression: ``a.csv.gz`` is ``.csv``.

    Raises:
        DataError: unreadable, damaged or not fetched by Git LFS, or an archive of several files.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    ending = suffixes[-1] if suffixes else ""
    try:
        check_no_pointer(path, error=DataError, key=_KEY)
        if ending == ".zip":
            return _only_member(path)
        unpack = _UNPACKERS.get(ending)
        if unpack is None:
            return path.read_bytes(), ending
        return unpack(path), suffixes[-2] if len(suffixes) > 1 else ""
    except UNREADABLE as error:
        reason = in_one_line(str(error), _REASON_WIDTH)
        raise DataError.about(_KEY, f"{path} cannot be read: {reason}") from error


def uncompressed_suffix(path: Path) -> str:
    """The ending of a name, less that of a compression; nothing is read."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _gunzipped(path: Path) -> bytes:
    with gzip.open(path, "rb") as stream:
        return stream.read()


def _bunzipped(path: Path) -> bytes:
    with bz2.open(path, "rb") as stream:
        return stream.read()


def _unxzipped(path: Path) -> bytes:
    with lzma.open(path, "rb") as stream:
        return stream.read()


def _unzstandard(path: Path) -> bytes:
    import pyarrow as pa  # the standard library has it from Python 3.14 on

    with pa.input_stream(str(path), compression="zstd") as stream:
        content: bytes = stream.read()
        return content


def _only_member(path: Path) -> tuple[bytes, str]:
    with zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if not info.is_dir() and not _is_hidden(info.filename)]
        if len(members) != 1:
            named = ", ".join(quoted(info.filename) for info in members[:_MEMBERS_SHOWN])
            more = ", ..." if len(members) > _MEMBERS_SHOWN else ""
            got = f"{len(members)}{': ' * bool(named)}{named}{more}"
            raise DataError.about(_KEY, f"{path.name} must hold one file", got=got)
        (member,) = members
        if member.flag_bits & _ENCRYPTED:
            rule = f"{path.name} must be readable without a password, {quoted(member.filename)} is not"
            raise DataError.about(_KEY, rule)
        own = PurePosixPath(member.filename).suffix.lower()
        return archive.read(member), own or uncompressed_suffix(path)


def _is_hidden(name: str) -> bool:
    """What macOS puts beside a file in an archive."""
    return name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith(".")


_UNPACKERS: Mapping[str, Callable[[Path], bytes]] = {
    ".gz": _gunzipped,
    ".bz2": _bunzipped,
    ".xz": _unxzipped,
    ".zst": _unzstandard,
}
COMPRESSIONS: tuple[str, ...] = (*_UNPACKERS, ".zip")
"""Endings of compressed files that are read."""
