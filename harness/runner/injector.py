"""A fault of a scenario, carried out on the rig: whom it hits, and which way of striking it is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from harness import faults
from harness.engines import process
from harness.engines.spark import sinks
from harness.errors import StackError, Unreachable, Unready
from harness.faults import Outcome
from harness.faults.crash import Query
from harness.faults.target import TAKES_S
from harness.host import cgroup, disks, processes
from harness.host.disks import Disk
from harness.job.clickstream.contract import CLICKSTREAM, INPUT
from harness.kafka import Broker, topics
from harness.rundir.events import Deleted
from harness.runner.testbed import Rig
from harness.scenario import (
    DISKS_OF_THE_PIPELINE,
    FAULT_TARGETS_OF_SPARK,
    FAULTS_OF_DISKS,
    FAULTS_OF_NETWORK,
    FAULTS_OF_PROCESSES,
    FAULTS_OF_RESTARTS,
    Fault,
)


def struck(rig: Rig, fault: Fault) -> Outcome:
    """One fault, from its stroke until it has healed."""
    return WAYS[fault.kind](rig, fault)


def _process(rig: Rig, fault: Fault) -> Outcome:
    if fault.on in FAULT_TARGETS_OF_SPARK:
        return _process_of_spark(rig, fault)
    if fault.on != "pipeline":
        return faults.inject(fault, _brokers(rig, fault.on), rig.patience)
    if rig.scenario.pipeline.standby and not rig.patience.until(rig.system.stands_by):
        raise StackError(f"fault {fault.kind}: no pipeline stands by after {rig.patience.for_s:g} s")
    done = faults.inject(fault, {fault.on: rig.system}, rig.patience)
    rig.system.check()
    return done


def _process_of_spark(rig: Rig, fault: Fault) -> Outcome:
    if rig.spark is None:
        raise StackError(f"fault on {fault.on}: there is no standalone cluster")
    targets = rig.spark.target(fault.on)
    rig.look()
    done = faults.inject(fault, targets, rig.patience)
    rig.look()
    rig.system.check()
    return done


def _crash(rig: Rig, fault: Fault) -> Outcome:
    return faults.crash(fault, rig.system, _watched(rig, fault.query), rig.patience)


def _fail_over(rig: Rig, fault: Fault) -> Outcome:
    """What leads is asked of the followers, which are the ones that are up."""
    [leader] = _brokers(rig, fault.on).values()
    followers = [broker for broker in rig.cluster.brokers.values() if broker is not leader]
    bootstrap = ",".join(follower.address for follower in followers)
    topic = rig.cluster.topic_prefix + CLICKSTREAM

    def taken_over() -> bool:
        try:
            topics.broker_ids(bootstrap)  # which is quick to find that none of them can be asked yet
        except (Unreachable, Unready):
            return False
        return topics.leader(bootstrap, topic) in {follower.id for follower in followers}

    return faults.fail_over(fault, leader, followers, taken_over, rig.patience)


def _roll(rig: Rig, fault: Fault) -> Outcome:
    return faults.roll(fault, _brokers(rig, "all brokers"), rig.patience)


def _widen(rig: Rig, fault: Fault) -> Outcome:
    names = [rig.cluster.topic_prefix + topic for topic in INPUT]
    count = partial(topics.partitions, rig.cluster.bootstrap, names)

    def used() -> int:
        ends = topics.end_offsets(rig.cluster.bootstrap, names)
        return sum(end > 0 for of_topic in ends.values() for end in of_topic.values())

    add = partial(topics.widen, rig.cluster.bootstrap, names)
    return faults.widen(fault, count, add, used, rig.patience)


def _network(rig: Rig, fault: Fault) -> Outcome:
    return faults.spoil(fault, faults.chosen(fault.on, rig.wires, *_leaders(rig)), rig.patience)


def _memory(rig: Rig, fault: Fault) -> Outcome:
    with cgroup.group() as group:

        def take() -> bool:
            rig.system.expect_end()
            group.take_in(processes.tree_pids(rig.system.pid or 0))
            with group.neighbour():
                return rig.patience.until(lambda: group.kills() > 0, TAKES_S)

        def tell() -> dict[str, object]:
            return {"ended by the kernel": group.kills(), "said": rig.system.last_line()}

        return faults.take_away(
            fault, fault.on, rig.system, take, rig.system.has_ended, lambda: None, tell, rig.patience
        )


def _disk(rig: Rig, fault: Fault) -> Outcome:
    if fault.on in DISKS_OF_THE_PIPELINE:
        return _disk_of_the_pipeline(rig, fault)
    [(name, broker)] = _brokers(rig, fault.on).items()
    disk = rig.disks[name]

    def has_ended() -> bool:
        return broker.pid is None

    def take() -> bool:
        if fault.kind == "full":
            return disks.until(disk.fill, TAKES_S, time.time)
        # Its files stay open for writing as long as it runs: it finds the disk read-only when it starts again.
        broker.kill()
        done = disks.until(disk.read_only, TAKES_S, time.time)
        broker.start(wait_s=0)
        return done and rig.patience.until(has_ended, TAKES_S)

    tell = partial(_told, disk, lambda: processes.last_said(broker.log()))
    return faults.take_away(fault, name, broker, take, has_ended, disk.mend, tell, rig.patience)


def _disk_of_the_pipeline(rig: Rig, fault: Fault) -> Outcome:
    disk = rig.disks[fault.on]

    def take() -> bool:
        rig.system.expect_end()
        return disks.until(disk.fill if fault.kind == "full" else disk.read_only, TAKES_S, time.time)

    tell = partial(_told, disk, rig.system.last_line)
    return faults.take_away(fault, "pipeline", rig.system, take, rig.system.has_ended, disk.mend, tell, rig.patience)


def _told(disk: Disk, last: Callable[[], object]) -> dict[str, object]:
    return {"full": disk.is_full(), "read only": disk.is_read_only(), "said": last()}


def _restart(rig: Rig, fault: Fault) -> Outcome:
    # Of another pipeline it is not known in what words it refuses.
    told = "" if rig.scenario.pipeline.command or fault.command else _refusal(fault)
    restarts = faults.Restarts(rig.system, told, rig.patience)
    if fault.kind == "change":
        if not fault.command:
            return restarts.changed(fault, lambda: None)
        before = rig.system.become([process.filled(part, rig.places) for part in fault.command])
        return restarts.changed(fault, lambda: _again(rig, before))
    checkpoint = rig.checkpoint.source(fault.query)
    kept = Path(tempfile.mkdtemp(prefix="kept-", dir=rig.scratch)) / "copy"
    with rig.checkpoint.aside():
        if fault.kind == "older":
            results = partial(_entries, _results_log(rig, fault.query))
            done = restarts.on_an_older(fault, checkpoint.parent, results, kept)
        else:
            done = restarts.spoiled(fault, checkpoint, kept)
    rig.checkpoint.sweep()  # what was read meanwhile was read before the fault was over
    return done


def _refusal(fault: Fault) -> str:
    """How our pipeline refuses this change of settings, or this damage; Spark itself minds a lost state."""
    if fault.kind == "change":
        return "was made by other settings|(older|newer) than its results"
    if fault.kind == "older":  # with all of the checkpoint, and so of any query that has its results in Parquet
        return "checkpoint .+: older than its results"
    if fault.kind == "state_lost":
        return rf"query {fault.query} died: \[CANNOT_LOAD_STATE_STORE"
    return rf"checkpoint .+/{fault.query}[/:]"


def _again(rig: Rig, args: list[str]) -> None:
    rig.system.become(args)


def _expired(rig: Rig, fault: Fault) -> Outcome:
    """Ours is told by its own flag to go on; another pipeline by the flags of the fault."""
    log = Partition(rig, CLICKSTREAM, 0)
    flags = fault.flags if fault.flags or rig.scenario.pipeline.command else ("--accept-loss",)

    up_since: list[float] = []

    def stays_up() -> bool:
        up_since.append(time.time())
        return up_since[-1] - up_since[0] >= rig.scenario.pipeline.settle_s

    def has_passed(offset: int) -> bool:
        if not rig.system.is_up():
            return False
        if rig.scenario.black_box:  # what it has read is not known
            return stays_up()
        readers = [name for name, query in rig.scenario.queries.items() if CLICKSTREAM in query.reads]
        goal = {(log.name, log.partition): offset}
        return all(rig.checkpoint.reached(name, goal) for name in readers)

    done = faults.expire(replace(fault, flags=flags), rig.system, log, has_passed, rig.patience)
    rig.system.check()
    return done


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of an input topic at the brokers of the rig; what is deleted from it stands in the history."""

    rig: Rig
    topic: str
    partition: int

    @property
    def name(self) -> str:
        """The topic's name at the brokers."""
        return self.rig.cluster.topic_prefix + self.topic

    def begin(self) -> int:
        """The first offset that is there."""
        return topics.begin_offsets(self.rig.cluster.bootstrap, [self.name])[self.name][self.partition]

    def end(self) -> int:
        """The offset of the next record."""
        return topics.end_offsets(self.rig.cluster.bootstrap, [self.name])[self.name][self.partition]

    def delete(self, before: int) -> None:
        """Remove what lies before an offset, and write down what is gone."""
        topics.delete_records(self.rig.cluster.bootstrap, self.name, self.partition, before)
        begin, at_s = self.begin(), round(time.time(), 4)
        self.rig.history.write(Deleted(topic=self.topic, partition=self.partition, before_offset=begin, at_s=at_s))


