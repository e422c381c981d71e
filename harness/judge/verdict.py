"""A run directory → its result: oracle, checkers and measures put together, then the five targets.

Pure but for reading the run directory: `harness check RUN` computes the same again at any time.
Fail outranks unknown outranks pass, and a figure of a run with anomalies counts for nothing.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from harness.job.clickstream.contract import QUERIES
from harness.job.clickstream.reference import Expected
from harness.judge import anomalies as checkers
from harness.judge import causes, coverage, findings, metrics, recovery, timeline, unmeasured
from harness.judge import summary as measured
from harness.judge.anomalies import Comparison
from harness.judge.assessment import Assessment
from harness.judge.guard import Guard
from harness.judge.timeline import Evidence
from harness.model import Anomaly, Result, Target, Verdict
from harness.rundir.events import FaultHealed, FaultInjected, Interrupted, PipelineEnded, Standstill
from harness.rundir.history import OfType, Run
from harness.scenario import Fault, Limits

GENERATOR_DELAY_LIMIT_MS = 1000
DUE_SENT_SHARE = 0.99
NO_LIMITS = Limits()
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
ENDED_FROM_OUTSIDE = {*(-number for number in SIGNALS), *(128 + number for number in SIGNALS)}
"""Exit codes of a process that was ended by another; a shell or Java adds 128 to the signal's number."""
BAD_USAGE = 2
"""Exit code of a process that does not know its flags."""
OF_NO_BATCH = ("invented_row", "late_counted", "dead_letter_invented")
"""What rows look like that no committed batch has emitted."""
NO_SPACE = os.strerror(errno.ENOSPC)
"""The system's message for a full disk, which programs of every language print."""


def judge(run: Run) -> Result:
    """The result of a finished run. Raises RunError where the directory is incomplete."""
    return assess(run).result


def assess(run: Run) -> Assessment:
    """Judge a finished run, and keep the evidence. Raises RunError where the directory is incomplete."""
    if run.of(Interrupted):
        return Assessment(run, broken_off(run))
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
    faults: tuple[dict[str, Any], ...] = guard.of(
        "the costs of the faults", lambda: tuple(recovery.costs(gathered, comparisons, guard)), ()
    )
    reasons = unmeasured.reasons(gathered, figures, counts, faults, guard)
    targets = _targets(gathered, figures, anomalies, counts, reasons, guard, whole=not row_checks_crashed)
    verdict, why = _conclude(gathered, targets, figures, counts, comparisons, anomalies, faults, guard)
    crashes = tuple(guard.crashes)
    result = Result(verdict, why, tuple(targets), figures, counts, tuple(anomalies), faults, crashes, reasons)
    return Assessment(run, result, gathered, answers, comparisons)


def _without_checkpoint(gathered: Evidence) -> list[str]:
    """Queries that wrote rows though their checkpoint has no batch: it is looked for in the wrong place."""
    if gathered.run.scenario.black_box:
        return []
    return [query for query, found in gathered.batches.items() if not found and gathered.run.rows(query)]


class BrokenOff(Protocol):
    """A run, of a declared job too, that has an event Interrupted."""

    @property
    def directory(self) -> Path: ...

    @property
    def scenario(self) -> Any: ...

    def of(self, kind: type[OfType]) -> list[OfType]: ...


def broken_off(run: BrokenOff) -> Result:
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


def _injected(run: BrokenOff) -> list[Fault]:
    """The faults whose turn had come."""
    return [event.fault for event in run.of(FaultInjected)]


def _given(run: BrokenOff) -> str:
    """The commands and flags with which faults had started the pipeline again."""
    return " ".join(word for fault in _injected(run) for word in (*fault.command, *fault.flags))


def _hurt(run: BrokenOff) -> set[int]:
    """The brokers that faults had hit, or all of them where a fault chose its broker by its role."""
    return {broker for fault in _injected(run) for broker in fault.brokers_hurt(run.scenario.kafka.nodes)}


def unknown(why: str) -> Result:
    """The result of a run about which nothing is known."""
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
                **({"why": target.why} if target.why else {}),
            }
            for target in result.targets
        },
        "figures": dict(result.figures),
        "counts": dict(result.counts),
        "unknown": dict(result.unknown),
        "anomalies": by_kind,
        # Where the grouping crashes, the verdict has named it already, and the result must still be written.
        **Guard().of("the causes", lambda: _causes(result.anomalies), dict[str, Any]()),
        "examples": [asdict(anomaly) for anomaly in result.anomalies[:most]],
        "faults": list(result.faults),
        "recovery_s": _longest([fault.get("recovered_s") for fault in result.faults]),
    }


