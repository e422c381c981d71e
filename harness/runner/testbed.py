"""All that a run needs, started and wired together: brokers, topics, the pipeline, the load engine, the eyes on them."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness import kafka
from harness.engines.process import Checkpoint, System, command
from harness.engines.spark.standalone import Standalone, open_cluster
from harness.faults import Cancelled, Need, Patience, parts
from harness.faults.network import Relay, Wire, open_relay
from harness.host import cgroup, class_archive, cleanup, jars
from harness.host.disks import Disk, mounted
from harness.job.clickstream.contract import INPUT, RESULT_BYTES_MAX
from harness.kafka import Cluster, topics
from harness.load.process import Load
from harness.rundir.events import Recorder, Swept
from harness.runner.metrics import Metrics
from harness.runner.sampler import Cpu
from harness.scenario import Scenario

LOG_BYTES = 5_000_000


@dataclass(slots=True)
class Rig:
    """All that a run needs, started and wired together."""

    scenario: Scenario
    directory: Path
    scratch: Path
    cluster: Cluster
    system: System
    checkpoint: Checkpoint
    load: Load
    cpu: Cpu
    # What the placeholders of a command line stand for.
    places: dict[str, str]
    wires: Mapping[int, Wire]
    # By whose it is: `checkpoint`, `results` or ``broker N``; those alone that a fault of the scenario is about.
    disks: Mapping[str, Disk]
    history: Recorder
    # What the pipeline runs on, where the scenario has workers.
    spark: Standalone | None
    # Set when the load is over: a fault that has not healed by then breaks off.
    over: threading.Event = field(default_factory=threading.Event)
    # Where the figures of the run are offered to Prometheus, if anywhere.
    metrics: Metrics | None = None
    # Why the pipeline cannot be followed any more; empty while it can.
    blind: list[str] = field(default_factory=list)

    @property
    def patience(self) -> Patience:
        """How long a fault waits; it breaks off once the load is over."""
        return Patience(self.scenario.pipeline.ready_s, time.time, self._sleep)

    def check(self) -> None:
        """Raise StackError where what the pipeline stands on has ended by no fault, PipelineDied where it has itself."""
        for wire in self.wires.values():
            wire.relay.check()
        if self.spark:
            self.spark.check()
        self.system.check()

    def look(self) -> None:
        """Write down who is there of a Spark cluster: an executor that the next look does not find was lost meanwhile."""
        if self.spark:
            self.history.write(self.spark.seen())

    def _sleep(self, seconds: float) -> None:
        if self.over.wait(seconds):
            raise Cancelled


def assemble(stack: ExitStack, scenario: Scenario, directory: Path, history: Recorder) -> Rig:
    """Start brokers and make topics; the pipeline and the load engine are ready to be started. The stack ends all of it."""
    history.write(Swept(what=str(cleanup.sweep())))
    cgroup.sweep()
    stack.callback(cgroup.sweep)
    stack.enter_context(cleanup.none_left())
    logs = directory / "logs"
    logs.mkdir()
    connector = jars.spark_jars()
    scratch = stack.enter_context(cleanup.scratch("run"))
    relay = _relay(stack, scenario, logs)
    ports = {number + 1: port for number, port in enumerate(relay.ports)} if relay else None
    disks = _mount(stack, scenario, scratch)
    where = (scenario.kafka.where, scenario.kafka.nodes, scratch / "kafka")
    stack.callback(_keep_logs, scratch / "kafka", logs)
    cluster = stack.enter_context(kafka.open_cluster(*where, ports))
    if relay:
        for number, broker in cluster.brokers.items():
            host, _, port = broker.client_address.rpartition(":")
            relay.lead(number - 1, host, int(port))
    _create_topics(scenario, cluster)
    quick = scenario.pipeline.quick_start
    java = class_archive.of_pipeline(quick) if quick or not scenario.pipeline.command else ""
    spark = _standalone(stack, scenario.pipeline.workers, scratch / "spark", logs, java)
    places = {
        "bootstrap": cluster.bootstrap,
        "prefix": cluster.topic_prefix,
        "checkpoint": str(scratch / "checkpoint"),
        "output": str(scratch / "output"),
        "jars": str(connector),
        "master": spark.url if spark else f"local[{scenario.pipeline.cores}]",
    }
    temporary = scratch / "tmp"
    temporary.mkdir()
    system = System(
        command(scenario, places),
        logs / "pipeline.log",
        temporary,
        history,
        java,
        inherit=bool(scenario.pipeline.command),
    )
    stack.callback(system.close)
    load = Load(_engine(scenario, cluster, directory, scratch), logs / "load.log")
    stack.callback(load.stop)
    pattern = (
        "" if scenario.black_box else scenario.pipeline.checkpoint.replace("{checkpoint}", str(scratch / "checkpoint"))
    )
    reads = {name: [cluster.topic_prefix + topic for topic in query.reads] for name, query in scenario.queries.items()}
    checkpoint = Checkpoint(pattern, directory / "checkpoints", reads, history)
    cpu = Cpu(history, system, cluster, load, checkpoint, spark)
    wires = {number: Wire(relay, number - 1) for number in ports or ()} if relay else {}
    return Rig(
        scenario, directory, scratch, cluster, system, checkpoint, load, cpu, places, wires, disks, history, spark
    )


def _relay(stack: ExitStack, scenario: Scenario, logs: Path) -> Relay | None:
    """A relay before the brokers, where a fault of the network is asked for."""
    if not any(Need.RELAY in fault.needs for fault in scenario.fault):
        return None
    return stack.enter_context(open_relay(scenario.kafka.nodes, scenario.load.seed, logs / "relay.log"))


def _standalone(stack: ExitStack, workers: int, folder: Path, logs: Path, java: str) -> Standalone | None:
    """A cluster for the pipeline to run on, where the scenario has workers."""
    return stack.enter_context(open_cluster(workers, folder, logs, java)) if workers else None


def _mount(stack: ExitStack, scenario: Scenario, scratch: Path) -> dict[str, Disk]:
    """Disks for what a fault will fill or make read-only, before anything is written there."""
    wanted = {fault.on for fault in scenario.fault if Need.DISK in fault.needs}
    places = {"checkpoint": scratch / "checkpoint", "results": scratch / "output"}
    folders = {name: places[name] for name in parts.DISKS_OF_THE_PIPELINE if name in wanted}
    if wanted - folders.keys():
        # Which broker will lead is not known yet.
        numbers = range(1, scenario.kafka.nodes + 1)
        folders |= {f"broker {number}": scratch / "kafka" / f"broker-{number}" / "data" for number in numbers}
    return {name: stack.enter_context(mounted(folder)) for name, folder in folders.items()}


def _engine(scenario: Scenario, cluster: Cluster, directory: Path, scratch: Path) -> list[str]:
    where = ["--bootstrap", cluster.bootstrap, "--prefix", cluster.topic_prefix]
    files = ["--plan", str(scratch / "plan.json"), "--sent", str(directory / "sent.parquet")]
    if scenario.load.engine == "harness":
        return [sys.executable, "-m", "harness.load", *where, *files]
    load = scenario.load
    workers = ["--workers", str(load.workers), "--master", load.master, *(["--web"] if load.web else [])]
    folders = ["--folder", str(scratch / "load"), "--logs", str(directory / "logs")]
    return [sys.executable, "-m", "harness.load.distributed", *where, *files, *workers, *folders]


def _create_topics(scenario: Scenario, cluster: Cluster) -> None:
    prefix = cluster.topic_prefix
    replication = min(3, len(cluster.brokers)) or 1
    inputs = {prefix + topic: {"message.timestamp.type": "CreateTime"} for topic in INPUT}
    of_results = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(RESULT_BYTES_MAX)}
    results = {prefix + query.topic: of_results for query in scenario.queries.values()}
    topics.create(cluster.bootstrap, inputs, scenario.kafka.partitions, replication)
    topics.create(cluster.bootstrap, results, 1, replication)


def _keep_logs(brokers: Path, logs: Path) -> None:
    """The end of each broker's log."""
    for path in sorted(brokers.glob("*/*.log")):
        with path.open("rb") as log, (logs / f"kafka-{path.parent.name}-{path.name}").open("wb") as kept:
            log.seek(max(0, path.stat().st_size - LOG_BYTES))
            shutil.copyfileobj(log, kept)
