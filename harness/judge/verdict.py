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

from harness.job.clickstream.reference import Expected
from harness.judge import anomalies as checkers
from harness.judge import coverage, findings, metrics, recovery, timeline
from harness.judge import summary as measured
from harness.judge.anomalies import Comparison
from harness.judge.assessment import Assessment
from harness.judge.guard import Guard
from harness.judge.timeline import Evidence
from harness.model import Anomaly, Result, Target, Verdict
from harness.rundir.events import FaultHealed, FaultInjected, Interrupted, PipelineEnded, Progress, Standstill
from harness.rundir.history import Run
from harness.scenario import Fault, Limits

GENERATOR_DELAY_LIMIT_MS = 1000
DUE_SENT_SHARE = 0.99
NO_LIMITS = Limits()
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
ENDED_FROM_OUTSIDE = {*(-one for one in SIGNALS), *(128 + one for one in SIGNALS)}
"""Exit codes of a process that was ended by another; a shell or Java adds 128 to the signal's number."""
BAD_USAGE = 2
"""Exit code of a process that does not know its flags."""
OF_NO_BATCH = ("invented_row", "late_counted", "dead_letter_invented")
"""What rows look like that no committed batch has emitted."""
NO_SPACE = os.strerror(errno.ENOSPC)
"""What a process says of a full disk, whichever language it is written in."""


def judge(run: Run) -> Result:
    """The result of a finished run. Raises RunError where the directory is incomplete."""
    return assess(run).result


def assess(run: Run) -> Assessment:
    """Judge a finished run, and keep the evidence. Raises RunError where the directory is incomplete."""
    if run.of(Interrupted):
        return Assessment(run, _broken_off(run))
    gathered = timeline.gather(run)
    if unseen := _without_checkpoint(gathered):
        why = f"no batch of {', '.join(unseen)} is in its checkpoint, and there are rows: see pipeline.checkpoint"
        return Assessment(run, unknown(why))
    guard = Guard()
    answers: Mapping[str, Expected] = guard.of("the oracle", lambda: timeline.expected(gathered), {})
    comparisons = findings.compare(gathered, answers, guard)
    anomalies = findings.find(gathered, answers, comparisons, guard)
    row_checks_crashed = bool(guard.crashes)
    counts = measured.counts(gathered, answers, comparisons, guard)
    figures = measured.figures(gathered, comparisons, guard)
    faults = tuple(recovery.costs(gathered, comparisons, guard))
    targets = _targets(gathered, figures, anomalies, counts, guard, whole=not row_checks_crashed)
    verdict, why = _conclude(gathered, targets, figures, counts, comparisons, anomalies, faults, guard)
    result = Result(verdict, why, tuple(targets), figures, counts, tuple(anomalies), faults, tuple(guard.crashes))
    return Assessment(run, result, gathered, answers, comparisons)


def _without_checkpoint(gathered: Evidence) -> list[str]:
    """Queries that wrote rows though their checkpoint has no batch: it is looked for in the wrong place."""
    if gathered.run.scenario.black_box:
        return []
    return [query for query, found in gathered.batches.items() if not found and gathered.run.rows(query)]


def _broken_off(run: Run) -> Result:
    """The result of a run that did not come to its end: fail where the pipeline died of itself, else unknown."""
    [stop] = run.of(Interrupted)
    if not (deaths := run.of(PipelineEnded)):
        return unknown(f"interrupted in phase {stop.phase}: {stop.why}")
    [died] = deaths
    why = f"the pipeline ended by itself in phase {stop.phase} with code {died.code}: {died.cause or died.last}"
    why += f"; see {run.directory / died.log}" if died.log else ""
    if died.code in ENDED_FROM_OUTSIDE:
        return unknown(f"{why}; that is the code of a signal, and the harness sent none")
    if died.code == BAD_USAGE and (given := _given(run)):
        return unknown(f"{why}; that is the code of bad usage: see what a fault starts it with: {given}")
    if NO_SPACE in died.last + died.cause:  # a disk that a fault has filled is expected to end it
        return unknown(f"{why}; that disk is the machine's, and no fault had filled it")
    if set(died.brokers_down) - _hurt(run):
        return unknown(f"{why}; brokers were down that no fault had hurt: {list(died.brokers_down)}")
    return replace(unknown(why), verdict=Verdict.FAIL)


def _struck(run: Run) -> list[Fault]:
    """The faults whose turn had come."""
    return [event.fault for event in run.of(FaultInjected)]


