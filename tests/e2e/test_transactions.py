"""A producer that commits and aborts: aborted records count nowhere, and neither markers nor gaps in offsets do harm."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import confluent_kafka
import pyarrow.parquet as pq
import pytest

from harness.engines.process import Checkpoint, System
from harness.host import jars
from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import CLICKSTREAM, QUERIES, WATERMARK_DELAY_S
from harness.job.clickstream.events import FLUSH_AHEAD_MS, TOPICS, Workload
from harness.kafka import topics
from harness.rundir.events import recording
from harness.runner.waiting import eventually

pytestmark = pytest.mark.e2e

ASKED = ("page_views", "dead_letter")
EVENTS = 100


class Transactional:
    """A transactional producer, and what is known of its records: the views that were committed, the newest event time."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.views = 0
        self.newest_ms = workload.start_ms(Workload())
        self._producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, "transactional.id": "aborts"})
        self._producer.init_transactions(30)
        self._sent = 0

    def events(self, *, commit: bool) -> None:
        """A transaction of events."""
        drawn = workload.batch(Workload(time_scale=600), 7, 100, self._sent, EVENTS)
        self._sent += EVENTS
        records = [(TOPICS[topic], value) for topic, value in zip(drawn.topic.tolist(), drawn.values, strict=True)]
        self.transact(records, commit=commit)
        self.newest_ms = max(self.newest_ms, int(drawn.event_time_ms.max()))
        self.views += commit * sum(topic == CLICKSTREAM for topic, _ in records)

    def flush(self) -> None:
        """A committed transaction that lets the watermark pass all windows before it, and an aborted one behind it."""
        self.transact([(event.topic, event.value) for event in workload.flush(Workload(), self.newest_ms)], commit=True)
        self.newest_ms += FLUSH_AHEAD_MS
        self.transact([(topic, b"aborted, and no JSON") for topic in TOPICS], commit=False)

    def transact(self, records: Sequence[tuple[str, bytes]], *, commit: bool) -> None:
        """One transaction, with its marker in each partition that it wrote to."""
        self._producer.begin_transaction()
        for topic, value in records:
            self._producer.produce(topic, value)
        assert 0 == self._producer.flush(30)
        (self._producer.commit_transaction if commit else self._producer.abort_transaction)(30)


@pytest.fixture(scope="module")
def producer(cluster) -> Transactional:
    """All topics of the contract, and a transactional producer."""
    names = [*TOPICS, *(query.topic for query in QUERIES.values())]
    topics.create(cluster.bootstrap, {name: {} for name in names}, 1, 1)
    return Transactional(cluster.bootstrap)


def all_is_emitted(producer: Transactional, folder: Path) -> None:
    """Run the pipeline until the follower has seen it commit up to the end of every partition, its markers included, and the
    watermark pass all windows before the last flush."""
    bootstrap, flushed_ms = producer.bootstrap, producer.newest_ms - WATERMARK_DELAY_S * 1000
    folder.mkdir(exist_ok=True)
    args = [sys.executable, "-m", "pipeline", "--bootstrap", bootstrap, "--jars", str(jars.spark_jars())]
    args += ["--checkpoint", f"{folder}/checkpoint", "--output", f"{folder}/output", "--queries", ",".join(ASKED)]
    args += [part for query in ASKED for part in ("--sink", f"{query}=parquet")]
    reads = {query: QUERIES[query].reads for query in ASKED}
    ends = topics.end_offsets(bootstrap, TOPICS)
    with recording(folder) as history:
        follower = Checkpoint(f"{folder}/checkpoint/{{query}}", folder / "followed", reads, history)
        system = System(args, folder / "pipeline.log", folder, history)
        goals = {
            query: {(topic, part): end for topic in topics for part, end in ends[topic].items()}
            for query, topics in reads.items()
        }

        def is_emitted() -> bool:
            follower.sweep()
            is_read = all(follower.reached(query, goal) for query, goal in goals.items())
            return is_read and follower.watermark_ms("page_views") >= flushed_ms

        def progress() -> int:
            return follower.read() + follower.watermark_ms("page_views")

        system.start()
        try:
            eventually(is_emitted, progress, "the rows of closed windows", look=system.check)
            assert system.stop()
        finally:
            system.close()


def rows(folder: Path, query: str) -> list[dict]:
    """The rows of a Parquet sink."""
    return pq.read_table(folder / "output" / query).to_pylist()


def test_aborted_transactions_are_not_counted(producer, tmp_path):
    """Neither in a first run that ends behind a marker, nor in one that begins there."""
    for number in range(4):
        producer.events(commit=number % 2 == 0)
    producer.flush()
    all_is_emitted(producer, tmp_path)

    assert producer.views == sum(row["view_count"] for row in rows(tmp_path, "page_views"))

    producer.flush()
    all_is_emitted(producer, tmp_path)

    # The first flush has one view, and the second has closed its window.
    assert producer.views + 1 == sum(row["view_count"] for row in rows(tmp_path, "page_views"))
    assert not rows(tmp_path, "dead_letter")
