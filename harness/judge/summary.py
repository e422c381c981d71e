"""The figures and the counts of a run: measures and proofs, asked of its evidence. Nothing is judged here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.job.clickstream import events
from harness.job.clickstream.contract import QUERIES
from harness.job.clickstream.reference import Expected
from harness.judge import coverage, metrics
from harness.judge.anomalies import Comparison
from harness.judge.guard import STRICT, Guard
from harness.judge.metrics import Array, Span
from harness.judge.timeline import Evidence
from harness.rundir.events import Progress, Sample

ALMOST_NOTHING = 0.01
"""Share of the load below which a query's throughput says nothing, as of an idle source."""
LARGEST = {
    "pipeline_rss_bytes": "pipeline_rss",
    "harness_rss_bytes": "harness_rss",
    "checkpoint_bytes": "checkpoint_bytes",
}
"""Figures that are the largest value of a field of the samples."""


COUNTS_EACH = tuple(query.name for query in QUERIES.values() if query.counts_each)
"""The queries whose rows count every event of a topic once."""
OF_ANSWERS = ("counted", "dropped_late", "deduplicated")
OF_ROWS = ("counted", "dead_letter", "rows_expected", "rows_seen")


def counts(
    gathered: Evidence,
    answers: Mapping[str, Expected],
    comparisons: Mapping[str, Comparison],
    guard: Guard = STRICT,
) -> dict[str, int | None]:
    """Every count of result.json; None is unknown, because it crashed or what it counts crashed before."""
    sent = gathered.sent
    acknowledged = sent["offset"] >= 0
    both = [answers[query] for query in COUNTS_EACH if query in answers]
    of: dict[str, Callable[[], int]] = {
        "sent": lambda: int((sent["sent_us"] > 0).sum()),
        "acknowledged": lambda: int(acknowledged.sum()) + len(gathered.overwritten),
        "read": lambda: int((acknowledged & ~_unread(gathered)).sum()),
        "counted": lambda: _counted(comparisons) + sum(answer.open_events for answer in both),
        "dropped_late": lambda: sum(answer.late_events for answer in both),
        "deduplicated": lambda: sum(answer.repeated for answer in both),
        "dead_letter": lambda: sum(
            len(found.observed) for query, found in comparisons.items() if QUERIES[query].rejects
        ),
        "rows_expected": lambda: sum(len(comparison.expected) for comparison in comparisons.values()),
        "rows_seen": lambda: sum(
            len(rows) for comparison in comparisons.values() for rows in comparison.observed.values()
        ),
        "unclaimed": lambda: coverage.unclaimed(gathered),
    }
    queries = gathered.run.scenario.queries.keys()
    unknown = {
        *(OF_ANSWERS if queries - answers.keys() else ()),
        *(OF_ROWS if queries - comparisons.keys() else ()),
    }
    return coverage.counted(of, unknown, guard) | coverage.counts(gathered, answers, comparisons, guard)


def _unread(gathered: Evidence) -> Array:
    """Which events a query was to read and no batch of it has read."""
    unread = np.zeros(len(gathered.sent["offset"]), dtype=bool)
    for query, batches in gathered.batches.items():
        unread |= gathered.batch_of[query] == len(batches)
    return unread


def _counted(comparisons: Mapping[str, Comparison]) -> int:
    return sum(_total(comparisons[query], 0) for query in COUNTS_EACH if query in comparisons)


def _total(comparison: Comparison, column: int) -> int:
    """Sum of a measure over the observed rows; what is no whole number is none, and 3.0 is one, as for the checkers."""
    values = (rows[0].values[column : column + 1] for rows in comparison.observed.values())
    return sum(int(value) for found in values for value in found if _is_whole(value))


def _is_whole(value: Any) -> bool:
    return value.is_integer() if isinstance(value, float) else isinstance(value, int) and not isinstance(value, bool)


def figures(gathered: Evidence, comparisons: Mapping[str, Comparison], guard: Guard = STRICT) -> dict[str, Any]:
    """Every figure of result.json, each as measuring.md defines it; None is not measured, or a figure that crashed."""
    run, measured = gathered.run, gathered.measured
    samples, progress = run.of(Sample), run.of(Progress)
    during = [event for event in progress if event.t >= measured.start_s]
    of: dict[str, Callable[[], Any]] = {
        "state_bytes_max": lambda: _largest(metrics.state(progress, "memoryUsedBytes")[1]),
        "state_rows_max": lambda: _largest(metrics.state(progress, "numRowsTotal")[1]),
        "state_slope_bytes_s": lambda: round(metrics.slope(*metrics.state(during, "memoryUsedBytes")), 1),
    }
    return {
        **_latencies(gathered, comparisons, guard),
        **_rates(gathered, guard),
        **{name: guard.of(f"the figure {name}", figure, None) for name, figure in of.items()},
        **_resources(samples, measured, int(run.manifest["cores"]), guard),
    }


