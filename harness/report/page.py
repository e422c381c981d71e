"""A run and its result → the page: which tables, which charts, in which words."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import ROUND_FLOOR, Decimal
from pathlib import Path
from typing import Any

import numpy as np

from harness import scenario
from harness.judge import causes, metrics, recovery
from harness.judge.assessment import Assessment
from harness.judge.metrics import Array
from harness.judge.timeline import Evidence
from harness.judge.verdict import accounted_for
from harness.model import Result, Target, Verdict
from harness.report import Chart, Page, Series, Table, figure
from harness.rundir.events import FaultHealed, LoadWorkers, Progress, Sample
from harness.rundir.history import Run
from harness.scenario import Load, Scenario

ANOMALIES_MAX = 50
EXAMPLES_MAX = 1000
"""Anomalies that result.json has in full (harness.verdict)."""
NOT_HEALED = "not healed"
PARTS = {
    "planning": ("queryPlanning",),
    "offsets": ("latestOffset", "getBatch"),
    "work": ("addBatch",),
    "write-ahead log": ("walCommit",),
    "commit": ("commitOffsets",),
}
"""Parts of a batch's time, by the names of Spark's durationMs."""
WHOLE = "triggerExecution"
SIGNS = {"<": "below", ">": "above", ">=": "at least"}
"""Operator of a target → the word for it."""
RECONCILED = (
    "sent",
    "acknowledged",
    "read",
    "counted",
    "dropped_late",
    "deduplicated",
    "dead_letter",
    "rows_expected",
    "rows_seen",
)
TARGET_UNITS = {
    "latency": ("s", 1.0),
    "state_size": ("MB", 1e-6),
    "cpu": ("% of its cores", 100.0),
    "success": ("% of rows", 100.0),
}


def of_run(assessed: Assessment) -> Page:
    """The page of a run; without charts where the run was interrupted."""
    run, result, evidence = assessed.run, assessed.result, assessed.evidence
    started = datetime.fromtimestamp(run.manifest["started_s"], UTC)
    return Page(
        heading=f"{run.scenario.name} · seed {run.scenario.load.seed} · {started:%Y-%m-%d %H:%M:%S} UTC",
        about=run.scenario.about,
        again=f"harness {shlex.join(run.manifest['command'])}",
        verdict=result.verdict.value,
        why=result.why,
        targets=tuple(shown(target) | {"of": _of(target, result.figures)} for target in result.targets),
        anomalies=_anomalies(result),
        causes=_causes(result),
        charts=_charts(evidence, result.figures) if evidence else (),
        shaded=_shaded(evidence) if evidence else (),
        measured_s=_ends_before_the_load(run.scenario.load),
        tables=(*(_figures(evidence, result) if evidence else ()), _configuration(run), _versions(run)),
    )


def of_unjudged(directory: Path, why: str) -> Page:
    """The page of a run that cannot be judged, of which perhaps only the folder is known."""
    return _bare(directory, Verdict.UNKNOWN, why)


def of_verdict(assessed: Assessment, crash: str) -> Page:
    """The page of a run with its verdict alone, where the whole page could not be made."""
    return _bare(assessed.run.directory, assessed.verdict, f"{assessed.why}; {crash}")


def _bare(directory: Path, verdict: Verdict, why: str) -> Page:
    directory = directory.absolute()
    return Page(
        heading=f"{directory.parent.name} · {directory.name}",
        about="",
        again=f"harness check {shlex.quote(str(directory))}",
        verdict=verdict.value,
        why=why,
        targets=(),
        anomalies=None,
        charts=(),
        shaded=(),
        measured_s=None,
        tables=(),
    )


def _ends_before_the_load(load: Load) -> float | None:
    """Where the measured part ends, if the load goes on after it."""
    return load.duration_s if load.cool_down_s or load.stretch_s else None


def _shaded(evidence: Evidence) -> tuple[dict[str, Any], ...]:
    """The warm-up, and each fault from its injection until it healed, in seconds of the measured part; None is no end."""
    faults = (
        {
            "from": _second(evidence, recovery.begun_s(event)),
            "to": _second(evidence, event.healed_s),
            "label": event.fault.name if event.healed_s is not None else f"{event.fault.name}, {NOT_HEALED}",
        }
        for event in evidence.run.of(FaultHealed)
    )
    return ({"to": 0, "label": "warm-up"}, *faults)


def _second(evidence: Evidence, at_s: float | None) -> float | None:
    """An epoch second as one of the measured part, where the charts begin to count."""
    return None if at_s is None else round(at_s - evidence.measured.start_s, 2)


def _faults(evidence: Evidence, result: Result) -> tuple[Table, ...]:
    if not result.faults:
        return ()
    names = (
        "struck_at",
        "unread",
        "proved",
        "first_commit_s",
        "first_output_s",
        "longest_gap_s",
        "recovered_s",
        "replayed",
        "duplicates",
    )
    rows = tuple(
        (
            number,
            fault["fault"],
            _second(evidence, fault["proof"].get("first_s") or fault["at_s"]),
            NOT_HEALED if fault["healed_s"] is None else _second(evidence, fault["healed_s"]),
            *(fault.get(name) for name in names),
        )
        for number, fault in enumerate(result.faults, 1)
    )
    note = (
        "Injected and healed are seconds of the measured part, as in the charts; the other seconds count from the injection,"
        " of a fault that missed its point at first from its first try."
        " At event is the number of acknowledged events by then, of which some were still unread."
        " Proved: it worked before, and did not after."
    )
    columns = ("", "fault", "injected, s", "healed, s", "at event", *(_headed(name) for name in names[1:]))
    return (Table("Faults", note, columns, rows),)


def _headed(name: str) -> str:
    return f"{name.removesuffix('_s').replace('_', ' ')}{', s' if name.endswith('_s') else ''}"


def shown(target: Target) -> dict[str, Any]:
    """A target as a person reads it: its value and its limit in a unit that suits them, and whether it misses the limit."""
    value, limit = target.value, _in_unit(target, target.limit)
    return {
        "name": target.name.replace("_", " "),
        "value": None if value is None else _apart(_in_unit(target, value), limit),
        "limit": limit,
        "sign": SIGNS[_operator(target)],
        "operator": _operator(target),
        "unit": _unit(target)[0],
        "headroom": target.headroom,
        "missed": value is not None and not target.is_met(value),
        "verdict": target.verdict.value if target.judged else "shown",
        "why": f"not measured: {target.why}" if value is None and target.why else target.why,
    }


def _operator(target: Target) -> str:
    """How a value that meets the target compares with its limit."""
    if not target.at_least:
        return "<"
    return ">=" if target.is_met(target.limit) else ">"


def _apart(value: float | str, limit: float | str) -> float | str:
    """A value as it is, or, where it would read like a limit that it is not, with as many digits as make them differ."""
    if isinstance(value, str) or isinstance(limit, str) or value == limit or _read(figure(value)) != limit:
        return value
    texts = (f"{value:,.{digits}f}" for digits in range(1, 18))
    return next((text for text in texts if _read(text) != limit), value)


def _read(text: str) -> float:
    """The number that a person reads."""
    return float(text.replace(",", ""))


def _of(target: Target, figures: Mapping[str, Any]) -> str:
    """Which of the figures of latency it is that the target is judged on."""
    if target.name != "latency" or target.value is None:
        return ""
    kinds = {"durable latency": figures["durable_latency_ms"], "emission delay": figures["emission_delay_ms"]}
    found = {f"{kind}, {query}": one["p99"] for kind, of in kinds.items() for query, one in of.items() if one}
    return next((f"p99 of {name}" for name, ms in found.items() if ms / 1e3 == target.value), "")


def _unit(target: Target) -> tuple[str, float]:
    """The unit that a target is shown in, and how many of it make one of its own."""
    return TARGET_UNITS.get(target.name, (target.unit, 1.0))


def _in_unit(target: Target, value: float) -> float | str:
    return _per_cent(value) if target.name == "success" else value * _unit(target)[1]


def _per_cent(value: float) -> str:
    """A share of rows, cut off after four digits: one that is wrong in a million is not none."""
    cut = Decimal(str(value)).quantize(Decimal("0.000001"), ROUND_FLOOR)
    return f"{(cut * 100).normalize():,f}"


def _causes(result: Result) -> Table | None:
    """The causes of the anomalies with their numbers; those without a known cause by kind and query."""
    if not result.anomalies:
        return None
    rows = tuple(
        (
            len(group.anomalies),
            group.cause or "no cause found",
            ", ".join(sorted({f"{anomaly.kind.replace('_', ' ')} in {anomaly.query}" for anomaly in group.anomalies})),
            "; ".join("|".join(map(str, anomaly.key)) for anomaly in group.anomalies[: causes.EXAMPLES]),
        )
        for group in causes.groups(result.anomalies)[:ANOMALIES_MAX]
    )
    note = "Anomalies with one cause, and some of their rows; the events that decide are below."
    return Table("Causes", note, ("anomalies", "cause", "kinds", "rows"), rows)


def _anomalies(result: Result) -> Table | None:
    if not result.anomalies:
        return None
    rows = tuple(
        (
            anomaly.kind.replace("_", " "),
            anomaly.query,
            "|".join(map(str, anomaly.key)),
            anomaly.expected,
            anomaly.observed,
            anomaly.why,
            "; ".join(anomaly.events),
        )
        for anomaly in result.anomalies[:ANOMALIES_MAX]
    )
    return Table(
        "Anomalies",
        _where(len(result.anomalies)),
        ("kind", "query", "row", "expected", "seen", "explanation", "events"),
        rows,
    )


def _where(count: int) -> str:
    """How many anomalies there are, and where more of them stand."""
    if count <= ANOMALIES_MAX:
        return f"{count:,} in all."
    stored = "all" if count <= EXAMPLES_MAX else f"the first {EXAMPLES_MAX:,}"
    return f"{count:,} in all, the first {ANOMALIES_MAX} here, {stored} in result.json."


def _figures(evidence: Evidence, result: Result) -> tuple[Table, ...]:
    figures = result.figures
    counts = _counts(result.counts, evidence.run.scenario)
    return (*_faults(evidence, result), _percentiles(figures), counts, _resources(figures), *_unknown(result))


def _unknown(result: Result) -> tuple[Table, ...]:
    """What was not measured, and why."""
    if not result.unknown:
        return ()
    note = "Each by its path in result.json, where its value is null; a table above has a dash in its place."
    return (Table("Not measured", note, ("figure", "why"), tuple(result.unknown.items())),)


def _percentiles(figures: Mapping[str, Any]) -> Table:
    rows = [(f"durable latency, {name}", value) for name, value in figures["durable_latency_ms"].items()]
    rows += [(f"emission delay, {name}", value) for name, value in figures["emission_delay_ms"].items()]
    rows += [("generator delay", figures["generator_delay_ms"]), ("acknowledgement", figures["ack_latency_ms"])]
    return Table(
        "Percentiles",
        "Milliseconds, from all samples of the measured part. Durable latency runs from the moment an event was due to"
        " the commit of the batch that read it; emission delay from the first moment at which a window could close."
        f"{_negative(figures['negative_latencies'])}",
        ("figure", "p50", "p90", "p99", "p99.9", "max"),
        tuple((name, *((value or {}).get(key) for key in metrics.PERCENTILES)) for name, value in rows),
    )


def _negative(found: Mapping[str, Mapping[str, int | None] | int | None]) -> str:
    """How many samples of which figure are negative; nothing where none is."""
    named: dict[str, int | None] = {}
    for name, of in found.items():
        words = name.replace("_", " ")
        if isinstance(of, Mapping):
            named |= {f"{words} of {query}": count for query, count in of.items()}
        else:
            named[words] = of
    negative = ", ".join(f"{words} {count:,}" for words, count in named.items() if count)
    return f" SOME ARE NEGATIVE, as where clocks disagree: {negative}." if negative else ""


def _counts(counts: Mapping[str, int | None], chosen: Scenario) -> Table:
    """Those that reconcile, and of the others those that are not 0, or should not be."""
    sides = (counts["acknowledged"], counts["read"], accounted_for(counts))
    outcome = "they reconcile." if len(set(sides)) == 1 else "THEY DO NOT RECONCILE."
    if None in sides:
        outcome = "unknown, because a count that they need is unknown."
    if not chosen.counts_all:
        outcome = "not checked: this pipeline lacks a query or a checkpoint that they need."
    note = f"Acknowledged = read = counted + dropped late + deduplicated + dead letter: {outcome}"
    return Table(
        "Counts",
        note,
        ("count", "records or rows"),
        tuple(
            (name.replace("_", " "), value)
            for name, value in counts.items()
            if value or value is None or name in RECONCILED or name in chosen.proves
        ),
    )


def _resources(figures: Mapping[str, Any]) -> Table:
    def scaled(name: str, factor: float) -> float | None:
        return None if figures[name] is None else round(figures[name] * factor, 3)

    rows = (
        ("throughput, share of what was due that was committed × offered", figures["throughput_eps"], "events/s"),
        ("offered", figures["offered_eps"], "events/s"),
        ("largest lag", figures["lag_records_max"], "records"),
        ("slope of the lag", figures["lag_slope_eps"], "records/s"),
        ("largest state", scaled("state_bytes_max", 1e-6), "MB"),
        ("largest state", figures["state_rows_max"], "rows"),
        ("slope of the state", scaled("state_slope_bytes_s", 1e-3), "kB/s"),
        ("checkpoint on disk", scaled("checkpoint_bytes_max", 1e-6), "MB"),
        ("pipeline", figures["pipeline_cores"], "cores"),
        ("brokers", figures["brokers_cores"], "cores"),
        ("generator", figures["generator_cores"], "cores"),
        ("harness", figures["harness_cores"], "cores"),
        ("machine", scaled("machine_cpu_share", 100), "% of all cores"),
        ("pipeline, resident", scaled("pipeline_rss_bytes_max", 1e-6), "MB"),
        ("harness and generator, resident", scaled("harness_rss_bytes_max", 1e-6), "MB"),
    )
    return Table(
        "Resources",
        "CPU is the mean over the measured part; memory and state are maxima.",
        ("figure", "value", "unit"),
        rows,
    )


def _configuration(run: Run) -> Table:
    table, rows = "", []
    seen: Counter[str] = Counter()
    for line in scenario.dump(run.scenario).split("\n"):
        if line.startswith("["):
            name = line.strip("[]")
            seen[name] += 1
            table = f"{name} {seen[name]}." if line.startswith("[[") else f"{name}."
        elif line:
            name, _, value = line.partition(" = ")
            rows.append((table + name, json.loads(value) if value.startswith('"') else value))
    return Table("Configuration", "The scenario as it was run, overrides in.", ("field", "value"), tuple(rows))


def _versions(run: Run) -> Table:
    manifest = run.manifest
    rows = [
        ("machine", manifest["machine"]),
        ("cores", manifest["cores"]),
        ("memory", f"{manifest['memory_bytes'] / 1e9:.1f} GB"),
    ]
    rows += [
        (
            f"load worker {worker.index}",
            f"{worker.host}, clock {worker.skew_ms:+.1f} ms (± {worker.round_trip_ms / 2:.1f} ms)",
        )
        for joined in run.of(LoadWorkers)
        for worker in joined.workers
    ]
    rows += [("python", manifest["python"]), ("git", manifest["git"])]
    rows += list(manifest["versions"].items())
    return Table("Machine and versions", "", ("what", "version"), tuple(rows))


def _charts(evidence: Evidence, figures: Mapping[str, Any]) -> tuple[Chart, ...]:
    if evidence.run.scenario.black_box:
        return (_cpu(evidence),)
    of_progress = (_batch_time(evidence), _state(evidence)) if evidence.run.of(Progress) else ()
    return (_latency(evidence, figures), _rates(evidence, figures), *of_progress, _cpu(evidence))


def _seconds(evidence: Evidence) -> Array:
    """Those of the load, from the start of the measured part."""
    sent, start = evidence.sent, -evidence.run.scenario.load.warm_up_s
    last = sent["due_us"][~sent["flush"]].max() / 1e6 - evidence.measured.start_s
    return np.arange(start, np.ceil(last) + 1)


def _is_measured(evidence: Evidence, seconds: Array) -> Array:
    inside: Array = (seconds >= 0) & (seconds < evidence.run.scenario.load.duration_s)
    return inside


def _rounded(values: Sequence[float | None] | Array) -> tuple[float | None, ...]:
    return tuple(None if value is None or not np.isfinite(value) else round(float(value), 3) for value in values)


def _latency(evidence: Evidence, figures: Mapping[str, Any]) -> Chart:
    seconds, sent = _seconds(evidence), evidence.sent
    due = sent["due_us"] / 1e6 - evidence.measured.start_s
    series = []
    for query in evidence.batches:
        batch, batches = evidence.batch_of[query], evidence.batches[query]
        read = (batch >= 0) & (batch < len(batches)) & ~sent["flush"]
        committed = np.array([batch.committed_s for batch in batches])
        late = committed[batch[read]] - evidence.measured.start_s - due[read]
        series.append(Series(query, _rounded(_worst(due[read], late, seconds))))
    title = "Durable latency, worst event of each second"
    longest = max((value for line in series for value in line.values if value is not None), default=0.0)
    words = _slowest(figures["durable_latency_ms"], longest)
    return Chart("latency", title, "s", tuple(seconds.tolist()), tuple(series), words)


def _slowest(durable_ms: Mapping[str, Mapping[str, float] | None], longest_s: float) -> str:
    """The sentence below the chart of latency; an event that was never committed has none."""
    top = {query: found["max"] for query, found in durable_ms.items() if found}
    if not top:
        return "No event of the measured part was committed."
    query = max(top, key=lambda name: top[name])
    beyond = f" Over the whole load the longest took {longest_s:.2f} s." if longest_s > top[query] / 1e3 + 0.01 else ""
    return (
        f"Of the events of the measured part that were committed none took longer than {top[query] / 1e3:.2f} s"
        f" until it was durable; the slowest query was {query}.{beyond}"
    )


def _worst(at: Array, values: Array, seconds: Array) -> list[float | None]:
    worst = np.full(len(seconds), -np.inf)
    index = np.clip(np.floor(at - seconds[0]).astype(int), 0, len(seconds) - 1)
    np.maximum.at(worst, index, values)
    return [None if not np.isfinite(value) else float(value) for value in worst]


def _rates(evidence: Evidence, figures: Mapping[str, Any]) -> Chart:
    seconds, start = _seconds(evidence), evidence.measured.start_s
    acked = np.sort(evidence.sent["acked_us"][evidence.sent["acked_us"] > 0]) / 1e6 - start
    acknowledged = np.diff(np.searchsorted(acked, np.append(seconds, seconds[-1] + 1)))
    widest = max(evidence.batches, key=lambda query: int((evidence.batch_of[query] >= 0).sum()))
    batch, batches = evidence.batch_of[widest], evidence.batches[widest]
    read = np.bincount(batch[(batch >= 0) & (batch < len(batches))], minlength=len(batches))
    times = np.array([batch.committed_s for batch in batches]) - start
    committed = [float(read[(times >= at - 5) & (times < at)].sum() / 5) for at in seconds]
    lag = np.max(
        [
            metrics.lag_records(evidence.sent, evidence.batch_of[query], evidence.batches[query], seconds + start)
            for query in evidence.batches
        ],
        axis=0,
    )
    usual, largest = np.median(acknowledged[_is_measured(evidence, seconds)]), figures["lag_records_max"]
    words = f"In the median second of the measured part {usual:,.0f} events were acknowledged"
    words += "." if largest is None else f"; the largest lag was {largest:,} records."
    if largest is not None and lag.max(initial=0) > largest:
        words += f" Over the whole load it came to {lag.max():,}."
    series = (
        Series("acknowledged", _rounded(acknowledged), dips=True),
        Series(f"committed by {widest}, mean of 5 s", _rounded(committed), dips=True),
        Series("largest lag", _rounded(lag), right=True),
    )
    return Chart(
        "rates", "Rate in and out, and lag", "events/s", tuple(seconds.tolist()), series, words, right_unit="records"
    )


def _batch_time(evidence: Evidence) -> Chart:
    by_query: dict[str, list[Progress]] = {}
    for event in evidence.run.of(Progress):
        by_query.setdefault(event.query, []).append(event)
    took = {query: _took_s(evidence, events) for query, events in by_query.items()}
    slowest = max(took, key=lambda query: np.median(took[query] or [-1]))
    events, seconds = by_query[slowest], took[slowest]
    x = tuple(round(event.t - evidence.measured.start_s, 2) for event in events)
    series = tuple(
        Series(part, tuple(_sum([_part_s(event, name) for name in names]) for event in events))
        for part, names in PARTS.items()
    )
    words = "No batch ended in the measured part."
    if not any(_part_s(event, WHOLE) is not None for event in events):
        words = f"The progress reports of the pipeline have no duration {WHOLE}."
    if seconds:
        words = f"In the measured part the slowest query was {slowest}: its batches took {np.median(seconds):.2f} s in the median and {max(seconds):.2f} s at most."
        longest = max(_part_s(event, WHOLE) or 0.0 for event in events)
        if longest > max(seconds):
            words += f" Over the whole run the longest took {longest:.2f} s."
    return Chart("batches", f"Time of a batch by part, {slowest}", "s", x, series, words, stacked=True)


def _took_s(evidence: Evidence, events: Sequence[Progress]) -> list[float]:
    """How long each batch took that ended in the measured part, without those of the warm-up, the flush and the drain."""
    measured = evidence.measured
    during = (event for event in events if measured.start_s <= event.t < measured.end_s)
    return [seconds for event in during if (seconds := _part_s(event, WHOLE)) is not None]


def _part_s(event: Progress, name: str) -> float | None:
    """Seconds of a part of a batch; None where the pipeline does not report it."""
    took_ms = event.progress.get("durationMs", {}).get(name)
    return None if took_ms is None else float(took_ms) / 1e3


def _sum(parts: Sequence[float | None]) -> float | None:
    """The sum of the parts that are known; None where none is."""
    known = [part for part in parts if part is not None]
    return sum(known) if known else None


def _state(evidence: Evidence) -> Chart:
    progress = evidence.run.of(Progress)
    times, used = metrics.state(progress, "memoryUsedBytes")
    _, rows = metrics.state(progress, "numRowsTotal")
    x = tuple((times - evidence.measured.start_s).round(2).tolist())
    words = "The progress reports of the pipeline do not have the memory and the rows of every state operator."
    if not any(event.operators for event in progress):
        words = "No progress report of the pipeline has a state operator."
    elif np.isfinite(used).all() and np.isfinite(rows).all():
        words = f"The state of all queries came to {used.max() / 1e6:,.1f} MB and {rows.max():,.0f} rows at most."
    series = (Series("memory", _rounded(used / 1e6)), Series("rows", _rounded(rows), right=True))
    return Chart("state", "State of all queries", "MB", x, series, words, right_unit="rows")


def _cpu(evidence: Evidence) -> Chart:
    samples = evidence.run.of(Sample)
    times = np.array([sample.t for sample in samples])
    x = tuple((times[1:] - evidence.measured.start_s).round(2).tolist())
    series = []
    for who in ("pipeline", "brokers", "generator", "harness", "machine"):
        seconds = [getattr(sample, f"{who}_cpu_s") for sample in samples]
        if None in seconds:  # brokers elsewhere: it is not known
            continue
        used = np.array(seconds)
        # A process that has ended takes its seconds with it: that is no negative use.
        series.append(Series(who, _rounded(np.maximum(np.diff(used), 0) / np.maximum(np.diff(times), 0.01))))
    inside = _is_measured(evidence, np.array(x))
    mean = [value for value, is_in in zip(series[0].values, inside, strict=True) if value is not None and is_in]
    words = "No sample of the pipeline's CPU lies in the measured part."
    if mean:
        words = f"The pipeline used {np.mean(mean):.2f} of {evidence.run.manifest['cores']} cores on average over the measured part."
    return Chart("cpu", "CPU by who used it", "cores", x, tuple(series), words)
