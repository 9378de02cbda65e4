"""Durations, what is left, and what a run says."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lora_search.spec import AdapterSpec, Nuisance
from lora_search.store.records import CellKey, TrialRecord
from lora_search.study.progress import Estimate, PlainLines, Terminal, duration, opening, pack_title, time_left_phrase
from lora_search.training import Step


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0s"),
        (1, "1s"),
        (59.4, "59s"),
        (59.5, "1m 00s"),
        (75, "1m 15s"),
        (3599.6, "1h 00m"),
        (7380, "2h 03m"),
        (90000, "25h 00m"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 1e6))
def test_a_duration_is_right_to_its_last_unit(seconds):
    hours, minutes, rest = (
        int(n or 0) for n in re.fullmatch(r"(?:(\d+)h ?)?(?:(\d+)m ?)?(?:(\d+)s)?", duration(seconds)).groups()
    )
    assert minutes < 60
    assert rest < 60
    shown = 3600 * hours + 60 * minutes + rest
    assert abs(shown - seconds) <= (60.5 if hours else 0.5 + 1e-9)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_is_left_follows_the_rate_of_this_run():
    clock = Clock()
    estimate = Estimate(done=100.0, ahead=50.0, clock=clock)
    assert estimate.left(0.0) is None, "no rate yet"
    estimate.begin_pack(10.0)
    clock.now = 5.0
    assert estimate.left(0.5) == pytest.approx(45.0), "5 of 50 took 5 s; the 100 of earlier runs say nothing"
    clock.now = 10.0
    estimate.begin_pack(20.0)
    assert estimate.left(0.0) == pytest.approx(40.0)
    clock.now = 20.0
    assert estimate.left(0.5) == pytest.approx(30.0)
    estimate.expect(0.0)
    assert estimate.left(0.5) == pytest.approx(10.0), "racing stopped all that was to follow"
    clock.now = 30.0
    estimate.expect(30.0)
    assert estimate.left(1.0) == pytest.approx(30.0), "finalists get more"


@given(
    st.lists(st.floats(0.1, 10), min_size=1, max_size=10),
    st.floats(0.1, 10),
)
def test_at_a_steady_rate_what_is_left_is_exact(packs, rate):
    clock = Clock()
    estimate = Estimate(0.0, sum(packs), clock)
    for number, work in enumerate(packs):
        estimate.begin_pack(work)
        clock.now += work / rate
        assert estimate.left(1.0) == pytest.approx(sum(packs[number + 1 :]) / rate, abs=1e-6)


def test_nothing_is_said_of_no_time():
    assert time_left_phrase(None) == time_left_phrase(0.4) == []
    assert time_left_phrase(75.0) == ["about 1m 15s left"]


def test_titles():
    assert pack_title([CellKey(3, 0, 1)]) == "trial 3 / fold 2"
    assert pack_title([CellKey(9, 1, 0), CellKey(3, 1, 0)]) == "trials 3, 9 / fold 1, repeat 2"
    assert pack_title([CellKey(trial, 0, 0) for trial in range(9)]) == "trials 0, 1, 2, 3, 4, 5 and 3 more / fold 1"
    assert opening("reviews", 1, 2) == "reviews: 1 trial, 2 trainings to go"
    assert opening("reviews", 2, 0) == "reviews: every trial is finished"


def record(number, state, failure=None):
    adapter = AdapterSpec(rank=2, alpha=4, targets="attention", layers="top-1/2")
    return TrialRecord(number, adapter, Nuisance(learning_rate=1e-3), 100, 10, "sampler", state, failure)


def tell(progress):
    progress.begin("reviews", 12, 24, 0.0, 48.0, 0.7)
    progress.note("A note [with brackets].")
    progress.pack("trials 0, 1 / fold 1", 4.0)
    progress.step(Step(1, 2, 1, 1, 100, 0.69))
    progress.trial(record(0, "complete"), 0.8125)
    progress.trial(record(1, "pruned", "worse"), 0.5)
    progress.trial(record(2, "failed", "the loss was nan at step 3 of 9"), None)
    progress.expect(3.0)
    progress.end()


def test_plain_lines():
    stream = io.StringIO()
    tell(PlainLines(stream))
    assert stream.getvalue().splitlines() == [
        "reviews: 12 trials, 24 trainings to go",
        "A note [with brackets].",
        "training trials 0, 1 / fold 1",
        "trial 0 of 12: 0.812 (best 0.812)  r=2, alpha=4, attention, layers top-1/2",
        "trial 1 of 12: 0.500 so far, stopped: worse (best 0.812)  r=2, alpha=4, attention, layers top-1/2",
        "trial 2 of 12: failed: the loss was nan at step 3 of 9 (best 0.812)  r=2, alpha=4, attention, layers top-1/2",
    ]


def test_a_terminal():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    tell(Terminal(console))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    for text in (
        "A note [with brackets].",
        "trials 0, 1 / fold 1  epoch 1/1  loss 0.690  best 0.700",
        "trial   0  0.812",
    ):
        assert text in shown
    assert "0.500 so far, stopped: worse" in shown


@pytest.mark.parametrize("name", ["step", "expect"])
def test_a_terminal_is_not_confused_by_what_comes_before_the_beginning(name):
    progress = Terminal(Console(file=io.StringIO()))
    progress.step(Step(1, 2, 1, 1, 100, 0.69)) if name == "step" else progress.expect(1.0)
    progress.end()
