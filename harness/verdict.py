"""A run directory → its result: oracle, checkers and measures put together, then the five targets.

Pure but for reading the run directory: `harness check RUN` computes the same again at any time.
Fail outranks unknown outranks pass, and a figure of a run with anomalies counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from harness import checkers, measures, workload
from harness.checkers import Comparison
from harness.history import Run
from harness.measures import Array, Span
from harness.model import Anomaly, Record, Result, Target, Verdict
from harness.oracle import batches as spark
from harness.oracle.batches import Batch
from harness.oracle.reference import Reference
from pipeline.schema import QUERIES

CHUNK = 50_000
GENERATOR_DELAY_LIMIT_MS = 1000
DUE_SENT_SHARE = 0.99


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all figures are computed from: events, batches by query, and which batch read which event."""

    run: Run
    sent: Mapping[str, Array]
    batches: Mapping[str, Sequence[Batch]]
    batch_of: Mapping[str, Array]
    measured: Span


def judge(run: Run) -> Result:
    """Judge a finished run. Raises RunError where the directory is incomplete."""
    if run.of_kind("interrupted"):
        what = run.of_kind("interrupted")[0]
        return unknown(f"interrupted in phase {what['phase']}: {what['why']}")
    evidence = gather(run)
    reference = _reference(evidence)
    comparisons = _comparisons(run, reference)
    anomalies = _anomalies(evidence, comparisons)
    counts = _counts(evidence, comparisons)
    figures = _figures(evidence, comparisons)
    targets = _targets(evidence, figures, anomalies, counts)
    verdict, why = _conclude(evidence, targets, figures, counts, comparisons, anomalies)
    return Result(verdict, why, tuple(targets), figures, counts, tuple(anomalies))


def unknown(why: str) -> Result:
    """The result of a run about which nothing can be said."""
    return Result(Verdict.UNKNOWN, why, (), {}, {}, ())


def as_json(result: Result, most: int = 1000) -> dict[str, Any]:
    """result.json with the stable keys of measuring.md; the first `most` anomalies stand in full beside the counts."""
    by_kind = dict.fromkeys(checkers.KINDS, 0)
    for anomaly in result.anomalies:
        by_kind[anomaly.kind] += 1
    return {
        "verdict": result.verdict.value,
        "why": result.why,
        "targets": {
            target.name: {
                "value": target.value,
                "limit": target.limit,
                "unit": target.unit,
                "headroom": None if target.headroom is None else round(target.headroom, 4),
                "verdict": target.verdict.value,
            }
            for target in result.targets
        },
        "figures": dict(result.figures),
        "counts": dict(result.counts),
        "anomalies": by_kind,
        "examples": [asdict(anomaly) for anomaly in result.anomalies[:most]],
        "faults": list(result.faults),
        "recovery_s": None,
    }


def gather(run: Run) -> Evidence:
    """Read events and batches, and join them."""
    sent = run.sent()
    prefix = run.manifest["topic_prefix"]
    batches = {query: _batches(run, query, prefix) for query in QUERIES}
    batch_of = {query: measures.batch_of(query, sent, batches[query]) for query in QUERIES}
    load = run.scenario.load
    return Evidence(run, sent, batches, batch_of, measures.span(sent, load.warm_up_s, load.duration_s))


def _batches(run: Run, query: str, prefix: str) -> list[Batch]:
    committed = {event["batch"]: event["committed_s"] for event in run.of_kind("commit") if event["query"] == query}
    found = spark.read(run.directory / "checkpoints" / query, committed)
    return [
        Batch(
            one.number,
            {(topic.removeprefix(prefix), partition): end for (topic, partition), end in one.ends.items()},
            one.watermark_ms,
            one.committed_s,
        )
        for one in found
    ]


def records(run: Run, sent: Mapping[str, Array]) -> Iterator[Record]:
    """Every acknowledged record with its bytes, made again from the seed."""
    own = np.flatnonzero(~sent["flush"])
    load = run.scenario.load
    for first in range(0, len(own), CHUNK):
        rows = own[first : first + CHUNK]
        values = workload.batch(run.scenario.workload, load.seed, load.eps, int(sent["n"][rows[0]]), len(rows)).values
        yield from _acknowledged(sent, rows, values)
    rows = np.flatnonzero(sent["flush"])
    if len(rows):
        events = workload.flush(run.scenario.workload, int(sent["event_time_ms"][rows[0]]) - workload.FLUSH_AHEAD_MS)
        by_topic = {event.topic: event.value for event in events}
        yield from _acknowledged(sent, rows, [by_topic[sent["topic"][row]] for row in rows])


