"""Errors of a scenario that parses: what cannot be done or would be ignored, found before anything starts, by field."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence

from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, QUERIES
from harness.job.clickstream.events import Workload
from harness.scenario.fields import (
    BROKERS,
    COUNTED_BY,
    FAULT_TARGETS_OF_SPARK,
    FAULTS_OF_RECORDS,
    FAULTS_OF_REPLICAS,
    FAULTS_OF_RESTARTS,
    PLACEHOLDERS,
    STRIKES,
    Fault,
    Limits,
    Load,
    Pipeline,
    Scenario,
)
from harness.scenario.outputs import of_outputs

OF_SPEED = ("latency", "throughput", "cpu")
# A day within the event times that the contract takes: events may be late, or far ahead.
FIRST_START_MS, LAST_START_MS = EVENT_TIME_MS_MIN + 86_400_000, EVENT_TIME_MS_MAX - 86_400_000
REPLICAS_MIN = 3
MEANT_FOR: Mapping[str, tuple[str, ...]] = {
    "point": ("crash",),
    "flags": ("change", *FAULTS_OF_RECORDS),
    "command": ("change",),
    "refused": ("change",),
}
"""Field of a fault → the kinds that have it."""
STATELESS = tuple(name for name, query in QUERIES.items() if not query.stateful)
MISSPELT = 0.8
"""How alike a word in braces is to a placeholder that it must have meant; other programs have words in braces too."""
AT_LEAST = ("throughput_eps", "success_share")
"""Limits that a value must lie above; it must lie below the others."""
OF_THE_ORACLE: Mapping[str, str] = {
    "--conversions": "set pipeline.conversions",
    "--deduplicate": "set pipeline.deduplicate",
    "--profile": "set pipeline.profile",
    "--queries": "set pipeline.queries",
    "--master": "set pipeline.cores or pipeline.workers",
    "--starting-offsets": "all that is sent must be read",
    **dict.fromkeys(("--bootstrap", "--checkpoint", "--output", "--jars", "--topic-prefix"), "the harness gives it"),
}
"""Flags of our pipeline that change what must come out, or where → what is set instead."""


def contradictions(scenario: Scenario) -> Iterator[str]:
    """What is asked for and cannot be, or would be passed over. Of a run that has been it is not asked."""
    if scenario.pipeline.quick_start and (fast := _judged_on_speed(scenario)):
        yield f"pipeline.quick_start: not where {fast} is judged: set it to false"
    if not re.fullmatch(r"[^./\0][^/\0]*", scenario.name):
        yield f"name = {scenario.name!r}: its runs have a folder of that name: no slash, and no dot first"
    yield from _of_load(scenario.load)
    yield from _of_workload(scenario.workload)
    yield from _of_kafka(scenario.kafka.where)
    yield from _of_pipeline(scenario.pipeline)
    yield from _of_commands(scenario)
    yield from _of_checkpoint(scenario)
    yield from of_outputs(scenario)
    yield from _of_limits(scenario.limits)
    for name in () if scenario.fault else _of_faults(scenario.limits):
        yield f"limits.{name} = {getattr(scenario.limits, name):g}: there is no fault to recover from"
    if scenario.pipeline.standby:
        yield from _of_standby(scenario)
    if scenario.black_box and scenario.pipeline.deduplicate:
        yield "pipeline.deduplicate: it needs a pipeline.checkpoint to be judged by"
    for name in scenario.proves:
        if name in COUNTED_BY and not scenario.queries.keys() & set(COUNTED_BY[name]):
            yield f"proves: {name} is counted by {' and '.join(COUNTED_BY[name])}: the pipeline has {', '.join(scenario.queries)}"
    for at, fault in enumerate(scenario.fault):
        yield from (
            f"fault[{at}].{message}" for message in (*_of_placing(scenario, fault), *_of_brokers(scenario, fault))
        )
        if not (scenario.pipeline.command or fault.command or fault.refused):
            for flag in [flag for flag, _ in _not_for_the_oracle(fault.flags)]:
                yield f"fault[{at}].flags: {flag} is not known to the oracle; where it must be refused: refused = true"
        if scenario.load.acks != "all" and fault.kind not in FAULTS_OF_REPLICAS:
            yield (
                f"load.acks = {scenario.load.acks!r}: with fault {fault.kind} a producer that does not wait for"
                " all may write a record twice, and what is right would not be known"
            )


def _of_load(load: Load) -> Iterator[str]:
    if not load.events:
        yield f"load.eps = {load.eps:g}: there would be no event in all of the load: make it longer, or faster"
    whole_s = load.warm_up_s + load.duration_s + load.cool_down_s + load.stretch_s
    if not load.burst_s and (load.burst_factor, load.burst_at_s, load.silence_s) != (1, 0, 0):
        yield "load.burst_s = 0: there is no burst; burst_factor, burst_at_s and silence_s would be passed over"
    if load.burst_s and load.burst_at_s + load.burst_s + load.silence_s > whole_s:
        yield f"load.burst_at_s = {load.burst_at_s:g}: the load lasts {whole_s:g} s, and the burst would go beyond it"


def _of_workload(shape: Workload) -> Iterator[str]:
    if not _can_start(shape):
        yield f"workload.start = {shape.start!r}: a time in ISO 8601, from 1970-01-02 to 2261-12-30"
    if shape.late + shape.too_late > 1:
        yield f"workload.late + too_late = {shape.late + shape.too_late:g}: shares of the events, 1 at most together"
    if shape.session_gaps:
        for name in ("late", "too_late", "far_late_every", "disorder_s", "future_every", "user_skew"):
            if getattr(shape, name):
                yield f"workload.{name}: session_gaps has times and users of its own: set one of the two"


def _of_kafka(where: str) -> Iterator[str]:
    host, _, port = where.rpartition(":")
    is_address = host and not re.search(r"\s", host) and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 2**16
    if where not in ("embedded", "containers") and not is_address:
        yield f"kafka.where = {where!r}: embedded, containers, or HOST:PORT"


def _of_pipeline(pipeline: Pipeline) -> Iterator[str]:
    if pipeline.workers not in (0, pipeline.cores):
        yield f"pipeline.workers = {pipeline.workers}: a core each, so pipeline.cores must be {pipeline.workers} too"
    for flag, instead in () if pipeline.command else _not_for_the_oracle(pipeline.flags):
        yield f"pipeline.flags: {flag} is not known to the oracle: {instead}"


def _of_commands(scenario: Scenario) -> Iterator[str]:
    """Whether the command is given the run's places: topics of a user's own Kafka must not be taken for the run's."""
    ours = scenario.pipeline
    commands = {"pipeline.command": (*ours.command, *ours.flags) if ours.command else ()}
    commands |= {f"fault[{at}].command": fault.command for at, fault in enumerate(scenario.fault)}
    for name, parts in commands.items():
        for word in re.findall(r"\{([a-z_]+)\}", " ".join(parts)):
            if word not in PLACEHOLDERS and difflib.get_close_matches(word, PLACEHOLDERS, n=1, cutoff=MISSPELT):
                known = " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
                yield f"{name}: {{{word}}} is no placeholder; there are {known}"
        if parts and ":" in scenario.kafka.where and "{prefix}" not in " ".join(parts):
            yield (
                f"{name}: it has no {{prefix}}, with which the run's topics at {scenario.kafka.where} begin:"
                " it would work on others"
            )


