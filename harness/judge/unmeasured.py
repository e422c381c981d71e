"""Why a figure, a count or a cost of result.json is null: a sentence each, by its path in the file.

What was not measured has no value and a reason. A default such as 0 would read as a measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.judge import metrics, recovery, summary
from harness.judge.guard import Guard
from harness.judge.timeline import Evidence
from harness.rundir.events import Progress, Sample

BLACK_BOX = "without a checkpoint the harness does not see which events the pipeline has read"
CRASHED = "its computation crashed, see the verdict"
NO_COMMITS = "committed nothing before it, or nothing after it"
STATE = {
    "state_bytes_max": "memoryUsedBytes",
    "state_rows_max": "numRowsTotal",
    "state_slope_bytes_s": "memoryUsedBytes",
}
"""Figure of the state → the field of Spark's state operators that it comes from."""
OF_CORES = {
    "pipeline_cores": "pipeline",
    "machine_cpu_share": "machine",
    "brokers_cores": "brokers",
    "generator_cores": "generator",
    "harness_cores": "harness",
}
"""Figure of CPU → whose it is."""
COSTS = (*(name for name in recovery.SECONDS if name != "unrecovered_s"), "replayed", "duplicates")


def reasons(
    gathered: Evidence,
    figures: Mapping[str, Any],
    counts: Mapping[str, int | None],
    faults: Sequence[Mapping[str, Any]],
    guard: Guard,
) -> dict[str, str]:
    """Path in result.json, such as ``figures.lag_slope_eps``, → why its value is null; of a value that is known, nothing."""
    crashed = {crash.part for crash in guard.crashes}
    return {
        **guard.of("the reasons of unknown figures", lambda: dict(_of_figures(gathered, figures, crashed)), {}),
        **guard.of("the reasons of unknown counts", lambda: dict(_of_counts(gathered, counts, crashed)), {}),
        **guard.of("the reasons of unknown costs", lambda: dict(_of_faults(gathered, faults, crashed)), {}),
    }


def _of_figures(gathered: Evidence, figures: Mapping[str, Any], crashed: set[str]) -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if name == "negative_latencies":  # as unknown as the latencies
            continue
        if isinstance(value, Mapping) and name in ("durable_latency_ms", "emission_delay_ms"):
            for query, found in value.items():
                if found is None:
                    parts = {f"the figure {name} of {query}"}
                    if name == "emission_delay_ms":  # of rows that were not compared there is none
                        parts |= {f"the comparison of {query}", "the oracle"}
                    yield f"figures.{name}.{query}", CRASHED if parts & crashed else _latency(gathered, name, query)
        elif value is None:
            parts = {f"the figure {name}", f"the CPU of {OF_CORES.get(name)}"}
            yield f"figures.{name}", CRASHED if parts & crashed else _figure(gathered, name)


def _latency(gathered: Evidence, name: str, query: str) -> str:
    if name == "emission_delay_ms":
        return f"no row of {query} came out whose window could close in the measured part"
    if gathered.run.scenario.black_box:
        return BLACK_BOX
    return f"{query} committed no event of the measured part"


def _figure(gathered: Evidence, name: str) -> str:
    if name in STATE:
        return _state(gathered, name)
    if name in OF_CORES:
        return _cores(gathered, OF_CORES[name])
    if name in ("generator_delay_ms", "ack_latency_ms"):
        return f"no event of the measured part was {'sent' if name == 'generator_delay_ms' else 'acknowledged'}"
    if gathered.run.scenario.black_box and name in (
        "throughput_eps",
        "lag_records_max",
        "lag_slope_eps",
        "checkpoint_bytes_max",
    ):
        return BLACK_BOX
    if name in ("throughput_eps", "lag_slope_eps"):
        return _rate(gathered)
    return "no sample has it"


def _rate(gathered: Evidence) -> str:
    """Why the slopes of commits are not known."""
    few = [query for query in summary.loaded(gathered) if _moments(gathered, query) < 3]
    if few:
        return f"{', '.join(few)} committed fewer than three batches in the measured part"
    if not summary.loaded(gathered):
        return "no event was due in the measured part"
    return "no event came due between the first commit and the last of the measured part"


def _moments(gathered: Evidence, query: str) -> int:
    at_s, _ = metrics.lag_at_commits(
        gathered.sent, gathered.batch_of[query], gathered.batches[query], gathered.measured
    )
    return len(at_s)


def _state(gathered: Evidence, name: str) -> str:
    progress = gathered.run.of(Progress)
    if not progress:
        return "the pipeline printed no progress report"
    if silent := summary.silent_of_state(gathered, progress):
        return f"no progress report of {', '.join(silent)} has a state operator"
    if any(STATE[name] not in operator for event in progress for operator in event.operators):
        return f"a progress report has a state operator without {STATE[name]}"
    return "fewer than three progress reports came after the warm-up"


def _cores(gathered: Evidence, who: str) -> str:
    samples = gathered.run.of(Sample)
    if samples and all(getattr(sample, f"{who}_cpu_s") is None for sample in samples):
        return f"no process of the {who} is on this machine"
    return "the samples do not span the measured part"


def _of_counts(gathered: Evidence, counts: Mapping[str, int | None], crashed: set[str]) -> Iterator[tuple[str, str]]:
    for name, count in counts.items():
        if count is not None:
            continue
        if f"the count {name}" in crashed:
            why = CRASHED
        elif gathered.run.scenario.black_box and name in (*summary.OF_CHECKPOINT, "sessions_over_restarts"):
            why = BLACK_BOX
        elif name in summary.OF_REJECTED and not summary.rejects(gathered):
            why = "the pipeline has no query for rejected records"
        else:
            why = "what it counts crashed, see the verdict"
        yield f"counts.{name}", why


def _of_faults(gathered: Evidence, faults: Sequence[Mapping[str, Any]], crashed: set[str]) -> Iterator[tuple[str, str]]:
    for number, fault in enumerate(faults):
        for name in COSTS:
            if fault.get(name) is None and (name != "recovered_s" or fault.get("unrecovered_s") is None):
                yield f"faults.{number}.{name}", _cost(gathered, fault, name, crashed)
        if fault.get("unrecovered_s") is not None:
            yield f"faults.{number}.recovered_s", f"not within the {fault['unrecovered_s']:g} s of load after it"
        if fault["healed_s"] is None:
            yield f"faults.{number}.healed_s", "it was not seen to heal"


def _cost(gathered: Evidence, fault: Mapping[str, Any], name: str, crashed: set[str]) -> str:
    parts = {"replayed": "the replayed batches", "duplicates": "the duplicates"}
    if f"{parts.get(name, 'the recovery')} of {fault['fault']}" in crashed:
        return CRASHED
    if name == "duplicates":
        return "the rows of a query could not be compared"
    if gathered.run.scenario.black_box:
        return BLACK_BOX
    if fault.get("first_commit_s") is None:
        return f"a query {NO_COMMITS}"
    if name == "first_output_s":
        return "no right row came out after it that had not come out before"
    return "too little of the run before it shows what lag is usual"
