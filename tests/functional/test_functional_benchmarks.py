"""Benchmarks: those that need a machine the tests do not have run on toys, or say why not; ratios are what they say."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def gpu_benchmark(tmp_path, *arguments):
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, ROOT / "experiments/benchmarks/gpu.py", "--out", out, *arguments],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done, out


def test_without_a_gpu_the_gpu_benchmark_says_so_in_one_line(tmp_path):
    done, out = gpu_benchmark(tmp_path)
    assert done.returncode == 2
    assert done.stderr == "gpu.py needs a CUDA GPU, and this machine has none that torch can use\n"
    assert done.stdout == ""
    assert not out.exists()


def test_the_gpu_benchmark_runs_on_toy_shapes_and_records_nothing(tmp_path):
    done, out = gpu_benchmark(tmp_path, "--device", "cpu", "--tiny")
    assert done.returncode == 0, done.stderr
    each = ["plain loop", "pack", "pack"]
    said = [line.split(" {")[0] for line in done.stdout.splitlines()]
    assert said == ["bert-base", *each, "llama-1b", *each]
    assert not out.exists()


def memory_benchmark():
    place = importlib.util.spec_from_file_location("memory", ROOT / "experiments/benchmarks/memory.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_memory_is_compared_as_a_whole_and_as_what_grew_since_loading():
    def rows(*measured):
        return [{"peak_beyond_own_state": peak, "growth_beyond_own_state": growth} for peak, growth in measured]

    ratios = memory_benchmark().ratios({1: rows((800, 100), (790, 90), (999, 299)), 20: rows((1000, 300), (1, 2000))})
    assert ratios == {
        "ratio": 500.5 / 800,
        "growth_ratio": 1150 / 100,
        "peak_beyond_own_state": {"1": 800, "20": 500.5},
        "growth_beyond_own_state": {"1": 100, "20": 1150},
    }


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_a_memory_measurement_takes_off_what_was_loaded_and_the_adapters_own_state(world, monkeypatch):
    memory = memory_benchmark()
    monkeypatch.setattr(memory, "load_experiment", lambda path, overrides: world.experiment())
    measured = memory.measure_here(3, [])
    assert measured["trained"] == measured["cells"] == 3
    assert measured["own_state"] % 3 == 0
    assert measured["peak_beyond_own_state"] == measured["peak"] - measured["own_state"]
    assert measured["growth_beyond_own_state"] == measured["peak"] - measured["loaded"] - measured["own_state"]
