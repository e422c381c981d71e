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
from harness.rundir.history import Run

ALMOST_NOTHING = 0.01
"""Share of the load below which a query's throughput has no meaning, as of an idle source."""
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
OF_CHECKPOINT = ("read", "dropped_late", "deduplicated", "unclaimed")
"""The counts that take a checkpoint."""
OF_REJECTED = ("dead_letter",)
"""The counts that take a query for rejected records."""


def counts(
    gathered: Evidence,
    answers: Mapping[str, Expected],
    comparisons: Mapping[str, Comparison],
    guard: Guard = STRICT,
) -> dict[str, int | None]:
    """Every count of result.json; None is unknown, because it crashed or what it counts crashed before."""
    sent = gathered.sent
    both = [answers[query] for query in COUNTS_EACH if query in answers]
    of: dict[str, Callable[[], int]] = {
        "sent": lambda: int((sent["sent_us"] > 0).sum()),
        "acknowledged": lambda: int((sent["offset"] >= 0).sum()) + len(gathered.overwritten),
        "read": lambda: int(((sent["offset"] >= 0) & ~_unread(gathered)).sum()),
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
        *(OF_CHECKPOINT if gathered.run.scenario.black_box else ()),
        *(() if rejects(gathered) else OF_REJECTED),
    }
    return coverage.counted(of, unknown, guard) | coverage.counts(gathered, answers, comparisons, guard)


