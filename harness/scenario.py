"""What to do, as one page of TOML: the load, the data, the brokers, the pipeline and the limits.

A scenario is frozen and complete: everything a run depends on stands in it, so the file written
into the run directory does the same again. An error names file, field, value and what is allowed.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from harness import workload
from harness.errors import ScenarioError
from harness.workload import Workload
from pipeline.schema import QUERIES, Query, SinkKind

COUNTED_BY: Mapping[str, tuple[str, ...]] = {
    "dropped_late": ("page_views", "revenue"),
    "dropped_late_sessions": ("sessions",),
    "dead_letter": ("dead_letter",),
    "sessions_merged": ("sessions",),
    "deduplicated": ("page_views", "revenue"),
    "sessions_over_restarts": ("sessions",),
    "hot_views": ("page_views",),
}
"""Queries whose rows tell a count; one of them is enough."""
PROVABLE = (
    *COUNTED_BY,
    "out_of_order",
    "copies_sent",
    "restarts",
    "burst_events",
    "idle_clicks",
    "edge_purchases",
    "executors_replaced",
)
"""Counts of the result that a scenario can be about."""

TARGETS = ("latency", "throughput", "state_size", "cpu", "success")
"""The five of measuring.md."""
OF_SPEED = ("latency", "throughput", "cpu")
FIRST_START_MS, LAST_START_MS = -2_208_988_800_000, 32_503_680_000_000


def _number(default: float, *, low: float, high: float, doc: str) -> Any:
    return field(default=default, metadata={"min": low, "max": high, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much, how long, and from which seed."""

    eps: float = _number(5000, low=0.1, high=1_000_000, doc="events per second offered, open loop")
    warm_up_s: float = _number(30, low=0, high=3600, doc="seconds of load before the measured part")
    duration_s: float = _number(60, low=1, high=86_400, doc="seconds of the measured part")
    cool_down_s: float = _number(0, low=0, high=3600, doc="seconds of load after it")
    stretch_s: float = _number(
        0, low=0, high=86_400, doc="seconds of load after that at most, until all faults have healed and all is read"
    )
    burst_factor: float = _number(1, low=1, high=1000, doc="how many times the rate during the burst")
    burst_at_s: float = _number(0, low=0, high=86_400, doc="seconds of load before the burst")
    burst_s: float = _number(0, low=0, high=3600, doc="seconds of the burst; 0 is none")
    silence_s: float = _number(0, low=0, high=3600, doc="seconds without load after the burst")
    acks: str = field(
        default="all",
        metadata={
            "choices": ("all", "leader"),
            "doc": "who must have a record: all replicas in sync, or the leader alone",
        },
    )
    seed: int = _number(7, low=0, high=2**63 - 1, doc="same seed, same bytes")

    @property
    def events(self) -> int:
        """Most events that the run can have, the two flush events not counted."""
        return round(sum(rate * seconds for rate, seconds in self.segments))

    @property
    def segments(self) -> tuple[tuple[float, float], ...]:
        """(events per second, seconds) of each stretch of the schedule."""
        whole = self.warm_up_s + self.duration_s + self.cool_down_s + self.stretch_s
        if not self.burst_s:
            return ((self.eps, whole),)
        after = max(0.0, whole - self.burst_at_s - self.burst_s - self.silence_s)
        burst = (self.eps * self.burst_factor, self.burst_s)
        return ((self.eps, self.burst_at_s), burst, (0.0, self.silence_s), (self.eps, after))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kafka:
    """Where the brokers come from and how topics are laid out."""

    where: str = field(
        default="embedded", metadata={"doc": "embedded, containers, or HOST:PORT of brokers that run already"}
    )
    nodes: int = _number(1, low=1, high=5, doc="brokers that the harness starts")
    partitions: int = _number(2, low=1, high=64, doc="partitions of each input topic")


