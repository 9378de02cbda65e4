"""Benchmarks: those that need a machine the tests do not have run on toys, or say why not; ratios are what they say."""

import sys
from contextlib import nullcontext

import pytest
import torch
from experiment_scripts import EXPERIMENTS, benchmark_module


@pytest.fixture
def gpu_benchmark(monkeypatch, tmp_path, capsys):
    """Runs it without a GPU; its exit code, what it printed on either stream, and where its record would be."""

    def run(*arguments):
        out = tmp_path / "gpu.json"
        monkeypatch.syspath_prepend(EXPERIMENTS / "benchmarks")  # as it is for a script that lies there
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(sys, "argv", ["gpu.py", "--out", str(out), *arguments])
        return benchmark_module("gpu").main(), *capsys.readouterr(), out

    return run


def test_without_a_gpu_the_gpu_benchmark_says_so_in_one_line(gpu_benchmark):
    code, printed, complaint, out = gpu_benchmark()
    assert code == 2
    assert complaint == "gpu.py needs a CUDA GPU, and this machine has none that torch can use\n"
    assert printed == ""
    assert not out.exists()


def test_the_gpu_benchmark_runs_on_toy_shapes_and_records_nothing(gpu_benchmark):
    code, printed, complaint, out = gpu_benchmark("--device", "cpu", "--tiny")
    assert code == 0, complaint
    each = ["plain loop", "pack", "pack"]
    assert [line.split(" {")[0] for line in printed.splitlines()] == ["bert-base", *each, "llama-1b", *each]
    assert not out.exists()


def test_memory_is_compared_as_a_whole_and_as_what_grew_since_loading():
    def rows(*measured):
        return [{"peak_beyond_own_state": peak, "growth_beyond_own_state": growth} for peak, growth in measured]

    ratios = benchmark_module("memory").ratios(
        {1: rows((800, 100), (790, 90), (999, 299)), 20: rows((1000, 300), (1, 2000))}
    )
    assert ratios == {
        "ratio": 500.5 / 800,
        "growth_ratio": 1150 / 100,
        "peak_beyond_own_state": {"1": 800, "20": 500.5},
        "growth_beyond_own_state": {"1": 100, "20": 1150},
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_a_memory_measurement_takes_off_what_was_loaded_and_the_adapters_own_state(world, monkeypatch):
    memory = benchmark_module("memory")
    monkeypatch.setattr(memory, "load_experiment", lambda path, overrides: world.experiment())
    measured = memory.measure_here(3, [])
    assert measured["trained"] == measured["cells"] == 3
    assert measured["own_state"] % 3 == 0
    assert measured["peak_beyond_own_state"] == measured["peak"] - measured["own_state"]
    assert measured["growth_beyond_own_state"] == measured["peak"] - measured["loaded"] - measured["own_state"]


def test_a_recorded_study_is_dealt_to_workers_step_by_step():
    simulator = benchmark_module("schedule_simulator")
    study = simulator.read_recorded(EXPERIMENTS.parent / "results/recorded/quickstart")
    cells = [key for step in study.steps for key in step]
    assert len(cells) == len(set(cells)) == sum(pack[0] for pack in study.packs)
    assert all(len({(key.trial, key.repeat, key.fold) for key in step}) == len(step) for step in study.steps)
    seconds_of = simulator.line_through(study.packs)
    assert seconds_of(1, 2.0) > seconds_of(1, 1.0) > 0
    driver = {"row_seconds": 0.0, "judging": 0.5}
    alone = simulator.simulate(study, 1, seconds_of, 1, **driver)
    assert alone["training"] * alone["seconds"] + 0.5 * len(study.steps) == pytest.approx(alone["seconds"])
    many = simulator.simulate(study, 1000, seconds_of, 2000, **driver)
    longest = sum(max(seconds_of(1, study.layers(key)) for key in step) for step in study.steps)
    assert many["seconds"] == pytest.approx(longest + 0.5 * len(study.steps)), "the longest training of each step"
    wide = study.wider(3)
    assert [len(step) for step in wide.steps] == [3 * len(step) for step in study.steps]
    rows = [{"workers": 1, "times_as_fast": 1.0}, {"workers": 2, "times_as_fast": 1.9}]
    assert simulator.saturation([*rows, {"workers": 4, "times_as_fast": 2.0}]) == 2


def test_larger_packs_are_faster_on_a_gpu():
    seconds_of = benchmark_module("schedule_simulator").as_on_gpu([(1, 6.0, 12.0)], [(1, 100.0), (4, 300.0)])
    assert seconds_of(1, 6.0) == 12.0
    assert seconds_of(4, 24.0) == pytest.approx(16.0)


def test_products_of_slots_are_told_from_those_of_attention(monkeypatch):
    monkeypatch.syspath_prepend(EXPERIMENTS / "benchmarks")
    kind_of = benchmark_module("anatomy").kind_of
    assert kind_of("aten::bmm", [[8, 40, 16], [8, 16, 384]], slots=8) == "adapters' products"
    assert kind_of("aten::bmm", [[96, 40, 32], [96, 32, 40]], slots=8) == "attention"
    assert kind_of("aten::addmm", [[1536], [320, 384], [384, 1536]], slots=8) == "frozen products"
    assert kind_of("aten::gelu_backward", [], slots=8) == "activations"
    assert kind_of("aten::copy_", [], slots=8) == "copies"


def test_two_engines_take_turns_and_each_round_has_its_ratio(monkeypatch):
    pace = benchmark_module("pace")
    seconds = {"older": iter([6.0, 9.0, 4.0]), "newer": iter([3.0, 3.0, 4.0])}
    turns = []

    def asked(engine):
        turns.append(engine)
        return dict.fromkeys(pace.CLOCKS, next(seconds[engine]))

    monkeypatch.setattr(
        pace, "started", lambda checkout, work: nullcontext("newer" if checkout == pace.ROOT else "older")
    )
    monkeypatch.setattr(pace, "asked", asked)
    row = pace.measure(EXPERIMENTS, 3, {})
    assert turns == ["older", "newer", "newer", "older", "older", "newer"]
    assert [one["seconds"] for one in row["older"]] == [6.0, 9.0, 4.0]
    assert row["ratio_of_processor_seconds"] == 2.0
    assert row["ratio_of_least_processor_seconds"] == pytest.approx(4 / 3)
