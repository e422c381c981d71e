"""A run and its result → the page: which tables, which charts, in which words."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import compress
from typing import Any

import numpy as np

from harness import evidence as runs
from harness import measures, scenario
from harness.evidence import Evidence
from harness.history import Run
from harness.measures import Array
from harness.model import Result
from harness.report import Chart, Page, Series, Table

ANOMALIES_MAX = 50
PARTS = {
    "planning": ("queryPlanning",),
    "offsets": ("latestOffset", "getBatch"),
    "work": ("addBatch",),
    "write-ahead log": ("walCommit",),
    "commit": ("commitOffsets",),
}
"""Parts of a batch's time, by the names of Spark's durationMs."""
TARGET_UNITS = {
    "latency": ("s", 1.0),
    "state_size": ("MB", 1e-6),
    "cpu": ("% of its cores", 100.0),
    "success": ("% of rows", 100.0),
}


def of_run(run: Run, result: Result) -> Page:
    """The page of a run; without charts where the run was interrupted."""
    evidence = runs.gather(run) if result.figures else None
    started = datetime.fromtimestamp(run.manifest["started_s"], UTC)
    return Page(
        scenario=run.scenario.name,
        about=run.scenario.about,
        seed=run.scenario.load.seed,
        started=started.strftime("%Y-%m-%d %H:%M:%S UTC"),
        again=f"harness {shlex.join(run.manifest['command'])}",
        verdict=result.verdict.value,
        why=result.why,
        targets=tuple(_target(target) for target in result.targets),
        anomalies=_anomalies(result),
        charts=_charts(evidence) if evidence else (),
        shaded=_shaded(evidence) if evidence else (),
        tables=(*_faults(result), *(_figures(run, result) if evidence else ()), _configuration(run), _versions(run)),
    )


def _shaded(evidence: Evidence) -> tuple[dict[str, Any], ...]:
    """The warm-up, and each fault from its stroke until it healed, in seconds of the measured part."""
    start = evidence.measured.start_s
    faults = (
        {
            "from": round(one["at_s"] - start, 2),
            "to": round((one["healed_s"] or one["at_s"]) - start, 2),
            "label": one["fault"],
        }
        for one in evidence.run.of_kind("fault")
    )
    return ({"to": 0, "label": "warm-up"}, *faults)


def _faults(result: Result) -> tuple[Table, ...]:
    if not result.faults:
        return ()
    names = (
        "fault",
        "at",
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
    rows = tuple((number, *(one.get(name) for name in names)) for number, one in enumerate(result.faults, 1))
    note = "Each by the number of acknowledged events, of which some were still unread; seconds from its stroke. Proved: it worked before, and did not after."
    return (Table("Faults", note, ("", *(name.replace("_", " ") for name in names)), rows),)


def _target(target: Any) -> dict[str, Any]:
    unit, factor = TARGET_UNITS.get(target.name, (target.unit, 1.0))
    return {
        "name": target.name.replace("_", " "),
        "value": None if target.value is None else target.value * factor,
        "limit": target.limit * factor,
        "sign": "above" if target.at_least else "below",
        "unit": unit,
        "headroom": target.headroom,
        "verdict": target.verdict.value if target.judged else "shown",
    }


def _anomalies(result: Result) -> Table | None:
    if not result.anomalies:
        return None
    rows = tuple(
        (
            one.kind.replace("_", " "),
            one.query,
            " · ".join(map(str, one.key)),
            one.expected,
            one.observed,
            one.why,
            "; ".join(one.events),
        )
        for one in result.anomalies[:ANOMALIES_MAX]
    )
    note = f"{len(result.anomalies):,} in all, the first {len(rows)} here, the rest in result.json."
    return Table("Anomalies", note, ("kind", "query", "row", "expected", "seen", "explanation", "events"), rows)


def _figures(run: Run, result: Result) -> tuple[Table, ...]:
    figures = result.figures
    return (_percentiles(figures), _counts(result.counts, run.scenario.counts_all), _resources(figures))


def _percentiles(figures: Mapping[str, Any]) -> Table:
    rows = [(f"durable latency, {name}", value) for name, value in figures["durable_latency_ms"].items()]
    rows += [(f"emission delay, {name}", value) for name, value in figures["emission_delay_ms"].items()]
    rows += [("generator delay", figures["generator_delay_ms"]), ("acknowledgement", figures["ack_latency_ms"])]
    return Table(
        "Percentiles",
        "Milliseconds, from all samples of the measured part. Durable latency runs from the moment an event was due to"
        " the commit of the batch that read it; emission delay from the first moment at which a window could close.",
        ("figure", "p50", "p90", "p99", "p99.9", "max"),
        tuple((name, *((value or {}).get(key) for key in measures.PERCENTILES)) for name, value in rows),
    )


def _counts(counts: Mapping[str, int], counts_all: bool) -> Table:
    accounted = counts["counted"] + counts["dropped_late"] + counts["deduplicated"] + counts["dead_letter"]
    agree = counts["acknowledged"] == counts["read"] == accounted
    said = "they reconcile." if agree else "THEY DO NOT RECONCILE."
    if not counts_all:
        said = "not asked of this pipeline, which lacks a query or a checkpoint to tell by."
    note = f"Acknowledged = read = counted + dropped late + deduplicated + dead letter: {said}"
    return Table(
        "Counts",
        note,
        ("count", "records or rows"),
        tuple((name.replace("_", " "), value) for name, value in counts.items()),
    )


def _resources(figures: Mapping[str, Any]) -> Table:
    def scaled(name: str, factor: float) -> float | None:
        return None if figures[name] is None else round(figures[name] * factor, 3)

    rows = (
        ("throughput, slope of committed input", figures["throughput_eps"], "events/s"),
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
    text = scenario.dump(run.scenario)
    table, rows = "", []
    for line in text.splitlines():
        if line.startswith("["):
            table = line.strip("[]") + "."
        elif line:
            name, _, value = line.partition(" = ")
            rows.append((table + name, value.strip('"')))
    return Table("Configuration", "The scenario as it was run, overrides in.", ("field", "value"), tuple(rows))


def _versions(run: Run) -> Table:
    manifest = run.manifest
    rows = [
        ("machine", manifest["machine"]),
        ("cores", manifest["cores"]),
        ("memory", f"{manifest['memory_bytes'] / 1e9:.1f} GB"),
    ]
    rows += [("python", manifest["python"]), ("git", manifest["git"])]
    rows += list(manifest["versions"].items())
    return Table("Machine and versions", "", ("what", "version"), tuple(rows))


def _charts(evidence: Evidence) -> tuple[Chart, ...]:
    if evidence.run.scenario.black_box:
        return (_cpu(evidence),)
    of_progress = (_batch_time(evidence), _state(evidence)) if evidence.run.of_kind("progress") else ()
    return (_latency(evidence), _rates(evidence), *of_progress, _cpu(evidence))


def _seconds(evidence: Evidence) -> Array:
    """Those of the load, from the start of the measured part."""
    sent, start = evidence.sent, -evidence.run.scenario.load.warm_up_s
    last = sent["due_us"][~sent["flush"]].max() / 1e6 - evidence.measured.start_s
    return np.arange(start, np.ceil(last) + 1)


def _is_measured(evidence: Evidence, seconds: Array) -> Array:
    inside: Array = (seconds >= 0) & (seconds < evidence.run.scenario.load.duration_s)
    return inside


def _rounded(values: Sequence[float | None] | Array) -> tuple[float | None, ...]:
    return tuple(None if one is None or not np.isfinite(one) else round(float(one), 3) for one in values)


def _latency(evidence: Evidence) -> Chart:
    seconds, sent = _seconds(evidence), evidence.sent
    due = sent["due_us"] / 1e6 - evidence.measured.start_s
    series = []
    for query in evidence.batches:
        batch, batches = evidence.batch_of[query], evidence.batches[query]
        read = (batch >= 0) & (batch < len(batches)) & ~sent["flush"]
        committed = np.array([one.committed_s for one in batches])
        late = committed[batch[read]] - evidence.measured.start_s - due[read]
        series.append(Series(query, _rounded(_worst(due[read], late, seconds))))
    measured = _is_measured(evidence, seconds)
    top = {
        one.label: max((value for value in compress(one.values, measured) if value is not None), default=0.0)
        for one in series
    }
    slowest = max(top, key=lambda name: top[name])
    words = f"In the measured part no event took longer than {top[slowest]:.2f} s until it was durable; the slowest query was {slowest}."
    return Chart(
        "latency", "Durable latency, worst event of each second", "s", tuple(seconds.tolist()), tuple(series), words
    )


def _worst(at: Array, values: Array, seconds: Array) -> list[float | None]:
    worst = np.full(len(seconds), -np.inf)
    index = np.clip(np.floor(at - seconds[0]).astype(int), 0, len(seconds) - 1)
    np.maximum.at(worst, index, values)
    return [None if not np.isfinite(one) else float(one) for one in worst]


def _rates(evidence: Evidence) -> Chart:
    seconds, start = _seconds(evidence), evidence.measured.start_s
    acknowledged = np.sort(evidence.sent["acked_us"][evidence.sent["acked_us"] > 0]) / 1e6 - start
    offered = np.diff(np.searchsorted(acknowledged, np.append(seconds, seconds[-1] + 1)))
    widest = max(evidence.batches, key=lambda query: int((evidence.batch_of[query] >= 0).sum()))
    batch, batches = evidence.batch_of[widest], evidence.batches[widest]
    read = np.bincount(batch[(batch >= 0) & (batch < len(batches))], minlength=len(batches))
    times = np.array([one.committed_s for one in batches]) - start
    committed = [float(read[(times >= at - 5) & (times < at)].sum() / 5) for at in seconds]
    lag = np.max(
        [
            measures.lag_records(evidence.sent, evidence.batch_of[query], evidence.batches[query], seconds + start)
            for query in evidence.batches
        ],
        axis=0,
    )
    measured = _is_measured(evidence, seconds)
    words = f"In the measured part {np.median(offered[measured]):,.0f} events/s were offered in the median second, and the lag never exceeded {lag[measured].max():,.0f} records."
    series = (
        Series("acknowledged", _rounded(offered)),
        Series(f"committed by {widest}, mean of 5 s", _rounded(committed)),
        Series("largest lag", _rounded(lag), right=True),
    )
    return Chart(
        "rates", "Rate in and out, and lag", "events/s", tuple(seconds.tolist()), series, words, right_unit="records"
    )


def _batch_time(evidence: Evidence) -> Chart:
    by_query: dict[str, list[Mapping[str, Any]]] = {}
    for event in evidence.run.of_kind("progress"):
        by_query.setdefault(event["query"], []).append(event)
    slowest = max(
        by_query,
        key=lambda name: np.median([one["progress"]["durationMs"]["triggerExecution"] for one in by_query[name]]),
    )
    events = by_query[slowest]
    x = tuple(round(event["t"] - evidence.measured.start_s, 2) for event in events)
    series = tuple(
        Series(
            part, tuple(sum(event["progress"]["durationMs"].get(name, 0) for name in names) / 1e3 for event in events)
        )
        for part, names in PARTS.items()
    )
    total = [
        event["progress"]["durationMs"]["triggerExecution"] / 1e3
        for event in events
        if event["t"] >= evidence.measured.start_s
    ]
    words = f"The slowest query is {slowest}: its batches took {np.median(total or [0]):.2f} s in the median and {max(total, default=0):.2f} s at most."
    return Chart("batches", f"Time of a batch by part, {slowest}", "s", x, series, words, stacked=True)


def _state(evidence: Evidence) -> Chart:
    progress = evidence.run.of_kind("progress")
    times, used = measures.state(progress, "memoryUsedBytes")
    _, rows = measures.state(progress, "numRowsTotal")
    x = tuple((times - evidence.measured.start_s).round(2).tolist())
    words = f"The state of all queries came to {used.max(initial=0) / 1e6:,.1f} MB and {rows.max(initial=0):,.0f} rows at most."
    series = (Series("memory", _rounded(used / 1e6)), Series("rows", _rounded(rows), right=True))
    return Chart("state", "State of all queries", "MB", x, series, words, right_unit="rows")


def _cpu(evidence: Evidence) -> Chart:
    samples = evidence.run.of_kind("sample")
    times = np.array([sample["t"] for sample in samples])
    x = tuple((times[1:] - evidence.measured.start_s).round(2).tolist())
    series = []
    for who in ("pipeline", "brokers", "generator", "harness", "machine"):
        used = np.array([sample[f"{who}_cpu_s"] for sample in samples])
        # A process that has ended takes its seconds with it: that is no negative use.
        series.append(Series(who, _rounded(np.maximum(np.diff(used), 0) / np.maximum(np.diff(times), 0.01))))
    inside = _is_measured(evidence, np.array(x))
    mean = [value for value, is_in in zip(series[0].values, inside, strict=True) if value is not None and is_in]
    words = f"The pipeline used {np.mean(mean or [0]):.2f} of {evidence.run.manifest['cores']} cores on average over the measured part."
    return Chart("cpu", "CPU by who used it", "cores", x, tuple(series), words)
