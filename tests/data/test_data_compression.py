"""Compressed files: every kind that is promised, archives of one file, damage."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from lora_search.data.sources import read_table
from lora_search.errors import DataError
from lora_search.spec.experiment import DataSpec

CONTENT = b"text,label\ngood,a\nbad,b\n"


def zstandard(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return compressed


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard,
}


def mistake_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_table(DataSpec(train=str(path)))
    (mistake,) = caught.value.mistakes
    return mistake


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


@pytest.mark.parametrize("suffix", COMPRESS)
def test_compressed_files_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(COMPRESS[suffix](CONTENT))
    assert read_table(DataSpec(train=str(path))).texts == ("good", "bad")


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("content", [b"", b"text,label\n"])
def test_what_is_not_compressed_is_told(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(content)
    assert mistake_of(path).startswith("data.train: ")


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_a_file_cut_short_is_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(COMPRESS[suffix](CONTENT * 100)[:-12])
    assert mistake_of(path).startswith(f"data.train: {path} cannot be read: ")


@pytest.mark.parametrize(("name", "member"), [("a.csv.zip", "b.csv"), ("a.zip", "b.CSV"), ("a.csv.zip", "b")])
def test_an_archive_of_one_file_is_read(tmp_path: Path, name: str, member: str) -> None:
    path = archive(tmp_path / name, **{"__MACOSX/._b.csv": b"x", ".hidden": b"x", "folder/": b"", member: CONTENT})
    assert read_table(DataSpec(train=str(path))).labels == ("a", "b")


def test_other_archives_are_told_apart(tmp_path: Path) -> None:
    two = archive(tmp_path / "two.zip", **{"a.csv": CONTENT, "b.csv": CONTENT})
    assert mistake_of(two) == "data.train: two.zip must hold one file, got 2: 'a.csv', 'b.csv'"
    assert mistake_of(archive(tmp_path / "none.zip")) == "data.train: none.zip must hold one file, got 0"
    (tmp_path / "a.csv.zip").write_bytes(CONTENT)
    assert mistake_of(tmp_path / "a.csv.zip").endswith("cannot be read: File is not a zip file")
    assert "got 'text.zip'" in mistake_of(archive(tmp_path / "text.zip", **{"a.txt": CONTENT}))


def test_an_archive_with_a_password_is_told(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", **{"a.csv": CONTENT})
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    path.write_bytes(bytes(content))
    assert mistake_of(path) == "data.train: a.zip must be readable without a password, 'a.csv' is not"


@pytest.mark.parametrize(
    ("name", "file"),
    [*((name, "") for name in ("a.csv", "a.jsonl", "a.parquet", "a.csv.gz", "a.zip")), ("saved", "data-0.arrow")],
)
def test_what_git_lfs_has_yet_to_fetch_is_told(tmp_path: Path, name: str, file: str) -> None:
    if file:
        (tmp_path / name).mkdir()
        (tmp_path / name / "dataset_info.json").touch()
    (tmp_path / name / file).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert mistake_of(tmp_path / name) == (
        f"data.train: must be fetched, got '{tmp_path / name / file}', a pointer of Git LFS; run git lfs pull where it"
        " was cloned"
    )
