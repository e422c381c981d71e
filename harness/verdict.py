"""A run directory → its result: oracle, checkers and measures put together, then the five targets.

Pure but for reading the run directory: `harness check RUN` computes the same again at any time.
Fail outranks unknown outranks pass, and a figure of a run with anomalies counts for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from harness import checkers, evidence, explain, measures
from harness.checkers import Comparison
from harness.evidence import Evidence
from harness.history import Run
from harness.measures import Array, Span
from harness.model import Anomaly, Result, Target, Verdict
from harness.oracle.reference import Expected
from pipeline.schema import CONVERSION_HORIZON_S, QUERIES, SESSION_GAP_S

GENERATOR_DELAY_LIMIT_MS = 1000
DUE_SENT_SHARE = 0.99
EXPLAINED_MAX = 10
OF_LATENESS = ("lost_row", "invented_row", "wrong_value")


def judge(run: Run) -> Result:
    """Judge a finished run. Raises RunError where the directory is incomplete."""
    if run.of_kind("interrupted"):
        what = run.of_kind("interrupted")[0]
        return unknown(f"interrupted in phase {what['phase']}: {what['why']}")
    gathered = evidence.gather(run)
    answers = evidence.expected(gathered)
    comparisons = compare(gathered, answers)
    anomalies = find(gathered, answers, comparisons)
    counts = _counts(gathered, answers, comparisons)
    figures = _figures(gathered, comparisons)
    targets = _targets(gathered, figures, anomalies, counts)
    verdict, why = _conclude(gathered, targets, figures, counts, comparisons, anomalies)
    faults = tuple(run.of_kind("fault"))
    return Result(verdict, why, tuple(targets), figures, counts, tuple(anomalies), faults)


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


def compare(gathered: Evidence, answers: Mapping[str, Expected]) -> dict[str, Comparison]:
    """Expected and observed rows, by query."""
    return {
        name: Comparison(
            name,
            query.measures,
            answers[name].rows,
            checkers.decoded(gathered.run.rows(name)),
            _earliest(gathered, name, answers[name]),
        )
        for name, query in QUERIES.items()
    }


def _earliest(gathered: Evidence, query: str, answer: Expected) -> dict[tuple[Any, ...], float]:
    committed = [batch.committed_s for batch in gathered.batches[query]]
    return {key: committed[batch - 1] for key, batch in answer.batch.items() if batch > 0}


def find(gathered: Evidence, answers: Mapping[str, Expected], comparisons: Mapping[str, Comparison]) -> list[Anomaly]:
    """Every anomaly of a run, what explains the others first, the first of them explained."""
    of_rows = _of_rows(gathered, comparisons)
    if any(anomaly.kind in OF_LATENESS for anomaly in of_rows):
        of_rows = _of_rows(gathered, _with_lateness(gathered, comparisons))
    of_records = [anomaly for query in QUERIES for anomaly in _of_query(gathered, query, answers[query])]
    of_records += _never_closed(gathered, of_records, comparisons)
    found = sorted(of_records + of_rows, key=lambda anomaly: anomaly.kind != "wrong_watermark")
    chosen, rest = _first_of_each(found)
    return explain.explain(gathered, chosen, answers, comparisons) + rest


def _first_of_each(found: Sequence[Anomaly]) -> tuple[list[Anomaly], list[Anomaly]]:
    """The first of each kind and query, to be explained, and the rest."""
    taken: Counter[tuple[str, str]] = Counter()
    chosen: list[Anomaly] = []
    rest: list[Anomaly] = []
    for anomaly in found:
        taken[anomaly.kind, anomaly.query] += 1
        (chosen if taken[anomaly.kind, anomaly.query] <= EXPLAINED_MAX else rest).append(anomaly)
    return chosen, rest


def _of_rows(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> list[Anomaly]:
    return [
        anomaly
        for query in comparisons.values()
        for anomaly in checkers.check(_guarantee(gathered, query.query), query)
    ]


def _with_lateness(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    counted, dropped = evidence.expected(gathered, "never"), evidence.expected(gathered, "own")
    return {
        name: replace(one, if_late_counted=counted[name].rows, if_late_dropped=dropped[name].rows)
        for name, one in comparisons.items()
    }


def _guarantee(gathered: Evidence, query: str) -> str:
    """Parquet is exactly-once; so is Kafka as long as no batch can have been replayed."""
    restarted = evidence.restarts(gathered.run) > 0
    return "at-least-once" if QUERIES[query].sink == "kafka" and restarted else "exactly-once"


def _of_query(gathered: Evidence, query: str, answer: Expected) -> Iterator[Anomaly]:
    yield from _records_lost(gathered, query)
    yield from _read_twice(gathered, query)
    if query != "dead_letter":
        yield from _watermarks(gathered, query)
        yield from _drops(gathered, query, answer)
        yield from _state(gathered, query)


def _records_lost(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    never = np.flatnonzero(gathered.batch_of[query] == len(gathered.batches[query]))
    sent = gathered.sent
    for row in never[:1000]:
        key = (sent["topic"][row], sent["partition"][row].item(), sent["offset"][row].item())
        why = f"one of {len(never)} acknowledged records that no batch of {query} covers"
        yield Anomaly("record_lost", query, key, "read by a committed batch", "never read", why)


def _read_twice(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    for before, after in zip(gathered.batches[query], gathered.batches[query][1:], strict=False):
        for (topic, partition), end in before.ends.items():
            if (again := after.ends.get((topic, partition), end)) < end:
                why = (
                    f"batch {after.number} ends before batch {before.number} did: {end - again} records are read again"
                )
                key = (topic, partition, again)
                yield Anomaly("record_read_twice", query, key, f"on from {end}", f"back to {again}", why, after.number)


def _watermarks(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    """The first batch whose watermark is not what the data that was read before it makes it."""
    for batch, want in zip(gathered.batches[query], evidence.lawful_watermarks(gathered, query), strict=True):
        if batch.watermark_ms != want:
            by = (batch.watermark_ms - want) / 1000
            why = (
                f"batch {batch.number} ran at a watermark {abs(by):g} s {'ahead of' if by > 0 else 'behind'} what the events"
                " read before it make it: its delay is not 5 minutes, or not all of its sources count"
            )
            key, times = (batch.number,), (explain.moment(want), explain.moment(batch.watermark_ms))
            yield Anomaly("wrong_watermark", query, key, *times, why, batch.number)
            return


def _never_closed(gathered: Evidence, found: Sequence[Anomaly], comparisons: Mapping[str, Comparison]) -> list[Anomaly]:
    """Rows that a right watermark would have released, and the recorded one did not."""
    behind = {one.query for one in found if one.kind == "wrong_watermark"}
    if not behind:
        return []
    at = {query: evidence.lawful_watermarks(gathered, query) for query in QUERIES}
    lawful = evidence.expected(gathered, watermarks=at)
    why = "the watermark of the last batch should have passed its end, and did not"
    return [
        Anomaly("row_never_closed", query, key, "a row", "still open", why)
        for query in sorted(behind)
        for key in lawful[query].rows
        if key not in comparisons[query].expected and key not in comparisons[query].observed
    ]


def _drops(gathered: Evidence, query: str, answer: Expected) -> Iterator[Anomaly]:
    reported = measures.dropped_by_batch(gathered.run.of_kind("progress"), query)
    for batch, dropped in sorted(reported.items()):
        if dropped != (want := answer.dropped.get(batch, 0)):
            why = f"batch {batch} reports other rows dropped by the watermark than the late events it read make"
            yield Anomaly("unreconciled_count", query, (batch,), f"{want} dropped", f"{dropped} dropped", why, batch)


def _state(gathered: Evidence, query: str) -> Iterator[Anomaly]:
    """No operator needs more rows than there are events that still matter, each in at most three windows."""
    batches = gathered.batches[query]
    last = measures.last_state_rows(gathered.run.of_kind("progress"), query)
    if not batches or last is None or last[0] != batches[-1].number:
        return
    horizon_ms = (SESSION_GAP_S + CONVERSION_HORIZON_S) * 1000
    mine = gathered.batch_of[query] >= 0
    alive = int((gathered.sent["event_time_ms"][mine] + horizon_ms > batches[-1].watermark_ms).sum())
    for number, rows in enumerate(last[1]):
        if rows > 3 * alive:
            why = f"operator {number} still holds {rows:,} rows, though only {alive:,} events are not behind the watermark"
            observed = f"{rows:,} rows"
            yield Anomaly("state_not_released", query, (number,), f"at most {3 * alive:,}", observed, why, last[0])


def _counts(
    gathered: Evidence, answers: Mapping[str, Expected], comparisons: Mapping[str, Comparison]
) -> dict[str, int]:
    sent = gathered.sent
    acknowledged = sent["offset"] >= 0
    unread = np.zeros(len(acknowledged), dtype=bool)
    for query in QUERIES:
        unread |= gathered.batch_of[query] == len(gathered.batches[query])
    both = [answers["page_views"], answers["revenue"]]
    return {
        "sent": int((sent["sent_us"] > 0).sum()),
        "acknowledged": int(acknowledged.sum()),
        "read": int((acknowledged & ~unread).sum()),
        "counted": _total(comparisons["page_views"], 0)
        + _total(comparisons["revenue"], 0)
        + sum(one.open_events for one in both),
        "dropped_late": sum(one.late_events for one in both),
        "deduplicated": sum(one.repeated for one in both),
        "dead_letter": len(comparisons["dead_letter"].observed),
        "rows_expected": sum(len(one.expected) for one in comparisons.values()),
        "rows_seen": sum(len(rows) for one in comparisons.values() for rows in one.observed.values()),
        "out_of_order": measures.out_of_order(sent),
        "behind_counted": _behind_counted(gathered, answers),
        "dropped_late_sessions": answers["sessions"].late_events,
        "sessions_merged": answers["sessions"].merged,
        "copies_sent": int(sent["copy"].sum()) if "copy" in sent else 0,
        "restarts": evidence.restarts(gathered.run),
    }


def _behind_counted(gathered: Evidence, answers: Mapping[str, Expected]) -> int:
    """Events read behind the watermark that were still to be counted, in page_views."""
    index, batches = gathered.batch_of["page_views"], gathered.batches["page_views"]
    return measures.late(gathered.sent, index, batches) - answers["page_views"].late_events


def _total(comparison: Comparison, column: int) -> int:
    """Sum of a measure over the observed rows; what is no number is none."""
    values = (rows[0].values[column : column + 1] for rows in comparison.observed.values())
    return sum(int(value) for found in values for value in found if isinstance(value, int))


def _figures(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    run, sent, measured = gathered.run, gathered.sent, gathered.measured
    samples, progress = run.of_kind("sample"), run.of_kind("progress")
    during = [event for event in progress if event["t"] >= measured.start_s]
    return {
        "durable_latency_ms": {query: measures.percentiles(durable(gathered, query)) for query in QUERIES},
        "emission_delay_ms": {
            query: measures.percentiles(emission(gathered, comparison))
            for query, comparison in comparisons.items()
            if query != "dead_letter"
        },
        "generator_delay_ms": measures.percentiles(measures.generator_delay_ms(sent, measured)),
        "ack_latency_ms": measures.percentiles(measures.ack_latency_ms(sent, measured)),
        **_rates(gathered),
        "state_bytes_max": _largest(measures.state(progress, "memoryUsedBytes")[1]),
        "state_rows_max": _largest(measures.state(progress, "numRowsTotal")[1]),
        "state_slope_bytes_s": round(measures.slope(*measures.state(during, "memoryUsedBytes")), 1),
        **_resources(samples, measured, int(run.manifest["cores"]), len(sent["n"])),
    }


def durable(gathered: Evidence, query: str) -> Array:
    """Durable latency of the query in ms, of every measured event."""
    return measures.durable_latency_ms(
        gathered.sent, gathered.batch_of[query], gathered.batches[query], gathered.measured
    )


def emission(gathered: Evidence, comparison: Comparison) -> Array:
    """Emission delay of the query's rows in ms."""
    rows = [(key, seen.values, seen.at_s) for key, all_seen in comparison.observed.items() for seen in all_seen[:1]]
    return measures.emission_delay_ms(comparison.query, rows, gathered.sent, gathered.measured)