def _acknowledged(sent: Mapping[str, Array], rows: Array, values: Sequence[bytes]) -> Iterator[Record]:
    columns = (sent[name][rows].tolist() for name in ("topic", "partition", "offset"))
    for topic, partition, offset, value in zip(*columns, values, strict=True):
        if offset >= 0:
            yield Record(topic, partition, offset, value)


def _reference(evidence: Evidence) -> Reference:
    reference = Reference()
    for record in records(evidence.run, evidence.sent):
        reference.add(record)
    return reference


def _comparisons(run: Run, reference: Reference) -> dict[str, Comparison]:
    expected = reference.rows()
    return {
        name: Comparison(name, query.measures, expected[name], checkers.decoded(run.rows(name)))
        for name, query in QUERIES.items()
    }


def _anomalies(evidence: Evidence, comparisons: Mapping[str, Comparison]) -> list[Anomaly]:
    found = [
        anomaly
        for query in comparisons.values()
        for anomaly in checkers.check(_guarantee(evidence, query.query), query)
    ]
    return found + [anomaly for query in QUERIES for anomaly in _records_lost(evidence, query)]


def _guarantee(evidence: Evidence, query: str) -> str:
    """Parquet is exactly-once; so is Kafka as long as no batch can have been replayed."""
    starts = [
        event for event in evidence.run.of_kind("process") if (event["name"], event["event"]) == ("pipeline", "start")
    ]
    return "exactly-once" if QUERIES[query].sink == "parquet" or len(starts) <= 1 else "at-least-once"


def _records_lost(evidence: Evidence, query: str) -> Iterator[Anomaly]:
    never = np.flatnonzero(evidence.batch_of[query] == len(evidence.batches[query]))
    for row in never[:1000]:
        key = tuple(
            evidence.sent[name][row].item() if name != "topic" else evidence.sent[name][row]
            for name in ("topic", "partition", "offset")
        )
        yield Anomaly(
            "record_lost",
            query,
            key,
            "read by a committed batch",
            "never read",
            f"one of {len(never)} acknowledged records that no batch of {query} covers",
        )


def _counts(evidence: Evidence, comparisons: Mapping[str, Comparison]) -> dict[str, int]:
    sent = evidence.sent
    acknowledged = sent["offset"] >= 0
    unread = np.zeros(len(acknowledged), dtype=bool)
    for query in QUERIES:
        unread |= evidence.batch_of[query] == len(evidence.batches[query])
    dropped = measures.dropped_late(evidence.run.of_kind("progress"))
    return {
        "sent": int((sent["sent_us"] > 0).sum()),
        "acknowledged": int(acknowledged.sum()),
        "read": int((acknowledged & ~unread).sum()),
        "counted": _total(comparisons["page_views"], 0)
        + _total(comparisons["revenue"], 0)
        + int((sent["flush"] & acknowledged).sum()),
        "dropped_late": dropped.get("page_views", 0) + dropped.get("revenue", 0),
        "dead_letter": len(comparisons["dead_letter"].observed),
        "rows_expected": sum(len(one.expected) for one in comparisons.values()),
        "rows_seen": sum(len(rows) for one in comparisons.values() for rows in one.observed.values()),
    }


def _total(comparison: Comparison, column: int) -> int:
    return sum(int(rows[0].values[column]) for rows in comparison.observed.values())