def rejects(gathered: Evidence) -> bool:
    """Whether the pipeline has a query for rejected records."""
    return any(query.rejects for query in gathered.run.scenario.queries.values())


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
        "state_bytes_max": lambda: _state_max(gathered, progress, "memoryUsedBytes"),
        "state_rows_max": lambda: _state_max(gathered, progress, "numRowsTotal"),
        "state_slope_bytes_s": lambda: _state_slope(gathered, during),
    }
    return {
        **_latencies(gathered, comparisons, guard),
        **_rates(gathered, guard),
        **{name: guard.of(f"the figure {name}", figure, None) for name, figure in of.items()},
        **_resources(run, samples, measured, guard),
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


def silent_of_state(gathered: Evidence, progress: Sequence[Progress]) -> list[str]:
    """The queries with state of which no progress report has a state operator."""
    reported = {event.query for event in progress if event.operators}
    return [query for query in gathered.batches if QUERIES[query].stateful and query not in reported]


def _state_max(gathered: Evidence, progress: Sequence[Progress], field: str) -> int | None:
    """The largest sum over all queries; None where a query with state does not report it."""
    sums = metrics.state(progress, field)[1]
    if silent_of_state(gathered, progress) or not len(sums) or not np.isfinite(sums).all():
        return None
    return int(sums.max())


def _state_slope(gathered: Evidence, progress: Sequence[Progress]) -> float | None:
    if silent_of_state(gathered, progress):
        return None
    slope = metrics.slope(*metrics.state(progress, "memoryUsedBytes"))
    return None if slope is None else round(slope, 1)


def _rates(gathered: Evidence, guard: Guard) -> dict[str, Any]:
    sent = gathered.sent
    of: dict[str, Callable[[], Any]] = {
        "throughput_eps": lambda: _throughput(gathered),
        "offered_eps": lambda: round(_offered_eps(gathered), 2),
        "due_sent_share": lambda: round(
            float((own(gathered) & (sent["sent_us"] > 0)).sum()) / max(1, _due(gathered)), 6
        ),
        # Of a black box it is not known what it has read.
        "lag_records_max": lambda: None if gathered.run.scenario.black_box else _largest_lag(gathered),
        "lag_slope_eps": lambda: None if gathered.run.scenario.black_box else _lag_slope(gathered),
    }
    return {name: guard.of(f"the figure {name}", figure, None) for name, figure in of.items()}


def own(gathered: Evidence) -> Array:
    """Which rows of `sent` were due in the measured part."""
    inside: Array = gathered.measured.holds(gathered.sent["due_us"] / 1e6) & ~gathered.sent["flush"]
    return inside


def _offered_eps(gathered: Evidence) -> float:
    return float(own(gathered).sum()) / (gathered.measured.end_s - gathered.measured.start_s)


def _throughput(gathered: Evidence) -> float | None:
    shares = [_share(gathered, query) for query in loaded(gathered)]
    seen = [share for share in shares if share is not None]
    return round(_offered_eps(gathered) * min(seen), 2) if seen and len(seen) == len(shares) else None


def _largest_lag(gathered: Evidence) -> int:
    at_s = np.arange(gathered.measured.start_s, gathered.measured.end_s, 0.25)
    lags = (
        metrics.lag_records(gathered.sent, gathered.batch_of[query], batches, at_s)
        for query, batches in gathered.batches.items()
    )
    return max(int(lag.max(initial=0)) for lag in lags)


def _lag_slope(gathered: Evidence) -> float | None:
    """The steepest slope of all queries, in records per second; None where that of a loaded query is not known."""
    slopes = {
        query: metrics.slope(
            *metrics.lag_at_commits(gathered.sent, gathered.batch_of[query], batches, gathered.measured)
        )
        for query, batches in gathered.batches.items()
    }
    known = [slope for slope in slopes.values() if slope is not None]
    if not known or any(slopes[query] is None for query in loaded(gathered)):
        return None
    return round(max(known), 2)


def loaded(gathered: Evidence) -> list[str]:
    """The queries that more than almost none of the measured events were due to; none of a black box.

    Due to a query is what was to be written to a topic that it reads, though a broker may never have acknowledged it.
    """
    if gathered.run.scenario.black_box:  # it is not known what it has read
        return []
    measured = own(gathered)
    return [
        query
        for query in gathered.batches
        if _due_to(gathered, query)[measured].sum() > ALMOST_NOTHING * measured.sum()
    ]


def _due_to(gathered: Evidence, query: str) -> Array:
    """Which rows of `sent` were to be written to a topic that the query reads."""
    return np.isin(gathered.sent["topic"], QUERIES[query].reads)


def _share(gathered: Evidence, query: str) -> float | None:
    """The share of the records due to a query that it has kept up with."""
    due_s = gathered.sent["due_us"][_due_to(gathered, query)] / 1e6
    return metrics.kept_up(due_s, gathered.batch_of[query], gathered.batches[query], gathered.measured)


def _due(gathered: Evidence) -> int:
    """How many events were due in the measured part."""
    load = gathered.run.scenario.load
    due = events.due_s(load.segments, np.arange(load.events))
    return int(((due >= load.warm_up_s) & (due < load.warm_up_s + load.duration_s)).sum())


def _resources(run: Run, samples: Sequence[Sample], measured: Span, guard: Guard) -> dict[str, Any]:
    per_s = {
        who: guard.of(f"the CPU of {who}", partial(_cores, samples, who, measured), None)
        for who in ("pipeline", "machine", "brokers", "generator", "harness")
    }
    return {
        "pipeline_cores": per_s["pipeline"],
        "machine_cpu_share": guard.of(
            "the figure machine_cpu_share", lambda: _share_of_cores(run, per_s["machine"]), None
        ),
        "brokers_cores": per_s["brokers"],
        "generator_cores": per_s["generator"],
        "harness_cores": per_s["harness"],
        **{
            f"{name}_max": guard.of(f"the figure {name}_max", partial(metrics.largest, samples, field), None)
            for name, field in LARGEST.items()
        },
    }


def _cores(samples: Sequence[Sample], who: str, measured: Span) -> float | None:
    """CPU seconds used in a second of the measured part."""
    seconds = metrics.consumed(samples, f"{who}_cpu_s", measured)
    return None if seconds is None else round(seconds / (measured.end_s - measured.start_s), 4)


def _share_of_cores(run: Run, used: float | None) -> float | None:
    return None if used is None else round(used / int(run.manifest["cores"]), 4)
