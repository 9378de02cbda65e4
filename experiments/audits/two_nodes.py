"""Is anything lost when a node of a cluster goes, and then the driver?

    python experiments/audits/two_nodes.py [--spec experiments/quickstart.toml] [--set KEY=VALUE] [--port 6399]
        [--studies FOLDER] [--out FILE]

A study is trained in one process. Then the same experiment is trained in another folder by a Ray cluster of two nodes
on this machine, at 127.0.0.2 and 127.0.0.3, of one CPU each. When a third of its cells is recorded, the second node is
killed; when two thirds are, the driver is. The second node is started again, and the same command goes on. What was
recorded must be there ever after, as it was: no cell lost, none trained twice. In the end adapters, scores and verdict
must be those of the study of one process, but for rounding.

Writes results/audits/two_nodes.json. Needs Ray: ``pip install 'lora-search[ray]'``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from kills import PROGRAM, changed, recorded

from lora_search import load_experiment
from lora_search.store.files import json_text, write_atomically
from lora_search.store.reader import read_study
from lora_search.study.environment import commit_of, hardware, versions

ROOT = Path(__file__).resolve().parents[2]
HEAD, SECOND = "127.0.0.2", "127.0.0.3"
RAY = (sys.executable, "-c", "from ray.scripts.scripts import main; main()")
PATIENCE = 900.0
"""Seconds a step may take."""


class Cluster:
    """Two nodes on this machine.

    Args:
        port: of the head.
    """

    def __init__(self, port: int) -> None:
        self.address = f"{HEAD}:{port}"
        # the two are as different machines to Ray, which on one machine it has to be allowed
        self.environment = os.environ | {
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_AUTH_MODE": "disabled",  # else Ray leaves a key in the user's home
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "OMP_NUM_THREADS": "1",
        }

    def start_head(self) -> None:
        port = self.address.partition(":")[2]
        self._ray("start", "--head", f"--node-ip-address={HEAD}", f"--port={port}", "--include-dashboard=false")

    def start_second(self) -> None:
        self._ray("start", f"--address={self.address}", f"--node-ip-address={SECOND}")

    def _ray(self, *arguments: str) -> None:
        command = [*RAY, *arguments, "--num-cpus=1", "--disable-usage-stats"]
        subprocess.run(command, env=self.environment, check=True, stdout=subprocess.DEVNULL)

    def processes(self, node: str) -> list[int]:
        """Ray's own processes on a node of this cluster."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().decode("utf-8", "replace").replace("_", "-")
                except OSError:
                    continue
                # the head's store of all knows its own address alone
                ours = self.address in words or f"--gcs-server-port={self.address.partition(':')[2]}" in words
                if ours and any(f"-{name}={node}" in words for name in ("ip-address", "monitor-ip")):
                    found.append(int(entry.name))
        return found

    def kill(self, node: str) -> int:
        """End a node as a power cut would; its workers find out by themselves. How many processes it had."""
        processes = self.processes(node)
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(processes)


@contextmanager
def cluster(port: int) -> Iterator[Cluster]:
    both = Cluster(port)
    try:
        both.start_head()
        both.start_second()
        yield both
    finally:
        both.kill(SECOND)
        both.kill(HEAD)


def wait_for(folder: Path, cells: int, run: subprocess.Popen[bytes]) -> None:
    """Until so many cells are recorded, or the run has ended.

    Raises:
        TimeoutError: they are not, in the time there is.
    """
    until = time.monotonic() + PATIENCE
    while len(recorded(folder)) < cells and run.poll() is None:
        if time.monotonic() > until:
            raise TimeoutError(f"{len(recorded(folder))} of {cells} cells after {PATIENCE:.0f} seconds")
        time.sleep(0.5)


def apart(one: Path, other: Path) -> dict[str, Any]:
    """How far two studies are apart."""
    first, second = read_study(one), read_study(other)
    keys = ["trial", "repeat", "fold"]
    both = first.cells.merge(second.cells, on=keys, how="outer", suffixes=("", "_other"))
    verdicts = [study.verdict() or {} for study in (first, second)]
    adapters = ["trial", "rank", "alpha", "targets", "layers", "state"]
    return {
        "cells_of_one_alone": int(both["score"].isna().sum() + both["score_other"].isna().sum()),
        "largest_difference_of_a_score": float(np.nanmax((both["score"] - both["score_other"]).abs())),
        "same_trials": bool(first.trials[adapters].equals(second.trials[adapters])),
        "same_recommendation": verdicts[0].get("recommended", {}).get("trial")
        == verdicts[1].get("recommended", {}).get("trial"),
        "status": [verdict.get("status") for verdict in verdicts],
    }


def audit(spec: str, overrides: Sequence[str], studies: Path, port: int) -> dict[str, Any]:
    name = load_experiment(spec, overrides).name
    given = [part for override in overrides for part in ("--set", override)]

    def command(results: Path, *more: str) -> list[str]:
        return [*PROGRAM, "run", spec, "--results", str(results), *given, *more]

    alone, folder = studies / "alone" / name, studies / "cluster" / name
    start = time.monotonic()
    subprocess.run(command(alone.parent), check=True)
    alone_seconds = time.monotonic() - start
    total = len(recorded(alone))
    with cluster(port) as both:
        ray = ["execution.engine=ray", f"execution.address={both.address}"]
        in_cluster = command(folder.parent, *(part for value in ray for part in ("--set", value)))
        with (studies / "driver.log").open("wb") as log:
            start = time.monotonic()
            run = subprocess.Popen(in_cluster, env=both.environment, stderr=log)
            wait_for(folder, total // 3, run)
            at_node_loss = recorded(folder)
            killed = both.kill(SECOND)
            wait_for(folder, 2 * total // 3, run)
            before = recorded(folder)
            lost = changed(at_node_loss, before)
            run.kill()
            run.wait()
            both.start_second()
            subprocess.run(in_cluster, env=both.environment, stderr=log, check=True, timeout=PATIENCE)
            seconds = time.monotonic() - start
        lost += changed(before, recorded(folder))
    said = (studies / "driver.log").read_text(encoding="utf-8", errors="replace").splitlines()
    return {
        "cells": total,
        "cells_when_the_node_was_killed": len(at_node_loss),
        "processes_of_the_node": killed,
        "cells_when_the_driver_was_killed": len(before),
        "lost_or_twice": lost,
        "notes": [line for line in said if line.startswith("a worker")],
        "apart": apart(alone, folder),
        "seconds": {"one process": round(alone_seconds, 1), "cluster": round(seconds, 1)},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", default=str(ROOT / "experiments/quickstart.toml"))
    parser.add_argument("--set", action="append", default=[], dest="overrides", help="override a value of the file")
    parser.add_argument("--port", type=int, default=6399)
    parser.add_argument("--studies", type=Path, help="where the two studies go; a temporary folder by default")
    parser.add_argument("--out", type=Path, default=ROOT / "results/audits/two_nodes.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        found = audit(arguments.spec, arguments.overrides, arguments.studies or Path(temporary), arguments.port)
    record = {
        "spec": Path(arguments.spec).name,
        "overrides": arguments.overrides,
        **found,
        "hardware": hardware(),
        "versions": versions(),
        "commit": commit_of(ROOT / "lora_search"),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, json_text(record))
    print(json.dumps({key: record[key] for key in ("cells", "lost_or_twice", "notes", "apart")}, indent=1))


if __name__ == "__main__":
    main()
