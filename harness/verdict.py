"""A run directory → its result: oracle, checkers and measures put together, then the five targets.

Pure but for reading the run directory: `harness check RUN` computes the same again at any time.
Fail outranks unknown outranks pass, and a figure of a run with anomalies counts for nothing.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from harness import checkers, evidence, findings, measures, proofs, workload
from harness.checkers import Comparison
from harness.evidence import Evidence
from harness.history import Run
from harness.measures import Array, Span
from harness.model import Anomaly, Result, Target, Verdict
from harness.oracle.reference import Expected
from harness.scenario import FAULTS_OF_DISKS, Limits

GENERATOR_DELAY_LIMIT_MS = 1000
DUE_SENT_SHARE = 0.99
CALM_S = 10.0
"""What is looked at before a fault for the lag that is usual, though nothing from before the recovery of the last one."""
CALM_MIN_S = 2.0
"""Where there is less, what was usual before an earlier fault stands for it: a batch or two."""
ALMOST_NOTHING = 0.01
"""Share of the load below which a query's throughput says nothing, as of an idle source."""
NO_LIMITS = Limits()
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
ENDED_FROM_OUTSIDE = {*(-one for one in SIGNALS), *(128 + one for one in SIGNALS)}
"""Exit codes of a process that was ended by another; a shell or Java adds 128 to the signal's number."""

NO_SPACE = os.strerror(errno.ENOSPC)


def judge(run: Run) -> Result:
    """Judge a finished run. Raises RunError where the directory is incomplete."""
    if run.of_kind("interrupted"):
        return _broken_off(run)
    gathered = evidence.gather(run)
    if unseen := _without_checkpoint(gathered):
        return unknown(
            f"no batch of {', '.join(unseen)} is in its checkpoint, and there are rows: see pipeline.checkpoint"
        )
    answers = evidence.expected(gathered)
    comparisons = findings.compare(gathered, answers)
    anomalies = findings.find(gathered, answers, comparisons)
    counts = _counts(gathered, answers, comparisons)
    figures = _figures(gathered, comparisons)
    targets = _targets(gathered, figures, anomalies, counts)
    faults = tuple(_with_recovery(gathered, comparisons))
    verdict, why = _conclude(gathered, targets, figures, counts, comparisons, anomalies, faults)
    return Result(verdict, why, tuple(targets), figures, counts, tuple(anomalies), faults)


def _without_checkpoint(gathered: Evidence) -> list[str]:
    """Queries that wrote rows though their checkpoint has no batch: it is looked for in the wrong place."""
    if gathered.run.scenario.black_box:
        return []
    return [query for query, found in gathered.batches.items() if not found and gathered.run.rows(query)]


def _broken_off(run: Run) -> Result:
    """The result of a run that did not come to its end: fail where the pipeline died of itself, else unknown."""
    [stop] = run.of_kind("interrupted")
    if not (deaths := run.of_kind("pipeline_died")):
        return unknown(f"interrupted in phase {stop['phase']}: {stop['why']}")
    [died] = deaths
    why = f"the pipeline ended by itself in phase {stop['phase']} with code {died['code']}: {died['last']}"
    if died["code"] in ENDED_FROM_OUTSIDE:
        return unknown(f"{why}; that is the code of a signal, and the harness sent none")
    if NO_SPACE in died["last"] and not any(fault.kind in FAULTS_OF_DISKS for fault in run.scenario.fault):
        return unknown(f"{why}; no fault had filled a disk: this machine's is full")
    if set(died["brokers_down"]) - _hurt(run):
        return unknown(f"{why}; brokers were down that no fault had hurt: {died['brokers_down']}")
    return replace(unknown(why), verdict=Verdict.FAIL)


def _hurt(run: Run) -> set[int]:
    """The brokers that faults had struck, or all of them where a fault chose its broker by its role."""
    everyone = set(range(1, run.scenario.kafka.nodes + 1))
    struck = {event["at"] for event in run.of_kind("stroke")}
    hurt: set[int] = set()
    for fault in run.scenario.fault:
        if fault.breaks_brokers and fault.at in struck:
            named = fault.on.startswith("broker ") and fault.kind != "roll"
            two = {1, 2} if fault.on == "two brokers" else everyone
            hurt |= {int(fault.on.removeprefix("broker "))} if named else two
    return hurt


