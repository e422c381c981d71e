"""A fault of a scenario, carried out on the rig: whom it hits, and which way of striking it is."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

from harness import faults
from harness.errors import StackError
from harness.faults import Struck
from harness.faults.crash import Query
from harness.kafka import topics
from harness.rig import Rig
from harness.scenario import FAULT_TARGETS_OF_SPARK, FAULTS_OF_NETWORK, Fault
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
    if fault.kind in FAULTS_OF_NETWORK:
        return faults.spoil(fault, faults.chosen(fault.on, rig.wires, leader), *times)
    if fault.on == "pipeline":
        struck = faults.strike(fault, {fault.on: rig.system}, *times)
        rig.system.check()
        return struck
    if fault.on in FAULT_TARGETS_OF_SPARK:
        return _struck_spark(rig, fault)
    return faults.strike(fault, faults.chosen(fault.on, rig.cluster.brokers, leader), *times)


def _struck_spark(rig: Rig, fault: Fault) -> Struck:
    """A fault of the standalone cluster; what was there before and after, by process id, belongs to its proof."""
    if rig.spark is None:
        raise StackError(f"fault on {fault.on}: there is no standalone cluster")
    before = rig.spark.seen()
    struck = faults.strike(fault, rig.spark.target(fault.on), rig.scenario.pipeline.ready_s, time.time, time.sleep)
    rig.system.check()
    return replace(struck, proof={**struck.proof, "cluster": {"before": before, "after": rig.spark.seen()}})


def _watched(rig: Rig, name: str) -> Query:
    """Where a query shows how far it is."""
    prefix, query = rig.cluster.topic_prefix, rig.scenario.queries[name]
    folder = rig.scratch / "output" / (rig.scenario.output(name).parquet or name) / "_spark_metadata"

    def in_kafka() -> int:
        return sum(topics.end_offsets(rig.cluster.bootstrap, [prefix + query.topic])[prefix + query.topic].values())

    def in_files() -> int:
        return sum(1 for _ in (folder.glob("[0-9]*") if folder.is_dir() else folder.parent.glob("*.parquet")))

    return Query(rig.checkpoint.source(name), in_kafka if query.sink == "kafka" else in_files)
