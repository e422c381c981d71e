"""Injects the faults of a scenario: `harness.faults` knows how, and `Access` is what a fault can reach of a run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.engines.process import System, filled
from harness.engines.spark import sinks
from harness.errors import StackError, Unreachable, Unready
from harness.faults import KINDS, Fault, Outcome, Patience, Target, parts
from harness.faults.crash import Query
from harness.faults.network import Wire
from harness.faults.testbed import Broker as OfBroker
from harness.host.disks import Disk
from harness.job.clickstream.contract import INPUT
from harness.kafka import Broker, topics
from harness.rundir.events import Deleted
from harness.runner.testbed import Rig


def injected(rig: Rig, fault: Fault) -> Outcome:
    """Carry out one fault, from its injection until it has healed."""
    return KINDS[fault.kind].inject(Access(rig), fault)


@dataclass(frozen=True, slots=True)
class Access:
    """What a fault can reach of a run (`harness.faults.testbed.Testbed`)."""

    rig: Rig

    @property
    def patience(self) -> Patience:
        """How long a fault waits; it breaks off once the load is over."""
        return self.rig.patience

    @property
    def is_ours(self) -> bool:
        """Whether the pipeline is the one that comes with the harness."""
        return not self.rig.scenario.pipeline.command

    @property
    def pipeline(self) -> System:
        """The pipeline's process."""
        return self.rig.system

    def targets(self, fault: Fault) -> Mapping[str, Target]:
        """What the fault is on, by name; StackError where that is not there."""
        if fault.on in parts.SPARK:
            if self.rig.spark is None:
                raise StackError(f"fault on {fault.on}: there is no standalone cluster")
            return self.rig.spark.target(fault.on)
        if fault.on != parts.PIPELINE:
            return self.brokers(fault.on)
        if self.rig.scenario.pipeline.standby and not self.patience.until(self.pipeline.stands_by):
            raise StackError(f"fault {fault.kind}: no pipeline stands by after {self.patience.for_s:g} s")
        return {fault.on: self.pipeline}

    def brokers(self, on: str) -> Mapping[str, Broker]:
        """The brokers that a part names; StackError where there is none."""
        return parts.chosen(on, self.rig.cluster.brokers, *self._leaders())

    def followers(self, leader: OfBroker) -> Sequence[Broker]:
        """All brokers but one."""
        return [broker for broker in self.rig.cluster.brokers.values() if broker is not leader]

    def leads(self, brokers: Sequence[OfBroker]) -> bool:
        """Whether one of these brokers leads the first partition of the first input topic; only these are asked."""
        bootstrap = ",".join(broker.address for broker in brokers)
        try:
            topics.broker_ids(bootstrap)  # which is quick to find that none of them can be asked yet
        except (Unreachable, Unready):
            return False
        return topics.leader(bootstrap, self._first.name) in {broker.id for broker in brokers}

    def wires(self, on: str) -> Mapping[str, Wire]:
        """The connections of the clients of the brokers that a part names."""
        return parts.chosen(on, self.rig.wires, *self._leaders())

    def disk(self, name: str) -> Disk:
        """The small disk that was mounted for a part or a broker."""
        return self.rig.disks[name]

    def look(self) -> None:
        """Record the executors of a Spark cluster."""
        self.rig.look()

    def progress(self, query: str) -> Query:
        """Where a query shows how far it is: its checkpoint, and the size of its sink."""
        folder, sink = self._results_log(query).parent, self.rig.scenario.queries[query].sink
        rows = partial(self._rows_in_kafka, query) if sink == "kafka" else sinks.Growing(folder).rows
        return Query(self.rig.checkpoint.source(query), rows)

    def _rows_in_kafka(self, query: str) -> int:
        topic = self.rig.cluster.topic_prefix + self.rig.scenario.queries[query].topic
        return sum(topics.end_offsets(self.rig.cluster.bootstrap, [topic])[topic].values())

    def checkpoint(self, query: str) -> Path:
        """The folder of a query's checkpoint."""
        return self.rig.checkpoint.source(query)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """While the context lasts nobody else reads the checkpoint."""
        with self.rig.checkpoint.aside():
            yield
        self.rig.checkpoint.sweep()  # what was read meanwhile was read before the fault was over

    def results(self, query: str) -> int:
        """Batches that the log of a query's Parquet sink names."""
        return sum(1 for _ in self._results_log(query).glob("[0-9]*"))

    def _results_log(self, query: str) -> Path:
        return self.rig.scratch / "output" / (self.rig.scenario.output(query).parquet or query) / "_spark_metadata"

    def filled(self, command: Sequence[str]) -> list[str]:
        """A command line with its placeholders filled in."""
        return [filled(part, self.rig.places) for part in command]

    def scratch(self) -> Path:
        """A new empty folder, removed after the run."""
        return Path(tempfile.mkdtemp(prefix="kept-", dir=self.rig.scratch))

    def partitions(self) -> int:
        """Partitions of all input topics."""
        return topics.partitions(self.rig.cluster.bootstrap, self._inputs)

    def add_partitions(self) -> int:
        """Add one to each input topic; returns how many that are."""
        return topics.widen(self.rig.cluster.bootstrap, self._inputs)

    def partitions_used(self) -> int:
        """Partitions of input topics that have records."""
        ends = topics.end_offsets(self.rig.cluster.bootstrap, self._inputs)
        return sum(end > 0 for of_topic in ends.values() for end in of_topic.values())

    def log(self) -> Partition:
        """The first partition of the first input topic."""
        return self._first

    def has_passed(self) -> Callable[[int], bool]:
        """A function of an offset of `log`: whether the pipeline works and has gone on past it."""
        up_since: list[float] = []

        def stays_up() -> bool:
            up_since.append(time.time())
            return up_since[-1] - up_since[0] >= self.rig.scenario.pipeline.settle_s

        def has_passed(offset: int) -> bool:
            if not self.pipeline.is_up():
                return False
            if self.rig.scenario.black_box:  # what it has read is not known
                return stays_up()
            topic = self._first.topic
            readers = [name for name, query in self.rig.scenario.queries.items() if topic in query.reads]
            goal = {(self._first.name, self._first.partition): offset}
            return all(self.rig.checkpoint.reached(name, goal) for name in readers)

        return has_passed

    @property
    def _inputs(self) -> list[str]:
        return [self.rig.cluster.topic_prefix + topic for topic in INPUT]

    @property
    def _first(self) -> Partition:
        return Partition(self.rig, INPUT[0], 0)

    def _leaders(self) -> tuple[Callable[[], int], Callable[[], int]]:
        """Who leads the first partition of the first input topic, and who the quorum of controllers."""
        bootstrap = self.rig.cluster.bootstrap
        return partial(topics.leader, bootstrap, self._first.name), partial(topics.controller, bootstrap)


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of an input topic at the brokers of the rig; what is deleted from it is in the history."""

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
        """Remove what lies before an offset, and record what is gone."""
        topics.delete_records(self.rig.cluster.bootstrap, self.name, self.partition, before)
        begin, at_s = self.begin(), round(time.time(), 4)
        self.rig.history.write(Deleted(topic=self.topic, partition=self.partition, before_offset=begin, at_s=at_s))