def _with_recovery(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> Iterator[dict[str, Any]]:
    struck = gathered.run.of_kind("fault")
    # A crash that missed its point was a crash all the same: what it cost is not the fault's before.
    begins_s = [one.get("proof", {}).get("first_s", one["at_s"]) for one in struck]
    healed_s = 0.0
    since_s = max((found[0].committed_s for found in gathered.batches.values() if found), default=0.0)
    calm: Span | None = None
    for fault, begin_s, next_s in zip(struck, begins_s, [*begins_s, float("inf")][1:], strict=True):
        at_s = fault["at_s"]
        before = Span(max(since_s, begin_s - CALM_S), begin_s)
        if before.end_s - before.start_s >= (CALM_MIN_S if calm else measures.LAG_EVERY_S):
            calm = before
        cost = _recovery(gathered, comparisons, calm, at_s, fault["healed_s"] or float("inf"), healed_s)
        healed_s = fault["healed_s"] or at_s
        since_s = max(since_s, healed_s, at_s + (cost["recovered_s"] or 0.0))
        yield (
            fault
            | cost
            | {
                "kind": fault["fault"].split()[0],
                "replayed": measures.replayed(gathered.batches.values(), _starts(gathered, begin_s, next_s)),
                "duplicates": _duplicates(comparisons, begin_s, next_s),
                "behind": _behind(gathered, at_s),
            }
        )


def _behind(gathered: Evidence, at_s: float) -> dict[str, int]:
    """For each query, of the topic of which most was unread when a fault struck: records acknowledged and not committed."""
    return {
        query: measures.behind(gathered.sent, gathered.batch_of[query], batches, at_s)
        for query, batches in gathered.batches.items()
    }


def _recovery(
    gathered: Evidence,
    comparisons: Mapping[str, Comparison],
    calm: Span | None,
    at_s: float,
    healed_s: float,
    since_s: float,
) -> dict[str, float | None]:
    """What a fault cost, in seconds from its stroke, over all queries (measuring.md, "Recovery"); None is not seen.

    What lies before `since_s`, when the fault before had healed, is that one's.

    `first_commit_s` until each had committed a batch again, `longest_gap_s` without one, `first_output_s` until a
    right row stood that had not stood before, `recovered_s` until the lag was back within the p99 of the calm before.
    """
    outages = {
        query: found
        for query, batches in gathered.batches.items()
        if (found := measures.outage(batches, at_s, healed_s, since_s))
    }
    if not outages or len(outages) < len(gathered.batches):
        return dict.fromkeys(("first_commit_s", "longest_gap_s", "first_output_s", "recovered_s"))
    back = [
        measures.recovered_s(gathered.sent, gathered.batch_of[query], found, calm, outages[query], at_s, healed_s)
        if calm
        else None
        for query, found in gathered.batches.items()
    ]
    outputs = [
        row_s
        for query, one in comparisons.items()
        for row_s in _new_right_rows(one)
        if row_s > max(at_s, outages[query].start_s)
    ]
    return {
        "first_commit_s": round(max(one.end_s for one in outages.values()) - at_s, 3),
        "longest_gap_s": round(max(one.end_s - one.start_s for one in outages.values()), 3),
        "first_output_s": round(min(outputs) - at_s, 3) if outputs else None,
        "recovered_s": None if None in back else round(max(one for one in back if one is not None) - at_s, 3),
    }


def _new_right_rows(comparison: Comparison) -> Iterator[float]:
    """When each right row appeared for the first time."""
    for key, rows in comparison.observed.items():
        if right := [row.at_s for row in rows if checkers.is_right(comparison, key, row)]:
            yield min(right)


def _starts(gathered: Evidence, after_s: float, until_s: float) -> list[float]:
    """When the pipeline was started, after a fault and before the next."""
    return [at_s for at_s in evidence.started_s(gathered.run) if after_s < at_s <= until_s]


def _duplicates(comparisons: Mapping[str, Comparison], after_s: float, until_s: float) -> int:
    """Rows that stood already, and were written again after a fault and before the next."""
    return sum(
        after_s < row.at_s <= until_s
        for one in comparisons.values()
        for rows in one.observed.values()
        for row in sorted(rows, key=lambda row: row.at_s)[1:]
    )


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
                "judged": target.judged,
            }
            for target in result.targets
        },
        "figures": dict(result.figures),
        "counts": dict(result.counts),
        "anomalies": by_kind,
        "examples": [asdict(anomaly) for anomaly in result.anomalies[:most]],
        "faults": list(result.faults),
        "recovery_s": _longest([one.get("recovered_s") for one in result.faults]),
    }