def _causes(anomalies: Sequence[Anomaly]) -> dict[str, Any]:
    """The key `causes` of a run with anomalies: each cause with its number, kinds and some examples, the first first."""
    if not anomalies:  # the result of a right run is as it was before there were causes
        return {}
    return {
        "causes": [
            {
                "cause": group.cause or None,
                "number": len(group.anomalies),
                "kinds": sorted({f"{anomaly.kind} in {anomaly.query}" for anomaly in group.anomalies}),
                "examples": ["|".join(map(str, anomaly.key)) for anomaly in group.anomalies[: causes.EXAMPLES]],
            }
            for group in causes.groups(anomalies)
        ]
    }


def _longest(recoveries: Sequence[float | None]) -> float | None:
    known = [seconds for seconds in recoveries if seconds is not None]
    return max(known) if known and len(known) == len(recoveries) else None


def _targets(
    gathered: Evidence,
    figures: Mapping[str, Any],
    anomalies: Sequence[Anomaly],
    counts: Mapping[str, int | None],
    reasons: Mapping[str, str],
    guard: Guard,
    *,
    whole: bool,
) -> list[Target]:
    """The five targets. Where a checker crashed, and the check is not `whole`, the share of right rows is unknown."""
    limits = gathered.run.scenario.limits
    judged: list[tuple[Target, Callable[[Target], Target]]] = [
        (
            Target("latency", None, limits.latency_s, "s", Verdict.UNKNOWN),
            lambda target: _latency(target, gathered, figures, reasons),
        ),
        (_throughput_target(limits.throughput_eps), lambda target: _throughput(target, figures, reasons)),
        (
            Target("state_size", None, limits.state_bytes, "bytes", Verdict.UNKNOWN),
            lambda target: _held_to(target, figures["state_bytes_max"], reasons.get("figures.state_bytes_max", "")),
        ),
        (
            Target("cpu", None, limits.cpu_share, "share of cores", Verdict.UNKNOWN),
            lambda target: _held_to(target, _cpu(gathered, figures), reasons.get("figures.pipeline_cores", "")),
        ),
        (
            Target("success", None, limits.success_share, "share of rows", Verdict.UNKNOWN, at_least=True),
            lambda target: _success(target, anomalies, counts, whole=whole),
        ),
    ]
    targets = [
        guard.of(f"the target {blank.name}", partial(judge_, blank), replace(blank, why=unmeasured.CRASHED))
        for blank, judge_ in judged
    ]
    return [replace(target, judged=target.name in gathered.run.scenario.judged) for target in targets]


def _held_to(target: Target, value: float | None, unknown_why: str, missed_why: str = "") -> Target:
    """The target with its value: unknown without one, missed beyond the limit or where there is a reason `missed_why`."""
    if value is None:
        return replace(target, why=unknown_why)
    within = target.is_met(value)
    verdict = Verdict.PASS if within and not missed_why else Verdict.FAIL
    return replace(target, value=value, verdict=verdict, why=missed_why)


def _latency(target: Target, gathered: Evidence, figures: Mapping[str, Any], reasons: Mapping[str, str]) -> Target:
    """The largest p99, in seconds, of all latencies that there must be."""
    names = ("emission_delay_ms",) if gathered.run.scenario.black_box else ("durable_latency_ms", "emission_delay_ms")
    needed = {f"figures.{name}.{query}": found for name in names for query, found in figures[name].items()}
    if missing := [path for path, found in needed.items() if not found]:
        return replace(target, why="; ".join(dict.fromkeys(reasons[path] for path in missing if path in reasons)))
    if not needed:
        return replace(target, why="the pipeline has no query with a latency")
    return _held_to(target, max(found["p99"] for found in needed.values()) / 1e3, "")


def _cpu(gathered: Evidence, figures: Mapping[str, Any]) -> float | None:
    """The share of the cores given to the pipeline, of those that may be used, that it used."""
    if figures["pipeline_cores"] is None:
        return None
    manifest = gathered.run.manifest
    usable = manifest.get("usable_cores", manifest["cores"])
    return float(figures["pipeline_cores"] / min(gathered.run.scenario.pipeline.cores, usable))


def _success(target: Target, anomalies: Sequence[Anomaly], counts: Mapping[str, int | None], *, whole: bool) -> Target:
    if not whole:
        return replace(target, why="a checker crashed, see the verdict")
    if not counts["rows_expected"]:
        return replace(target, why="no row was expected")
    bad = sum(anomaly.kind not in checkers.OF_RECORDS for anomaly in anomalies)
    lost = sum(anomaly.kind == "record_lost" for anomaly in anomalies)
    why = f"{lost:,} acknowledged records were lost" if lost else ""
    return _held_to(target, 1 - bad / counts["rows_expected"], "", why)


def _throughput_target(limit: float) -> Target:
    return Target("throughput", None, limit, "events/s", Verdict.UNKNOWN, at_least=True)


