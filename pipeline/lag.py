"""How far the queries are behind the brokers, by partition; and, if asked, the offsets of a consumer group that shows it.

A thread asks the brokers for their end offsets: a batch that hangs reports nothing, and its lag grows all the same.
The offsets of the group are written and never read: those that count are in the checkpoint.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from pipeline import broker
from pipeline.broker import BrokerError
from pipeline.settings import Settings

LOOK_EVERY_S = 5.0
ENDS_WITHIN_S = 2.0
Place = tuple[str, int]
"""A topic and a partition of it."""


class Gauge(Protocol):
    """What lag is reported to."""

    def lag(self, query: str, topic: str, partition: int, records: int) -> None: ...
    def lag_failed(self) -> None: ...


class Unmeasured:
    """Nobody wants to know the lag: only the consumer group is written."""

    def lag(self, query: str, topic: str, partition: int, records: int) -> None:
        """Ignore it."""

    def lag_failed(self) -> None:
        """Ignore it."""


class Lag:
    """Committed offsets by query, from each batch's progress, compared with the brokers' ends."""

    def __init__(self, committed: Mapping[str, Mapping[Place, int]], gauge: Gauge, group: str | None) -> None:
        """`committed` are the exclusive ends, by query and partition, at the start."""
        self._committed = {query: dict(ends) for query, ends in committed.items()}
        self._gauge = gauge
        self._group = group
        self._written: dict[Place, int] = {}
        self._complained = False

    def batch(self, query: str, progress: Mapping[str, Any]) -> None:
        """Take the end offsets of a batch that has been committed."""
        ends = dict(self._committed.get(query, {}))
        for source in progress.get("sources") or ():
            ends |= offsets(source.get("endOffset"))
        self._committed[query] = ends  # another one: the thread has the old one

    def died(self, query: str) -> None:
        """Its lag grows."""

    def look(self, spark: SparkSession, admin: Any, topics: set[str]) -> None:
        """Compare with the brokers, and write the group where its offsets have changed."""
        if not isinstance(self._gauge, Unmeasured):
            self.compare(broker.ends(spark, admin, topics))
        wanted = of_group(self._committed)
        if self._group and wanted != self._written:
            broker.write_group(spark, admin, self._group, wanted)
            self._written = wanted

    def compare(self, ends: Mapping[Place, int]) -> None:
        """Report the lag of each query to each end of a topic that it reads."""
        for query, committed in self._committed.items():
            read = {topic for topic, _ in committed}
            for (topic, partition), end in ends.items():
                if topic in read:
                    self._gauge.lag(query, topic, partition, max(0, end - committed.get((topic, partition), 0)))

    def failed(self, error: BrokerError) -> None:
        """Count it, and report the first on standard error."""
        self._gauge.lag_failed()
        if not self._complained:
            self._complained = True
            print(f"pipeline: lag cannot be measured, or not written: {error}", file=sys.stderr)


def offsets(text: Any) -> dict[Place, int]:
    """The offsets of a source in Spark's progress: ``{topic: {partition: offset}}``, as JSON or read; empty for none."""
    read = json.loads(text) if isinstance(text, str) else text or {}
    return {(topic, int(part)): int(end) for topic, parts in read.items() for part, end in parts.items()}


def of_group(committed: Mapping[str, Mapping[Place, int]]) -> dict[Place, int]:
    """The offsets that every query has committed which reads the partition: the least of them."""
    found: dict[Place, int] = {}
    for ends in committed.values():
        for place, end in ends.items():
            found[place] = min(end, found.get(place, end))
    return found


@contextmanager
def followed(spark: SparkSession, settings: Settings, lag: Lag, topics: set[str]) -> Iterator[None]:
    """Look every `LOOK_EVERY_S` in a thread, and once more when the context ends."""
    stop = threading.Event()

    def follow() -> None:
        while not stop.is_set():
            try:
                with broker.client(spark, settings.bootstrap) as admin:
                    while not stop.wait(LOOK_EVERY_S):
                        lag.look(spark, admin, topics)
                    lag.look(spark, admin, topics)
            except BrokerError as error:
                lag.failed(error)
                stop.wait(LOOK_EVERY_S)
            except (Py4JError, OSError):  # Java has ended: the job reports it
                return

    thread = threading.Thread(target=follow, daemon=True, name="lag")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(ENDS_WITHIN_S)