FAULTS_OF_PROCESSES = ("stop", "kill", "pause", "memory")
"""`memory` runs out, and the kernel ends the pipeline's largest process. It needs Linux and root, as faults of disks do."""
FAULTS_OF_DISKS = ("full", "read_only")
FAULTS_OF_RESTARTS = ("change", "truncated", "missing", "state_lost", "older")
"""The pipeline is stopped and started again otherwise: with other `flags` or another `command`, or on a checkpoint with a
file cut short, without one, without a file of its state, or with a checkpoint that is older than its results."""
FAULTS_OF_THE_CLUSTER = ("roll", "partitions")
"""`roll` restarts the brokers one after the other; `partitions` adds one to each input topic."""
FAULTS_OF_REPLICAS = ("fail_over",)
"""`fail_over` kills the leader after it was alone for a while: those that take over have not copied what came then."""
FAULTS_OF_NETWORK = ("latency", "bandwidth", "blackhole", "half_open", "reset", "partition")
FAULTS_OF_RECORDS = ("retention",)
"""`retention` deletes records of the clickstream that a stopped pipeline has not read."""
CRASH_POINTS = ("after offsets", "in state", "after sink", "after commits")
FAULT_TARGETS_OF_SPARK = ("executor", "worker", "master")
"""Of the standalone cluster: the executor that has worked most, the worker that has it, and the master."""
FAULT_TARGETS = (
    "pipeline",
    "leader",
    "controller",
    "two brokers",
    "all brokers",
    *(f"broker {number}" for number in range(1, 6)),
    "checkpoint",
    "results",
    *FAULT_TARGETS_OF_SPARK,
)
"""`leader` is the broker that leads the first partition of the clickstream, `controller` the one that leads the quorum.
`checkpoint` and `results` are the pipeline's disks, for faults of disks; a broker's disk is that of its log."""


