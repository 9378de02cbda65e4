"""A pack's storage: initial weights, reading, loading, resetting, merging, and leaving the model as it was."""

import math
import os

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import GPT2Config, GPT2ForSequenceClassification
from transformers.pytorch_utils import Conv1D

from lora_search.adapters import AdapterPack, Rows, SlotAdapter, from_peft_state, key_of, merge_into, to_peft_state
from lora_search.adapters import pack as pack_module
from lora_search.adapters.initial import initial_a, initial_head_weight


class Small(nn.Module):
    """Rows (n, 2, 6) to logits (n, 3): two linear modules of either kind, then a head with a norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.second = Conv1D(5, 8)
        self.dense = nn.Linear(5, 4)
        self.norm = nn.LayerNorm(4)
        self.out = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        hidden = torch.tanh(self.second(torch.tanh(self.first(x)))).mean(1)
        return self.out(self.norm(self.dense(hidden)))


HEAD = ("dense", "norm", "out")


def small_model():
    torch.manual_seed(0)
    return Small().eval().requires_grad_(False)


def slot(modules=("first", "second"), rank=2, scale=1.5, key=1, dropout=0.0):
    return SlotAdapter(frozenset(modules), rank, scale, key, dropout)


def shaken(pack, index, seed=0):
    """Give a slot weights that are all different from zero."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: value + 0.3 * torch.randn(value.shape, generator=generator) for name, value in pack.state(index).items()
    }
    pack.load(index, state)
    return state


# -- initial weights ---------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.integers(0, 2**63), st.integers(1, 6), st.integers(1, 6), st.integers(1, 20))
def test_the_a_of_a_rank_is_the_first_rows_of_the_a_of_a_larger_one(key, low, more, features):
    large = initial_a(key, "m", low + more, features)
    assert torch.equal(initial_a(key, "m", low, features), large[:low])
    assert large.abs().max() <= 1 / math.sqrt(features)


def test_a_is_uniform_as_pefts():
    # kaiming_uniform_(a=sqrt(5)) is uniform on +-sqrt(6 / ((1 + 5) in)) = +-1/sqrt(in), so its variance is 1/(3 in)
    a = initial_a(3, "m", 200, 100)
    reference = nn.init.kaiming_uniform_(torch.empty(200, 100), a=math.sqrt(5))
    assert a.abs().max() == pytest.approx(reference.abs().max().item(), rel=1e-2)
    assert a.var().item() == pytest.approx(1 / 300, rel=0.03)
    assert abs(a.mean().item()) < 5 * (1 / 300 / a.numel()) ** 0.5


def test_modules_and_keys_draw_weights_of_their_own():
    draws = [initial_a(key, name, 2, 5) for key, name in ((1, "a"), (1, "b"), (2, "a"))]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert key_of(1, "a") == 3673330623977531562


def test_a_head_starts_the_same_whatever_the_adapter_beside_it():
    pack = AdapterPack(
        small_model(), [slot(rank=1), slot(("first",), rank=7, scale=9.0), slot((), key=2)], HEAD, head_deviation=0.5
    )
    one, other, elsewhere = (pack.state(index) for index in range(3))
    for name in ("dense.weight", "out.weight"):
        assert torch.equal(one[name], other[name])
        assert not torch.equal(one[name], elsewhere[name])
    assert torch.equal(one["dense.bias"], torch.zeros(4))
    assert torch.equal(one["norm.weight"], torch.ones(4))
    assert torch.equal(one["norm.bias"], torch.zeros(4))
    assert initial_head_weight(1, "m", (300, 300), 0.5).std().item() == pytest.approx(0.5, rel=0.01)


def test_a_new_slot_computes_what_the_frozen_model_with_its_head_does():
    model, x = small_model(), torch.randn(3, 2, 6)
    pack = AdapterPack(model, [slot()], HEAD)
    twin = small_model()
    merge_into(twin, {k: v for k, v in pack.state(0).items() if "lora" not in k}, scale=1.5)
    with pack.attached(), torch.no_grad():
        pack.rows = Rows([0] * 3)
        torch.testing.assert_close(model(x), twin(x))


