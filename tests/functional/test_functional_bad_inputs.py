"""The table of bad inputs, each with its lines, and some hundred made at random: only clean mistakes come out."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_inputs import ALL, Bad, base_spec, recorded, said
from experiment_scripts import audit_module


def test_the_table_is_of_more_than_a_hundred_inputs_and_their_lines() -> None:
    names = [bad.about for bad in ALL]
    assert len(names) > 100
    assert len(set(names)) == len(names)
    assert sorted(recorded()) == sorted(names)


@pytest.mark.parametrize("bad", ALL, ids=lambda bad: bad.about)
def test_a_bad_input_gets_its_lines_and_nothing_else(bad: Bad, world, tmp_path: Path) -> None:
    before = {path.name for path in tmp_path.iterdir()}
    code, out, err = said(bad, tmp_path, world.model)
    assert err == recorded()[bad.about]
    assert (code, out) == (2, "")
    assert all(len(line) < 700 for line in err.splitlines())
    assert not before
    assert not (tmp_path / "results" / base_spec()["name"] / "experiment.toml").exists(), "nothing was begun"


def test_without_a_change_the_experiment_is_right(world, tmp_path: Path) -> None:
    code, out, err = said(Bad("nothing"), tmp_path, world.model)
    assert (code, err) == (0, "")
    assert "cells: 1 adapter" in out


def test_inputs_at_random_are_read_or_refused(tmp_path: Path) -> None:
    """A few hundred; experiments/audits/fuzz.py tries 100,000."""
    became = audit_module("fuzz").fuzz(300, 0, tmp_path)
    assert became["experiment"]["read"] > 2
    assert became["data"]["read"] > 2
    assert sum(counts.total() for counts in became.values()) >= 300
