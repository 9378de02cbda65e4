"""Dropout masks: the right share is dropped, and a row's mask knows nothing of its company."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_search.adapters.dropout import keep_mask

KEYS = st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=6)


def mask_of(keys, tokens, features, probability, module=7):
    rates = torch.full((len(keys),), probability) if isinstance(probability, float) else torch.tensor(probability)
    return keep_mask(torch.tensor(keys), torch.Size((len(keys), tokens, features)), rates, module)


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.25, 0.5, 0.9])
def test_the_share_dropped_and_the_mean_kept_are_as_asked(probability):
    mask = mask_of(range(1000, 1032), 40, 96, probability)
    count = mask.numel()
    spread = 5 * (probability * (1 - probability) / count) ** 0.5  # five standard deviations of a share
    assert abs((mask == 0).double().mean() - probability) < spread
    assert torch.allclose(mask[mask > 0], torch.tensor(1 / (1 - probability)))
    assert abs(mask.double().mean() - 1) < spread / (1 - probability)


def test_every_row_token_feature_and_module_is_dropped_at_the_same_rate():
    mask = mask_of(range(64), 64, 64, 0.3).eq(0).double()
    for axes in ((1, 2), (0, 2), (0, 1)):
        shares = mask.mean(axes)
        spread = (0.3 * 0.7 / 64**2) ** 0.5
        assert (shares - 0.3).abs().max() < 5 * spread
        assert 0.6 < float(shares.std() / spread) < 1.4


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("distance", [1, 2, 7])
def test_neighbours_are_dropped_independently(axis, distance):
    dropped = mask_of(range(5000, 5048), 48, 48, 0.5).eq(0).double() - 0.5
    shifted = dropped.roll(-distance, axis)
    correlation = float((dropped * shifted).mean() * 4)
    assert abs(correlation) < 5 / dropped.numel() ** 0.5


def test_modules_and_keys_have_masks_of_their_own():
    masks = [mask_of([key], 50, 50, 0.5, module).eq(0).double() - 0.5 for key, module in ((1, 1), (1, 2), (2, 1))]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(float((masks[i] * masks[j]).mean() * 4)) < 5 / 50


@settings(max_examples=40)
@given(KEYS, st.integers(1, 5), st.integers(0, 6), st.randoms(use_true_random=False))
def test_a_rows_mask_does_not_depend_on_padding_order_or_company(keys, tokens, padding, random):
    rates = [random.choice([0.0, 0.2, 0.7]) for _ in keys]
    together = mask_of(keys, tokens + padding, 8, rates)
    order = list(range(len(keys)))
    random.shuffle(order)
    shuffled = mask_of([keys[i] for i in order], tokens + padding, 8, [rates[i] for i in order])
    for place, row in enumerate(order):
        alone = mask_of([keys[row]], tokens, 8, [rates[row]])
        assert torch.equal(together[row, :tokens], alone[0])
        assert torch.equal(shuffled[place], together[row])


def test_nothing_is_dropped_where_the_rate_is_zero():
    mask = mask_of([1, 2], 6, 50, [0.0, 0.5])
    assert torch.equal(mask[0], torch.ones(6, 50))
    assert set(np.unique(mask[1].numpy())) == {0.0, 2.0}


def test_rows_without_tokens_have_a_mask_too():
    mask = keep_mask(torch.tensor([1, 2]), torch.Size((2, 30)), torch.tensor([0.5, 0.5]), 3)
    assert mask.shape == (2, 30)
    assert torch.equal(mask[:, None], mask_of([1, 2], 1, 30, 0.5, module=3))
