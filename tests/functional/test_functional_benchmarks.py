"""Benchmarks that need a machine the tests do not have: their code runs, and where they cannot they say so."""

import os
import subprocess
import sys
from pathlib import Path

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
