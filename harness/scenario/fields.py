"""What a scenario is made of: load, data, brokers, pipeline, limits and faults, each field with its meaning and its bounds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from harness.faults import Fault, Need
from harness.job.clickstream.contract import COUNTED_BY, QUERIES, Query, SinkKind
from harness.job.clickstream.events import Workload

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

PLACEHOLDERS = ("bootstrap", "prefix", "checkpoint", "output", "jars", "master")
"""What a command line of a pipeline may have in braces."""

# The longest time without a commit that any scenario can allow a pipeline that works.
BATCH_MAX_S = 3600.0

TARGETS = ("latency", "throughput", "state_size", "cpu", "success")
"""The five of measuring.md."""


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
    engine: str = field(
        default="harness",
        metadata={
            "choices": ("harness", "locust"),
            "doc": "one load engine on this machine, or several that Locust coordinates",
        },
    )
    workers: int = _number(1, low=1, high=64, doc="locust: load engines; event n goes to engine n mod workers")
    master: str = field(
        default="",
        metadata={"doc": "locust: HOST[:PORT] at which workers of other machines report; empty: workers start here"},
    )
    web: bool = field(default=False, metadata={"doc": "locust: serve its page on this machine while the run goes on"})

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
    # Five minutes: batches of minutes are usual in real jobs, and a test should not hang for an hour.
    batch_s: float = _number(
        300,
        low=60,  # with less, the wait for any progress would end first
        high=BATCH_MAX_S,
        doc="seconds a batch may take while the pipeline works; the time to read the backlog at limits.throughput_eps is added",
    )
    standby: bool = field(
        default=False,
        metadata={"doc": "a second one waits, with Spark started, and takes over when the fault has ended the first"},
    )
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
        return next(
            (output for output in self.pipeline.output if output.query == query), Output(query=query, keyed=True)
        )

    @property
    def needs_embedded(self) -> bool:
        """Whether a fault of it stands before brokers or lies under them, which takes brokers of our own making."""
        return any(Need.EMBEDDED in fault.needs for fault in self.fault)

    @property
    def needs_root(self) -> bool:
        """Whether a fault of it needs Linux and root: for a disk of its own, or a control group."""
        return any(need.is_root for fault in self.fault for need in fault.needs)

    @property
    def counts_all(self) -> bool:
        """Whether each record that was read must be counted, dropped or rejected by a query that the pipeline has."""
        each = {name for name, query in QUERIES.items() if query.counts_each or query.rejects}
        return each <= self.queries.keys() and not self.black_box

    @property
    def black_box(self) -> bool:
        """Whether there is no checkpoint to judge by."""
        return not self.pipeline.checkpoint


def _located(query: Query, output: Output) -> Query:
    sink: SinkKind = "parquet" if output.parquet else "kafka" if output.kafka else query.sink
    return dataclasses.replace(query, sink=sink, topic=output.kafka or query.topic)