def _given(run: Run) -> str:
    """The commands and flags with which faults had started the pipeline again."""
    return " ".join(word for fault in _struck(run) for word in (*fault.command, *fault.flags))


def _hurt(run: Run) -> set[int]:
    """The brokers that faults had struck, or all of them where a fault chose its broker by its role."""
    return {broker for fault in _struck(run) for broker in fault.brokers_hurt(run.scenario.kafka.nodes)}


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


def _targets(
    gathered: Evidence,
    figures: Mapping[str, Any],
    anomalies: Sequence[Anomaly],
    counts: Mapping[str, int | None],
    guard: Guard,
    *,
    whole: bool,
) -> list[Target]:
    """The five targets. Where a checker crashed, and the check is not `whole`, the share of right rows is unknown."""
    limits = gathered.run.scenario.limits
    usable = gathered.run.manifest.get("usable_cores", gathered.run.manifest["cores"])
    cores = min(gathered.run.scenario.pipeline.cores, usable)
    durable, emission = (list(figures[name].values()) for name in ("durable_latency_ms", "emission_delay_ms"))
    needed = emission if gathered.run.scenario.black_box else durable + emission
    latency = max(one["p99"] for one in needed) / 1e3 if needed and all(needed) else None
    cpu = None if figures["pipeline_cores"] is None else figures["pipeline_cores"] / cores
    bad = sum(anomaly.kind not in checkers.OF_RECORDS for anomaly in anomalies)
    success = 1 - bad / counts["rows_expected"] if whole and counts["rows_expected"] else None
    records_lost = any(anomaly.kind == "record_lost" for anomaly in anomalies)
    targets = [
        _target("latency", latency, limits.latency_s, "s"),
        _throughput(figures, limits.throughput_eps),
        _target(
            "state_size",
            guard.of("the target state_size", lambda: _state(gathered, figures), None),
            limits.state_bytes,
            "bytes",
        ),
        _target("cpu", cpu, limits.cpu_share, "share of cores"),
        _target("success", success, limits.success_share, "share of rows", at_least=True, also=not records_lost),
    ]
    return [replace(target, judged=target.name in gathered.run.scenario.judged) for target in targets]


def _state(gathered: Evidence, figures: Mapping[str, Any]) -> int | None:
    """The state's largest size, where every query that has one has told it."""
    told = {event.query for event in gathered.run.of(Progress)}
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
    """Above the limit, at least 99 % of what was offered, and the lag grows by at most 1 % of the load.

    Unknown where the pipeline kept up with a load that is not above the limit: it might have carried more.
    """
    value, offered, slope = figures["throughput_eps"], figures["offered_eps"], figures["lag_slope_eps"]
    if value is None or offered is None:
        return _target("throughput", None, limit, "events/s", at_least=True)
    keeps_up = value >= 0.99 * offered and (slope is None or slope <= 0.01 * offered)
    target = _target("throughput", value, limit, "events/s", at_least=True, also=keeps_up)
    unknown = keeps_up and (offered <= limit or slope is None)
    return replace(target, verdict=Verdict.UNKNOWN) if unknown else target


def _conclude(
    gathered: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int | None],
    comparisons: Mapping[str, Comparison],
    anomalies: Sequence[Anomaly],
    faults: Sequence[Mapping[str, Any]],
    guard: Guard,
) -> tuple[Verdict, str]:
    # Speed is not the pipeline's where the load came late: measuring.md calls such a run unknown.
    limited = guard.of("the check of the load", lambda: _is_generator_limited(gathered, figures), None)
    slow = Verdict.FAIL if limited is False else Verdict.UNKNOWN
    findings = [
        *_wrong(gathered, targets, counts, comparisons, anomalies, guard),
        *((Verdict.FAIL, f"missed: {name}") for name in _missed(targets) if name == "state_size"),
        *((slow, why) for why in _too_slow(gathered, targets, figures, faults)),
        *_doubts(gathered, targets, figures, counts, comparisons, faults, guard, limited=bool(limited)),
    ]
    crashed = "; ".join(f"{crash.part} crashed, {crash.error}" for crash in guard.crashes)
    if crashed:
        findings.append((Verdict.UNKNOWN, crashed))
    if not findings:
        oracle = "by the black-box oracle" if gathered.run.scenario.black_box else "by the exact oracle"
        return Verdict.PASS, f"all {counts['rows_expected']:,} rows are right {oracle} and {_held(targets)}"
    verdict = Verdict.worst(verdict for verdict, _ in findings)
    # A crash is named beside a fail too: what crashed may have hidden more.
    return verdict, "; ".join(why for found, why in findings if found is verdict or why is crashed)


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
    gathered: Evidence,
    targets: Sequence[Target],
    counts: Mapping[str, int | None],
    comparisons: Mapping[str, Comparison],
    anomalies: Sequence[Anomaly],
    guard: Guard,
) -> Iterator[tuple[Verdict, str]]:
    """What is wrong with the output; unknown where a record that nobody knows of may be what makes it look wrong."""
    excused = counts["unclaimed"] or guard.of(
        "the check for a batch that was cut off", lambda: _is_cut_off(gathered, comparisons, anomalies), False
    )
    verdict = Verdict.UNKNOWN if excused else Verdict.FAIL
    if anomalies:
        first = anomalies[0]
        key = "|".join(map(str, first.key))
        yield verdict, f"{len(anomalies):,} anomalies, the first: {first.kind} in {first.query} at {key}"
    if "success" in _missed(targets):
        yield verdict, "missed: success"


