"""Every anomaly planted in a right run, each at a random place from a seed, and every checker seen to find it.

A harness that never fails a wrong run proves nothing. An anomaly counts as found when it is reported as
its own kind, in its own query, at its own place; anything else that is reported for it is a wrong accusation.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import psutil
from msgspec import structs

from harness import scenario
from harness.experiments.simulate import simulate
from harness.job.clickstream.contract import QUERIES
from harness.job.clickstream.reference import Expected
from harness.judge import findings, timeline
from harness.judge.anomalies import KINDS, Comparison, Key, Seen
from harness.judge.timeline import Evidence
from harness.model import Anomaly
from harness.rundir import history
from harness.rundir.events import Progress

OF_ROWS = tuple(name for name, query in QUERIES.items() if query.stateful)
TIMES = 3
SIDE_EFFECTS = {
    "row_never_closed": {"wrong_watermark"},
    "record_lost": {"wrong_watermark"},
    "wrong_watermark": {"unreconciled_count", "row_never_closed"},
}
"""What a planted defect causes beside itself: a watermark that lags holds rows back, and one that counts a record
which was never read is not explained."""


@dataclass(slots=True)
class Tally:
    """How often a kind was planted and found, and what was reported beside it."""

    planted: int = 0
    found: int = 0
    accused: int = 0

    def add(self, other: Tally) -> None:
        """Count another's with these."""
        self.planted += other.planted
        self.found += other.found
        self.accused += other.accused

    @property
    def missed(self) -> int:
        """Planted and not found."""
        return self.planted - self.found


@dataclass(frozen=True, slots=True)
class Case:
    """A run taken apart, so that one part can be exchanged."""

    gathered: Evidence
    answers: Mapping[str, Expected]
    comparisons: Mapping[str, Comparison]

    def with_rows(self, query: str, observed: dict[Key, tuple[Seen, ...]]) -> Case:
        """The same run with other rows seen of one query."""
        changed = replace(self.comparisons[query], observed=observed)
        return replace(self, comparisons={**self.comparisons, query: changed})


Planted = tuple[Case, str, Key | None]
"""The damaged run, and the query and key at which the anomaly must be found; None is any key."""


Place = TypeVar("Place")


class NoPlace(Exception):
    """The run has nothing that could be damaged in this way."""


