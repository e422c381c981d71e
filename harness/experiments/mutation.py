"""Which mutants a scenario kills: wrong pipelines whose rows differ from the oracle's on the scenario's own events.

Events and batches are those of a simulated run without faults, of the linear form and without deduplication, as long as the
scenario and thinned to at most `EVENTS_MAX` events.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from harness import scenario as scenarios
from harness.experiments.simulate import simulate
from harness.job.clickstream.contract import QUERIES
from harness.job.clickstream.mutants import MUTANTS, Given, given
from harness.job.clickstream.reference import Expected, Reference
from harness.job.lateness import Watermarks
from harness.judge import timeline
from harness.judge.anomalies import Comparison, Seen, check, plain
from harness.rundir import history
from harness.scenario import Pipeline, Scenario

EVENTS_MAX = 12_000


@dataclass(frozen=True, slots=True)
class Measured:
    """One scenario: for each mutant the number of anomalies that the checkers find in its rows."""

    scenario: str
    anomalies: dict[str, int]

    @property
    def killed(self) -> set[str]:
        """Names of the mutants whose rows are found wrong."""
        return {name for name, count in self.anomalies.items() if count}


def measure(names: Sequence[str]) -> Iterator[Measured]:
    """Measure scenarios side by side, in a process for each core; all where none is named."""
    chosen = list(names) or scenarios.names()
    workers = min(len(chosen), psutil.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_measured, [_thinned(scenarios.load(name)) for name in chosen])


def killed(measured: Sequence[Measured]) -> set[str]:
    """Names of the mutants that any of the scenarios kills."""
    return set().union(*(found.killed for found in measured))


def alive(measured: Sequence[Measured]) -> list[str]:
    """A line for each mutant that no measured scenario kills, and with the reason for each that no input can."""
    dead = killed(measured)
    living = [mutant for mutant in MUTANTS if mutant.name not in dead]
    return [
        *(f"no event distinguishes {mutant.sentence}: 0 rows differ" for mutant in living if not mutant.equivalent),
        *(f"no input distinguishes {mutant.sentence}: {mutant.equivalent}" for mutant in living if mutant.equivalent),
    ]


KILLABLE = frozenset(mutant.name for mutant in MUTANTS if mutant.equivalent is None)
"""Names of the mutants that some input kills."""


def _thinned(scenario: Scenario) -> Scenario:
    load = replace(scenario.load, stretch_s=0)
    eps = min(load.eps, max(1, int(EVENTS_MAX * load.eps / load.events)))
    load = replace(load, eps=eps)
    return replace(scenario, load=load, fault=(), proves=(), pipeline=Pipeline())


def _measured(scenario: Scenario) -> Measured:
    with tempfile.TemporaryDirectory(prefix="harness-mutants-") as folder:
        simulate(Path(folder) / "run", scenario)
        evidence = timeline.gather(history.read(Path(folder) / "run"))
        items = [(record, batches) for record, _, batches in timeline.parsed(evidence)]
    marks = {
        query: Watermarks(tuple(batch.watermark_ms for batch in found)) for query, found in evidence.batches.items()
    }
    return Measured(scenario.name, kills(given(items, marks)))


def kills(inputs: Given) -> dict[str, int]:
    """For each mutant the number of anomalies that the checkers find in the rows which it makes of these inputs."""
    reference = Reference(inputs.watermarks)
    for item in inputs.items:
        reference.add(item.record, item.event, item.batches)
    right = reference.expected()
    return {
        mutant.name: sum(_found(query, right[query], rows) for query, rows in mutant.rows(inputs).items())
        for mutant in MUTANTS
    }


def _found(query: str, right: Expected, rows: Sequence[tuple[tuple[object, ...], tuple[object, ...]]]) -> int:
    """Anomalies in the rows, of the keys at which they are not the right ones; equal rows are none."""
    by_key: dict[tuple[object, ...], list[tuple[object, ...]]] = {}
    for key, values in rows:
        by_key.setdefault(key, []).append(values)
    differing = {key for key, found in by_key.items() if len(found) != 1 or right.rows.get(key) != found[0]}
    differing |= right.rows.keys() - by_key.keys()
    if not differing:
        return 0
    observed = {key: tuple(map(_seen, by_key[key])) for key in differing if key in by_key}
    expected = {key: right.rows[key] for key in differing if key in right.rows}
    return len(check("exactly-once", Comparison(query, QUERIES[query].measures, expected, observed)))


def _seen(values: tuple[object, ...]) -> Seen:
    return Seen(tuple(sorted(value)[0] if isinstance(value, frozenset) else plain(value) for value in values), "", 0.0)
