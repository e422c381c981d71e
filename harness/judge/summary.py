"""The figures and the counts of a run: measures and proofs, asked of its evidence. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.job.clickstream import events
from harness.job.clickstream.contract import QUERIES
from harness.job.clickstream.reference import Expected
from harness.judge import coverage, metrics
from harness.judge.anomalies import Comparison
from harness.judge.metrics import Array, Span
from harness.judge.timeline import Evidence
from harness.rundir.events import Progress, Sample

ALMOST_NOTHING = 0.01
"""Share of the load below which a query's throughput says nothing, as of an idle source."""


def counts(
    gathered: Evidence, answers: Mapping[str, Expected], comparisons: Mapping[str, Comparison]
) -> dict[str, int]:
    sent = gathered.sent
    acknowledged = sent["offset"] >= 0
    unread = np.zeros(len(acknowledged), dtype=bool)
    for query in gathered.batches:
        unread |= gathered.batch_of[query] == len(gathered.batches[query])
    both = [answers[query] for query in ("page_views", "revenue") if query in answers]
    return {
        "sent": int((sent["sent_us"] > 0).sum()),
        "acknowledged": int(acknowledged.sum()) + len(gathered.overwritten),
        "read": int((acknowledged & ~unread).sum()),
        "counted": sum(_total(comparisons[query], 0) for query in ("page_views", "revenue") if query in comparisons)
        + sum(one.open_events for one in both),
        "dropped_late": sum(one.late_events for one in both),
        "deduplicated": sum(one.repeated for one in both),
        "dead_letter": len(comparisons["dead_letter"].observed) if "dead_letter" in comparisons else 0,
        "rows_expected": sum(len(one.expected) for one in comparisons.values()),
        "rows_seen": sum(len(rows) for one in comparisons.values() for rows in one.observed.values()),
        "unclaimed": coverage.unclaimed(gathered),
        **coverage.counts(gathered, answers, comparisons),
    }


def _total(comparison: Comparison, column: int) -> int:
    """Sum of a measure over the observed rows; what is no whole number is none, and 3.0 is one, as for the checkers."""
    values = (rows[0].values[column : column + 1] for rows in comparison.observed.values())
    return sum(int(value) for found in values for value in found if _is_whole(value))


def _is_whole(value: Any) -> bool:
    return value.is_integer() if isinstance(value, float) else isinstance(value, int) and not isinstance(value, bool)


