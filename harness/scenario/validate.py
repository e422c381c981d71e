"""Errors of a scenario that parses: what cannot be done or would be ignored, found before anything starts, by field."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from harness.faults import KINDS, Fault, Need
from harness.faults.parts import PIPELINE
from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import COUNTED_BY, EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, QUERIES
from harness.job.clickstream.events import Workload
from harness.scenario.fields import PLACEHOLDERS, Limits, Load, Pipeline, Scenario
from harness.scenario.outputs import of_outputs

OF_SPEED = ("latency", "throughput", "cpu")
# A day within the event times that the contract takes: events may be late, or far ahead.
FIRST_START_MS, LAST_START_MS = EVENT_TIME_MS_MIN + 86_400_000, EVENT_TIME_MS_MAX - 86_400_000
REPLICAS_MIN = 3
# Fields of a fault that only some kinds have, and that would be passed over with the others.
OF_SOME_KINDS = ("point", "flags", "command", "refused")
MASTER = r"[^\s:]+(:[0-9]{1,5})?"
LOOPBACK = ("127.0.0.1", "localhost")
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
    yield from _of_workers(scenario)
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
            f"fault[{at}].{message}" for message in (*_of_placing(scenario, fault), *_of_needs(scenario, fault))
        )
        if not (scenario.pipeline.command or fault.command or fault.refused):
            for flag in [flag for flag, _ in _not_for_the_oracle(fault.flags)]:
                yield f"fault[{at}].flags: {flag} is not known to the oracle; where it must be refused: refused = true"
        if scenario.load.acks != "all" and not fault.of_kind.any_acks:
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


def _of_workers(scenario: Scenario) -> Iterator[str]:
    """Whether the load is for several workers, and those of other machines can reach this one and the brokers."""
    load = scenario.load
    if load.engine != "locust":
        for name in ("workers", "master", "web"):
            if getattr(load, name) != getattr(Load(), name):
                yield f"load.{name} = {getattr(load, name)!r}: only with load.engine = 'locust'"
    if not load.master:
        return
    if not re.fullmatch(MASTER, load.master) or not 0 < int(load.master.partition(":")[2] or 1) < 2**16:
        yield f"load.master = {load.master!r}: HOST or HOST:PORT, an address of this machine"
    elif ":" not in scenario.kafka.where and load.master.partition(":")[0] not in LOOPBACK:
        yield (
            f"load.master = {load.master!r}: workers of other machines cannot reach {scenario.kafka.where} brokers,"
            " which listen on this machine alone: set kafka.where = HOST:PORT"
        )


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
    if pattern.rstrip("/") == "{checkpoint}" and (
        kinds := [fault.kind for fault in scenario.fault if Need.CHECKPOINT_BELOW in fault.needs]
    ):
        yield f"pipeline.checkpoint = {pattern!r}: for a fault of kind {kinds[0]} it must lie below {{checkpoint}}"


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
    kinds = [kind.name for kind in KINDS.values() if kind.standby]
    if [(fault.kind, fault.on) for fault in scenario.fault] not in [[(kind, PIPELINE)] for kind in kinds]:
        yield f"pipeline.standby: for one fault, which must be {' or '.join(sorted(kinds))} of the {PIPELINE}"


def _of_placing(scenario: Scenario, fault: Fault) -> Iterator[str]:
    """Position, target and fields of a fault."""
    kind = fault.of_kind
    if not fault.at:
        yield "at is missing: how many events are acknowledged before it is injected"
    if fault.at > (events := scenario.load.events):
        yield f"at = {fault.at:,}: the load has {events:,} events; inject it sooner, or lengthen the load"
    if fault.on not in kind.targets:
        yield f"on = {fault.on!r}: {kind.name} acts on one of {', '.join(kind.targets)}"
    if scenario.black_box and (fault.after or fault.caught_up):
        yield f"{'after' if fault.after else 'caught_up'}: it needs a pipeline.checkpoint to look at"
    if "query" in kind.fields and fault.query not in scenario.queries:
        yield f"query = {fault.query!r}: the pipeline has {', '.join(scenario.queries)}"
    for name in OF_SOME_KINDS:
        if name not in kind.fields and getattr(fault, name) != getattr(Fault(), name):
            have = ", ".join(kind.name for kind in KINDS.values() if name in kind.fields)
            yield f"{name}: a fault of kind {kind.name} has none; it is for {have}"
    nodes = scenario.kafka.nodes
    if fault.on.startswith("broker ") and int(fault.on.removeprefix("broker ")) > nodes:
        yield f"on = {fault.on!r}: kafka.nodes is {nodes}"


def _of_needs(scenario: Scenario, fault: Fault) -> Iterator[str]:
    """What it needs and the scenario does not give."""
    for need in fault.needs:
        if need in UNMET and (message := UNMET[need](scenario, fault)):
            yield message


def _no_checkpoint(scenario: Scenario, fault: Fault) -> str | None:
    return f"kind = {fault.kind!r}: it needs a pipeline.checkpoint to look at" if scenario.black_box else None


def _no_state(_: Scenario, fault: Fault) -> str | None:
    return None if QUERIES[fault.query].stateful else f"query = {fault.query!r}: it keeps no state"


def _no_parquet(scenario: Scenario, fault: Fault) -> str | None:
    query = scenario.queries.get(fault.query)
    wrong = query is not None and query.sink != "parquet"
    return (
        f"query = {fault.query!r}: its results must be in Parquet, whose log shows that they have grown"
        if wrong
        else None
    )


def _too_few_replicas(scenario: Scenario, fault: Fault) -> str | None:
    enough = scenario.kafka.nodes >= REPLICAS_MIN
    return None if enough else f"kind = {fault.kind!r}: it needs kafka.nodes of {REPLICAS_MIN} or more"


def _one_broker(scenario: Scenario, fault: Fault) -> str | None:
    return None if scenario.kafka.nodes > 1 else f"on = {fault.on!r}: it needs kafka.nodes of 2 or more"


def _no_workers(scenario: Scenario, fault: Fault) -> str | None:
    return None if scenario.pipeline.workers else f"on = {fault.on!r}: it needs pipeline.workers of 1 or more"


def _not_embedded(scenario: Scenario, fault: Fault) -> str | None:
    if scenario.kafka.where == "embedded":
        return None
    return f"kind = {fault.kind!r}: it stands before brokers or under them: run it with --kafka embedded"


def _not_ours(scenario: Scenario, fault: Fault) -> str | None:
    where = scenario.kafka.where
    if ":" not in where:
        return None
    return f"on = {fault.on!r}: brokers at {where} are not ours to break: run it with --kafka embedded"


# Need → what of a fault is wrong where the scenario does not meet it. This machine is looked at before a run
# (`harness.experiments.needs`); the relay is the harness's own.
UNMET: Mapping[Need, Callable[[Scenario, Fault], str | None]] = {
    Need.CHECKPOINT: _no_checkpoint,
    Need.STATE: _no_state,
    Need.PARQUET: _no_parquet,
    Need.REPLICAS: _too_few_replicas,
    Need.TWO_BROKERS: _one_broker,
    Need.WORKERS: _no_workers,
    Need.EMBEDDED: _not_embedded,
    Need.OWN_BROKERS: _not_ours,
}


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