def _longest(recoveries: Sequence[float | None]) -> float | None:
    known = [one for one in recoveries if one is not None]
    return max(known) if known and len(known) == len(recoveries) else None


def _counts(
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
        "unclaimed": proofs.unclaimed(gathered),
        **proofs.counts(gathered, answers, comparisons),
    }


def _total(comparison: Comparison, column: int) -> int:
    """Sum of a measure over the observed rows; what is no number is none."""
    values = (rows[0].values[column : column + 1] for rows in comparison.observed.values())
    return sum(int(value) for found in values for value in found if isinstance(value, int))


def _figures(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> dict[str, Any]:
    run, sent, measured = gathered.run, gathered.sent, gathered.measured
    samples, progress = run.of_kind("sample"), run.of_kind("progress")
    during = [event for event in progress if event["t"] >= measured.start_s]
    return {
        "durable_latency_ms": {query: measures.percentiles(durable(gathered, query)) for query in gathered.batches},
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
        **_resources(samples, measured, int(run.manifest["cores"])),
    }


def durable(gathered: Evidence, query: str) -> Array:
    """Durable latency of the query in ms, of every measured event."""
    return measures.durable_latency_ms(
        gathered.sent, gathered.batch_of[query], gathered.batches[query], gathered.measured
    )


def emission(gathered: Evidence, comparison: Comparison) -> Array:
    """Emission delay of the query's rows in ms."""
    first = {key: min(seen, key=lambda one: one.at_s) for key, seen in comparison.observed.items()}
    rows = [(key, seen.values, seen.at_s) for key, seen in first.items()]
    return measures.emission_delay_ms(comparison.query, rows, gathered.sent, gathered.measured)


def _largest(values: Array) -> int | None:
    return int(values.max()) if len(values) else None


def _rates(gathered: Evidence) -> dict[str, Any]:
    sent, measured = gathered.sent, gathered.measured
    own = measured.holds(sent["due_us"] / 1e6) & ~sent["flush"]
    offered_eps = float(own.sum()) / (measured.end_s - measured.start_s)
    at_s = np.arange(measured.start_s, measured.end_s, 0.25)
    shares: list[float | None] = []
    lags: list[int] = []
    lag_slopes: list[float] = []
    for query in gathered.batches:
        of_query = gathered.batch_of[query] >= 0
        if of_query[own].sum() > ALMOST_NOTHING * own.sum():
            due_s = sent["due_us"][of_query] / 1e6
            shares.append(measures.kept_up(due_s, gathered.batch_of[query], gathered.batches[query], measured))
        lag = measures.lag_records(sent, gathered.batch_of[query], gathered.batches[query], at_s)
        lags.append(int(lag.max(initial=0)))
        lag_slopes.append(
            measures.slope(*measures.lag_at_commits(sent, gathered.batch_of[query], gathered.batches[query], measured))
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


def _due(gathered: Evidence) -> int:
    """How many events were due in the measured part."""
    load = gathered.run.scenario.load
    due = workload.due_s(load.segments, np.arange(load.events))
    return int(((due >= load.warm_up_s) & (due < load.warm_up_s + load.duration_s)).sum())


def _resources(samples: Sequence[Mapping[str, Any]], measured: Span, cores: int) -> dict[str, Any]:
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
    durable, emission = (list(figures[name].values()) for name in ("durable_latency_ms", "emission_delay_ms"))
    needed = emission if gathered.run.scenario.black_box else durable + emission
    latency = max(one["p99"] for one in needed) / 1e3 if needed and all(needed) else None
    cpu = None if figures["pipeline_cores"] is None else figures["pipeline_cores"] / cores
    bad = sum(anomaly.kind not in checkers.OF_RECORDS for anomaly in anomalies)
    success = 1 - bad / counts["rows_expected"] if counts["rows_expected"] else None
    records_lost = any(anomaly.kind == "record_lost" for anomaly in anomalies)
    targets = [
        _target("latency", latency, limits.latency_s, "s"),
        _throughput(figures, limits.throughput_eps),
        _target("state_size", _state(gathered, figures), limits.state_bytes, "bytes"),
        _target("cpu", cpu, limits.cpu_share, "share of cores"),
        _target("success", success, limits.success_share, "share of rows", at_least=True, also=not records_lost),
    ]
    return [replace(target, judged=target.name in gathered.run.scenario.judged) for target in targets]


def _state(gathered: Evidence, figures: Mapping[str, Any]) -> int | None:
    """The state's largest size, where every query that has one has told it."""
    told = {event["query"] for event in gathered.run.of_kind("progress")}
    size: int | None = figures["state_bytes_max"]
    return size if gathered.batches.keys() - {"dead_letter"} <= told else None


def _target(
    name: str, value: float | None, limit: float, unit: str, *, at_least: bool = False, also: bool = True
) -> Target:
    if value is None:
        return Target(name, None, limit, unit, Verdict.UNKNOWN, at_least)
    holds = (value > limit or value == limit == 1 if at_least else value < limit) and also
    return Target(name, value, limit, unit, Verdict.PASS if holds else Verdict.FAIL, at_least)


def _throughput(figures: Mapping[str, Any], limit: float) -> Target:
    """Above the limit, at least 99 % of what was offered, and the lag grows by at most 1 % of the load."""
    value, offered = figures["throughput_eps"], figures["offered_eps"]
    if value is None:
        return _target("throughput", None, limit, "events/s", at_least=True)
    holds = value >= 0.99 * offered and figures["lag_slope_eps"] <= 0.01 * offered
    return _target("throughput", value, limit, "events/s", at_least=True, also=holds)


def _conclude(
    gathered: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int],
    comparisons: Mapping[str, Comparison],
    anomalies: Sequence[Anomaly],
    faults: Sequence[Mapping[str, Any]],
) -> tuple[Verdict, str]:
    # Speed is not the pipeline's where the load came late: measuring.md calls such a run unknown.
    slow = Verdict.UNKNOWN if _is_generator_limited(gathered, figures) else Verdict.FAIL
    findings = [
        *_wrong(targets, counts, anomalies),
        *((slow, why) for why in _failures(gathered, targets, figures, faults)),
        *_doubts(gathered, targets, figures, counts, comparisons, faults),
    ]
    if not findings:
        oracle = "by the black-box oracle" if gathered.run.scenario.black_box else "by the exact oracle"
        return Verdict.PASS, f"all {counts['rows_expected']:,} rows are right {oracle} and {_held(targets)}"
    verdict = Verdict.worst(verdict for verdict, _ in findings)
    return verdict, "; ".join(why for found, why in findings if found is verdict)


def _held(targets: Sequence[Target]) -> str:
    """Which targets a run that passed was held to."""
    judged = [target for target in targets if target.judged]
    held = [target.name.replace("_", " ") for target in judged if target.verdict is Verdict.PASS]
    if len(held) == len(targets):
        return "all five targets hold"
    if len(held) < len(judged):
        return f"{len(held)} of five targets hold, the others cannot be seen"
    return f"the targets it is judged on hold: {', '.join(held)}" if held else "it is judged on no target"


def _wrong(
    targets: Sequence[Target], counts: Mapping[str, int], anomalies: Sequence[Anomaly]
) -> Iterator[tuple[Verdict, str]]:
    """What is wrong with the output; unknown where a record that nobody knows of may be what makes it look wrong."""
    verdict = Verdict.UNKNOWN if counts["unclaimed"] else Verdict.FAIL
    if anomalies:
        first = anomalies[0]
        key = "|".join(map(str, first.key))
        yield verdict, f"{len(anomalies):,} anomalies, the first: {first.kind} in {first.query} at {key}"
    if any(target.name == "success" and target.judged and target.verdict is Verdict.FAIL for target in targets):
        yield verdict, "missed: success"


def _failures(
    gathered: Evidence, targets: Sequence[Target], figures: Mapping[str, Any], faults: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """What went wrong besides the output."""
    for what, value, limit in _limited(gathered, faults):
        if value is not None and value > limit:
            yield f"{what}: {value:g} s, above {limit:g} s"
    missed = [target for target in targets if target.judged and target.verdict is Verdict.FAIL]
    if names := [target.name for target in missed if target.name != "success"]:
        yield f"missed: {', '.join(names)}"
    if "throughput" in names:
        yield (
            f"{figures['throughput_eps']:,.0f} of {figures['offered_eps']:,.0f} events/s offered were committed,"
            f" the lag growing by {figures['lag_slope_eps']:,.0f} events/s"
        )


def _limited(gathered: Evidence, faults: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float | None, float]]:
    """(what after which fault, seconds, limit) wherever the scenario limits recovery or gap."""
    limits = gathered.run.scenario.limits
    for fault in faults:
        for figure, field in (("recovered_s", "recovery_s"), ("longest_gap_s", "gap_s")):
            if (limit := getattr(limits, field)) != getattr(NO_LIMITS, field):
                yield f"{figure.removesuffix('_s').replace('_', ' ')} after {fault['fault']}", fault[figure], limit


def _doubts(
    gathered: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int],
    comparisons: Mapping[str, Comparison],
    faults: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Verdict, str]]:
    """Why nothing can be said of the run, whatever its rows and targets look like."""
    for why in (
        *_not_as_planned(gathered, figures, counts),
        *_not_reconciled(gathered, counts),
        *_not_struck(gathered, faults),
        *_not_seen(gathered, targets, figures, comparisons),
    ):
        yield Verdict.UNKNOWN, why


