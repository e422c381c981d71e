"""How fast runs are judged, on this machine and now: a simulated run of 5,000,000 events, part of `make bench`.

Each figure is a JSON line with name, value and unit: seconds and peak memory of `harness check` in a process
of its own, on the run as it is and on the same run with 1,000 wrong rows, the ratio of the two, and events/s of either
oracle on the same events (the reference on a part of them).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psutil

from harness import scenario
from harness.errors import ScenarioError
from harness.experiments.simulate import simulate
from harness.judge import timeline
from harness.judge.timeline import Evidence
from harness.model import Row, Verdict
from harness.rundir import history
from harness.rundir.history import Run
from harness.scenario import Scenario

EPS = 5000
REFERENCE_EVENTS = 450_000
WRONG_ROWS = 1_000


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


def spoil(right: Path, wrong: Path, rows: int = WRONG_ROWS) -> None:
    """A copy of a run in which so many rows are wrong: lost, twice, too small and invented in turn.

    They are spread over the queries with windows or sessions, and over the rows of each. SystemExit where a run has too
    few rows.
    """
    run = history.read(right)
    (wrong / "outputs").mkdir(parents=True)
    for path in [*right.iterdir(), *(right / "outputs").iterdir()]:
        if path.name not in ("outputs", "result.json", "report.html"):
            (wrong / path.relative_to(right)).symlink_to(path.resolve())
    queries = [query for query, facts in run.scenario.queries.items() if facts.stateful]
    for number, query in enumerate(queries):
        share = (rows + number) // len(queries)
        history.write_rows(wrong, query, list(_spoiled(_decoded(run, query), share)))


def _decoded(run: Run, query: str) -> list[Row]:
    return [
        Row(tuple(msgspec.json.decode(key)), tuple(msgspec.json.decode(values)), where, at_s, wrong_key)
        for key, values, where, at_s, wrong_key in run.rows(query)
    ]


def _spoiled(rows: Sequence[Row], share: int) -> Iterator[Row]:
    if share > len(rows):
        raise SystemExit(f"bench: {len(rows):,} rows are too few for {share:,} wrong ones: raise --events")
    spoiled = {number * len(rows) // share: number % 4 for number in range(share)}
    for at, row in enumerate(rows):
        match spoiled.get(at):
            case None:
                yield row
            case 0:  # lost
                continue
            case 1:
                yield from (row, row)
            case 2:
                smaller = (value - 1 if isinstance(value, int) else value for value in row.values)
                yield replace(row, values=tuple(smaller))
            case _:
                yield from (row, replace(row, key=(*row.key[:-1], f"{row.key[-1]}-invented")))


def check(directory: Path, verdict: Verdict) -> tuple[float, int]:
    """(seconds, peak resident bytes) of `harness check` on a run; SystemExit where the verdict is another."""
    start, peak = time.perf_counter(), 0
    checking = psutil.Popen(
        [sys.executable, "-m", "harness", "check", str(directory)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while checking.poll() is None:
        peak = max(peak, checking.memory_info().rss)
        time.sleep(0.02)
    if checking.returncode != verdict.exit_code:
        raise SystemExit(f"bench: harness check {directory} ended with {checking.returncode}, not {verdict.exit_code}")
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
        right, wrong = Path(folder) / "right", Path(folder) / "wrong"
        small = simulated(Path(folder) / "small", REFERENCE_EVENTS)
        large = simulated(right, asked.events)
        spoil(right, wrong)
        taken = [
            (
                *check(right, Verdict.PASS),
                *check(wrong, Verdict.FAIL),
                rate(large, timeline.expected),
                rate(small, timeline.by_reference),
            )
            for _ in range(asked.rounds)
        ]
    of_events = f"{asked.events:,} events"
    names = (
        (f"check, {of_events}", "s"),
        (f"check peak memory, {of_events}", "bytes"),
        (f"check with {WRONG_ROWS:,} wrong rows, {of_events}", "s"),
        (f"check peak memory with {WRONG_ROWS:,} wrong rows, {of_events}", "bytes"),
        ("bulk oracle", "events/s"),
        ("reference oracle", "events/s"),
    )
    for (name, unit), values in zip(names, zip(*taken, strict=True), strict=True):
        _print(name, statistics.median(values), unit)
    ratios = [seconds[2] / seconds[0] for seconds in taken]
    _print("check of wrong rows, of right ones", statistics.median(ratios), "times")


def _print(name: str, value: float, unit: str) -> None:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit}), flush=True)


if __name__ == "__main__":
    main()
