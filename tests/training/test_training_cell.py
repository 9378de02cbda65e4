"""In which order the cells of a pack stand."""

from dataclasses import replace

from engine_builders import make_cell, tiny_base

from lora_search.adapters import Rows
from lora_search.training.cell import side_by_side


def test_cells_of_one_fold_and_of_the_same_modules_stand_together():
    base = tiny_base("bert")
    targets = ("query+value", "attention", "all-linear") * 2
    cells = [make_cell(base, trial, fold=trial % 2, targets=name) for trial, name in enumerate(targets)]
    order = side_by_side(cells)
    assert sorted(order) == list(range(len(cells)))
    assert [cells[place].key.fold for place in order] == [0, 0, 0, 1, 1, 1]
    standing = [cells[place] for place in order if cells[place].key.fold == 0]
    rows = Rows([slot for slot, _ in enumerate(standing) for _ in range(2)])
    for name in {module.name for cell in standing for module in cell.modules}:
        members = frozenset(s for s, cell in enumerate(standing) if name in {m.name for m in cell.modules})
        assert len(rows.runs(members)) == 1


def test_the_order_does_not_depend_on_how_cells_were_asked_for():
    base = tiny_base("bert")
    cells = [make_cell(base, trial, rank=1 + trial, targets=("mlp", "attention")[trial % 2]) for trial in range(4)]
    there = [cells[place].key for place in side_by_side(cells)]
    back = [cells[::-1][place].key for place in side_by_side(cells[::-1])]
    assert there == back
    assert side_by_side([replace(cells[0], modules=())]) == [0]
