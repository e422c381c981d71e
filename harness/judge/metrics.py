"""History → measurements: one function a figure, each defined in measuring.md.

Pure: numpy over what the run directory holds. Percentiles come from all samples. The warm-up is cut
by due time. Latencies are in ms, rates in events/s; a negative latency is kept, never dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.engines.spark.offset_log import Batch
from harness.job.clickstream.contract import (
    INPUT,
    QUERIES,
    WATERMARK_DELAY_S,
    Query,
)
from harness.rundir.events import Progress, Sample

Array = npt.NDArray[Any]
LAG_EVERY_S = 0.25
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99, "p999": 99.9, "max": 100}


@dataclass(frozen=True, slots=True)
class Span:
    """The measured part of a run, in epoch seconds."""

    start_s: float
    end_s: float

    def holds(self, times_s: Array) -> Array:
        """Which of the times lie inside, start included, end excluded."""
        inside: Array = (times_s >= self.start_s) & (times_s < self.end_s)
        return inside


def percentiles(samples: Array) -> dict[str, float] | None:
    """p50, p90, p99, p99.9 and max of all samples, rounded to microseconds; None of none."""
    if not len(samples):
        return None
    values = np.percentile(samples, list(PERCENTILES.values()), method="higher")
    return {name: round(float(value), 3) for name, value in zip(PERCENTILES, values, strict=True)}


def span(sent: Mapping[str, Array], warm_up_s: float, duration_s: float) -> Span:
    """The measured part, by due time of the run's own events."""
    start = float(sent["due_us"][~sent["flush"]].min()) / 1e6 + warm_up_s
    return Span(start, start + duration_s)


def generator_delay_ms(sent: Mapping[str, Array], measured: Span) -> Array:
    """Time handed to the client − due time, of measured events that were sent."""
    chosen = _measured(sent, measured) & (sent["sent_us"] > 0)
    return np.asarray((sent["sent_us"][chosen] - sent["due_us"][chosen]) / 1e3)


def ack_latency_ms(sent: Mapping[str, Array], measured: Span) -> Array:
    """The broker's acknowledgement − due time, of measured events that were acknowledged."""
    chosen = _measured(sent, measured) & (sent["acked_us"] > 0)
    return np.asarray((sent["acked_us"][chosen] - sent["due_us"][chosen]) / 1e3)


def batch_of(query: str, sent: Mapping[str, Array], batches: Sequence[Batch]) -> Array:
    """For each sent row the index of the batch that read it; −1 not acknowledged or not this query's, len(batches) never read."""
    found = np.full(len(sent["n"]), -1, dtype=np.int32)
    for topic in QUERIES[query].reads:
        of_topic = (sent["topic"] == topic) & (sent["offset"] >= 0)
        for partition in partitions(sent):
            rows = of_topic & (sent["partition"] == partition)
            ends = np.maximum.accumulate([batch.ends.get((topic, int(partition)), 0) for batch in batches] or [0])
            index = np.searchsorted(ends, sent["offset"][rows], side="right")
            found[rows] = np.minimum(index, len(batches))
    return found


def overwritten(sent: Mapping[str, Array]) -> Array:
    """The rows whose offset was given again to a record acknowledged later: a leader was lost, and with it this record."""
    gone = np.zeros(len(sent["n"]), dtype=np.bool_)
    for topic in INPUT:
        of_topic = (sent["topic"] == topic) & (sent["offset"] >= 0)
        for partition in partitions(sent):
            rows = np.flatnonzero(of_topic & (sent["partition"] == partition))
            offsets = sent["offset"][rows]
            if np.bincount(offsets, minlength=1).max() > 1:
                order = np.lexsort((sent["acked_us"][rows], offsets))
                again = offsets[order][1:] == offsets[order][:-1]
                gone[rows[order][:-1][again]] = True
    return gone


def partitions(sent: Mapping[str, Array]) -> list[int]:
    """The partitions that records were acknowledged at."""
    acknowledged = sent["partition"][sent["offset"] >= 0]
    return list(np.flatnonzero(np.bincount(acknowledged)).tolist())