def _figures(evidence: Evidence, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    run, sent, measured = evidence.run, evidence.sent, evidence.measured
    samples, progress = run.of_kind("sample"), run.of_kind("progress")
    during = [event for event in progress if event["t"] >= measured.start_s]
    return {
        "durable_latency_ms": {query: measures.percentiles(durable(evidence, query)) for query in QUERIES},
        "emission_delay_ms": {
            query: measures.percentiles(emission(evidence, comparison))
            for query, comparison in comparisons.items()
            if query != "dead_letter"
        },
        "generator_delay_ms": measures.percentiles(measures.generator_delay_ms(sent, measured)),
        "ack_latency_ms": measures.percentiles(measures.ack_latency_ms(sent, measured)),
        **_rates(evidence),
        "state_bytes_max": _largest(measures.state(progress, "memoryUsedBytes")[1]),
        "state_rows_max": _largest(measures.state(progress, "numRowsTotal")[1]),
        "state_slope_bytes_s": round(measures.slope(*measures.state(during, "memoryUsedBytes")), 1),
        **_resources(samples, measured, int(run.manifest["cores"]), len(sent["n"])),
    }


def durable(evidence: Evidence, query: str) -> Array:
    """Durable latency of the query in ms, of every measured event."""
    return measures.durable_latency_ms(
        evidence.sent, evidence.batch_of[query], evidence.batches[query], evidence.measured
    )


def emission(evidence: Evidence, comparison: Comparison) -> Array:
    """Emission delay of the query's rows in ms."""
    rows = [(key, seen.values, seen.at_s) for key, all_seen in comparison.observed.items() for seen in all_seen[:1]]
    return measures.emission_delay_ms(comparison.query, rows, evidence.sent, evidence.measured)


def _largest(values: Array) -> int | None:
    return int(values.max()) if len(values) else None


def _rates(evidence: Evidence) -> dict[str, Any]:
    sent, measured = evidence.sent, evidence.measured
    own = measured.holds(sent["due_us"] / 1e6) & ~sent["flush"]
    length = measured.end_s - measured.start_s
    at_s = np.arange(measured.start_s, measured.end_s, 0.25)
    slopes, lags, lag_slopes = [], [], []
    for query in QUERIES:
        mine = evidence.batch_of[query] >= 0
        share = mine.sum() / max(1, (sent["offset"] >= 0).sum())
        slopes.append(
            (measures.committed_slope_eps(evidence.batch_of[query], evidence.batches[query], measured) or 0.0)
            / max(share, 1e-9)
        )
        lag = measures.lag_records(sent, evidence.batch_of[query], evidence.batches[query], at_s)
        lags.append(int(lag.max()))
        lag_slopes.append(measures.slope(at_s, lag))
    return {
        "throughput_eps": round(min(slopes), 2),
        "offered_eps": round(float(own.sum()) / length, 2),
        "due_sent_share": round(
            float((own & (sent["sent_us"] > 0)).sum()) / max(1, evidence.run.scenario.load.eps * length), 6
        ),
        "lag_records_max": max(lags),
        "lag_slope_eps": round(max(lag_slopes), 2),
    }


def _resources(samples: Sequence[Mapping[str, Any]], measured: Span, cores: int, events: int) -> dict[str, Any]:
    length = measured.end_s - measured.start_s
    used = {
        who: measures.consumed(samples, f"{who}_cpu_s", measured)
        for who in ("pipeline", "machine", "brokers", "generator", "harness")
    }
    per_s = {who: None if seconds is None else round(seconds / length, 4) for who, seconds in used.items()}
    return {
        "pipeline_cores": per_s["pipeline"],
        "machine_cpu_share": None if per_s["machine"] is None else round(per_s["machine"] / cores, 4),
        "brokers_cores": per_s["brokers"],
        "generator_cores": per_s["generator"],
        "harness_cores": per_s["harness"],
        "pipeline_rss_bytes_max": measures.largest(samples, "pipeline_rss"),
        "harness_rss_bytes_max": measures.largest(samples, "harness_rss"),
        "checkpoint_bytes_max": measures.largest(samples, "checkpoint_bytes"),
    }


def _targets(
    evidence: Evidence, figures: Mapping[str, Any], anomalies: Sequence[Anomaly], counts: Mapping[str, int]
) -> list[Target]:
    limits = evidence.run.scenario.limits
    cores = evidence.run.scenario.pipeline.cores
    p99s = [one["p99"] for name in ("durable_latency_ms", "emission_delay_ms") for one in figures[name].values() if one]
    durable_known = all(figures["durable_latency_ms"].values())
    latency = max(p99s) / 1e3 if p99s and durable_known else None
    cpu = None if figures["pipeline_cores"] is None else figures["pipeline_cores"] / cores
    bad = sum(anomaly.kind != "record_lost" for anomaly in anomalies)
    success = 1 - bad / counts["rows_expected"] if counts["rows_expected"] else None
    records_lost = any(anomaly.kind == "record_lost" for anomaly in anomalies)
    return [
        _target("latency", latency, limits.latency_s, "s"),
        _throughput(figures, limits.throughput_eps),
        _target("state_size", figures["state_bytes_max"], limits.state_bytes, "bytes"),
        _target("cpu", cpu, limits.cpu_share, "share of cores"),
        _target("success", success, limits.success_share, "share of rows", at_least=True, also=not records_lost),
    ]


def _target(
    name: str, value: float | None, limit: float, unit: str, *, at_least: bool = False, also: bool = True
) -> Target:
    if value is None:
        return Target(name, None, limit, unit, Verdict.UNKNOWN, at_least)
    holds = (value > limit if at_least else value < limit) and also
    return Target(name, value, limit, unit, Verdict.PASS if holds else Verdict.FAIL, at_least)


def _throughput(figures: Mapping[str, Any], limit: float) -> Target:
    """Above the limit, at least 99 % of what was offered, and the lag grows by at most 1 % of the load.

    A run that offers less than the limit cannot show more than it offered: it is held to its offer.
    """
    value, offered = figures["throughput_eps"], figures["offered_eps"]
    keeps_up = value >= 0.99 * offered and figures["lag_slope_eps"] <= 0.01 * offered
    return _target("throughput", value, limit, "events/s", at_least=True, also=keeps_up)


def _conclude(
    evidence: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int],
    comparisons: Mapping[str, Comparison],
    anomalies: Sequence[Anomaly],
) -> tuple[Verdict, str]:
    findings = list(_failures(evidence, targets, anomalies)) + list(
        _doubts(evidence, targets, figures, counts, comparisons)
    )
    if not findings:
        return Verdict.PASS, f"all {counts['rows_expected']:,} rows are right and all five targets hold"
    verdict = Verdict.worst(verdict for verdict, _ in findings)
    return verdict, "; ".join(why for found, why in findings if found is verdict)


