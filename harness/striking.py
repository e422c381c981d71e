"""A fault of a scenario, carried out on the rig: whom it hits, and which way of striking it is."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

from harness import faults
from harness.faults import Struck
from harness.faults.crash import Query
from harness.kafka import topics
from harness.rig import Rig
from harness.scenario import FAULTS_OF_NETWORK, Fault
from pipeline.schema import CLICKSTREAM, INPUT


def struck(rig: Rig, fault: Fault) -> Struck:
    """One fault, from its stroke until it has healed."""
    times = (rig.scenario.pipeline.ready_s, time.time, time.sleep)

    def leader() -> int:
        return topics.leader(rig.cluster.bootstrap, rig.cluster.topic_prefix + CLICKSTREAM)

    if fault.kind == "crash":
        return faults.crash(fault, rig.system, _watched(rig, fault.query), *times)
    if fault.kind == "roll":
        return faults.roll(fault, faults.chosen("all brokers", rig.cluster.brokers, leader), *times)
    if fault.kind == "partitions":
        names = [rig.cluster.topic_prefix + topic for topic in INPUT]
        count = partial(topics.partitions, rig.cluster.bootstrap, names)
        return faults.widen(fault, count, partial(topics.widen, rig.cluster.bootstrap, names), time.time)
    if fault.kind == "retention":
        return _expired(rig, fault)
    if fault.kind in FAULTS_OF_NETWORK:
        return faults.spoil(fault, faults.chosen(fault.on, rig.wires, leader), *times)
    if fault.on == "pipeline":
        struck = faults.strike(fault, {fault.on: rig.system}, *times)
        rig.system.check()
        return struck
    return faults.strike(fault, faults.chosen(fault.on, rig.cluster.brokers, leader), *times)


def _expired(rig: Rig, fault: Fault) -> Struck:
    """Ours is told by its own flag to go on; another pipeline by the flags of the fault."""
    log = Partition(rig, CLICKSTREAM, 0)
    flags = fault.flags if fault.flags or rig.scenario.pipeline.command else ("--accept-loss",)

    def has_passed(offset: int) -> bool:
        readers = [name for name, query in rig.scenario.queries.items() if CLICKSTREAM in query.reads]
        goal = {(log.name, log.partition): offset}
        return rig.system.is_up() and (
            rig.scenario.black_box or all(rig.checkpoint.reached(name, goal) for name in readers)
        )

    times = (rig.scenario.pipeline.ready_s, time.time, time.sleep)
    struck = faults.expire(replace(fault, flags=flags), rig.system, log, has_passed, *times)
    rig.system.check()
    return struck


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
        place = {"topic": self.topic, "partition": self.partition}
        self.rig.history.write("deleted", **place, before_offset=self.begin(), at_s=round(time.time(), 4))


def _watched(rig: Rig, name: str) -> Query:
    """Where a query shows how far it is."""
    prefix, query = rig.cluster.topic_prefix, rig.scenario.queries[name]
    folder = rig.scratch / "output" / (rig.scenario.output(name).parquet or name) / "_spark_metadata"

    def in_kafka() -> int:
        return sum(topics.end_offsets(rig.cluster.bootstrap, [prefix + query.topic])[prefix + query.topic].values())

    def in_files() -> int:
        return sum(1 for _ in (folder.glob("[0-9]*") if folder.is_dir() else folder.parent.glob("*.parquet")))

    return Query(rig.checkpoint.source(name), in_kafka if query.sink == "kafka" else in_files)