# -- reading, loading, resetting ----------------------------------------------------------------------------------


def test_a_state_has_the_slots_own_modules_and_rank():
    pack = AdapterPack(small_model(), [slot(rank=3), slot(("second",), rank=1)], HEAD)
    shapes = {name: tuple(value.shape) for name, value in pack.state(0).items()}
    head = {"dense.weight": (4, 5), "dense.bias": (4,), "norm.weight": (4,), "norm.bias": (4,), "out.weight": (3, 4)}
    assert shapes == {
        "first.lora_A": (3, 6),
        "second.lora_A": (3, 8),
        "first.lora_B": (8, 3),
        "second.lora_B": (5, 3),
        **head,
    }
    shapes = {name: tuple(value.shape) for name, value in pack.state(1).items()}
    assert shapes == {"second.lora_A": (1, 8), "second.lora_B": (5, 1), **head}


def test_what_is_loaded_is_read_back_and_other_slots_keep_theirs():
    pack = AdapterPack(small_model(), [slot(rank=3), slot(("second",), rank=1)], HEAD)
    before = pack.state(0)
    loaded = shaken(pack, 1)
    assert all(torch.equal(value, loaded[name]) for name, value in pack.state(1).items())
    assert all(torch.equal(value, before[name]) for name, value in pack.state(0).items())


def test_a_state_is_a_copy():
    pack = AdapterPack(small_model(), [slot()], HEAD)
    pack.state(0)["first.lora_A"].fill_(99.0)
    assert pack.values.max() < 99


def test_a_state_that_does_not_fit_is_refused():
    pack = AdapterPack(small_model(), [slot(rank=3), slot(rank=2)], HEAD)
    with pytest.raises(ValueError, match=r"first.lora_A: the slot has shape \(2, 6\), got \(3, 6\)"):
        pack.load(1, pack.state(0))
    with pytest.raises(KeyError, match=r"first\.lora_A"):
        pack.load(1, {})


def test_a_reset_slot_starts_over_and_computes_so():
    model, x = small_model(), torch.randn(2, 2, 6)
    pack = AdapterPack(model, [slot(), slot(rank=4)], HEAD)
    fresh = pack.state(1)
    with pack.attached(), torch.no_grad():
        pack.rows = Rows([1, 1])
        start = model(x)
        other = shaken(pack, 0)
        shaken(pack, 1)
        assert not torch.allclose(model(x), start)
        pack.gradients.fill_(1.0)
        pack.reset(1)
        assert torch.equal(model(x), start)
    assert all(torch.equal(value, fresh[name]) for name, value in pack.state(1).items())
    assert all(torch.equal(value, other[name]) for name, value in pack.state(0).items())
    assert pack.gradients[1].abs().max() == 0
    assert pack.gradients[0].min() == 1


def test_past_a_slots_own_rank_and_modules_everything_stays_zero():
    model = small_model()
    pack = AdapterPack(model, [slot(rank=4), slot(("second",), rank=1)], HEAD)
    shaken(pack, 0)
    shaken(pack, 1)
    with pack.attached():
        pack.rows = Rows([0, 0, 1, 1, 1])
        cross_entropy(model(torch.randn(5, 2, 6)), torch.tensor([0, 1, 2, 0, 1])).backward()
    own = sum(value.numel() for value in pack.state(1).values())
    assert int((pack.values[1] != 0).sum()) == own
    assert int((pack.gradients[1] != 0).sum()) == own


# -- blocks ---------------------------------------------------------------------------------------------------------


@st.composite
def adapters_and_slots(draw):
    """Slots of mixed ranks and modules, and any of their numbers, ascending."""
    modules = st.sets(st.sampled_from(["first", "second"]))
    drawn = draw(st.lists(st.tuples(st.integers(1, 5), modules), min_size=1, max_size=6))
    adapters = [slot(names, rank, key=index) for index, (rank, names) in enumerate(drawn)]
    return adapters, sorted(draw(st.sets(st.sampled_from(range(len(adapters))))))


