"""How fast runs are judged, on this machine and now: a simulated run of 5,000,000 events, part of `make bench`.

Each figure is a JSON line with name, value and unit: seconds and peak memory of `harness check` in a process
of its own, and events/s of either oracle on the same events (the reference on a part of them).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from harness import scenario
from harness.errors import ScenarioError
from harness.experiments.simulate import simulate
from harness.judge import timeline
from harness.judge.timeline import Evidence
from harness.rundir import history
from harness.scenario import Scenario

EPS = 5000
REFERENCE_EVENTS = 450_000


def simulated(directory: Path, events: int) -> Evidence:
    """The load scenario, long enough for so many events, as a right run."""
    simulate(directory, chosen(events))
    return timeline.gather(history.read(directory))


def chosen(events: int) -> Scenario:
    """Its measured part is as long as warm-up and cool-down leave; ScenarioError where they leave nothing."""
    given = [f"load.eps={EPS}"]
    load = scenario.load("load", given).load
    beside = replace(load, duration_s=0).events
    return scenario.load("load", [*given, f"load.duration_s={(events - beside) / EPS}"])


def check(directory: Path) -> tuple[float, int]:
    """(seconds, peak resident bytes) of `harness check` on a run."""
    start, peak = time.perf_counter(), 0
    checking = psutil.Popen(
        [sys.executable, "-m", "harness", "check", str(directory)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while checking.poll() is None:
        peak = max(peak, checking.memory_info().rss)
        time.sleep(0.02)
    if checking.returncode:
        raise SystemExit(f"bench: harness check {directory} ended with {checking.returncode}")
    return time.perf_counter() - start, peak


def rate(gathered: Evidence, oracle: Callable[[Evidence], Any]) -> float:
    """Events per second of an oracle, from evidence in memory to every expected row."""
    start = time.perf_counter()
    oracle(gathered)
    return len(gathered.sent["n"]) / (time.perf_counter() - start)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(prog="python -m harness.experiments.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the median counts")
    parser.add_argument("--events", type=int, default=5_000_000)
    asked = parser.parse_args()
    try:
        chosen(asked.events)
    except ScenarioError as error:
        parser.error(f"--events {asked.events:,}: {error}")
    with tempfile.TemporaryDirectory(prefix="harness-bench-") as folder:
        small = simulated(Path(folder) / "small", REFERENCE_EVENTS)
        large = simulated(Path(folder) / "large", asked.events)
        taken = [
            (*check(Path(folder) / "large"), rate(large, timeline.expected), rate(small, timeline.by_reference))
            for _ in range(asked.rounds)
        ]
    names = (
        ("check", "s"),
        ("check peak memory", "bytes"),
        ("bulk oracle", "events/s"),
        ("reference oracle", "events/s"),
    )
    for (name, unit), values in zip(names, zip(*taken, strict=True), strict=True):
        print(json.dumps({"name": f"{name}, {asked.events:,} events" if "check" in name else name,
                          "value": round(statistics.median(values), 3), "unit": unit}))  # fmt: skip


if __name__ == "__main__":
    main()