def _is_cut_off(gathered: Evidence, comparisons: Mapping[str, Comparison], anomalies: Sequence[Anomaly]) -> bool:
    """Whether all that is wrong are rows after the last commit of a run that stalled: of a batch that its end cut off."""
    if gathered.run.scenario.black_box or not gathered.run.of(Standstill):
        return False
    last_s = {query: found[-1].committed_s for query, found in gathered.batches.items() if found}
    return all(
        anomaly.kind in OF_NO_BATCH
        and all(row.at_s > last_s.get(anomaly.query, 0.0) for row in comparisons[anomaly.query].observed[anomaly.key])
        for anomaly in anomalies
    )


def _missed(targets: Sequence[Target]) -> list[str]:
    return [target.name for target in targets if target.judged and target.verdict is Verdict.FAIL]


def _too_slow(
    gathered: Evidence, targets: Sequence[Target], figures: Mapping[str, Any], faults: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """What took longer, or more CPU, than it may."""
    for what, value, limit in _limited(gathered, faults):
        if value is not None and value > limit:
            yield f"{what}: {value:g} s, above {limit:g} s"
    if names := [name for name in _missed(targets) if name not in ("success", "state_size")]:
        yield f"missed: {', '.join(names)}"
    if "throughput" in names:
        slope = figures["lag_slope_eps"]
        growing = "" if slope is None else f", the lag growing by {slope:,.0f} events/s"
        yield f"{figures['throughput_eps']:,.0f} of {figures['offered_eps']:,.0f} events/s offered were committed{growing}"
    elif "latency" in names and not faults and _catches_up(figures):
        yield (
            f"{figures['throughput_eps']:,.0f} events/s were committed of {figures['offered_eps']:,.0f} offered: it was"
            " still catching up with the warm-up, which may be too short (load.warm_up_s)"
        )


def _catches_up(figures: Mapping[str, Any]) -> bool:
    """Whether more was committed than was offered; not where either is unknown."""
    committed, offered = figures["throughput_eps"], figures["offered_eps"]
    return committed is not None and offered is not None and committed > 1.01 * offered


def _limited(gathered: Evidence, faults: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, float | None, float]]:
    """(what after which fault, seconds, limit) wherever the scenario limits recovery or gap."""
    limits = gathered.run.scenario.limits
    for fault in faults:
        if limits.recovery_s != NO_LIMITS.recovery_s:
            least_s = fault["unrecovered_s"]
            if least_s is not None and least_s > limits.recovery_s:
                yield f"not recovered after {fault['fault']}", least_s, limits.recovery_s
            else:
                yield f"recovered after {fault['fault']}", fault["recovered_s"], limits.recovery_s
        if limits.gap_s != NO_LIMITS.gap_s:
            yield f"longest gap after {fault['fault']}", fault["longest_gap_s"], limits.gap_s


def _doubts(
    gathered: Evidence,
    targets: Sequence[Target],
    figures: Mapping[str, Any],
    counts: Mapping[str, int | None],
    comparisons: Mapping[str, Comparison],
    faults: Sequence[Mapping[str, Any]],
    guard: Guard,
    *,
    limited: bool,
) -> Iterator[tuple[Verdict, str]]:
    """Why nothing can be said of the run, whatever its rows and targets look like; `limited` by the load generator."""
    if limited:
        yield Verdict.UNKNOWN, "generator-limited: the load was not offered as the scenario says"
    checks = {
        "the course of the run": lambda: list(_not_as_planned(gathered, counts)),
        "the reconciliation": lambda: list(_not_reconciled(gathered, counts)),
        "the check of the faults": lambda: list(_not_struck(gathered, faults)),
        "the check of what was measured": lambda: list(_not_seen(gathered, targets, figures, comparisons)),
    }
    for what, check in checks.items():
        for why in guard.of(what, check, []):
            yield Verdict.UNKNOWN, why