# Kind of fault → the function that injects it.
WAYS: Mapping[str, Callable[[Rig, Fault], Outcome]] = {
    "crash": _crash,
    "fail_over": _fail_over,
    "roll": _roll,
    "partitions": _widen,
    **dict.fromkeys(FAULTS_OF_PROCESSES, _process),
    **dict.fromkeys(FAULTS_OF_NETWORK, _network),
    **dict.fromkeys(FAULTS_OF_DISKS, _disk),
    **dict.fromkeys(FAULTS_OF_RESTARTS, _restart),
    "memory": _memory,
    "retention": _expired,
}


def _brokers(rig: Rig, on: str) -> dict[str, Broker]:
    return faults.chosen(on, rig.cluster.brokers, *_leaders(rig))


def _leaders(rig: Rig) -> tuple[Callable[[], int], Callable[[], int]]:
    """Who leads the first partition of the clickstream, and who the quorum of controllers."""
    bootstrap = rig.cluster.bootstrap
    topic = rig.cluster.topic_prefix + CLICKSTREAM
    return partial(topics.leader, bootstrap, topic), partial(topics.controller, bootstrap)


def _watched(rig: Rig, name: str) -> Query:
    """Where a query shows how far it is."""
    prefix, query = rig.cluster.topic_prefix, rig.scenario.queries[name]
    folder = _results_log(rig, name)

    def in_kafka() -> int:
        return sum(topics.end_offsets(rig.cluster.bootstrap, [prefix + query.topic])[prefix + query.topic].values())

    return Query(rig.checkpoint.source(name), in_kafka if query.sink == "kafka" else sinks.Growing(folder.parent).rows)


def _results_log(rig: Rig, query: str) -> Path:
    """The log of batches of a query's Parquet sink."""
    return rig.scratch / "output" / (rig.scenario.output(query).parquet or query) / "_spark_metadata"


def _entries(log: Path) -> int:
    """Batches that a Parquet sink's log names."""
    return sum(1 for _ in log.glob("[0-9]*"))
