"""Locations: what is found, what is said when nothing is."""

import sys
from pathlib import Path

import pytest

from lora_search.errors import DataError, InputError, ModelError
from lora_search.spec.locations import HubId, locate, resolve


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
