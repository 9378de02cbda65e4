"""The audits that train: a planted update has the rank it says and changes labels; the grid is the one it describes."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from experiment_scripts import audit_module


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    return audit_module("planted_rank")


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_an_update_has_its_rank_and_no_smaller_one_comes_near(audit: ModuleType, rank: int) -> None:
    update = audit.planted_update(rank, 16, torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(update)
    torch.testing.assert_close(values[:rank], torch.full((rank,), values[0].item()))
    assert float(values[rank:].max()) < 1e-4 * float(values[0])


def test_layers_are_numbers(audit: ModuleType) -> None:
    assert audit.layer_numbers("all") == frozenset({0, 1, 2})
    assert audit.layer_numbers("1,2") == frozenset({1, 2})


def test_a_teacher_uses_its_update_and_all_labels(audit: ModuleType, tmp_path: Path) -> None:
    base = audit.write_base(tmp_path / "base", 0)
    examples = audit.texts(300, 0)
    assert len(set(examples)) == 300
    top, bottom = (audit.teacher_labels(base, audit.Planted(2, layers, 0), examples) for layers in ("2", "0"))
    again = audit.teacher_labels(base, audit.Planted(2, "2", 0), examples)
    np.testing.assert_array_equal(top, again)
    assert (top != bottom).mean() > 0.1
    assert np.bincount(top, minlength=audit.LABELS).min() > 0


def test_a_study_is_right_by_rank_or_by_agreement(audit: ModuleType) -> None:
    common = {"layers_included": False, "status": "decided"}
    rows = [
        {"rank_reached": True, "as_good": False, **common},
        {"rank_reached": False, "as_good": True, **common},
        {"rank_reached": False, "as_good": False, **common},
    ]
    assert audit.summary(rows) == {
        "studies": 3,
        "right": 2,
        "rank_reached": 1,
        "as_good_on_holdout": 1,
        "layers_included": 0,
        "decided": 3,
    }


def test_the_grid_is_24_configurations_smallest_first() -> None:
    grid = audit_module("grid")

    class Sizes:
        """A model of six layers, as far as the grid asks."""

        def adapter_parameters(self, adapter: object) -> int:
            layers = {"all": 6, "top-1/2": 3, "top-1/3": 2}[adapter.layers]  # type: ignore[attr-defined]
            return layers * adapter.rank * (9 if adapter.targets == "all-linear" else 2)  # type: ignore[attr-defined]

        def depth(self, adapter: object) -> int:
            return {"all": 0, "top-1/2": 3, "top-1/3": 4}[adapter.layers]  # type: ignore[attr-defined]

    rows = grid.configurations(Sizes())
    assert [row.trial for row in rows] == list(range(24))
    assert len({(row.adapter.rank, row.adapter.targets, row.adapter.layers) for row in rows}) == 24
    assert [row.parameters for row in rows] == sorted(row.parameters for row in rows)
    together = grid.packs(Sizes(), rows)
    assert [len(pack) for pack in together] == [8, 8, 8]
    assert {row.adapter.layers for row in together[0]} == {"top-1/3"}