def durable_latency_ms(sent: Mapping[str, Array], batch: Array, batches: Sequence[Batch], measured: Span) -> Array:
    """Commit of the micro-batch that read the event − due time, in order of due time."""
    chosen = _measured(sent, measured) & (batch >= 0) & (batch < len(batches))
    committed = np.array([batch.committed_s for batch in batches])
    if not len(committed):
        return np.array([])
    return np.asarray(committed[batch[chosen]] * 1e3 - sent["due_us"][chosen] / 1e3)


def emission_delay_ms(
    query: str,
    keys: Sequence[tuple[tuple[Any, ...], tuple[Any, ...], float]],
    sent: Mapping[str, Array],
    measured: Span,
) -> Array:
    """Appearance of each row − the first moment at which the watermark could pass its end.

    `keys` holds (identity, measures, epoch second of appearance). That moment is the acknowledgement
    of the first event at or beyond end + delay, of both topics the later for conversions. Rows whose
    moment lies outside the measured part are left out.
    """
    if not QUERIES[query].stateful or not keys:
        return np.array([])
    ends_ms = np.array([_final_ms(QUERIES[query], key, values) for key, values, _ in keys])
    possible = np.max([_first_ack_s(sent, topic, ends_ms) for topic in QUERIES[query].reads], axis=0)
    appeared = np.array([at_s for _, _, at_s in keys])
    chosen = np.isfinite(possible) & measured.holds(possible)
    return np.asarray((appeared[chosen] - possible[chosen]) * 1e3)


def _final_ms(query: Query, key: tuple[Any, ...], values: tuple[Any, ...]) -> float:
    """The event time in epoch ms that must have been read before a row can be final."""
    names, columns = (query.identity, key) if query.end in query.identity else (query.measures, values)
    at = names.index(query.end)
    return _epoch_ms(columns[at : at + 1]) + (query.stays_open_s + WATERMARK_DELAY_S) * 1e3


def _epoch_ms(iso: tuple[Any, ...]) -> float:
    """The only value as epoch ms; infinity for what is no time, of a row that could not be read."""
    try:
        return round(datetime.fromisoformat(*iso).timestamp() * 1e3)
    except (TypeError, ValueError):
        return float("inf")


def _first_ack_s(sent: Mapping[str, Array], topic: str, at_least_ms: Array) -> Array:
    rows = (sent["topic"] == topic) & (sent["offset"] >= 0) & (sent["acked_us"] > 0) & (sent["malformed"] == 0)
    order = np.argsort(sent["event_time_ms"][rows], kind="stable")
    times = sent["event_time_ms"][rows][order]
    earliest = np.minimum.accumulate(sent["acked_us"][rows][order][::-1])[::-1] / 1e6
    index = np.searchsorted(times, at_least_ms, side="left")
    return np.append(earliest, np.inf)[np.minimum(index, len(earliest))]


def kept_up(due_s: Array, batch: Array, batches: Sequence[Batch], measured: Span) -> float | None:
    """Least-squares slope of a query's committed input records over the measured part, as a share of that of those due to it.

    None with fewer than three moments to look at both, or where nothing came due between the first and the last of them.
    """
    times = np.array([batch.committed_s for batch in batches], dtype=np.float64)
    at_s = _moments(times, measured)
    due = np.searchsorted(np.sort(due_s), at_s, side="left")
    if len(at_s) < 3 or due[0] == due[-1]:
        return None
    committed, offered = (_least_squares(at_s, series) for series in (_read_by(batch, batches, at_s), due))
    return max(0.0, committed / offered)  # the slope of nothing may come out just below 0


def _moments(times: Array, measured: Span) -> Array:
    """The commits of the measured part, and where none was for longer than between any two of them its start, or a moment
    as long before its end.

    So a stall shows at either end too. By that moment a usual batch would have been committed: its records are not held
    against a query that has just begun the next one. One commit or two give no slope; none at all is a slope of 0.
    """
    inside = times[measured.holds(times)]
    usual = np.diff(inside if len(inside) else times[times < measured.start_s][-2:]).max(initial=0.0)
    due_s = measured.end_s - usual
    if not len(inside):
        return np.linspace(measured.start_s, due_s, 3) if due_s > measured.start_s else inside
    if len(inside) < 3:
        return inside
    start = [measured.start_s] if inside[0] - measured.start_s > usual else []
    return np.array([*start, *inside, *([due_s] if due_s > inside[-1] else [])])


