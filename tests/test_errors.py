"""Errors: a mistake in its parts and as a line."""

import pickle
from dataclasses import replace

import pytest

from lora_search.errors import DataError, InputError, Mistake
from lora_search.spec import naming_sources


@pytest.mark.parametrize(
    ("mistake", "line"),
    [
        (Mistake("another run is writing"), "another run is writing"),
        (Mistake("must be at least 1", "search.rank[2]", "0"), "search.rank[2]: must be at least 1, got 0"),
        (
            Mistake("unknown key", "sede", meant="seed", source="a.toml"),
            "a.toml: sede: unknown key, did you mean seed?",
        ),
        (Mistake("must be open", "x", "'o/n'", hint="log in"), "x: must be open, got 'o/n'; log in"),
        (Mistake("must be here", "x", "y", "z", "(a, b)"), "x: must be here, got y, did you mean z? (a, b)"),
    ],
)
def test_a_mistake_is_one_line(mistake, line):
    assert str(mistake) == line


def test_an_error_tells_every_mistake_and_keeps_its_parts():
    error = InputError(["one", Mistake("two", "key", "0")])
    assert error.mistakes == ("one", "key: two, got 0")
    assert str(error) == "one\nkey: two, got 0"
    assert error.details == (Mistake("one"), Mistake("two", "key", "0"))
    error.change(lambda mistake: replace(mistake, source="a.toml"))
    assert error.mistakes == ("a.toml: one", "a.toml: key: two, got 0")
    assert pickle.loads(pickle.dumps(error)).details == error.details


def test_an_error_about_one_key_shows_any_value():
    error = DataError.about("cv.folds", "must be at least 2", got=1)
    assert (error.details, str(error)) == (
        (Mistake("must be at least 2", "cv.folds", "1"),),
        "cv.folds: must be at least 2, got 1",
    )


@pytest.mark.parametrize(
    ("key", "overrides", "source"),
    [
        ("data.train", (), "a.toml"),
        ("search.rank[2]", (), "a.toml"),
        ("data.train", ("data.train=b.csv",), "--set"),
        ("search.targets", ("search.rank=[1]",), "a.toml"),
        ("results/critics", (), ""),
        ("verdict.json", (), ""),
        ("", (), ""),
    ],
)
def test_where_a_key_was_given_is_told_of_keys_of_the_file_alone(key, overrides, source):
    with pytest.raises(DataError) as caught, naming_sources("a.toml", overrides):
        raise DataError(Mistake("must not be, as data.train: may seem to say", key))
    assert caught.value.details[0].source == source


def test_a_source_that_is_known_stays():
    with pytest.raises(DataError) as caught, naming_sources("a.toml"):
        raise DataError(Mistake("must be there", "data.train", source="b.toml"))
    assert str(caught.value) == "b.toml: data.train: must be there"