def _not_as_planned(gathered: Evidence, figures: Mapping[str, Any], counts: Mapping[str, int]) -> Iterator[str]:
    if _is_generator_limited(gathered, figures):
        yield "generator-limited: the load was not offered as the scenario says"
    if still := _still_to_run(gathered):
        yield f"a batch of {', '.join(still)} was still to run: what was read last moves the watermark on"
    for event in gathered.run.of_kind("stalled"):
        yield f"the run came to a standstill, {event['why']}"
    for name in gathered.run.scenario.proves:
        if not counts.get(name):
            yield f"the scenario is about {name.replace('_', ' ')}, and there was none"


def _is_generator_limited(gathered: Evidence, figures: Mapping[str, Any]) -> bool:
    offered = replace(gathered.measured, end_s=float("inf"))
    delay = measures.percentiles(measures.generator_delay_ms(gathered.sent, offered))
    return delay is None or delay["p99"] > GENERATOR_DELAY_LIMIT_MS or figures["due_sent_share"] < DUE_SENT_SHARE


def _still_to_run(gathered: Evidence) -> list[str]:
    """Queries whose last watermark no batch has run at: rows that it closes have not come out."""
    if gathered.run.scenario.black_box:
        return []
    windowed = {query: found for query, found in gathered.batches.items() if found and query != "dead_letter"}
    return [
        query
        for query, found in windowed.items()
        if evidence.lawful_watermarks(gathered, query)[-1] > found[-1].watermark_ms
    ]