def _not_as_planned(gathered: Evidence, counts: Mapping[str, int | None]) -> Iterator[str]:
    if still := _still_to_run(gathered):
        yield f"a batch of {', '.join(still)} was still to run: what was read last moves the watermark on"
    for event in gathered.run.of(Standstill):
        yield f"the run came to a standstill, {event.why}"
    for name in gathered.run.scenario.proves:
        if counts.get(name, 0) is None:
            yield f"the scenario is about {name.replace('_', ' ')}, and how many there were is unknown"
        elif not counts.get(name):
            yield f"the scenario is about {name.replace('_', ' ')}, and there was none"


def _is_generator_limited(gathered: Evidence, figures: Mapping[str, Any]) -> bool | None:
    """By the measured part alone, or by it and all that comes after: neither may make up for the other.

    None is unknown: the share of the load that was sent is not known.
    """
    offered = replace(gathered.measured, end_s=float("inf"))
    delays = (
        figures["generator_delay_ms"],
        metrics.percentiles(metrics.generator_delay_ms(gathered.sent, offered)),
    )
    late = any(delay is None or delay["p99"] > GENERATOR_DELAY_LIMIT_MS for delay in delays)
    if late:
        return True
    return None if figures["due_sent_share"] is None else figures["due_sent_share"] < DUE_SENT_SHARE


def _still_to_run(gathered: Evidence) -> list[str]:
    """Queries whose last watermark no batch has run at: rows that it closes have not come out."""
    if gathered.run.scenario.black_box:
        return []
    windowed = {query: found for query, found in gathered.batches.items() if found and query != "dead_letter"}
    return [
        query
        for query, found in windowed.items()
        if timeline.lawful_watermarks(gathered, query)[-1] > found[-1].watermark_ms
    ]


def accounted_for(counts: Mapping[str, int | None]) -> int | None:
    """Events that were counted, dropped as late or as copies, or rejected; None where one of these is unknown."""
    parts = [counts[name] for name in ("counted", "dropped_late", "deduplicated", "dead_letter")]
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _not_reconciled(gathered: Evidence, counts: Mapping[str, int | None]) -> Iterator[str]:
    accounted = accounted_for(counts)
    known = None not in (counts["acknowledged"], counts["read"], accounted)
    if gathered.run.scenario.counts_all and known and not counts["acknowledged"] == counts["read"] == accounted:
        yield (
            f"counts do not reconcile: acknowledged {counts['acknowledged']:,}, read {counts['read']:,},"
            f" counted + dropped late + deduplicated + dead letter {accounted:,}"
        )
    if counts["unclaimed"]:
        yield (
            f"{counts['unclaimed']:,} offsets were read that no acknowledgement covers: a producer's retry wrote records"
            " twice, a send that was given up arrived, or they are markers or aborted records of transactions"
        )


def _not_struck(gathered: Evidence, faults: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Faults that did not do what they are there for, and recoveries that were to be held to a limit."""
    struck = gathered.run.of(FaultHealed)
    if len(struck) < len(gathered.run.scenario.fault):
        yield f"{len(gathered.run.scenario.fault) - len(struck)} faults of the scenario never struck"
    for event in struck:
        if missing := coverage.unproved(event):
            yield f"the fault {event.fault.name} at {event.fault.at:,} is not proved: {missing}"
    for what, value, limit in _limited(gathered, faults):
        if value is None:
            yield (
                f"{what}: not seen, of a query that committed nothing before it or nothing after it, or while the load"
                f" was on; the limit is {limit:g} s"
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
    if "throughput" in unmeasured and figures["throughput_eps"] is not None and figures["lag_slope_eps"] is not None:
        unmeasured.remove("throughput")
        yield (
            f"it kept up with the {figures['offered_eps']:,.0f} events/s it was offered, and the target is"
            f" {gathered.run.scenario.limits.throughput_eps:,.0f}: raise load.eps, or leave throughput out of judged"
        )
    if unmeasured:
        yield f"not measured: {', '.join(unmeasured)}"
    if "latency" in unmeasured and (never := [name for name, one in figures["emission_delay_ms"].items() if not one]):
        yield (
            f"no row of {', '.join(never)} could close in the measured part: make load.duration_s longer, or raise"
            " workload.time_scale"
        )