def _failures(
    evidence: Evidence, targets: Sequence[Target], anomalies: Sequence[Anomaly]
) -> Iterator[tuple[Verdict, str]]:
    if anomalies:
        first = anomalies[0]
        yield (
            Verdict.FAIL,
            f"{len(anomalies):,} anomalies, the first: {first.kind} in {first.query} at {' '.join(map(str, first.key))}",
        )
    for event in evidence.run.of_kind("process"):
        if event["name"] == "pipeline" and event["event"] == "died":
            yield Verdict.FAIL, f"the pipeline ended by itself with code {event['code']}: {event['last']}"
    missed = [target.name for target in targets if target.verdict is Verdict.FAIL]
    if missed:
        yield Verdict.FAIL, f"missed: {', '.join(missed)}"


def _doubts(
    evidence: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int],
    comparisons: Mapping[str, Comparison],
) -> Iterator[tuple[Verdict, str]]:
    delay = figures["generator_delay_ms"]
    if delay is None or delay["p99"] > GENERATOR_DELAY_LIMIT_MS or figures["due_sent_share"] < DUE_SENT_SHARE:
        yield Verdict.UNKNOWN, "generator-limited: the load was not offered as the scenario says"
    accounted = counts["counted"] + counts["dropped_late"] + counts["dead_letter"]
    if not counts["acknowledged"] == counts["read"] == accounted:
        yield (
            Verdict.UNKNOWN,
            f"counts do not reconcile: acknowledged {counts['acknowledged']:,}, read {counts['read']:,}, counted + dropped late + dead letter {accounted:,}",
        )
    late = sum(
        measures.late(evidence.sent, evidence.batch_of[query], evidence.batches[query])
        for query in QUERIES
        if query != "dead_letter"
    )
    if late:
        yield (
            Verdict.UNKNOWN,
            f"{late:,} records were read behind the watermark, and this oracle judges on-time data only",
        )
    empty = [query for query, comparison in comparisons.items() if not comparison.expected]
    if empty == ["dead_letter"] and not evidence.sent["malformed"].any():
        empty = []
    if empty:
        yield Verdict.UNKNOWN, f"nothing to compare in {', '.join(empty)}"
    unmeasured = [target.name for target in targets if target.verdict is Verdict.UNKNOWN]
    if unmeasured:
        yield Verdict.UNKNOWN, f"not measured: {', '.join(unmeasured)}"
