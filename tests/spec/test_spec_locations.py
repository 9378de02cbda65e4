"""Locations: what is found, what is said when nothing is."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lora_search.errors import DataError, InputError, ModelError
from lora_search.spec.locations import HubId, locate, resolve
from lora_search.spec.paths import kind_of, path_errors_as


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that fails when imported, with one data file."""
    folder = tmp_path / "a_package_that_must_not_run"
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "data" / "reviews.csv").write_text("text,label\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder.name


def test_package_file_is_found_without_importing_the_package(package: str) -> None:
    path = locate(f"package:{package}/data/reviews.csv")
    assert path.read_text() == "text,label\n"
    assert package not in sys.modules


def test_package_folder_is_found(package: str) -> None:
    assert locate(f"package:{package}/data").is_dir()


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("package:{}/data/review.csv", "did you mean 'reviews.csv'?"),
        ("package:{}/data/nothing-like-it.bin", "has no 'data/nothing-like-it.bin'"),
        ("package:{}", "must be package:NAME/PATH"),
        ("package:{}/", "must be package:NAME/PATH"),
        ("package:{}/../elsewhere", "must be package:NAME/PATH"),
        ("package:{}//etc/hosts", "must be package:NAME/PATH"),
        ("package:no_such_package_at_all/x", "no package 'no_such_package_at_all' in this Python"),
        ("package:some-distribution/x", "with _ for -"),
        ("package:json.decoder/x", "must be package:NAME/PATH"),
        ("package:__main__/x", "no package '__main__' in this Python"),
        ("package:keyword/x", "no package 'keyword' in this Python"),  # a module, not a package
    ],
)
def test_package_mistakes_are_named(package: str, location: str, said: str) -> None:
    with pytest.raises(DataError) as caught:
        locate(location.format(package), key="data.train", error=DataError)
    (mistake,) = caught.value.mistakes
    assert mistake.startswith("data.train: must ")
    assert said in mistake
    assert repr(location.format(package)) in mistake


def test_path_is_found_and_a_near_miss_is_suggested(tmp_path: Path) -> None:
    (tmp_path / "train.csv").touch()
    assert locate(str(tmp_path / "train.csv")) == tmp_path / "train.csv"
    with pytest.raises(InputError, match=r"did you mean 'train.csv'\?"):
        locate(str(tmp_path / "tran.csv"))


def test_home_folder_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.csv").touch()
    assert locate("~/train.csv") == tmp_path / "train.csv"


def test_the_caller_chooses_key_and_error() -> None:
    with pytest.raises(ModelError, match=r"^model\.base: must be an existing file or folder, got '/no/such/model'$"):
        locate("/no/such/model", key="model.base", error=ModelError)


def test_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "local").mkdir(parents=True)

    def found(location: str, bare: bool) -> Path | HubId:
        return resolve(location, key="model.base", error=ModelError, bare_hub_ids=bare)

    assert found("hub:owner/name", bare=False) == HubId("owner/name")
    assert found("owner/name", bare=True) == HubId("owner/name")
    assert found("owner/local", bare=True) == Path("owner/local"), "what is here comes before the hub"
    with pytest.raises(ModelError, match="a hub id is written hub:owner/name"):
        found("owner/name", bare=False)
    with pytest.raises(ModelError, match="must be an existing file or folder, got '/owner/name'"):
        found("/owner/name", bare=True)
    with pytest.raises(ModelError, match="must be hub:OWNER/NAME, got 'hub:'"):
        found("hub:", bare=False)


LONG = "x" * 300


@pytest.fixture
def closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder nobody may look into, not even the administrator who runs the tests."""
    folder, stat = tmp_path / "closed", os.stat
    folder.mkdir()

    def refusing(path: object, **options: bool) -> os.stat_result:
        if str(path).startswith(f"{folder}/"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", refusing)
    return folder


def test_what_is_at_a_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loose").symlink_to("nowhere")
    names = (".", "file", "link", "loose", "none", "file/below", "a\0b")
    kinds = [kind_of(tmp_path / name, error=DataError) for name in names]
    assert kinds == ["folder", "file", "file", None, None, None, None]


def test_a_path_that_cannot_be_looked_up_is_the_callers_error(tmp_path: Path, closed: Path) -> None:
    path = closed / "train.csv"
    with pytest.raises(DataError) as caught:
        kind_of(path, key="data.train", error=DataError)
    assert caught.value.mistakes == (
        f"data.train: must be a path that can be looked up, got '{path}': Permission denied",
    )
    with pytest.raises(ModelError) as caught_too, path_errors_as(path, error=ModelError):
        path.stat()
    assert caught_too.value.mistakes == (f"{path}: must be a path that can be looked up, got Permission denied",)


@pytest.mark.parametrize("bare", [True, False])
@pytest.mark.parametrize("place", [lambda closed: f"{closed}/model", lambda _: LONG, lambda _: "package:json/" + LONG])
def test_a_location_that_cannot_be_looked_up(closed: Path, place: Callable[[Path], str], bare: bool) -> None:
    with pytest.raises(ModelError, match=r"^model\.base: must be a path that can be looked up, got '.*': (File|Perm)"):
        resolve(place(closed), key="model.base", error=ModelError, bare_hub_ids=bare)


@pytest.mark.parametrize("location", ["~no-such-user/train.csv", "a\0b/train.csv"])
def test_a_location_no_file_system_has(location: str) -> None:
    with pytest.raises(InputError, match=r"must be an existing file or folder, got "):
        locate(location)