def _of_checkpoint(scenario: Scenario) -> Iterator[str]:
    """Whether each query has one of its own, in a place that there is."""
    pattern = scenario.pipeline.checkpoint
    for word in sorted(set(re.findall(r"\{(.*?)\}", pattern)) - {"checkpoint", "query"}):
        yield f"pipeline.checkpoint: {{{word}}} is no placeholder; there are {{checkpoint}} {{query}}"
    if pattern and "{query}" not in pattern and len(scenario.queries) > 1:
        yield f"pipeline.checkpoint = {pattern!r}: it has no {{query}}, and the pipeline has {len(scenario.queries)}"
    if pattern.rstrip("/") == "{checkpoint}" and any(fault.kind == "older" for fault in scenario.fault):
        yield f"pipeline.checkpoint = {pattern!r}: for a fault of kind older it must lie below {{checkpoint}}"


def _not_for_the_oracle(flags: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(flag, what is set instead) of each that changes what must come out, or where."""
    for flag in (flag.partition("=")[0] for flag in flags):
        for known, instead in OF_THE_ORACLE.items():
            if flag.startswith("--") and len(flag) > 2 and known.startswith(flag):
                yield flag, instead


def _of_limits(limits: Limits) -> Iterator[str]:
    """None may be looser than that of measuring.md, or a run would pass that misses it."""
    for field in dataclasses.fields(Limits):
        value, own = getattr(limits, field.name), field.default
        if value < own if field.name in AT_LEAST else value > own:
            bound = "least" if field.name in AT_LEAST else "most"
            yield f"limits.{field.name} = {value:.12g}: looser than the target's own: {own:.12g} at {bound}"


def _of_standby(scenario: Scenario) -> Iterator[str]:
    """It takes over once: after that, none stands by."""
    if scenario.pipeline.command or scenario.pipeline.workers:
        yield "pipeline.standby: for our own pipeline alone, on a local master"
    if [(fault.kind, fault.on) for fault in scenario.fault] not in ([("kill", "pipeline")], [("stop", "pipeline")]):
        yield "pipeline.standby: for one fault, which must be kill or stop of the pipeline"


def _of_placing(scenario: Scenario, fault: Fault) -> Iterator[str]:
    """Position and target of a fault, and whether the run can observe its effect."""
    looks_into_checkpoint = fault.kind in ("crash", *FAULTS_OF_RESTARTS) and fault.kind != "change"
    allowed = STRIKES.get(fault.kind, BROKERS)
    if not fault.at:
        yield "at is missing: how many events are acknowledged before it is injected"
    if fault.at > (events := scenario.load.events):
        yield f"at = {fault.at:,}: the load has {events:,} events; inject it sooner, or lengthen the load"
    if fault.on not in allowed:
        yield f"on = {fault.on!r}: {fault.kind} acts on one of {', '.join(allowed)}"
    if scenario.black_box and looks_into_checkpoint:
        yield f"kind = {fault.kind!r}: it needs a pipeline.checkpoint to look at"
    if scenario.black_box and (fault.after or fault.caught_up):
        yield f"{'after' if fault.after else 'caught_up'}: it needs a pipeline.checkpoint to look at"
    if looks_into_checkpoint and fault.query not in scenario.queries:
        yield f"query = {fault.query!r}: the pipeline has {', '.join(scenario.queries)}"
    if fault.query in STATELESS and (fault.kind == "state_lost" or (fault.kind, fault.point) == ("crash", "in state")):
        yield f"query = {fault.query!r}: it keeps no state"
    if fault.kind == "older" and fault.query in scenario.queries and scenario.queries[fault.query].sink != "parquet":
        yield f"query = {fault.query!r}: its results must be in Parquet, whose log shows that they have grown"
    for name, kinds in MEANT_FOR.items():
        if fault.kind not in kinds and getattr(fault, name) != getattr(Fault(), name):
            yield f"{name}: a fault of kind {fault.kind} has none; it is for {', '.join(kinds)}"


def _of_brokers(scenario: Scenario, fault: Fault) -> Iterator[str]:
    """Whether its target exists and belongs to the harness."""
    nodes, where = scenario.kafka.nodes, scenario.kafka.where
    if fault.kind in FAULTS_OF_REPLICAS and nodes < REPLICAS_MIN:
        yield f"kind = {fault.kind!r}: it needs kafka.nodes of {REPLICAS_MIN} or more"
    if fault.on in FAULT_TARGETS_OF_SPARK and not scenario.pipeline.workers:
        yield f"on = {fault.on!r}: it needs pipeline.workers of 1 or more"
    if fault.on == "two brokers" and nodes < 2:
        yield "on = 'two brokers': it needs kafka.nodes of 2 or more"
    if fault.on.startswith("broker ") and int(fault.on.removeprefix("broker ")) > nodes:
        yield f"on = {fault.on!r}: kafka.nodes is {nodes}"
    if fault.needs_embedded and where != "embedded":
        yield f"kind = {fault.kind!r}: it stands before brokers or under them: run it with --kafka embedded"
    if fault.breaks_brokers and ":" in where:
        yield f"on = {fault.on!r}: brokers at {where} are not ours to break: run it with --kafka embedded"


def _judged_on_speed(scenario: Scenario) -> str | None:
    """What of the verdict depends on how fast the pipeline is; None where nothing does."""
    judged = [target for target in scenario.judged if target in OF_SPEED]
    return next(iter(judged + _of_faults(scenario.limits)), None)


def _of_faults(limits: Limits) -> list[str]:
    """The limits that are set of those that each fault is held to."""
    return [name for name in ("recovery_s", "gap_s") if getattr(limits, name) != getattr(Limits(), name)]


def _can_start(shape: Workload) -> bool:
    try:
        return FIRST_START_MS <= workload.start_ms(shape) < LAST_START_MS
    except ValueError:
        return False