REPLICAS_MIN = 3
DISKS_OF_THE_PIPELINE = ("checkpoint", "results")
BROKERS = FAULT_TARGETS[1 : FAULT_TARGETS.index(DISKS_OF_THE_PIPELINE[0])]
ONE_BROKER = tuple(one for one in BROKERS if not one.endswith("brokers"))
STRIKES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("crash", "memory", *FAULTS_OF_RESTARTS, *FAULTS_OF_RECORDS), ("pipeline",)),
    **dict.fromkeys(("stop", "kill", "pause"), ("pipeline", *BROKERS, *FAULT_TARGETS_OF_SPARK)),
    **dict.fromkeys(FAULTS_OF_THE_CLUSTER, ("pipeline", *BROKERS)),
    **dict.fromkeys(FAULTS_OF_REPLICAS, ("leader",)),
    **dict.fromkeys(FAULTS_OF_DISKS, (*DISKS_OF_THE_PIPELINE, *ONE_BROKER)),
}
"""Kind of fault → what it can strike; a fault of the network strikes brokers."""
MEANT_FOR: Mapping[str, tuple[str, ...]] = {
    "point": ("crash",),
    "flags": ("change", *FAULTS_OF_RECORDS),
    "command": ("change",),
    "refused": ("change",),
}
"""Field of a fault → the kinds that have it."""
STATELESS = "dead_letter"
OF_THE_ORACLE: Mapping[str, str] = {
    "--conversions": "set pipeline.conversions",
    "--deduplicate": "set pipeline.deduplicate",
    "--profile": "set pipeline.profile",
    "--queries": "set pipeline.queries",
    "--master": "set pipeline.cores or pipeline.workers",
    **dict.fromkeys(("--bootstrap", "--checkpoint", "--output", "--jars", "--topic-prefix"), "the harness gives it"),
}
"""Flags of our pipeline that change what must come out, or where → what is set instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that breaks, and heals: placed at a position of the stream, not at a second."""

    kind: str = field(
        default="kill",
        metadata={
            "choices": (
                "crash",
                *FAULTS_OF_PROCESSES,
                *FAULTS_OF_THE_CLUSTER,
                *FAULTS_OF_REPLICAS,
                *FAULTS_OF_NETWORK,
                *FAULTS_OF_DISKS,
                *FAULTS_OF_RESTARTS,
                *FAULTS_OF_RECORDS,
            )
        },
    )
    point: str = field(
        default="after offsets", metadata={"choices": CRASH_POINTS, "doc": "of a micro-batch, for a crash"}
    )
    query: str = field(
        default="page_views",
        metadata={"choices": tuple(QUERIES), "doc": "whose micro-batch, checkpoint or results it is about"},
    )
    on: str = field(default="pipeline", metadata={"choices": FAULT_TARGETS})
    at: int = _number(0, low=1, high=2**53, doc="acknowledged events before it strikes")
    after: int = _number(0, low=0, high=2**53, doc="events read since the fault before has healed")
    caught_up: bool = field(
        default=False, metadata={"doc": "only when all is read that had been sent when it would else have struck"}
    )
    for_s: float = _number(0, low=0, high=600, doc="seconds until it heals")
    flags: tuple[str, ...] = field(default=(), metadata={"doc": "with which the pipeline is started again"})
    command: tuple[str, ...] = field(
        default=(), metadata={"doc": "by which it is started again from then on: the pipeline upgraded"}
    )
    refused: bool = field(default=False, metadata={"doc": "whether it must refuse a change, with a clear line"})

    @property
    def needs_embedded(self) -> bool:
        """Whether it stands before brokers or lies under them, which takes brokers of our own making."""
        return self.kind in FAULTS_OF_NETWORK or (self.kind in FAULTS_OF_DISKS and self.on not in DISKS_OF_THE_PIPELINE)

    @property
    def breaks_brokers(self) -> bool:
        """Whether brokers may be down because of it."""
        return (self.on in BROKERS and self.kind != "partitions") or self.kind == "roll"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Where another pipeline's result is found, and what its columns are called there."""

    query: str = field(default="", metadata={"choices": tuple(QUERIES), "doc": "whose result"})
    kafka: str = field(default="", metadata={"doc": "topic, without the prefix"})
    parquet: str = field(default="", metadata={"doc": "directory below {output}"})
    columns: tuple[str, ...] = field(default=(), metadata={"doc": "OURS=THEIRS of each column with another name"})
    guarantee: str = field(
        default="",
        metadata={
            "choices": ("", "at-least-once", "exactly-once"),
            "doc": "what is promised; empty is what the sink gives",
        },
    )
    keyed: bool = field(default=False, metadata={"doc": "Kafka: each record's key is the row's identity, joined by |"})

    @property
    def theirs(self) -> dict[str, str]:
        """Our name of a column → theirs."""
        return dict(pair.split("=", 1) for pair in self.columns if "=" in pair)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """The system under test: ours with a profile and flags, or any command line."""

    profile: str = field(
        default="default",
        metadata={
            "choices": ("default", "specification"),
            "doc": "tuned for two cores, or as the specification has it",
        },
    )
    flags: tuple[str, ...] = field(default=(), metadata={"doc": "further ones of its command line"})
    command: tuple[str, ...] = field(
        default=(),
        metadata={"doc": "instead of ours; placeholders {bootstrap} {prefix} {checkpoint} {output} {jars} {master}"},
    )
    queries: tuple[str, ...] = field(
        default=(), metadata={"choices": tuple(QUERIES), "doc": "that it has; empty is all"}
    )
    output: tuple[Output, ...] = field(
        default=(),
        metadata={"doc": "[[pipeline.output]]: where its results are found, where not in the contract's places"},
    )
    checkpoint: str = field(
        default="{checkpoint}/{query}",
        metadata={"doc": "of each query; empty: there is none, the black-box oracle judges"},
    )
    read_skew_s: float = _number(
        5, low=0, high=600, doc="black box: a record is read before those acknowledged this much later"
    )
    settle_s: float = _number(
        15, low=0.1, high=3600, doc="black box: all has come out when nothing new has stood in the sinks for this long"
    )
    conversions: str = field(
        default="", metadata={"choices": ("", "linear", "join"), "doc": "its form; empty is the profile's"}
    )
    deduplicate: bool = field(
        default=False, metadata={"doc": "an event id counts once, until the watermark has passed it"}
    )
    start_after_s: float = _number(0, low=0, high=3600, doc="seconds of load before the pipeline starts: a backlog")
    cores: int = _number(2, low=1, high=1024, doc="cores given to the pipeline, for the CPU target")
    workers: int = _number(0, low=0, high=8, doc="of a standalone cluster that it runs on, a core each; 0 is local")
    ready_s: float = _number(120, low=1, high=3600, doc="seconds the pipeline may take to start its queries")
    quick_start: bool = field(
        default=False,
        metadata={"doc": "Java starts in half the time and is slower later: for runs not judged on speed"},
    )

    @property
    def form(self) -> str:
        """The form of the conversions query that runs."""
        return self.conversions or {"specification": "join"}.get(self.profile, "linear")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The targets' limits (measuring.md); a scenario may set stricter ones."""

    latency_s: float = _number(10, low=0, high=1e6, doc="p99 of durable latency and of emission delay")
    throughput_eps: float = _number(1000, low=0, high=1e9, doc="committed events per second, at least")
    recovery_s: float = _number(1e6, low=0, high=1e6, doc="from a fault until the lag is back where it was")
    gap_s: float = _number(1e6, low=0, high=1e6, doc="longest time without a committed batch around a fault")
    state_bytes: float = _number(1e9, low=0, high=1e15, doc="maximum of the state's memory")
    cpu_share: float = _number(0.8, low=0, high=1e3, doc="CPU of the pipeline ÷ cores given to it")
    success_share: float = _number(0.999, low=0, high=1, doc="right rows ÷ expected rows, above")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One run, described in full."""

    name: str = field(metadata={"doc": "of the folder of its runs"})
    about: str = field(default="", metadata={"doc": "in a sentence"})
    load: Load = field(default_factory=Load)
    workload: Workload = field(default_factory=Workload)
    kafka: Kafka = field(default_factory=Kafka)
    pipeline: Pipeline = field(default_factory=Pipeline)
    limits: Limits = field(default_factory=Limits)
    fault: tuple[Fault, ...] = field(
        default=(), metadata={"doc": "[[fault]]: each in turn; see crash_points, network, disks"}
    )
    judged: tuple[str, ...] = field(
        default=TARGETS,
        metadata={"choices": TARGETS, "doc": "that the verdict depends on; the other targets are measured and shown"},
    )
    proves: tuple[str, ...] = field(
        default=(), metadata={"choices": PROVABLE, "doc": "counts that must not be 0, or the run is unknown"}
    )

    @property
    def queries(self) -> dict[str, Query]:
        """The queries that the pipeline has, each with the sink in which its result is found."""
        names = self.pipeline.queries or tuple(QUERIES)
        return {name: _located(QUERIES[name], self.output(name)) for name in QUERIES if name in names}

    def output(self, query: str) -> Output:
        """Where the result of a query is found; the contract's own place has no name."""
        return next((one for one in self.pipeline.output if one.query == query), Output(query=query, keyed=True))

    @property
    def needs_embedded(self) -> bool:
        """Whether a fault of it stands before brokers or lies under them, which takes brokers of our own making."""
        return any(fault.needs_embedded for fault in self.fault)

    @property
    def needs_root(self) -> bool:
        """Whether a fault of it needs Linux and root: for a disk of its own, or a control group."""
        return any(fault.kind in (*FAULTS_OF_DISKS, "memory") for fault in self.fault)

    @property
    def counts_all(self) -> bool:
        """Whether each record that was read must be counted, dropped or rejected by a query that the pipeline has."""
        return {"page_views", "revenue", "dead_letter"} <= self.queries.keys() and not self.black_box

    @property
    def black_box(self) -> bool:
        """Whether there is no checkpoint to judge by."""
        return not self.pipeline.checkpoint