def trained_places(pack, slots):
    """bool (slots, parameters): where the slots' own parameters lie, found by loading them."""
    places = AdapterPack(small_model(), pack.adapters, HEAD)
    places.values.zero_()
    for index in slots:
        places.load(index, {name: torch.ones_like(value) for name, value in places.state(index).items()})
    return places.values.bool()


def rank_room(pack, index):
    """Parameters of a slot that would train every module of its pack."""
    everything = SlotAdapter(frozenset(pack.target_modules), pack.adapters[index].rank, 1.0, 0)
    return sum(value.numel() for value in AdapterPack(small_model(), [everything], HEAD).state(0).values())


@pytest.mark.parametrize("block", [2**17, 4])
@given(adapters_and_slots())
def test_blocks_hold_every_parameter_of_the_slots_once_and_no_other_slots(block, drawn):
    adapters, slots = drawn
    pack = AdapterPack(small_model(), adapters, HEAD)
    times = torch.zeros_like(pack.values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack_module, "_BLOCK", block)
        for part in pack.blocks(slots):
            part.of(times).add_(1)
    own = trained_places(pack, slots)
    assert times.max() <= 1
    assert times[own].eq(1).all()
    others = [index for index in range(len(adapters)) if index not in slots]
    assert not times[others].any()
    # past the slot's own modules there is only room that the pack has for others
    assert times.count_nonzero() <= sum(rank_room(pack, index) for index in slots)


@settings(max_examples=40)
@given(adapters_and_slots())
def test_a_refresh_of_some_slots_is_seen_by_these_alone(drawn):
    adapters, slots = drawn
    pack = AdapterPack(small_model(), adapters, HEAD)
    model, x = pack.model, torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(0))

    def computed():
        found = []
        with pack.attached(), torch.no_grad():
            for index in range(len(adapters)):
                pack.rows = Rows([index] * 2)
                found.append(model.first(x))
        return found

    before = computed()
    pack.values.add_(0.1 * trained_places(pack, range(len(adapters))))
    pack.refresh(slots)
    after = computed()
    for index, adapter in enumerate(adapters):
        changes = index in slots and "first" in adapter.modules
        assert torch.equal(before[index], after[index]) is not changes


# -- the model around it ------------------------------------------------------------------------------------------


def test_the_model_is_as_it_was_after_the_block_even_after_an_error():
    model = small_model()
    modules = dict(model.named_modules())
    pack = AdapterPack(model, [slot()], HEAD)
    pack.rows = Rows([0])
    with pack.attached():
        assert model.get_submodule("first") is not modules["first"]
    assert dict(model.named_modules()) == modules
    with pytest.raises(RuntimeError, match="shape"), pack.attached():
        model(torch.zeros(1, 2, 7))
    assert dict(model.named_modules()) == modules
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_merged_weights_give_the_logits_of_the_attached_slot(scale):
    model, x = small_model(), torch.randn(4, 2, 6)
    pack = AdapterPack(model, [slot(), slot(("second",), rank=3, scale=scale, key=5)], HEAD)
    shaken(pack, 0)
    state = shaken(pack, 1, seed=1)
    with pack.attached(), torch.no_grad():
        pack.rows = Rows([1] * 4)
        attached = model(x)
    twin = small_model()
    merge_into(twin, state, scale)
    torch.testing.assert_close(twin(x), attached)
    assert not torch.allclose(small_model()(x), attached, atol=1e-2)


def test_merging_fits_gpt2():
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=30, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    model = GPT2ForSequenceClassification(config).eval().requires_grad_(False)
    ids = torch.tensor([[3, 4, 5, 6], [7, 8, 9, 0]])
    pack = AdapterPack(model, [slot(("transformer.h.1.attn.c_attn", "transformer.h.0.mlp.c_fc"))], ["score"])
    state = shaken(pack, 0)
    with pack.attached(), torch.no_grad():
        pack.rows = Rows([0, 0])
        attached = model(input_ids=ids).logits
    merge_into(model, state, scale=1.5)
    torch.testing.assert_close(model(input_ids=ids).logits, attached, rtol=1e-5, atol=1e-5)