def _read_by(batch: Array, batches: Sequence[Batch], at_s: Array) -> Array:
    """Records that the query has committed by each of the times."""
    times = np.array([batch.committed_s for batch in batches])
    of_batch = np.bincount(batch[(batch >= 0) & (batch < len(batches))], minlength=len(batches))
    read: Array = np.concatenate([[0], np.cumsum(of_batch)])[np.searchsorted(times, at_s, side="right")]
    return read


def lag_records(sent: Mapping[str, Array], batch: Array, batches: Sequence[Batch], at_s: Array) -> Array:
    """Records acknowledged and not yet committed by the query, at each of the times."""
    acked = np.sort(sent["acked_us"][batch >= 0]) / 1e6
    return np.asarray(np.searchsorted(acked, at_s, side="right") - _read_by(batch, batches, at_s))


def behind(sent: Mapping[str, Array], batch: Array, batches: Sequence[Batch], at_s: float) -> int:
    """Records of one topic that were acknowledged and not yet committed by the query, of the topic with most of them."""
    committed = np.array([*(batch.committed_s for batch in batches), np.inf])
    open_ = (batch >= 0) & (sent["acked_us"] > 0) & (sent["acked_us"] / 1e6 <= at_s)
    open_ &= committed[np.minimum(batch, len(batches))] > at_s
    return max(Counter(sent["topic"][open_].tolist()).values(), default=0)


def lag_at_commits(
    sent: Mapping[str, Array], batch: Array, batches: Sequence[Batch], measured: Span
) -> tuple[Array, Array]:
    """(times, lag) right after each commit of the measured part, without the sawtooth between commits, and at its ends as
    `kept_up` is."""
    at_s = _moments(np.array([batch.committed_s for batch in batches], dtype=np.float64), measured)
    return at_s, lag_records(sent, batch, batches, at_s)


def outage(batches: Sequence[Batch], at_s: float, healed_s: float, since_s: float = 0.0) -> Span | None:
    """The longest time without a commit of a query that lies, at least partly, between a fault's injection and its healing.

    What lies before `since_s`, when the fault before had healed, is that one's: it counts neither for which is the
    longest, nor for how long it is. None where nothing was committed before the injection, or nothing after it.
    """
    times = [batch.committed_s for batch in batches]
    since_s = min(since_s, at_s)  # as written down, the healing is rounded, and the next injection may follow at once
    spans = [
        Span(max(before, since_s), after) for before, after in pairwise(times) if after > at_s and before < healed_s
    ]
    if not spans or spans[0].start_s > at_s:
        return None
    return max(spans, key=lambda span: span.end_s - span.start_s)


def load_end_s(sent: Mapping[str, Array]) -> float:
    """The epoch second at which the last event was due, but for those that end the run."""
    return float(sent["due_us"][~sent["flush"]].max(initial=0)) / 1e6


def recovered_s(
    sent: Mapping[str, Array],
    batch: Array,
    batches: Sequence[Batch],
    calm: Span,
    outage: Span,
    at_s: float,
    healed_s: float,
) -> float | None:
    """The epoch second at which a query's lag was back within the p99 that it had while it was calm; None is never.

    Looked for after the outage, after the highest lag between the injection and the first commit after the healing, and
    while the load is on: without one, any lag goes away.
    """
    times = np.array([batch.committed_s for batch in batches])
    healed = times[np.searchsorted(times, min(healed_s, times[-2]), side="right")]
    before, under, after = (
        np.arange(begin, end, LAG_EVERY_S)
        for begin, end in (
            (calm.start_s, calm.end_s),
            (at_s, healed),
            (outage.end_s, min(times[-1] + LAG_EVERY_S, load_end_s(sent))),
        )
    )
    steady = np.percentile(lag_records(sent, batch, batches, before), 99)
    peak_s = under[lag_records(sent, batch, batches, under).argmax()]
    back = after[(lag_records(sent, batch, batches, after) <= steady) & (after >= peak_s)]
    return float(back[0]) if len(back) else None