def _located(query: Query, output: Output) -> Query:
    sink: SinkKind = "parquet" if output.parquet else "kafka" if output.kafka else query.sink
    return dataclasses.replace(query, sink=sink, topic=output.kafka or query.topic)


def folder() -> Path:
    """The folder of the scenarios that come with the harness: in the wheel, or beside the package in a clone."""
    package = Path(__file__).parent
    return next(path for path in (package / "scenarios", package.parent / "scenarios") if path.is_dir())


def names() -> list[str]:
    """The scenarios that come with the harness."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Scenario:
    """Read a scenario by name or by path, with overrides such as ``load.eps=5000``.

    Raises ScenarioError that names the file, the field, the value and what is allowed.
    """
    path = _locate(name_or_path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from error
    for override in overrides:
        _override(table, override)
    scenario = parse(table | {"name": table.get("name", path.stem)}, source=str(path))
    for problem in contradictions(scenario):
        raise ScenarioError(f"{path}: {problem}")
    return scenario


def parse(table: Mapping[str, Any], source: str) -> Scenario:
    """A scenario from a TOML table; `source` names it in errors."""
    scenario = typing.cast(Scenario, _build(Scenario, table, source, ""))
    if not _can_start(scenario.workload):
        raise ScenarioError(
            f"{source}: workload.start = {scenario.workload.start!r}: a time in ISO 8601, from 1900 to 2999"
        )
    for at, output in enumerate(scenario.pipeline.output):
        if not output.query:
            raise ScenarioError(f"{source}: pipeline.output[{at}].query is missing: whose result is found there")
    if scenario.black_box and scenario.pipeline.deduplicate:
        raise ScenarioError(f"{source}: pipeline.deduplicate: it needs a pipeline.checkpoint to be judged by")
    for at, fault in enumerate(scenario.fault):
        if problem := _problem(scenario, fault, f"fault[{at}]"):
            raise ScenarioError(f"{source}: {problem}")
    return scenario


def contradictions(scenario: Scenario) -> Iterator[str]:
    """What is asked for and cannot be, or would be passed over. Of a run that has been it is not asked."""
    if scenario.pipeline.quick_start and (fast := _judged_on_speed(scenario)):
        yield f"pipeline.quick_start: not where {fast} is judged: set it to false"
    if not re.fullmatch(r"[^./\0][^/\0]*", scenario.name):
        yield f"name = {scenario.name!r}: its runs have a folder of that name: no slash, and no dot first"
    yield from _of_load(scenario.load)
    yield from _of_workload(scenario.workload)
    where, host, port = scenario.kafka.where, *scenario.kafka.where.rpartition(":")[::2]
    is_address = (
        bool(host) and not re.search(r"\s", host) and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 2**16
    )
    if where not in ("embedded", "containers") and not is_address:
        yield f"kafka.where = {where!r}: embedded, containers, or HOST:PORT"
    yield from _of_pipeline(scenario.pipeline)
    for name in scenario.proves:
        if name in COUNTED_BY and not scenario.queries.keys() & set(COUNTED_BY[name]):
            yield f"proves: {name} is counted by {' and '.join(COUNTED_BY[name])}: the pipeline has {', '.join(scenario.queries)}"
    for at, fault in enumerate(scenario.fault):
        yield from (f"fault[{at}].{problem}" for problem in _of_fault(scenario, fault))


def _of_load(load: Load) -> Iterator[str]:
    if not load.events:
        yield f"load.eps = {load.eps:g}: there would be no event in all of the load: make it longer, or faster"
    whole_s = load.warm_up_s + load.duration_s + load.cool_down_s + load.stretch_s
    if not load.burst_s and (load.burst_factor, load.burst_at_s, load.silence_s) != (1, 0, 0):
        yield "load.burst_s = 0: there is no burst; burst_factor, burst_at_s and silence_s would be passed over"
    if load.burst_s and load.burst_at_s + load.burst_s + load.silence_s > whole_s:
        yield f"load.burst_at_s = {load.burst_at_s:g}: the load lasts {whole_s:g} s, and the burst would go beyond it"


def _of_workload(shape: Workload) -> Iterator[str]:
    if shape.late + shape.too_late > 1:
        yield f"workload.late + too_late = {shape.late + shape.too_late:g}: shares of the events, 1 at most together"
    if shape.session_gaps:
        for name in ("late", "too_late", "far_late_every", "disorder_s", "future_every", "user_skew"):
            if getattr(shape, name):
                yield f"workload.{name}: session_gaps has times and users of its own: set one of the two"


def _of_pipeline(pipeline: Pipeline) -> Iterator[str]:
    if pipeline.workers not in (0, pipeline.cores):
        yield f"pipeline.workers = {pipeline.workers}: a core each, so pipeline.cores must be {pipeline.workers} too"
    for flag in () if pipeline.command else (flag.partition("=")[0] for flag in pipeline.flags):
        for known, instead in OF_THE_ORACLE.items():
            if flag.startswith("--") and len(flag) > 2 and known.startswith(flag):
                yield f"pipeline.flags: {flag} is not known to the oracle: {instead}"
    if not pipeline.command and not pipeline.output and any(flag.startswith("--si") for flag in pipeline.flags):
        yield "pipeline.flags: --sink: say in [[pipeline.output]] where the result is found"
    for at, output in enumerate(pipeline.output):
        if output.kafka and output.parquet:
            yield f"pipeline.output[{at}]: kafka and parquet: the result is found in one of the two"
        if output.query in [one.query for one in pipeline.output[:at]]:
            yield f"pipeline.output[{at}].query = {output.query!r}: it stands twice"
        ours = (*QUERIES[output.query].identity, *QUERIES[output.query].measures)
        for name in (column.partition("=")[0] for column in output.columns):
            if name not in ours:
                yield f"pipeline.output[{at}].columns: {name!r} is none of {', '.join(ours)}: OURS=THEIRS"


def _of_fault(scenario: Scenario, fault: Fault) -> Iterator[str]:
    if fault.at > (events := scenario.load.events):
        yield f"at = {fault.at:,}: the load has {events:,} events; strike sooner, or make it longer"
    if fault.on == "two brokers" and scenario.kafka.nodes < 2:
        yield "on = 'two brokers': it needs kafka.nodes of 2 or more"
    if fault.on.startswith("broker ") and int(fault.on.removeprefix("broker ")) > scenario.kafka.nodes:
        yield f"on = {fault.on!r}: kafka.nodes is {scenario.kafka.nodes}"
    if fault.needs_embedded and scenario.kafka.where != "embedded":
        yield f"kind = {fault.kind!r}: it stands before brokers or under them: run it with --kafka embedded"
    if fault.breaks_brokers and ":" in scenario.kafka.where:
        yield f"on = {fault.on!r}: brokers at {scenario.kafka.where} are not ours to break: run it with --kafka embedded"
    if fault.query == STATELESS and (fault.kind == "state_lost" or (fault.kind, fault.point) == ("crash", "in state")):
        yield f"query = {fault.query!r}: it keeps no state"
    if fault.kind == "older" and fault.query in scenario.queries and scenario.queries[fault.query].sink != "parquet":
        yield f"query = {fault.query!r}: its results must be in Parquet, whose log tells that they have grown"
    for name, kinds in MEANT_FOR.items():
        if fault.kind not in kinds and getattr(fault, name) != getattr(Fault(), name):
            yield f"{name}: a fault of kind {fault.kind} has none; it is for {', '.join(kinds)}"


def _judged_on_speed(scenario: Scenario) -> str | None:
    """What of the verdict depends on how fast the pipeline is; None where nothing does."""
    judged = [target for target in scenario.judged if target in OF_SPEED]
    limited = [name for name in ("recovery_s", "gap_s") if getattr(scenario.limits, name) != getattr(Limits(), name)]
    return next(iter(judged + limited), None)


def _can_start(shape: Workload) -> bool:
    try:
        return FIRST_START_MS <= workload.start_ms(shape) < LAST_START_MS
    except ValueError:
        return False


def _problem(scenario: Scenario, fault: Fault, name: str) -> str | None:
    """Why a fault cannot be asked of this scenario, if it cannot."""
    looks_into_checkpoint = fault.kind in ("crash", *FAULTS_OF_RESTARTS) and fault.kind != "change"
    allowed = STRIKES.get(fault.kind, BROKERS)
    if not fault.at:
        return f"{name}.at is missing: how many events are acknowledged before it strikes"
    if fault.on not in allowed:
        return f"{name}.on = {fault.on!r}: {fault.kind} strikes one of {', '.join(allowed)}"
    if scenario.load.acks != "all" and fault.kind not in FAULTS_OF_REPLICAS:
        return (
            f"load.acks = {scenario.load.acks!r}: with fault {fault.kind} a producer that does not wait for"
            " all may write a record twice, and what is right would not be known"
        )
    if fault.kind in FAULTS_OF_REPLICAS and scenario.kafka.nodes < REPLICAS_MIN:
        return f"{name}.kind = {fault.kind!r}: it needs kafka.nodes of {REPLICAS_MIN} or more"
    if fault.on in FAULT_TARGETS_OF_SPARK and not scenario.pipeline.workers:
        return f"{name}.on = {fault.on!r}: it needs pipeline.workers of 1 or more"
    if scenario.black_box and looks_into_checkpoint:
        return f"{name}.kind = {fault.kind!r}: it needs a pipeline.checkpoint to look at"
    if looks_into_checkpoint and fault.query not in scenario.queries:
        return f"{name}.query = {fault.query!r}: the pipeline has {', '.join(scenario.queries)}"
    if scenario.black_box and (fault.after or fault.caught_up):
        return f"{name}.{'after' if fault.after else 'caught_up'}: it needs a pipeline.checkpoint to look at"
    return None


def dump(scenario: Scenario) -> str:
    """The scenario as TOML that `parse` reads back to an equal one."""
    return "\n".join(_table_lines("", msgspec.to_builtins(scenario))).lstrip("\n") + "\n"


def described(scenario: Scenario) -> str:
    """The same, with what each field means and may be behind it, as a comment."""
    table, lines = "", []
    for line in dump(scenario).splitlines():
        if line.startswith("["):
            table = line.strip("[]")
        name = line.partition(" = ")[0]
        doc = _meaning(table, name) if " = " in line else ""
        lines.append(f"{line:<30}  # {doc}" if doc else line)
    return "\n".join(lines) + "\n"


def _meaning(table: str, name: str) -> str:
    at: Any = Scenario
    for part in filter(None, table.split(".")):
        hint = typing.get_type_hints(at)[part]
        at = next((one for one in typing.get_args(hint) if dataclasses.is_dataclass(one)), hint)
    told = next(item.metadata for item in dataclasses.fields(at) if item.name == name)
    choices = " | ".join(choice or '""' for choice in told.get("choices", ()))
    bounds = f"{_bound(told['min'])} to {_bound(told['max'])}" if "min" in told else ""
    return "; ".join(filter(None, (told.get("doc", ""), bounds, choices)))


def _table_lines(path: str, table: Mapping[str, Any]) -> list[str]:
    """A table's own values first, then the tables below it."""
    own = [f"{key} = {_toml(value)}" for key, value in table.items() if not _is_below(value) and value is not None]
    for key, value in table.items():
        if _is_below(value):
            name = _join(path, key)
            for one in (value,) if isinstance(value, dict) else value:
                own += ["", f"[{name}]" if isinstance(value, dict) else f"[[{name}]]", *_table_lines(name, one)]
    return own


