"""The conductor: does what the scenario says, writes down what happens, and judges nothing.

start → warm up → measure → flush → drain → collect. What it leaves is a run directory.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import psutil

from harness import faults, history, jars, kafka, processes, sinks
from harness import scenario as scenarios
from harness.errors import HarnessError, Stalled
from harness.faults import Struck
from harness.faults.crash import Query
from harness.faults.network import Relay, Wire, open_relay
from harness.faults.schedule import Schedule
from harness.history import FORMAT, Recorder
from harness.kafka import Cluster, topics
from harness.offering import Load
from harness.sampling import Cpu
from harness.scenario import FAULTS_OF_NETWORK, Fault, Scenario
from harness.status import Status
from harness.system import Checkpoint, System, command, ticking
from pipeline.schema import CLICKSTREAM, INPUT, TRANSACTIONS, WATERMARK_DELAY_S

STALL_S = 60.0
PACKAGES = ("pyspark", "confluent-kafka", "numpy", "pyarrow", "pandas", "streaming-harness")


def run(scenario: Scenario, directory: Path, status: Status, args: list[str]) -> None:
    """Do the run. Raises HarnessError where none is possible; the directory then says how far it came."""
    directory.mkdir(parents=True)
    (directory / "scenario.toml").write_text(scenarios.dump(scenario), encoding="utf-8")
    with history.recording(directory) as happenings, status:
        phases = Phases(happenings, status)
        _manifest(directory, scenario, args, prefix="")
        try:
            with ExitStack() as stack:
                _conduct(_assemble(stack, scenario, directory, phases, args), phases)
        except BaseException as error:
            why = "by the user" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            happenings.write("interrupted", phase=phases.current, why=why)
            raise
        phases.begin("end")


class Phases:
    """Where the run is, in the history and on the screen."""

    def __init__(self, happenings: Recorder, status: Status) -> None:
        self.history = happenings
        self.status = status
        self.current = "start"

    def begin(self, name: str, what: str = "") -> None:
        """A phase begins."""
        self.current = name
        self.history.write("phase", phase=name)
        if name != "end":
            self.status.phase(name.replace("_", " "), what)


@dataclass(slots=True)
class Bench:
    """All that a run needs, started and wired together."""

    scenario: Scenario
    directory: Path
    scratch: Path
    cluster: Cluster
    system: System
    checkpoint: Checkpoint
    load: Load
    cpu: Cpu
    wires: Mapping[int, Wire]


def _assemble(stack: ExitStack, scenario: Scenario, directory: Path, phases: Phases, args: list[str]) -> Bench:
    phases.begin("start", f"Kafka ({scenario.kafka.where}) and the pipeline ({scenario.pipeline.profile})")
    phases.history.write("swept", what=str(processes.sweep()))
    logs = directory / "logs"
    logs.mkdir()
    spark = jars.spark_jars()
    scratch = stack.enter_context(processes.scratch("run"))
    relay = _relay(stack, scenario)
    ports = {number + 1: port for number, port in enumerate(relay.ports)} if relay else None
    where = (scenario.kafka.where, scenario.kafka.nodes, scratch / "kafka")
    cluster = stack.enter_context(kafka.open_cluster(*where, ports))
    if relay:
        for number, broker in cluster.brokers.items():
            host, _, port = broker.client_address.rpartition(":")
            relay.lead(number - 1, host, int(port))
    stack.callback(_keep_logs, scratch / "kafka", logs)
    _create_topics(scenario, cluster)
    _manifest(directory, scenario, args, cluster.topic_prefix)
    places = {
        "bootstrap": cluster.bootstrap,
        "prefix": cluster.topic_prefix,
        "checkpoint": str(scratch / "checkpoint"),
        "output": str(scratch / "output"),
        "jars": str(spark),
    }
    system = System(command(scenario, places), logs / "pipeline.log", phases.history)
    stack.callback(system.kill)
    load = Load(_engine(cluster, directory, scratch), logs / "load.log")
    stack.callback(load.stop)
    pattern = (
        "" if scenario.black_box else scenario.pipeline.checkpoint.replace("{checkpoint}", str(scratch / "checkpoint"))
    )
    checkpoint = Checkpoint(pattern, directory / "checkpoints", tuple(scenario.queries), phases.history)
    cpu = Cpu(phases.history, system, cluster, load, checkpoint)
    wires = {number: Wire(relay, number - 1) for number in ports or ()} if relay else {}
    return Bench(scenario, directory, scratch, cluster, system, checkpoint, load, cpu, wires)


def _relay(stack: ExitStack, scenario: Scenario) -> Relay | None:
    """A relay before the brokers, where a fault of the network is asked for."""
    if not scenario.needs_embedded:
        return None
    return stack.enter_context(open_relay(scenario.kafka.nodes, scenario.load.seed))


def _engine(cluster: Cluster, directory: Path, scratch: Path) -> list[str]:
    where = ["--bootstrap", cluster.bootstrap, "--prefix", cluster.topic_prefix]
    files = ["--plan", str(scratch / "plan.json"), "--sent", str(directory / "sent.parquet")]
    return [sys.executable, "-m", "harness.load", *where, *files]


def _create_topics(scenario: Scenario, cluster: Cluster) -> None:
    prefix = cluster.topic_prefix
    replication = min(3, len(cluster.brokers)) or 1
    inputs = {prefix + topic: {"message.timestamp.type": "CreateTime"} for topic in INPUT}
    results = {prefix + query.topic: {"message.timestamp.type": "LogAppendTime"} for query in scenario.queries.values()}
    topics.create(cluster.bootstrap, inputs, scenario.kafka.partitions, replication)
    topics.create(cluster.bootstrap, results, 1, replication)


def _keep_logs(brokers: Path, logs: Path) -> None:
    for path in sorted(brokers.glob("**/*.log")) if brokers.is_dir() else ():
        if path.stat().st_size < 5_000_000 and "data" not in path.parts:
            shutil.copy(path, logs / f"kafka-{path.parent.name}-{path.name}")


def _conduct(bench: Bench, phases: Phases) -> None:
    if not bench.scenario.pipeline.start_after_s:
        _start_pipeline(bench, phases)
    with _followed(bench):
        _offer(bench, phases)
        if bench.scenario.black_box:
            phases.begin("settle", "until the pipeline has nothing left to say")
            _quiet(bench, phases)
        phases.begin("flush", "two events far ahead close every window")
        bench.load.flush()
        _eventually(bench, phases, bench.load.finished, lambda: bench.load.acknowledged, "acknowledgements")
        phases.begin("drain", "until every query has committed everything")
        (_quiet if bench.scenario.black_box else _drain)(bench, phases)
    bench.system.stop()
    bench.checkpoint.sweep()
    phases.begin("collect", "every result row")
    where = (bench.cluster.bootstrap, bench.cluster.topic_prefix, bench.scratch / "output")
    for query, rows in sinks.collect(bench.scenario, *where):
        history.write_rows(bench.directory, query, rows)


def _start_pipeline(bench: Bench, phases: Phases) -> None:
    bench.system.start()
    patience_s = bench.scenario.pipeline.ready_s
    _eventually(bench, phases, bench.system.started.is_set, lambda: 0, "the pipeline's queries to start", patience_s)


@contextmanager
def _followed(bench: Bench) -> Iterator[None]:
    stop = threading.Event()
    threads = [ticking(0.2, bench.checkpoint.sweep, stop), ticking(1.0, bench.cpu.sample, stop)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(5)


def _offer(bench: Bench, phases: Phases) -> None:
    load = bench.scenario.load
    start = time.time() + 1.5
    plan = {
        "workload": msgspec.to_builtins(bench.scenario.workload),
        "seed": load.seed,
        "eps": load.eps,
        "events": load.events,
        "start_at": start,
        "segments": load.segments,
    }
    (bench.scratch / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    bench.load.start()
    if backlog_s := bench.scenario.pipeline.start_after_s:
        phases.begin("backlog", f"{backlog_s:g} s at {load.eps:,g} events/s before the pipeline starts")
        _until(bench, phases, start + backlog_s)
        _start_pipeline(bench, phases)
    schedule = Schedule(bench.scenario.fault, lambda: bench.load.acknowledged, partial(_struck, bench), phases.history)
    phases.begin("warm_up", f"{load.warm_up_s:g} s at {load.eps:,g} events/s")
    _until(bench, phases, start + load.warm_up_s, schedule)
    phases.begin("measure", f"{load.duration_s:g} s at {load.eps:,g} events/s")
    _until(bench, phases, start + load.warm_up_s + load.duration_s, schedule)
    if load.cool_down_s:
        phases.begin("cool_down", f"{load.cool_down_s:g} s, so that the last events measured are committed under load")
        _until(bench, phases, start + load.warm_up_s + load.duration_s + load.cool_down_s, schedule)
    _eventually(bench, phases, schedule.is_over, lambda: bench.load.acknowledged, "the faults to heal", 180)


def _struck(bench: Bench, fault: Fault) -> Struck:
    """One fault, from its stroke until it has healed."""
    times = (bench.scenario.pipeline.ready_s, time.time, time.sleep)

    def leader() -> int:
        return topics.leader(bench.cluster.bootstrap, bench.cluster.topic_prefix + CLICKSTREAM)

    if fault.kind == "crash":
        return faults.crash(fault, bench.system, _watched(bench, fault.query), *times)
    if fault.kind == "roll":
        return faults.roll(fault, faults.chosen("all brokers", bench.cluster.brokers, leader), *times)
    if fault.kind == "partitions":
        names = [bench.cluster.topic_prefix + topic for topic in INPUT]
        count = partial(topics.partitions, bench.cluster.bootstrap, names)
        return faults.widen(fault, count, partial(topics.widen, bench.cluster.bootstrap, names), time.time)
    if fault.kind in FAULTS_OF_NETWORK:
        return faults.spoil(fault, faults.chosen(fault.on, bench.wires, leader), *times)
    if fault.on == "pipeline":
        struck = faults.strike(fault, {fault.on: bench.system}, *times)
        bench.system.check()
        return struck
    return faults.strike(fault, faults.chosen(fault.on, bench.cluster.brokers, leader), *times)


def _watched(bench: Bench, name: str) -> Query:
    """Where a query shows how far it is."""
    prefix, query = bench.cluster.topic_prefix, bench.scenario.queries[name]
    folder = bench.scratch / "output" / (bench.scenario.output(name).parquet or name) / "_spark_metadata"

    def in_kafka() -> int:
        return sum(topics.end_offsets(bench.cluster.bootstrap, [prefix + query.topic])[prefix + query.topic].values())

    def in_files() -> int:
        return sum(1 for _ in (folder.glob("[0-9]*") if folder.is_dir() else folder.parent.glob("*.parquet")))

    return Query(bench.checkpoint.source(name), in_kafka if query.sink == "kafka" else in_files)


def _until(bench: Bench, phases: Phases, end_s: float, schedule: Schedule | None = None) -> None:
    while (left := end_s - time.time()) > 0:
        _look(bench, phases, left)
        if schedule:
            schedule.look()
        time.sleep(min(0.25, max(0.0, end_s - time.time())))


def _look(bench: Bench, phases: Phases, left_s: float | None = None) -> None:
    bench.system.check()
    bench.load.finished()
    lag = max(0, bench.load.acknowledged - bench.checkpoint.read())
    figures = {
        "sent": f"{bench.load.sent:,}",
        "lag": f"{lag:,}",
        "batch": f"{bench.system.batch_ms / 1e3:.1f} s",
        "state": f"{sum(bench.system.state_bytes.values()) / 1e6:.0f} MB",
        "CPU": f"{psutil.cpu_percent():.0f} %",
    }
    phases.status.show(**figures, **({} if left_s is None else {"left": f"{left_s:.0f} s"}))


def _drain(bench: Bench, phases: Phases) -> None:
    names = [bench.cluster.topic_prefix + topic for topic in (CLICKSTREAM, TRANSACTIONS)]
    ends = topics.end_offsets(bench.cluster.bootstrap, names)
    goal = {(topic, partition): end for topic, partitions in ends.items() for partition, end in partitions.items()}
    flushed_ms = bench.load.flush_ms - WATERMARK_DELAY_S * 1000

    def drained() -> bool:
        return all(_has_drained(bench, query, goal, flushed_ms) for query in bench.scenario.queries)

    def progress() -> int:
        queries = bench.scenario.queries
        return sum(bench.checkpoint.committed(query) + bench.checkpoint.watermark_ms(query) for query in queries)

    try:
        _eventually(bench, phases, drained, progress, "every query to commit everything")
    except Stalled as error:
        # Not an end: what is missing is judged as lost, by name.
        phases.history.write("stalled", why=str(error))


def _quiet(bench: Bench, phases: Phases) -> None:
    """Wait until nothing new has stood in the sinks for three times the skew of reading.

    Without a checkpoint this is all that can be known; the black-box oracle rests on it.
    """
    where = (bench.cluster.bootstrap, bench.cluster.topic_prefix, bench.scratch / "output")
    seen, since = -1, time.monotonic()
    deadline = since + bench.scenario.pipeline.ready_s
    while time.monotonic() - since < 3 * bench.scenario.pipeline.read_skew_s:
        _look(bench, phases)
        if (now := sinks.size(bench.scenario, *where)) != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() > deadline:
            phases.history.write("stalled", why="the pipeline goes on writing results")
            return
        time.sleep(0.2)


def _has_drained(bench: Bench, query: str, goal: dict[tuple[str, int], int], flushed_ms: float) -> bool:
    mine = {bench.cluster.topic_prefix + topic for topic in bench.scenario.queries[query].reads}
    wanted = {at: end for at, end in goal.items() if at[0] in mine}
    windowed = query != "dead_letter"
    passed = bench.checkpoint.watermark_ms(query) >= flushed_ms - 1 if windowed else True
    return passed and bench.checkpoint.reached(query, wanted)


def _eventually(
    bench: Bench,
    phases: Phases,
    condition: Callable[[], bool],
    progress: Callable[[], int],
    what: str,
    patience_s: float = STALL_S,
) -> None:
    """Wait for a condition as long as progress is made; raise Stalled, which says at what, when it is not."""
    last, since = progress(), time.monotonic()
    while not condition():
        _look(bench, phases)
        if (now := progress()) != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > patience_s:
            raise Stalled(
                f"waiting for {what}: no progress past {last} for {patience_s:g} s; see {bench.directory / 'logs'}"
            )
        time.sleep(0.05)


def _manifest(directory: Path, scenario: Scenario, args: list[str], prefix: str) -> None:
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "started_s": round(time.time(), 3),
        "command": args,
        "seed": scenario.load.seed,
        "topic_prefix": prefix,
        "cores": psutil.cpu_count() or 1,
        "memory_bytes": psutil.virtual_memory().total,
        "machine": platform.platform(),
        "python": platform.python_version(),
        "git": _git(),
        "versions": {name: _version(name) for name in PACKAGES},
    }
    temporary = directory / "manifest.json.tmp"
    temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    os.replace(temporary, directory / "manifest.json")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> str | None:
    root = Path(__file__).parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return None
    done = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or None


__all__ = ["HarnessError", "run"]