def replayed(queries: Iterable[Sequence[Batch]], starts_s: Sequence[float]) -> int:
    """Batches whose offsets were written before a start of the pipeline, and which were committed after it."""
    return sum(
        any(batch.begun_s < start < batch.committed_s for start in starts_s) for batches in queries for batch in batches
    )


def slope(times_s: Array, values: Array) -> float | None:
    """Least-squares slope per second; None with fewer than three points, or a value that is not known."""
    if len(times_s) < 3 or not np.isfinite(values).all():
        return None
    return _least_squares(times_s, values)


def _least_squares(times_s: Array, values: Array) -> float:
    return float(np.polyfit(times_s - times_s[0], values, 1)[0])


def state(progress: Sequence[Progress], field: str) -> tuple[Array, Array]:
    """(times, sum over all operators of all queries) of a state figure such as memoryUsedBytes, at each progress.

    The sum is NaN while the last report of a query has an operator without that figure.
    """
    latest: dict[str, float] = {}
    times, sums = [], []
    for event in progress:
        latest[event.query] = sum(operator.get(field, np.nan) for operator in event.operators)
        times.append(event.t)
        sums.append(sum(latest.values()))
    return np.array(times), np.array(sums)


def consumed(samples: Sequence[Sample], field: str, measured: Span) -> float | None:
    """How much a counter such as pipeline_cpu_s grew over the measured part, interpolated between the samples that have it.

    None where they do not span it.
    """
    seen = [sample for sample in samples if getattr(sample, field) is not None]
    times, values = (np.array([getattr(sample, name) for sample in seen]) for name in ("t", field))
    if len(times) < 2 or times[0] > measured.start_s + 2 or times[-1] < measured.end_s - 2:
        return None
    first, last = np.interp([measured.start_s, measured.end_s], times, values)
    return float(last - first)


def largest(samples: Sequence[Sample], field: str) -> int | None:
    """The maximum of a gauge over all samples."""
    values = (getattr(sample, field) for sample in samples)
    return max((value for value in values if value is not None), default=None)


def dropped_by_batch(progress: Sequence[Progress], query: str) -> dict[int, int]:
    """What Spark itself counted as dropped by the watermark, by batch; the last word on a replayed batch counts."""
    return {
        event.batch: sum(operator.get("numRowsDroppedByWatermark", 0) for operator in event.operators)
        for event in progress
        if event.query == query
    }


def last_state_rows(progress: Sequence[Progress], query: str) -> tuple[int, list[int]] | None:
    """(batch, rows in state by operator) of the query's last progress; None without any."""
    last = next((event for event in reversed(progress) if event.query == query), None)
    return None if last is None else (last.batch, [operator.get("numRowsTotal", 0) for operator in last.operators])


def out_of_order(sent: Mapping[str, Array]) -> int:
    """Valid records behind the newest event time of their partition when they were written to it."""
    found = 0
    for topic in INPUT:
        of_topic = (sent["topic"] == topic) & (sent["malformed"] == 0) & (sent["offset"] >= 0)
        for partition in partitions(sent):
            rows = of_topic & (sent["partition"] == partition)
            times = sent["event_time_ms"][rows][np.argsort(sent["offset"][rows])]
            found += int((times < np.maximum.accumulate(times)).sum()) if len(times) else 0
    return found


def late(sent: Mapping[str, Array], batch: Array, batches: Sequence[Batch]) -> int:
    """Records that a query may drop: at or behind the watermark of the batch before the one that read them."""
    before = np.array([0] + [batch.watermark_ms for batch in batches])
    chosen = (batch >= 0) & (batch < len(batches)) & (sent["malformed"] == 0)
    return int((sent["event_time_ms"][chosen] <= before[batch[chosen]]).sum())


def _measured(sent: Mapping[str, Array], measured: Span) -> Array:
    inside: Array = measured.holds(sent["due_us"] / 1e6) & ~sent["flush"]
    return inside
