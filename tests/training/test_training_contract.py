"""The promise of the engine, for every family: solo = packed = micro-batched = cached, dropout included.

Four cells that differ in everything a pack may mix: rank (of one by module), scaling, targets, layers, learning rate,
dropout, fold, number of examples and so of steps. Each is trained alone on whole batches through the whole model, then
all together in every other way. "Pooled" computes the last layer for the token the head reads, "in lanes" is three
processes, "checkpointed" all of it with gradient checkpointing.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from engine_builders import FAMILIES, MINILM, make_cell, make_engine, minilm_base, quantized_base, tiny_base, toy_data

from lora_search.training import pack_run as run_module
from lora_search.training.optimizer import PackedAdamW

TOLERANCE = 1e-5
GRADIENT_STEPS = (0, 4)
MODELS = (*FAMILIES, "opt", MINILM)
ALONE = {"prefix_cache": False, "token_budget": 10**6, "pooled_token": False}
WAYS = {
    "packed": ALONE,
    "packed, micro-batched": {**ALONE, "token_budget": 72},
    "packed, micro-batched, cached": {"prefix_cache": True, "token_budget": 150, "pooled_token": False},
    "packed, micro-batched, cached, pooled": {"prefix_cache": True, "token_budget": 150},
    "packed, micro-batched, cached, pooled, in lanes": {"prefix_cache": True, "token_budget": 150, "lanes": 3},
    "checkpointed": {"prefix_cache": True, "token_budget": 150, "lanes": 2, "checkpointing": True},
}
# whose layers are not a copy of another's: a copy is computed in the first way and in the one that has everything
APART = ("bert", "distilbert", "deberta-v2", "modernbert", "gpt2", "llama", "opt")
FEW = {
    "packed, micro-batched": ("bert", "gpt2", "llama"),
    "packed, micro-batched, cached": APART,
    "packed, micro-batched, cached, pooled": APART,
    "checkpointed": ("bert", "deberta-v2", "gpt2", "llama"),
}


@dataclass
class Trained:
    """What a cell's training left: the numbers two ways of computing it have to agree on."""

    loss: float
    steps: int
    probabilities: np.ndarray
    weights: dict
    gradients: dict


def base_of(model):
    if model.startswith("nf4 "):  # see test_training_quantized
        return quantized_base(model.removeprefix("nf4 "))
    return minilm_base() if model == MINILM else tiny_base(model)


@cache
def data_of(model):
    if model == MINILM:
        return toy_data(20, types=True, vocabulary=3000, longest=6)
    return toy_data(types=model == "bert")


@cache
def cells_of(model):
    base, count = base_of(model), len(data_of(model))
    return (
        make_cell(base, 0, rank=2, targets="query+value", layers="top-1", rate=2e-3, drop=0.25, count=count),
        make_cell(
            base,
            1,
            rank=5,
            targets="all-linear",
            layers="top-2",
            rate=1e-3,
            scaling="rslora",
            count=count,
            rank_pattern="mlp:0.4",
        ),
        make_cell(
            base, 2, fold=1, rank=3, targets="attention", layers="top-1", rate=3e-3, first=count // 2, count=count
        ),
        make_cell(base, 3, rank=1, targets="mlp", layers="top-2", rate=1e-3, drop=0.5, count=count),
    )


def train(model, cells, **settings):
    """Train the cells as one pack; 8 steps for the largest."""
    recorded = {}

    class Recording(PackedAdamW):
        """Writes gradients down in files: every lane updates slots of its own."""

        def step(self, active):
            for slot in active:
                if self.steps[slot] in GRADIENT_STEPS:
                    scale = self.pack.adapters[slot].scale
                    true = {
                        (slot, self.steps[slot], name): gradient * scale if name.endswith("lora_B") else gradient
                        for name, gradient in self.pack.slot_gradients(slot).items()
                    }
                    torch.save(true, Path(folder, f"{slot} {self.steps[slot]}"))
            super().step(active)

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(run_module, "PackedAdamW", Recording)
        engine = make_engine(
            base_of(model), data_of(model), epochs=2, batch_size=4 if model == MINILM else 8, **settings
        )
        trained = engine.train(cells, pack=0)
        for file in Path(folder).iterdir():
            recorded |= torch.load(file)
    return engine, [
        Trained(
            cell.result.train_loss,
            cell.result.steps,
            cell.result.probabilities,
            cell.state,
            {(step, name): g for (owner, step, name), g in recorded.items() if owner == slot},
        )
        for slot, cell in enumerate(trained)
    ]


@cache
def trained_alone(model):
    return [train(model, [cell], **ALONE)[1][0] for cell in cells_of(model)]


def difference(ours, theirs):
    """|ours - theirs| / |theirs| over all A, all B and all head tensors apart: the largest of the three."""
    groups = {}
    for key in theirs:
        name = key if isinstance(key, str) else key[1]
        kind = name.rpartition(".")[2] if ".lora_" in name else "head"
        step = 0 if isinstance(key, str) else key[0]
        groups.setdefault((step, kind), []).append(key)
    worst = 0.0
    for keys in groups.values():
        expected = torch.cat([theirs[key].flatten() for key in keys])
        actual = torch.cat([ours[key].flatten() for key in keys])
        size = expected.norm()
        worst = max(worst, float((actual - expected).norm() / size) if size > 0 else float(actual.norm()))
    return worst


CASES = [(model, way) for model in MODELS for way in WAYS if model in FEW.get(way, MODELS)]


@pytest.mark.parametrize(("model", "way"), CASES)
def test_every_way_of_computing_a_cell_gives_the_same(model, way):
    engine, together = train(model, cells_of(model), **WAYS[way])
    pools = WAYS[way].get("pooled_token", True)
    assert (engine.forward.pooled is not None) == (pools and model != "opt")  # which feeds its MLP (tokens, features)
    assert engine.forward.prefix.note is None
    assert engine.split_packs == (model == "deberta-v2")  # its relative positions are projected once for all rows
    for alone, packed in zip(trained_alone(model), together, strict=True):
        assert packed.steps == alone.steps
        assert packed.weights.keys() == alone.weights.keys()
        assert packed.gradients.keys() == alone.gradients.keys()
        assert packed.loss == pytest.approx(alone.loss, rel=TOLERANCE)
        assert difference(packed.gradients, alone.gradients) < TOLERANCE
        assert difference(packed.weights, alone.weights) < 2 * TOLERANCE  # B, which began at zero, is small
        np.testing.assert_allclose(packed.probabilities, alone.probabilities, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("model", MODELS)
def test_the_contract_compares_eight_steps_that_learn_something(model):
    alone = trained_alone(model)
    assert max(cell.steps for cell in alone) == 8
    assert len({cell.steps for cell in alone}) > 1
    for cell in alone:
        learned = [value for name, value in cell.weights.items() if name.endswith("lora_B")]
        assert all(value.abs().max() > 1e-3 for value in learned)
        assert all(value.abs().max() > 1e-6 for (_, name), value in cell.gradients.items() if name.endswith("lora_B"))