def prove(seeds: Sequence[int], run: Path | None = None) -> dict[str, Tally]:
    """Plant every kind several times a seed; `right` stands for the runs that nothing was planted in.

    Seeds are proved side by side, in a process for each core.
    """
    total = {kind: Tally() for kind in ("right", *KINDS)}
    workers = min(len(seeds), psutil.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for tally in pool.map(partial(_proved, run), seeds):
            for kind, count in tally.items():
                total[kind].add(count)
    return total


def _proved(run: Path | None, seed: int) -> dict[str, Tally]:
    tally = {kind: Tally() for kind in ("right", *KINDS)}
    with tempfile.TemporaryDirectory(prefix="harness-selfcheck-") as folder:
        case = _right(Path(folder) / "run", seed) if run is None else _take_apart(run)
    found = findings.find(case.gathered, case.answers, case.comparisons)
    tally["right"].add(Tally(planted=1, found=not found, accused=len(found)))
    rng = Random(seed)
    for kind in KINDS:
        for _ in range(TIMES):
            _try(kind, case, rng, tally[kind])
    return tally


def _right(directory: Path, seed: int) -> Case:
    simulate(
        directory,
        replace(
            scenario.load(
                "late", ["load.eps=60", "workload.malformed=0.02", "workload.too_late=0.2", f"load.seed={seed}"]
            )
        ),
    )
    return _take_apart(directory)


def _take_apart(directory: Path) -> Case:
    gathered = timeline.gather(history.read(directory))
    answers = timeline.expected(gathered)
    return Case(gathered, answers, findings.compare(gathered, answers))


def _try(kind: str, case: Case, rng: Random, tally: Tally) -> None:
    try:
        damaged, query, key = PLANTS[kind](case, rng)
    except NoPlace:
        return
    found = findings.find(damaged.gathered, damaged.answers, damaged.comparisons)
    hits = [
        anomaly for anomaly in found if (anomaly.kind, anomaly.query) == (kind, query) and key in (None, anomaly.key)
    ]
    tally.planted += 1
    tally.found += bool(hits)
    tally.accused += sum(_is_accusation(anomaly, kind, query) for anomaly in found)


def _is_accusation(anomaly: Anomaly, kind: str, query: str) -> bool:
    own = anomaly.kind == kind or anomaly.kind in SIDE_EFFECTS.get(kind, ())
    return not (own and anomaly.query == query)


def _lost(case: Case, rng: Random) -> Planted:
    query, key = _row(case, rng, OF_ROWS)
    return _without(case, query, key), query, key


def _invented(case: Case, rng: Random) -> Planted:
    query, key = _row(case, rng, OF_ROWS)
    [row, *_] = case.comparisons[query].observed[key]
    foreign = (*key[:-1], f"{key[-1]}?")
    return _with(case, query, foreign, (row,)), query, foreign


def _wrong(case: Case, rng: Random) -> Planted:
    """One measure is another; or all are right, and the record has a key that is not its own."""
    query, key = _row(case, rng, OF_ROWS)
    [row, *_] = case.comparisons[query].observed[key]
    at = rng.randrange(len(row.values) + 1)
    if at == len(row.values):
        return _with(case, query, key, (replace(row, wrong_key="?"),)), query, key
    values = (*row.values[:at], _other(row.values[at]), *row.values[at + 1 :])
    return _with(case, query, key, (replace(row, values=values),)), query, key


def _duplicated(case: Case, rng: Random) -> Planted:
    """A row of a batch that was run once: one that was run again may stand twice."""
    query, key = _row(case, rng, QUERIES, once=True)
    [row, *_] = case.comparisons[query].observed[key]
    return _with(case, query, key, (row, replace(row, where="elsewhere"))), query, key


def _premature(case: Case, rng: Random) -> Planted:
    query, key = _row(case, rng, OF_ROWS)
    [row, *_] = case.comparisons[query].observed[key]
    early = replace(row, at_s=case.comparisons[query].earliest_s[key] - 0.05)
    return _with(case, query, key, (early,)), query, key


def _late_counted(case: Case, rng: Random) -> Planted:
    return _as_if(case, rng, timeline.expected(case.gathered, "never"))


def _late_dropped(case: Case, rng: Random) -> Planted:
    return _as_if(case, rng, timeline.expected(case.gathered, "own"))


def _as_if(case: Case, rng: Random, answers: Mapping[str, Expected]) -> Planted:
    """One row as a pipeline with another rule of lateness gives it; a row of no window, as a session, would move to another key."""
    places = [
        (query, key)
        for query in QUERIES
        if QUERIES[query].window_s and query in case.comparisons
        for key, values in sorted(answers[query].rows.items())
        if case.answers[query].rows.get(key) not in (None, values) and key in case.comparisons[query].observed
    ]
    query, key = _chosen(rng, places)
    [row, *_] = case.comparisons[query].observed[key]
    plain = tuple(value if isinstance(value, int | float) else str(value) for value in answers[query].rows[key])
    return _with(case, query, key, (replace(row, values=plain),)), query, key


def _dead_letter(change: str) -> Callable[[Case, Random], Planted]:
    def plant(case: Case, rng: Random) -> Planted:
        query, key = _row(case, rng, [name for name, query in QUERIES.items() if query.rejects])
        [row, *_] = case.comparisons[query].observed[key]
        if change == "missing":
            return _without(case, query, key), query, key
        if change == "invented":
            foreign = (*key[:-1], 10**9)
            return _with(case, query, foreign, (row,)), query, foreign
        altered = replace(row, values=(f"{row.values[0]}00", row.values[1]))
        return _with(case, query, key, (altered,)), query, key

    return plant


def _record_lost(case: Case, rng: Random) -> Planted:
    """The last batches are cut off, so that what they read was never read."""
    query = _query(case, rng, QUERIES)
    batches = case.gathered.batches[query]
    last = batches[-1]
    sent = case.gathered.sent
    flush = {
        (topic, part)
        for topic, part in zip(sent["topic"][sent["flush"]], sent["partition"][sent["flush"]], strict=True)
    }
    topic, partition = _chosen(rng, sorted(at for at, end in last.ends.items() if end > 0 and at not in flush))
    end = last.ends[topic, partition] - 1
    cut = [
        replace(batch, ends={**batch.ends, (topic, partition): min(end, batch.ends.get((topic, partition), 0))})
        for batch in batches
    ]
    return _with_batches(case, query, cut, drop_record=(topic, partition, end)), query, (topic, partition, end)


def _read_twice(case: Case, rng: Random) -> Planted:
    query = _query(case, rng, QUERIES)
    batches = list(case.gathered.batches[query])
    topic, partition = _chosen(rng, sorted(batches[-1].ends))
    last = batches[-1]
    again = last.ends[topic, partition] - 5
    batches[-1] = replace(last, ends={**last.ends, (topic, partition): again})
    damaged = replace(case.gathered, batches={**case.gathered.batches, query: batches})
    return replace(case, gathered=damaged), query, (topic, partition, again)


def _wrong_watermark(case: Case, rng: Random) -> Planted:
    """From a batch on the watermark is a millisecond short of what it must be."""
    query = _query(case, rng, OF_ROWS)
    batches = list(case.gathered.batches[query])
    moving = [at for at in range(2, len(batches)) if batches[at].watermark_ms > batches[at - 1].watermark_ms]
    at = _chosen(rng, moving)
    batches[at] = replace(batches[at], watermark_ms=batches[at].watermark_ms - 1)
    damaged = replace(case.gathered, batches={**case.gathered.batches, query: batches})
    return replace(case, gathered=damaged), query, (at,)


def _never_closed(case: Case, rng: Random) -> Planted:
    """The watermark stands still at the end, and the rows that it should have released are missing."""
    query = _query(case, rng, OF_ROWS)
    batches = list(case.gathered.batches[query])
    at = len(batches) - 1
    batches[at] = replace(batches[at], watermark_ms=batches[at - 1].watermark_ms)
    damaged = replace(case.gathered, batches={**case.gathered.batches, query: batches})
    held = [key for key, batch in case.answers[query].batch.items() if batch == at]
    key = _chosen(rng, held)
    answers = timeline.expected(damaged)
    comparisons = {
        name: replace(
            comparison,
            expected=answers[name].rows,
            observed={k: v for k, v in comparison.observed.items() if name != query or k not in held},
        )
        for name, comparison in case.comparisons.items()
    }
    return Case(damaged, answers, comparisons), query, key


def _state(case: Case, rng: Random) -> Planted:
    return _with_progress(case, rng, "numRowsTotal", 1_000_000)


def _drops(case: Case, rng: Random) -> Planted:
    return _with_progress(case, rng, "numRowsDroppedByWatermark", 1_000_000)


def _with_progress(case: Case, rng: Random, field: str, value: int) -> Planted:
    """Damage: the last progress of a query has other figures."""
    run = case.gathered.run
    reported = {event.query for event in run.of(Progress) if event.operators}
    query = _query(case, rng, [query for query in OF_ROWS if query in reported])
    last = max(event.batch for event in run.of(Progress) if event.query == query)
    events = tuple(
        _saying(event, field, value)
        if isinstance(event, Progress) and (event.query, event.batch) == (query, last)
        else event
        for event in run.events
    )
    damaged = replace(case.gathered, run=replace(run, events=events))
    return replace(case, gathered=damaged), query, ((0,) if field == "numRowsTotal" else (last,))


def _saying(event: Progress, field: str, value: int) -> Progress:
    operators = [{**operator, field: value} for operator in event.operators]
    return structs.replace(event, progress={**event.progress, "stateOperators": operators})


def _query(case: Case, rng: Random, queries: Iterable[str]) -> str:
    """A query of the run with more than one batch: a single batch has nothing to be moved to."""
    return _chosen(rng, [query for query in queries if len(case.gathered.batches.get(query, ())) > 1])


def _row(case: Case, rng: Random, queries: Iterable[str], once: bool = False) -> tuple[str, Key]:
    """One of the rows that were released, of one of the queries that have any; or of those that cannot stand twice."""
    found = {
        query: [key for key in _released(case, query) if not (once and case.comparisons[query].again.get(key))]
        for query in queries
        if query in case.comparisons
    }
    query = _chosen(rng, [query for query, released in found.items() if released])
    return query, _chosen(rng, sorted(found[query], key=str))


def _released(case: Case, query: str) -> list[Key]:
    comparison = case.comparisons[query]
    return [key for key in comparison.observed if key in comparison.earliest_s or QUERIES[query].rejects]


def _chosen(rng: Random, places: Sequence[Place]) -> Place:
    if not places:
        raise NoPlace
    return rng.choice(places)


def _without(case: Case, query: str, key: Key) -> Case:
    return case.with_rows(
        query, {other: rows for other, rows in case.comparisons[query].observed.items() if other != key}
    )


def _with(case: Case, query: str, key: Key, rows: tuple[Seen, ...]) -> Case:
    return case.with_rows(query, {**case.comparisons[query].observed, key: rows})


def _with_batches(case: Case, query: str, batches: list[Any], drop_record: tuple[str, int, int]) -> Case:
    """Batches that read one record less; what the other queries saw stays as it is."""
    topic, partition, offset = drop_record
    sent = case.gathered.sent
    row = (sent["topic"] == topic) & (sent["partition"] == partition) & (sent["offset"] == offset)
    index = case.gathered.batch_of[query].copy()
    index[row] = len(batches)
    damaged = replace(
        case.gathered,
        batches={**case.gathered.batches, query: batches},
        batch_of={**case.gathered.batch_of, query: index},
    )
    return replace(case, gathered=damaged)


def _other(value: Any) -> Any:
    """Another, which no event more or less leads to."""
    if isinstance(value, int | float):
        return value + 10**9
    return f"{value}1" if str(value)[-1:].isdigit() else f"{value}?"


PLANTS: dict[str, Callable[[Case, Random], Planted]] = {
    "lost_row": _lost,
    "invented_row": _invented,
    "wrong_value": _wrong,
    "duplicated_row": _duplicated,
    "premature_row": _premature,
    "row_never_closed": _never_closed,
    "late_counted": _late_counted,
    "late_dropped": _late_dropped,
    "dead_letter_missing": _dead_letter("missing"),
    "dead_letter_invented": _dead_letter("invented"),
    "dead_letter_altered": _dead_letter("altered"),
    "record_lost": _record_lost,
    "record_read_twice": _read_twice,
    "wrong_watermark": _wrong_watermark,
    "state_not_released": _state,
    "unreconciled_count": _drops,
}
"""One way to plant each kind that the checkers know."""