def _is_below(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list | tuple) and bool(value) and isinstance(value[0], dict))


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return msgspec.json.encode(value).decode()


def _locate(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.is_dir() and name_or_path not in names():
        raise ScenarioError(f"{path}: a directory: name a scenario, or a file such as {path / 'scenario.toml'}")
    if path.suffix == ".toml" or path.is_file():
        if not path.is_file():
            raise ScenarioError(f"{path}: no such scenario file")
        return path
    known = names()
    if name_or_path not in known:
        raise ScenarioError(
            f"no scenario {name_or_path!r}{nearest(name_or_path, known)}; there are: {', '.join(known)}"
        )
    return folder() / f"{name_or_path}.toml"


def _override(table: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not (equals and name):
        raise ScenarioError(f"--set {override}: expected FIELD=VALUE, such as load.eps=5000")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = name.split(".")
    for part in path:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ScenarioError(f"--set {override}: {part} is not a table")
    table[last] = value


def _build(cls: type[Any], table: Any, source: str, path: str) -> Any:
    if not isinstance(table, Mapping):
        raise ScenarioError(f"{source}: {path or 'the file'} must be a table, not {table!r}")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for name in table:
        if name not in fields:
            known = ", ".join(fields)
            raise ScenarioError(f"{source}: unknown field {_join(path, name)}{nearest(name, fields)}; allowed: {known}")
    built = {name: _value(hints[name], fields[name], value, source, _join(path, name)) for name, value in table.items()}
    return cls(**built)


def _value(hint: Any, item: dataclasses.Field[Any], value: Any, source: str, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(typing.cast(type[Any], hint), value, source, path)
    if (of := typing.get_args(hint)) and dataclasses.is_dataclass(of[0]):
        if not isinstance(value, list):
            raise ScenarioError(f"{source}: {path} must be tables [[{path}]], not {value!r}")
        return tuple(
            _build(typing.cast(type[Any], of[0]), one, source, f"{path}[{at}]") for at, one in enumerate(value)
        )
    try:
        converted = msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise ScenarioError(f"{source}: {path} = {value!r}: {error}") from error
    low, high = item.metadata.get("min"), item.metadata.get("max")
    if (low is not None and converted < low) or (high is not None and not converted <= high):
        raise ScenarioError(f"{source}: {path} = {value!r}: must lie between {_bound(low)} and {_bound(high)}")
    choices = item.metadata.get("choices")
    for one in converted if isinstance(converted, tuple) else (converted,):
        if choices and one not in choices:
            allowed = ", ".join(choice or '""' for choice in choices)
            raise ScenarioError(f"{source}: {path} = {value!r}: must be one of {allowed}{nearest(str(one), choices)}")
    return converted


def _bound(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def nearest(name: str, known: typing.Iterable[str]) -> str:
    """The known name that a misspelt one may have meant, as the end of a sentence; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