def _throughput(target: Target, figures: Mapping[str, Any], reasons: Mapping[str, str]) -> Target:
    """Above the limit, at least 99 % of what was offered, and the lag grows by at most 1 % of the load.

    Unknown where the pipeline kept up with a load that is not above the limit: it might have carried more.
    """
    value, offered, slope = figures["throughput_eps"], figures["offered_eps"], figures["lag_slope_eps"]
    if value is None or offered is None:
        return replace(target, why=reasons.get("figures.throughput_eps", reasons.get("figures.offered_eps", "")))
    behind = ""
    if value < 0.99 * offered:
        behind = f"less than 99 % of the {offered:,.0f} events/s offered"
    elif slope is not None and slope > 0.01 * offered:
        behind = f"the lag grows by {slope:,.0f} records/s"
    if behind:
        return _held_to(target, value, "", behind)
    if offered <= target.limit:
        why = f"it kept up with the {offered:,.0f} events/s offered, and might carry more"
    elif slope is None:
        why = f"the slope of the lag is unknown: {reasons.get('figures.lag_slope_eps', '')}"
    else:
        return _held_to(target, value, "")
    return replace(target, value=value, why=why)


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
        *((slow, why) for why in guard.of("the check of recoveries", lambda: list(_overlong(gathered, faults)), [])),
        *((slow, f"missed: {', '.join(names)}") for names in [_missed_speed(targets)] if names),
        *(
            (slow, why)
            for why in guard.of("the cause of slowness", lambda: list(_too_slow(targets, figures, faults)), [])
        ),
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
        yield (
            verdict,
            guard.of(
                "the cause of the anomalies",
                lambda: _first_cause(anomalies),
                f"{len(anomalies):,} anomalies, the first: {first.kind} in {first.query} at {'|'.join(map(str, first.key))}",
            ),
        )
    if "success" in _missed(targets):
        yield verdict, "missed: success"


def _first_cause(anomalies: Sequence[Anomaly]) -> str:
    """How many anomalies have the first cause, and which that is."""
    first = causes.groups(anomalies)[0]
    number = f"{len(first.anomalies):,} of {len(anomalies):,} anomalies"
    return f"{number if len(anomalies) > 1 else '1 anomaly'}, {first}"


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


def _missed_speed(targets: Sequence[Target]) -> list[str]:
    return [name for name in _missed(targets) if name not in ("success", "state_size")]


def _overlong(gathered: Evidence, faults: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The recoveries and gaps that are longer than the scenario allows."""
    for what, value, limit in _limited(gathered, faults):
        if value is not None and value > limit:
            yield f"{what}: {value:g} s, above {limit:g} s"


def _too_slow(
    targets: Sequence[Target], figures: Mapping[str, Any], faults: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """Why throughput or latency is missed, as far as the figures show it."""
    names = _missed_speed(targets)
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
    """Why nothing is known of the run, whatever its rows and targets look like; `limited` by the load generator."""
    if limited:
        yield Verdict.UNKNOWN, "generator-limited: the load was not offered as the scenario asks"
    checks = {
        "the course of the run": lambda: list(_not_as_planned(gathered, counts)),
        "the reconciliation": lambda: list(_not_reconciled(gathered, counts)),
        "the check of the faults": lambda: list(_unproved(gathered, faults)),
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
    windowed = {query: found for query, found in gathered.batches.items() if found and QUERIES[query].stateful}
    return [
        query
        for query, found in windowed.items()
        if timeline.expected_watermarks(gathered, query)[-1] > found[-1].watermark_ms
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


def _unproved(gathered: Evidence, faults: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Faults that did not do what they are there for, and recoveries that were to be held to a limit."""
    injected = gathered.run.of(FaultHealed)
    if len(injected) < len(gathered.run.scenario.fault):
        yield f"{len(gathered.run.scenario.fault) - len(injected)} faults of the scenario were never injected"
    for event in injected:
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
    if not gathered.sent["malformed"].any():
        empty = [query for query in empty if not QUERIES[query].rejects or len(empty) > 1]
    if empty:
        yield f"nothing to compare in {', '.join(empty)}"
    unseen = ("throughput", "state_size") if gathered.run.scenario.black_box else ()
    unknown = {
        target.name: target.why
        for target in targets
        if target.judged and target.verdict is Verdict.UNKNOWN and target.name not in unseen
    }
    if "throughput" in unknown and figures["throughput_eps"] is not None and figures["lag_slope_eps"] is not None:
        del unknown["throughput"]
        yield (
            f"it kept up with the {figures['offered_eps']:,.0f} events/s it was offered, and the target is"
            f" {gathered.run.scenario.limits.throughput_eps:,.0f}: raise load.eps, or leave throughput out of judged"
        )
    if unknown:
        yield f"not measured: {', '.join(f'{name} ({why})' if why else name for name, why in unknown.items())}"
    if "latency" in unknown and (never := [name for name, one in figures["emission_delay_ms"].items() if not one]):
        yield (
            f"no row of {', '.join(never)} could close in the measured part: make load.duration_s longer, or raise"
            " workload.time_scale"
        )
