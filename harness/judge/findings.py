"""Every anomaly of a run: rows against the oracle, records against the batches, the log against its own law."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.job.clickstream import bounds
from harness.job.clickstream.contract import CONVERSION_HORIZON_S, QUERIES, SESSION_GAP_S
from harness.job.clickstream.reference import Expected, Rows
from harness.judge import anomalies, causes, explain, lateness, metrics, timeline
from harness.judge.anomalies import Comparison
from harness.judge.guard import STRICT, Guard
from harness.judge.timeline import Evidence
from harness.model import Anomaly
from harness.rundir.events import Deleted, Progress, Reset

EXPLAINED_MAX = 10
LOST_MAX = 1000
BY_BROKERS = "brokers lost acknowledged records"
TELLING = {"wrong_watermark": 0, "unreconciled_count": 2}
"""Kinds that explain others come first, kinds that follow from others last."""


def compare(gathered: Evidence, answers: Mapping[str, Expected], guard: Guard = STRICT) -> dict[str, Comparison]:
    """Expected and observed rows, by query; a query without an answer, or whose rows crash the reader, has none."""
    compared = {
        name: guard.of(f"the comparison of {name}", partial(_comparison, gathered, name, answers[name]), None)
        for name in gathered.run.scenario.queries
        if name in answers
    }
    return {name: comparison for name, comparison in compared.items() if comparison is not None}


def _comparison(gathered: Evidence, name: str, answer: Expected) -> Comparison:
    return Comparison(
        name,
        gathered.run.scenario.queries[name].measures,
        answer.rows,
        anomalies.decoded(gathered.run.rows(name)),
        _earliest(gathered, name, answer),
        answer.optional,
        again=_again(gathered, name, answer),
        contradiction=partial(bounds.contradiction, name, answer.moments),
        moments=answer.moments,
    )


def _earliest(gathered: Evidence, query: str, answer: Expected) -> dict[tuple[Any, ...], float]:
    committed = [batch.committed_s for batch in gathered.batches[query]]
    return {key: committed[batch - 1] for key, batch in answer.batch.items() if batch > 0}


def _again(gathered: Evidence, query: str, answer: Expected) -> dict[tuple[Any, ...], float]:
    """How often each row may have been written again: as often as the batch that emits it was run again.

    Without a checkpoint, or a batch, to know it by: as often as the pipeline was started again.
    """
    by_batch = timeline.runs_again(gathered, query)
    untold = timeline.restarts(gathered.run)
    return {
        key: by_batch.get(answer.batch[key], 0) if key in answer.batch else untold
        for key in answer.rows.keys() | answer.optional.keys()
    }


def find(
    gathered: Evidence,
    answers: Mapping[str, Expected],
    comparisons: Mapping[str, Comparison],
    guard: Guard = STRICT,
) -> list[Anomaly]:
    """Every anomaly of a run, causes first: the first of each group, the other explained ones, then the rest.

    A checker that crashes finds nothing, and takes nothing from what the others find.
    """
    of_rows = _of_rows(gathered, comparisons, guard)
    exact = not gathered.run.scenario.black_box
    if exact and any(anomaly.kind in lateness.OF_LATENESS for anomaly in of_rows):
        of_rows = guard.of(
            "the check for lateness",
            lambda: _of_rows(gathered, lateness.with_lateness(gathered, comparisons, of_rows), guard),
            of_rows,
        )
    of_records = [
        anomaly
        for query in gathered.run.scenario.queries
        for anomaly in _of_query(gathered, query, answers.get(query), guard)
    ]
    of_records += guard.of(
        "the check for rows that never closed", lambda: _never_closed(gathered, of_records, comparisons), []
    )
    found = sorted(of_records + of_rows, key=lambda anomaly: TELLING.get(anomaly.kind, 1))
    found = guard.of("the common causes", lambda: causes.common(found, answers, comparisons), found)
    chosen, rest = _first_of_each(found)
    explained = guard.of("the explanation", lambda: explain.explain(gathered, chosen, answers, comparisons), chosen)
    return guard.of(
        "the order of the anomalies",
        lambda: causes.ordered([*explained, *causes.extended(explained, rest)]),
        [*explained, *rest],
    )


def _first_of_each(found: Sequence[Anomaly]) -> tuple[list[Anomaly], list[Anomaly]]:
    """The first of each kind and query, to be explained, and the rest."""
    taken: Counter[tuple[str, str]] = Counter()
    chosen: list[Anomaly] = []
    rest: list[Anomaly] = []
    for anomaly in found:
        taken[anomaly.kind, anomaly.query] += 1
        (chosen if taken[anomaly.kind, anomaly.query] <= EXPLAINED_MAX else rest).append(anomaly)
    return chosen, rest


def _of_rows(gathered: Evidence, comparisons: Mapping[str, Comparison], guard: Guard) -> list[Anomaly]:
    return [
        anomaly
        for query in comparisons.values()
        for anomaly in anomalies.check(_guarantee(gathered, query.query), query, guard)
    ]


def _guarantee(gathered: Evidence, query: str) -> str:
    """What was promised, or else what the sink can give."""
    kafka = gathered.run.scenario.queries[query].sink == "kafka"
    return gathered.run.scenario.output(query).guarantee or ("at-least-once" if kafka else "exactly-once")


def _of_query(gathered: Evidence, query: str, answer: Expected | None, guard: Guard) -> Iterator[Anomaly]:
    """Anomalies of the records and the log of a query; its drops are checked where there is an answer to hold them to."""
    checks = {
        "lost records": lambda: list(_records_lost(gathered, query)),
        "records read twice": lambda: list(_read_twice(gathered, query)),
    }
    if QUERIES[query].stateful and not gathered.run.scenario.black_box:
        checks["watermarks"] = lambda: list(_watermarks(gathered, query))
        if answer is not None:
            checks["dropped rows"] = lambda: list(_drops(gathered, query, answer))
        checks["state"] = lambda: list(_state(gathered, query))
    for what, check in checks.items():
        yield from guard.of(f"the check for {what} of {query}", check, [])


def _records_lost(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    never = gathered.batch_of[query] == len(gathered.batches[query])
    gone = np.zeros(len(never), dtype=bool)
    for event in gathered.run.of(Deleted):
        gone |= never & timeline.deleted(gathered, query, event)
    sent = gathered.sent
    overwritten = [
        (sent["topic"][row], sent["partition"][row].item(), offset)
        for row, offset in gathered.overwritten.items()
        if sent["topic"][row] in QUERIES[query].reads
    ]
    for key in overwritten[:LOST_MAX]:
        why = f"one of {len(overwritten)} acknowledged records that brokers lost: another has its offset now"
        yield Anomaly("record_lost", query, key, "read by a committed batch", "never read", why, cause=BY_BROKERS)
    for rows, what in (
        (gone, f"deleted from the topic before {query} had read them"),
        (never & ~gone, f"that no batch of {query} covers"),
    ):
        missed = np.flatnonzero(rows)
        why = f"one of {len(missed)} acknowledged records {what}"
        for row in missed[:LOST_MAX]:
            key = (sent["topic"][row], sent["partition"][row].item(), sent["offset"][row].item())
            cause = f"acknowledged records {what}"
            yield Anomaly("record_lost", query, key, "read by a committed batch", "never read", why, cause=cause)


def _read_twice(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    for event in gathered.run.of(Reset):
        if event.query == query:
            why = f"the checkpoint went back from batch {event.seen} to {event.now}: what was read before is read again"
            expected, observed = f"on from batch {event.seen + 1}", f"back to batch {event.now}"
            cause = f"the checkpoint of {query} went back"
            yield Anomaly("record_read_twice", query, (event.seen,), expected, observed, why, event.seen, cause=cause)
    for before, after in zip(gathered.batches[query], gathered.batches[query][1:], strict=False):
        for (topic, partition), end in before.ends.items():
            if (again := after.ends.get((topic, partition), end)) < end:
                why = (
                    f"batch {after.number} ends before batch {before.number} did: {end - again} records are read again"
                )
                key = (topic, partition, again)
                places, cause = (
                    (f"on from {end}", f"back to {again}"),
                    f"a batch of {query} began before the last one ended",
                )
                yield Anomaly("record_read_twice", query, key, *places, why, after.number, cause=cause)


def _watermarks(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    """The first batch whose watermark is not what the data that was read before it makes it."""
    for batch, want in zip(gathered.batches[query], timeline.expected_watermarks(gathered, query)[:-1], strict=True):
        if batch.watermark_ms != want:
            by = (batch.watermark_ms - want) / 1000
            why = (
                f"batch {batch.number} ran at a watermark {abs(by):g} s {'ahead of' if by > 0 else 'behind'} what the events"
                " read before it make it: its delay is not 5 minutes, or not all of its sources count"
            )
            key, times = (batch.number,), (explain.moment(want), explain.moment(batch.watermark_ms))
            yield Anomaly("wrong_watermark", query, key, *times, why, batch.number, cause=_of_watermark(query))
            return


def _of_watermark(query: str) -> str:
    return f"the watermark of {query} is not what its events make it"


def _never_closed(gathered: Evidence, found: Sequence[Anomaly], comparisons: Mapping[str, Comparison]) -> list[Anomaly]:
    """Rows that a right watermark would have released, and the recorded one did not."""
    behind = {anomaly.query for anomaly in found if anomaly.kind == "wrong_watermark"}
    if not behind:
        return []
    right = _right_rows(gathered, behind & comparisons.keys())
    why = "the watermark of the last batch should have passed its end, and did not"
    return [
        Anomaly("row_never_closed", query, key, "a row", "still open", why, cause=_of_watermark(query))
        for query in sorted(right)
        for key in right[query]
        if key not in comparisons[query].expected and key not in comparisons[query].observed
    ]


def _right_rows(gathered: Evidence, queries: Collection[str]) -> dict[str, Rows]:
    """By query the rows that right watermarks would give, of those that they may change."""
    at = {query: timeline.expected_watermarks(gathered, query)[:-1] for query in queries}
    ours, theirs = timeline.marks(gathered), timeline.marks(gathered, watermarks=at)
    scope = {query: lateness.touched(gathered, query, ours[query], theirs[query]) for query in queries}
    return lateness.recomputed(gathered, scope, watermarks=at)


def _drops(gathered: Evidence, query: str, answer: Expected) -> Iterator[Anomaly]:
    reported = metrics.dropped_by_batch(gathered.run.of(Progress), query)
    skipped, repeated = timeline.skipped(gathered, query), timeline.repeated(gathered, query)
    ours = not gathered.run.scenario.pipeline.command
    for batch, dropped in sorted(reported.items()):
        if batch in skipped and not dropped:
            continue
        want = answer.dropped.get(batch, 0)
        if want and not ours:  # another plan counts its late rows elsewhere, or more than once
            continue
        if batch in repeated and dropped > want > 0:
            continue
        if dropped != want:
            why = f"batch {batch} reports other rows dropped by the watermark than the late events it read make"
            counts, cause = (
                (f"{want} dropped", f"{dropped} dropped"),
                f"{query} drops other rows than its late events make",
            )
            yield Anomaly("unreconciled_count", query, (batch,), *counts, why, batch, cause=cause)


def _state(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    """No operator needs more rows than there are events that still matter, each in at most three windows."""
    batches = gathered.batches[query]
    last = metrics.last_state_rows(gathered.run.of(Progress), query)
    if not batches or last is None or last[0] != batches[-1].number:
        return
    horizon_ms = (SESSION_GAP_S + CONVERSION_HORIZON_S) * 1000
    mine = gathered.batch_of[query] >= 0
    alive = int((gathered.sent["event_time_ms"][mine] + horizon_ms > batches[-1].watermark_ms).sum())
    for number, rows in enumerate(last[1]):
        if rows > 3 * alive:
            why = f"operator {number} still holds {rows:,} rows, though only {alive:,} events are not behind the watermark"
            observed = f"{rows:,} rows"
            most, cause = f"at most {3 * alive:,}", f"the state of {query} is not released"
            yield Anomaly("state_not_released", query, (number,), most, observed, why, last[0], cause=cause)