def _latencies(gathered: Evidence, comparisons: Mapping[str, Comparison], guard: Guard) -> dict[str, Any]:
    """Percentiles of each latency, and beside them how many of its samples are negative."""

    def of(what: str, samples: Callable[[], Array]) -> tuple[dict[str, float] | None, int | None]:
        return guard.of(f"the figure {what}", lambda: _percentiles(samples()), (None, None))

    windowed = [query for query in gathered.run.scenario.queries if QUERIES[query].stateful]
    durations = {
        query: of(f"durable_latency_ms of {query}", partial(durable, gathered, query)) for query in gathered.batches
    }
    delays = {
        query: of(f"emission_delay_ms of {query}", partial(emission, gathered, comparisons[query]))
        if query in comparisons
        else (None, None)
        for query in windowed
    }
    offered, offered_early = of(
        "generator_delay_ms", lambda: metrics.generator_delay_ms(gathered.sent, gathered.measured)
    )
    acknowledged, acknowledged_early = of(
        "ack_latency_ms", lambda: metrics.ack_latency_ms(gathered.sent, gathered.measured)
    )
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


def _percentiles(samples: Array) -> tuple[dict[str, float] | None, int]:
    return metrics.percentiles(samples), int((samples < 0).sum())


def durable(gathered: Evidence, query: str) -> Array:
    """Durable latency of the query in ms, of every measured event."""
    return metrics.durable_latency_ms(
        gathered.sent, gathered.batch_of[query], gathered.batches[query], gathered.measured
    )


def emission(gathered: Evidence, comparison: Comparison) -> Array:
    """Emission delay of the query's rows in ms."""
    first = {key: min(seen, key=lambda row: row.at_s) for key, seen in comparison.observed.items()}
    rows = [(key, seen.values, seen.at_s) for key, seen in first.items()]
    return metrics.emission_delay_ms(comparison.query, rows, gathered.sent, gathered.measured)


def _largest(values: Array) -> int | None:
    return int(values.max()) if len(values) else None


def _rates(gathered: Evidence, guard: Guard) -> dict[str, Any]:
    sent, measured = gathered.sent, gathered.measured
    own = measured.holds(sent["due_us"] / 1e6) & ~sent["flush"]
    offered_eps = float(own.sum()) / (measured.end_s - measured.start_s)
    of: dict[str, Callable[[], Any]] = {
        "throughput_eps": lambda: _throughput(gathered, own, offered_eps),
        "offered_eps": lambda: round(offered_eps, 2),
        "due_sent_share": lambda: round(float((own & (sent["sent_us"] > 0)).sum()) / max(1, _due(gathered)), 6),
        # Of a black box it is not known what it has read.
        "lag_records_max": lambda: None if gathered.run.scenario.black_box else _largest_lag(gathered),
        "lag_slope_eps": lambda: None if gathered.run.scenario.black_box else _lag_slope(gathered),
    }
    return {name: guard.of(f"the figure {name}", figure, None) for name, figure in of.items()}


def _throughput(gathered: Evidence, own: Array, offered_eps: float) -> float | None:
    shares = _shares(gathered, own)
    seen = [share for share in shares if share is not None]
    return round(offered_eps * min(seen), 2) if seen and len(seen) == len(shares) else None


def _largest_lag(gathered: Evidence) -> int:
    at_s = np.arange(gathered.measured.start_s, gathered.measured.end_s, 0.25)
    lags = (
        metrics.lag_records(gathered.sent, gathered.batch_of[query], batches, at_s)
        for query, batches in gathered.batches.items()
    )
    return max(int(lag.max(initial=0)) for lag in lags)


def _lag_slope(gathered: Evidence) -> float:
    """The steepest slope of all queries, in records per second."""
    slopes = (
        metrics.slope(*metrics.lag_at_commits(gathered.sent, gathered.batch_of[query], batches, gathered.measured))
        for query, batches in gathered.batches.items()
    )
    return round(max(slopes), 2)


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


def _resources(samples: Sequence[Sample], measured: Span, cores: int, guard: Guard) -> dict[str, Any]:
    length = measured.end_s - measured.start_s
    used = {
        who: guard.of(f"the CPU of {who}", partial(metrics.consumed, samples, f"{who}_cpu_s", measured), None)
        for who in ("pipeline", "machine", "brokers", "generator", "harness")
    }
    per_s = {who: None if seconds is None else round(seconds / length, 4) for who, seconds in used.items()}
    return {
        "pipeline_cores": per_s["pipeline"],
        "machine_cpu_share": None if per_s["machine"] is None else round(per_s["machine"] / cores, 4),
        "brokers_cores": per_s["brokers"],
        "generator_cores": per_s["generator"],
        "harness_cores": per_s["harness"],
        **{
            f"{name}_max": guard.of(f"the figure {name}_max", partial(metrics.largest, samples, field), None)
            for name, field in LARGEST.items()
        },
    }