def test_a_slot_that_is_not_a_number_leaves_its_neighbours_alone():
    model, x = small_model(), torch.randn(6, 2, 6)
    results = []
    for broken in (False, True):
        pack = AdapterPack(model, [slot(), slot(rank=3, key=2), slot(key=3)], HEAD)
        if broken:
            pack.load(1, {name: torch.full_like(v, torch.nan) for name, v in pack.state(1).items()})
        with pack.attached():
            pack.rows = Rows([0, 0, 1, 1, 2, 2])
            logits = model(x)
            cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2]), reduction="sum").backward()
        results.append((logits.detach(), pack.gradients.clone()))
    (sound, gradients), (damaged, damaged_gradients) = results
    keep = [0, 2]
    assert torch.equal(damaged[[0, 1, 4, 5]], sound[[0, 1, 4, 5]])
    assert torch.equal(damaged_gradients[keep], gradients[keep])
    assert damaged[2:4].isnan().all()


# -- PEFT's names -------------------------------------------------------------------------------------------------

NAMES = st.lists(st.sampled_from(["encoder", "layer", "0", "11", "query", "lora", "weight"]), min_size=1, max_size=4)


@given(st.lists(NAMES.map(".".join), min_size=1, max_size=5, unique=True), st.lists(NAMES.map(".".join), unique=True))
def test_names_survive_the_round_trip_to_pefts(modules, heads):
    state = {f"{name}.{kind}": torch.zeros(1) for name in modules for kind in ("lora_A", "lora_B")}
    state |= {f"{name}.{kind}": torch.ones(1) for name in heads for kind in ("weight", "bias")}
    named = to_peft_state(state)
    assert len(named) == len(state)
    assert all(name.startswith("base_model.model.") for name in named)
    back = from_peft_state(named)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_peft_gets_contiguous_tensors():
    value = torch.zeros(3, 4).t()
    assert all(t.is_contiguous() for t in to_peft_state({"m.lora_A": value, "m.lora_B": value}).values())


# -- lanes -------------------------------------------------------------------------------------------------------


def test_a_lane_leaves_gradients_of_its_own_and_they_add_up():
    torch.manual_seed(1)
    x, labels = torch.randn(4, 2, 6), torch.tensor([0, 1, 2, 0])
    adapters = [slot(), slot(("second",), rank=3)]

    def backward(pack, rows):
        with pack.attached():
            pack.rows = Rows([int(row >= 2) for row in rows])
            cross_entropy(pack.model(x[rows]), labels[rows], reduction="sum").backward()

    whole, shared = AdapterPack(small_model(), adapters, HEAD), AdapterPack(small_model(), adapters, HEAD, lanes=3)
    for pack in (whole, shared):
        for index in range(2):
            shaken(pack, index)
    backward(whole, [0, 1, 2, 3])
    for lane, rows in ((2, [0, 2]), (1, [1, 3])):
        before = shared.lane_gradients.clone()
        shared.take_lane(lane)
        backward(shared, rows)
        changed = (shared.lane_gradients != before).flatten(1).any(1)
        assert changed.tolist() == [number == lane for number in range(3)]
    for index in range(2):
        for name, expected in whole.slot_gradients(index).items():
            torch.testing.assert_close(shared.slot_gradients(index)[name], expected)
    for block in shared.blocks([0, 1]):
        shared.finish_gradients(block)
    for block in whole.blocks([0, 1]):
        whole.finish_gradients(block)
    torch.testing.assert_close(shared.gradients, whole.gradients)
    assert not shared.lane_gradients[1:].any()


def test_a_pack_of_lanes_lies_where_forked_processes_share_it():
    pack = AdapterPack(small_model(), [slot()], HEAD, lanes=2)
    child = os.fork()
    if not child:
        pack.values.fill_(7.0)
        pack.lane_gradients[1].fill_(8.0)
        os._exit(0)
    os.waitpid(child, 0)
    assert pack.values.unique().tolist() == [7.0]
    assert [gradients.unique().tolist() for gradients in pack.lane_gradients] == [[0.0], [8.0]]
