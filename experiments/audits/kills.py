"""Is anything lost when a study is killed again and again, with other programs looking at it all the while?

    python experiments/audits/kills.py [--spec experiments/quickstart.toml] [--kills 30] [--seed 0]
        [--set KEY=VALUE] [--studies FOLDER] [--undisturbed FOLDER] [--out FILE]

One study is run undisturbed. Then the same experiment is run in another folder, and its process group is killed with
SIGKILL at random moments, so often, and run again each time. All the while another program opens ``study.db`` every
second, reads it and closes it (the ``sqlite3`` command if there is one), and ``lora-search status``, ``verdict``,
``report`` and ``export`` read the study one after the other. Whatever a reader saw recorded must be there ever after,
as it was: no cell lost, none trained twice. In the end tables, predictions and verdict must be those of the undisturbed
study, to the last digit; only times may differ.

Writes results/audits/kills.json: every kill with what was recorded at that moment, and how the two studies compare.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lora_search import load_experiment
from lora_search.store.files import STUDY_FILE, json_text, write_atomically
from lora_search.store.reader import read_study
from lora_search.study.environment import commit_of, hardware

ROOT = Path(__file__).resolve().parents[2]
LOOK = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('select count(*) from lora_cells').fetchall()"
PROGRAM = (sys.executable, "-c", "from lora_search.cli import main; main()")
READING = (("status",), ("verdict",), ("report",), ("export", "OUT"))
TIMES = ["seconds", "wall_seconds", "finished_at", "pack"]
"""Columns that say when and how long, and in which pack of how many before it; not what came of it."""

Recorded = Mapping[tuple[int, int, int], str]


class Process(Protocol):
    """What is killed: the leader of a process group of its own."""

    @property
    def pid(self) -> int | None: ...


@dataclass
class Onlooker:
    """Other programs that look at a study until told to stop.

    Attributes:
        folder: the study's.
        commands: what is run, one after the other; ``OUT`` becomes a folder of its own.
        every: seconds between two of them.
        seen: looks taken.
        turned_away: of these, those that SQLite told to come back, for a run was just opening what a killed one left;
            the ``sqlite3`` command does not wait for it.
        errors: what went wrong with any of them.
    """

    folder: Path
    commands: Sequence[Sequence[str]]
    every: float
    seen: int = 0
    turned_away: int = 0
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look_on(self) -> None:
        with tempfile.TemporaryDirectory() as out:
            while not self._stop.wait(self.every):
                for command in self.commands:
                    if (self.folder / STUDY_FILE).exists():
                        self._run([part.replace("OUT", out + "/export") for part in command])

    def _run(self, command: Sequence[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.seen += 1
        if "database is locked" in done.stderr and list(command) == foreign_look(self.folder / STUDY_FILE):
            self.turned_away += 1
        # before the first trial is complete there is nothing to export
        elif done.returncode and "before there is a recommendation" not in done.stderr:
            self.errors.append(f"{' '.join(command)}: {done.returncode}: {done.stderr[-400:]}")


def foreign_look(path: Path) -> list[str]:
    """Opens the database as anybody would, reads, and closes it."""
    if found := shutil.which("sqlite3"):
        return [found, str(path), ".tables"]
    return [sys.executable, "-c", LOOK, str(path)]


def recorded(folder: Path) -> dict[tuple[int, int, int], str]:
    """The cells of a study, and when each was finished, which no later training of the same would repeat."""
    if not (folder / STUDY_FILE).exists():
        return {}
    cells = read_study(folder).cells
    keys = zip(cells["trial"], cells["repeat"], cells["fold"], strict=True)
    return dict(zip(((int(t), int(r), int(f)) for t, r, f in keys), map(str, cells["finished_at"]), strict=True))


def changed(before: Recorded, now: Recorded) -> list[str]:
    """What was recorded and is no more, or was recorded anew."""
    return [f"{key}: {'lost' if key not in now else 'trained twice'}" for key in before if now.get(key) != before[key]]


def kill_again_and_again(
    start: Callable[[], Process],
    wait: Callable[[Process], bool],
    folder: Path,
    moments: Sequence[float],
) -> list[dict[str, Any]]:
    """Start a run and kill its process group, once per moment.

    Args:
        start: begins a run, in a process group of its own.
        wait: until a started run has begun to work; False where it ended by itself.
        folder: the study's.
        moments: seconds from there to the kill.

    Returns:
        One row per kill: seconds, cells recorded after it, and what was lost or trained twice since the one before.
    """
    rows: list[dict[str, Any]] = []
    before: Recorded = {}
    for moment in moments:
        run = start()
        if not wait(run):
            break
        time.sleep(moment)
        assert run.pid is not None
        try:
            os.killpg(run.pid, signal.SIGKILL)
        except ProcessLookupError:  # it ended by itself, and the study with it
            break
        _reap(run)
        now = recorded(folder)
        rows.append({"after_seconds": round(moment, 2), "cells": len(now), "changed": changed(before, now)})
        before = now
    return rows


def _reap(run: Any) -> None:
    (run.join if hasattr(run, "join") else run.wait)()


def differences(one: Path, other: Path) -> list[str]:
    """Where two studies differ in anything but the time it took."""
    first, second = read_study(one), read_study(other)
    found = []
    for name in ("trials", "cells"):
        tables = [getattr(tables, name) for tables in (first, second)]
        kept = [table.drop(columns=[column for column in TIMES if column in table]) for table in tables]
        if not kept[0].equals(kept[1]):
            found.append(name)
    if not first.predictions().equals(second.predictions()):
        found.append("predictions")
    if without_time(first.verdict()) != without_time(second.verdict()):
        found.append("verdict")
    return found


def without_time(value: Any) -> Any:
    """JSON values less every ``seconds``."""
    if isinstance(value, dict):
        return {key: without_time(item) for key, item in value.items() if key != "seconds"}
    return [without_time(item) for item in value] if isinstance(value, list) else value


# -- the long form -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """What is run, and how often it is killed."""

    spec: str
    kills: int
    seed: int
    overrides: tuple[str, ...]


def command_of(plan: Plan, results: Path) -> list[str]:
    overrides = [part for override in plan.overrides for part in ("--set", override)]
    return [*PROGRAM, "run", plan.spec, "--results", str(results), *overrides]


def begun(run: Process) -> bool:
    """Wait until a run says that it trains something."""
    assert isinstance(run, subprocess.Popen)
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("training "):
            # nobody reads on, and what is not read would stop it in the end
            threading.Thread(target=run.stderr.read, daemon=True).start()
            return True
    return False


def audit(plan: Plan, studies: Path, undisturbed: Path | None = None) -> dict[str, Any]:
    """Run both studies and compare them; the undisturbed one may have been run before, by the same code."""
    name = load_experiment(plan.spec, plan.overrides).name
    disturbed = studies / "disturbed"
    if undisturbed is None:
        undisturbed = studies / "undisturbed" / name
        subprocess.run(command_of(plan, undisturbed.parent), check=True)
    finished = read_study(undisturbed).cells["finished_at"]
    seconds = (finished.max() - finished.min()).total_seconds()
    draw = random.Random(plan.seed)
    # spread over the whole study: each waits until its share of the cells is there, the first for none
    targets = iter([number * len(finished) // plan.kills for number in range(plan.kills)])
    moments = [draw.uniform(0.0, 2.0 * seconds / len(finished)) for _ in range(plan.kills)]
    folder, command = disturbed / name, command_of(plan, disturbed)

    def started() -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def under_way(run: Process) -> bool:
        assert isinstance(run, subprocess.Popen)
        target = next(targets)
        if not begun(run):
            return False
        while len(recorded(folder)) < target and run.poll() is None:
            time.sleep(0.5)
        return run.poll() is None

    reading = [[*PROGRAM, action, str(folder), *rest] for action, *rest in READING]
    with (
        Onlooker(folder, [foreign_look(folder / STUDY_FILE)], every=1.0) as foreign,
        Onlooker(folder, reading, every=1.0) as ours,
    ):
        kills = kill_again_and_again(started, under_way, folder, moments)
        before = recorded(folder)
        subprocess.run(command, check=True)
        last = changed(before, recorded(folder))
    return {
        "kills": kills,
        "lost_or_twice": sum(len(row["changed"]) for row in kills) + len(last),
        "different": differences(undisturbed, folder),
        "looks_of_another_program": foreign.seen,
        "of_them_told_to_come_back": foreign.turned_away,
        "looks_of_ours": ours.seen,
        "errors": [*foreign.errors, *ours.errors],
        "cells": len(recorded(folder)),
        "undisturbed_seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default=str(ROOT / "experiments/quickstart.toml"))
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override a value of the file")
    parser.add_argument("--studies", type=Path, help="where the two studies go; a temporary folder by default")
    parser.add_argument("--undisturbed", type=Path, help="the folder of that study, where it was run before")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/kills.json")
    arguments = parser.parse_args()
    plan = Plan(arguments.spec, arguments.kills, arguments.seed, tuple(arguments.overrides))
    with tempfile.TemporaryDirectory() as temporary:
        found = audit(plan, arguments.studies or Path(temporary), arguments.undisturbed)
    record = {
        **asdict(plan),
        "spec": Path(plan.spec).name,
        **found,
        "hardware": hardware(),
        "commit": commit_of(ROOT / "lora_search"),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, json_text(record))
    print(json.dumps({key: record[key] for key in ("lost_or_twice", "different", "errors", "cells")}, indent=1))


if __name__ == "__main__":
    main()