def figures(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Every figure of result.json, each as measuring.md defines it."""
    run, measured = gathered.run, gathered.measured
    samples, progress = run.of(Sample), run.of(Progress)
    during = [event for event in progress if event.t >= measured.start_s]
    return {
        **_latencies(gathered, comparisons),
        **_rates(gathered),
        "state_bytes_max": _largest(metrics.state(progress, "memoryUsedBytes")[1]),
        "state_rows_max": _largest(metrics.state(progress, "numRowsTotal")[1]),
        "state_slope_bytes_s": round(metrics.slope(*metrics.state(during, "memoryUsedBytes")), 1),
        **_resources(samples, measured, int(run.manifest["cores"])),
    }


def _latencies(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    """Percentiles of each latency, and beside them how many of its samples are negative."""
    windowed = {query: one for query, one in comparisons.items() if query != "dead_letter"}
    durations = {query: _told(durable(gathered, query)) for query in gathered.batches}
    delays = {query: _told(emission(gathered, one)) for query, one in windowed.items()}
    offered, offered_early = _told(metrics.generator_delay_ms(gathered.sent, gathered.measured))
    acknowledged, acknowledged_early = _told(metrics.ack_latency_ms(gathered.sent, gathered.measured))
    return {
        "durable_latency_ms": {query: found for query, (found, _) in durations.items()},
        "emission_delay_ms": {query: found for query, (found, _) in delays.items()},
        "generator_delay_ms": offered,
        "ack_latency_ms": acknowledged,
        "negative_latencies": {
            "durable_latency": {query: early for query, (_, early) in durations.items()},
            "emission_delay": {query: early for query, (_, early) in delays.items()},
            "generator_delay": offered_early,
            "ack_latency": acknowledged_early,
        },
    }


def _told(samples: Array) -> tuple[dict[str, float] | None, int]:
    return metrics.percentiles(samples), int((samples < 0).sum())


def durable(gathered: Evidence, query: str) -> Array:
    """Durable latency of the query in ms, of every measured event."""
    return metrics.durable_latency_ms(
        gathered.sent, gathered.batch_of[query], gathered.batches[query], gathered.measured
    )


def emission(gathered: Evidence, comparison: Comparison) -> Array:
    """Emission delay of the query's rows in ms."""
    first = {key: min(seen, key=lambda one: one.at_s) for key, seen in comparison.observed.items()}
    rows = [(key, seen.values, seen.at_s) for key, seen in first.items()]
    return metrics.emission_delay_ms(comparison.query, rows, gathered.sent, gathered.measured)


def _largest(values: Array) -> int | None:
    return int(values.max()) if len(values) else None


def _rates(gathered: Evidence) -> dict[str, Any]:
    sent, measured = gathered.sent, gathered.measured
    own = measured.holds(sent["due_us"] / 1e6) & ~sent["flush"]
    offered_eps = float(own.sum()) / (measured.end_s - measured.start_s)
    at_s = np.arange(measured.start_s, measured.end_s, 0.25)
    shares = _shares(gathered, own)
    lags: list[int] = []
    lag_slopes: list[float] = []
    for query in gathered.batches:
        lag = metrics.lag_records(sent, gathered.batch_of[query], gathered.batches[query], at_s)
        lags.append(int(lag.max(initial=0)))
        lag_slopes.append(
            metrics.slope(*metrics.lag_at_commits(sent, gathered.batch_of[query], gathered.batches[query], measured))
        )
    seen = [one for one in shares if one is not None]
    return {
        "throughput_eps": round(offered_eps * min(seen), 2) if seen and len(seen) == len(shares) else None,
        "offered_eps": round(offered_eps, 2),
        "due_sent_share": round(float((own & (sent["sent_us"] > 0)).sum()) / max(1, _due(gathered)), 6),
        # Of a black box it is not known what it has read.
        "lag_records_max": None if gathered.run.scenario.black_box else max(lags),
        "lag_slope_eps": None if gathered.run.scenario.black_box else round(max(lag_slopes), 2),
    }


def _shares(gathered: Evidence, own: Array) -> list[float | None]:
    """What each query has kept up with, but for those that almost none of the measured events were due to.

    Due to it is what was to be written to a topic that it reads, though a broker may never have acknowledged it.
    """
    if gathered.run.scenario.black_box:  # it is not known what it has read
        return []
    sent, shares = gathered.sent, []
    for query, batches in gathered.batches.items():
        due = np.isin(sent["topic"], QUERIES[query].reads)
        if due[own].sum() > ALMOST_NOTHING * own.sum():
            due_s = sent["due_us"][due] / 1e6
            shares.append(metrics.kept_up(due_s, gathered.batch_of[query], batches, gathered.measured))
    return shares


def _due(gathered: Evidence) -> int:
    """How many events were due in the measured part."""
    load = gathered.run.scenario.load
    due = events.due_s(load.segments, np.arange(load.events))
    return int(((due >= load.warm_up_s) & (due < load.warm_up_s + load.duration_s)).sum())


def _resources(samples: Sequence[Sample], measured: Span, cores: int) -> dict[str, Any]:
    length = measured.end_s - measured.start_s
    used = {
        who: metrics.consumed(samples, f"{who}_cpu_s", measured)
        for who in ("pipeline", "machine", "brokers", "generator", "harness")
    }
    per_s = {who: None if seconds is None else round(seconds / length, 4) for who, seconds in used.items()}
    return {
        "pipeline_cores": per_s["pipeline"],
        "machine_cpu_share": None if per_s["machine"] is None else round(per_s["machine"] / cores, 4),
        "brokers_cores": per_s["brokers"],
        "generator_cores": per_s["generator"],
        "harness_cores": per_s["harness"],
        "pipeline_rss_bytes_max": metrics.largest(samples, "pipeline_rss"),
        "harness_rss_bytes_max": metrics.largest(samples, "harness_rss"),
        "checkpoint_bytes_max": metrics.largest(samples, "checkpoint_bytes"),
    }
