"""live.json: what a run says of itself for whoever looks on."""

import json
import os

import pytest

from lora_search.store.files import LIVE_FILE
from lora_search.store.records import CellKey
from lora_search.study.live import LiveFile
from lora_search.study.progress import Silent
from lora_search.training import Step


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Heard(Silent):
    def __init__(self):
        self.steps = 0
        self.ended = False

    def step(self, step):
        self.steps += 1

    def end(self):
        self.ended = True


@pytest.fixture
def run(tmp_path):
    clock, heard = Clock(), Heard()
    live = LiveFile(heard, tmp_path, clock)
    live.begin("study", 2, 4, 0.0, 20.0, None)
    return live, clock, heard, lambda: json.loads((tmp_path / LIVE_FILE).read_text(encoding="utf-8"))


def step(number, loss=0.5, **losses):
    keys = {CellKey(int(name[1:]), 0, 1): value for name, value in losses.items()}
    return Step(step=number, steps=100, epoch=1, epochs=2, tokens=10, loss=loss, losses=keys)


def test_it_says_who_runs_how_far_and_with_what_loss(run):
    live, clock, heard, said = run
    assert (said()["state"], said()["process"]) == ("running", os.getpid())
    live.pack("trials 0, 1 / fold 1", 10.0)
    clock.now = 5.0
    live.step(step(50, 0.25))
    found = said()
    assert found["share"] == 0.25
    assert found["left"] == 15.0
    assert found["title"] == "trials 0, 1 / fold 1"
    assert found["losses"] == [[50, 0.25]]
    live.end()
    assert said()["state"] == "ended"
    assert heard.ended


def test_it_is_written_at_most_once_a_second_and_passes_every_step_on(run):
    live, clock, heard, said = run
    live.pack("trial 0 / fold 1", 10.0)
    for number in range(1, 100):
        clock.now += 0.1
        live.step(step(number))
    assert heard.steps == 99
    assert 8 <= len(said()["losses"]) <= 10
    live.step(step(100))
    assert said()["step"] == 100


def test_each_training_of_a_pack_has_its_own_curve_of_means(run):
    live, clock, _, said = run
    live.pack("trials 3, 5 / fold 2", 10.0)
    for number in range(1, 21):
        clock.now += 0.25
        live.step(step(number, t3=1.0 / number, t5=float("nan") if number == 4 else 2.0))
    first, second = said()["curves"]
    assert (first["cell"], second["cell"]) == ([3, 0, 1], [5, 0, 1])
    assert [at for at, _ in first["losses"]] == [4, 8, 12, 16, 20]
    assert first["losses"][0][1] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, abs=1e-4)
    assert {loss for _, loss in second["losses"]} == {2.0}
    live.pack("trial 3 / fold 3", 10.0)
    assert said()["curves"] == []


def test_curves_stay_few_and_short(run):
    live, clock, _, said = run
    live.pack("100 trials", 10.0)
    for number in range(1, 400):
        clock.now += 2.0
        live.step(step(number, **{f"t{trial}": 0.5 for trial in range(100)}))
    curves = said()["curves"]
    assert len(curves) == 40
    assert max(len(curve["losses"]) for curve in curves) <= 61
    assert curves[0]["losses"][-1][0] > 390


def test_the_losses_of_a_long_training_are_thinned_evenly(run):
    live, clock, _, said = run
    live.pack("trial 0 / fold 1", 10.0)
    for number in range(1, 1000):
        clock.now += 2.0
        live.step(Step(step=number, steps=2000, epoch=1, epochs=1, tokens=10, loss=1 / number))
    losses = said()["losses"]
    assert len(losses) <= 201
    assert losses[0][0] == 1
    assert losses[-1][0] > 990


def test_a_loss_that_is_no_number_is_left_out_and_a_folder_that_is_gone_stops_nothing(run, tmp_path):
    live, clock, heard, said = run
    live.pack("trial 0 / fold 1", 10.0)
    clock.now = 3.0
    live.step(step(1, float("nan")))
    assert said()["losses"] == []
    gone = LiveFile(heard, tmp_path / "gone", clock)
    gone.begin("study", 1, 1, 0.0, 1.0, None)
    gone.end()