def _not_reconciled(gathered: Evidence, counts: Mapping[str, int]) -> Iterator[str]:
    accounted = counts["counted"] + counts["dropped_late"] + counts["deduplicated"] + counts["dead_letter"]
    if gathered.run.scenario.counts_all and not counts["acknowledged"] == counts["read"] == accounted:
        yield (
            f"counts do not reconcile: acknowledged {counts['acknowledged']:,}, read {counts['read']:,},"
            f" counted + dropped late + deduplicated + dead letter {accounted:,}"
        )
    if counts["unclaimed"]:
        yield (
            f"{counts['unclaimed']:,} records were read that no acknowledgement covers: a producer's retry wrote them"
            " twice, or a send that was given up arrived"
        )


def _not_struck(gathered: Evidence, faults: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Faults that did not do what they are there for, and recoveries that were to be held to a limit."""
    struck = gathered.run.of_kind("fault")
    if len(struck) < len(gathered.run.scenario.fault):
        yield f"{len(gathered.run.scenario.fault) - len(struck)} faults of the scenario never struck"
    for fault in struck:
        if not (fault.get("proved") and fault.get("healed_s") is not None):
            yield f"the fault {fault['fault']} at {fault['at']:,} was not proved to have taken effect and healed"
    for what, value, limit in _limited(gathered, faults):
        if value is None:
            yield (
                f"{what}: not seen, of a query that committed nothing before it or nothing after it;"
                f" the limit is {limit:g} s"
            )


def _not_seen(
    gathered: Evidence, targets: Sequence[Target], figures: Mapping[str, Any], comparisons: Mapping[str, Comparison]
) -> Iterator[str]:
    """Queries without a row to compare, and judged targets without a figure."""
    empty = [query for query, comparison in comparisons.items() if not comparison.expected]
    if empty == ["dead_letter"] and not gathered.sent["malformed"].any():
        empty = []
    if empty:
        yield f"nothing to compare in {', '.join(empty)}"
    unseen = ("throughput", "state_size") if gathered.run.scenario.black_box else ()
    unmeasured = [
        one.name for one in targets if one.judged and one.verdict is Verdict.UNKNOWN and one.name not in unseen
    ]
    if unmeasured:
        yield f"not measured: {', '.join(unmeasured)}"
    if "latency" in unmeasured and (never := [name for name, one in figures["emission_delay_ms"].items() if not one]):
        yield (
            f"no row of {', '.join(never)} could close in the measured part: make load.duration_s longer, or raise"
            " workload.time_scale"
        )