def _largest(values: Array) -> int | None:
    return int(values.max()) if len(values) else None


def _rates(gathered: Evidence) -> dict[str, Any]:
    sent, measured = gathered.sent, gathered.measured
    own = measured.holds(sent["due_us"] / 1e6) & ~sent["flush"]
    length = measured.end_s - measured.start_s
    at_s = np.arange(measured.start_s, measured.end_s, 0.25)
    slopes, lags, lag_slopes = [], [], []
    for query in QUERIES:
        mine = gathered.batch_of[query] >= 0
        share = mine.sum() / max(1, (sent["offset"] >= 0).sum())
        committed = measures.committed_slope_eps(gathered.batch_of[query], gathered.batches[query], measured)
        slopes.append(None if committed is None else committed / max(share, 1e-9))
        lag = measures.lag_records(sent, gathered.batch_of[query], gathered.batches[query], at_s)
        lags.append(int(lag.max()))
        lag_slopes.append(
            measures.slope(*measures.lag_at_commits(sent, gathered.batch_of[query], gathered.batches[query], measured))
        )
    return {
        "throughput_eps": None if None in slopes else round(min(one for one in slopes if one is not None), 2),
        "offered_eps": round(float(own.sum()) / length, 2),
        "due_sent_share": round(
            float((own & (sent["sent_us"] > 0)).sum()) / max(1, gathered.run.scenario.load.eps * length), 6
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
    gathered: Evidence, figures: Mapping[str, Any], anomalies: Sequence[Anomaly], counts: Mapping[str, int]
) -> list[Target]:
    limits = gathered.run.scenario.limits
    cores = gathered.run.scenario.pipeline.cores
    p99s = [one["p99"] for name in ("durable_latency_ms", "emission_delay_ms") for one in figures[name].values() if one]
    durable_known = all(figures["durable_latency_ms"].values())
    latency = max(p99s) / 1e3 if p99s and durable_known else None
    cpu = None if figures["pipeline_cores"] is None else figures["pipeline_cores"] / cores
    bad = sum(anomaly.kind not in checkers.OF_RECORDS for anomaly in anomalies)
    success = 1 - bad / counts["rows_expected"] if counts["rows_expected"] else None
    records_lost = any(anomaly.kind == "record_lost" for anomaly in anomalies)
    return [
        _target("latency", latency, limits.latency_s, "s"),
        _throughput(figures, limits.throughput_eps, limits.keeps_up),
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


def _throughput(figures: Mapping[str, Any], limit: float, must_keep_up: bool = True) -> Target:
    """Above the limit, at least 99 % of what was offered, and the lag grows by at most 1 % of the load."""
    value, offered = figures["throughput_eps"], figures["offered_eps"]
    if value is None:
        return _target("throughput", None, limit, "events/s", at_least=True)
    holds = value >= 0.99 * offered and figures["lag_slope_eps"] <= 0.01 * offered
    keeps_up = holds or not must_keep_up
    return _target("throughput", value, limit, "events/s", at_least=True, also=keeps_up)


def _conclude(
    gathered: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int],
    comparisons: Mapping[str, Comparison],
    anomalies: Sequence[Anomaly],
) -> tuple[Verdict, str]:
    findings = list(_failures(gathered, targets, anomalies)) + list(
        _doubts(gathered, targets, figures, counts, comparisons)
    )
    if not findings:
        return Verdict.PASS, f"all {counts['rows_expected']:,} rows are right and all five targets hold"
    verdict = Verdict.worst(verdict for verdict, _ in findings)
    return verdict, "; ".join(why for found, why in findings if found is verdict)


def _failures(
    gathered: Evidence, targets: Sequence[Target], anomalies: Sequence[Anomaly]
) -> Iterator[tuple[Verdict, str]]:
    if anomalies:
        first = anomalies[0]
        yield (
            Verdict.FAIL,
            f"{len(anomalies):,} anomalies, the first: {first.kind} in {first.query} at {' '.join(map(str, first.key))}",
        )
    for event in gathered.run.of_kind("process"):
        if event["name"] == "pipeline" and event["event"] == "died":
            yield Verdict.FAIL, f"the pipeline ended by itself with code {event['code']}: {event['last']}"
    missed = [target.name for target in targets if target.verdict is Verdict.FAIL]
    if missed:
        yield Verdict.FAIL, f"missed: {', '.join(missed)}"


def _doubts(
    gathered: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int],
    comparisons: Mapping[str, Comparison],
) -> Iterator[tuple[Verdict, str]]:
    delay = figures["generator_delay_ms"]
    if delay is None or delay["p99"] > GENERATOR_DELAY_LIMIT_MS or figures["due_sent_share"] < DUE_SENT_SHARE:
        yield Verdict.UNKNOWN, "generator-limited: the load was not offered as the scenario says"
    accounted = counts["counted"] + counts["dropped_late"] + counts["deduplicated"] + counts["dead_letter"]
    if not counts["acknowledged"] == counts["read"] == accounted:
        yield (
            Verdict.UNKNOWN,
            f"counts do not reconcile: acknowledged {counts['acknowledged']:,}, read {counts['read']:,},"
            f" counted + dropped late + deduplicated + dead letter {accounted:,}",
        )
    for name in gathered.run.scenario.proves:
        if not counts.get(name):
            yield Verdict.UNKNOWN, f"the scenario is about {name.replace('_', ' ')}, and there was none"
    struck = gathered.run.of_kind("fault")
    if len(struck) < len(gathered.run.scenario.fault):
        yield Verdict.UNKNOWN, f"{len(gathered.run.scenario.fault) - len(struck)} faults of the scenario never struck"
    for fault in struck:
        if not (fault.get("proved") and fault.get("healed_s") is not None):
            yield (
                Verdict.UNKNOWN,
                f"the fault {fault['fault']} at {fault['at']:,} was not proved to have taken effect and healed",
            )
    empty = [query for query, comparison in comparisons.items() if not comparison.expected]
    if empty == ["dead_letter"] and not gathered.sent["malformed"].any():
        empty = []
    if empty:
        yield Verdict.UNKNOWN, f"nothing to compare in {', '.join(empty)}"
    unmeasured = [target.name for target in targets if target.verdict is Verdict.UNKNOWN]
    if unmeasured:
        yield Verdict.UNKNOWN, f"not measured: {', '.join(unmeasured)}"
