"""A second, small implementation of two of the queries: no Spark, no checkpoint, other names.

An example of a pipeline that the harness knows nothing of but other_engine.toml. It reads both topics,
keeps its windows in memory, and writes each once the newest event time has passed its end by five minutes.

    python other_engine.py BOOTSTRAP PREFIX [DEFECT]
"""

from __future__ import annotations

import json
import signal
import sys
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal

from confluent_kafka import Consumer, Producer

from harness.job.clickstream.records import Click, Purchase, iso, parse
from harness.model import Record

MINUTE = 60_000
LENGTH = {"clickstream": MINUTE, "transactions": 5 * MINUTE}
RESULTS = {"clickstream": "views-by-minute", "transactions": "takings"}


class Windows:
    """The open windows of one topic, and the newest event time seen in it."""

    def __init__(self, topic: str) -> None:
        self.length = LENGTH[topic]
        self.newest = 0
        self.open: dict[int, dict[tuple[str, ...], list]] = defaultdict(lambda: defaultdict(list))

    def add(self, at_ms: int, group: tuple[str, ...], value: object) -> None:
        """Count an event, unless its window has been written."""
        start = at_ms // self.length * self.length
        if start + self.length > self.newest - 5 * MINUTE:
            self.open[start][group].append(value)
        self.newest = max(self.newest, at_ms)

    def closed(self):
        """(start, group, values) of every window that has just closed."""
        for start in sorted(start for start in self.open if start + self.length <= self.newest - 5 * MINUTE):
            for group, values in self.open.pop(start).items():
                yield start, group, values


def row(topic: str, start: int, group: tuple[str, ...], values: list, defect: str) -> dict[str, object]:
    """The result as JSON, under this engine's own names."""
    common = {"from": iso(start), "to": iso(start + LENGTH[topic])}
    if topic == "clickstream":
        return common | {"product": group[0], "category": group[1], "n": len(values), "people": len(set(values))}
    total = sum(values, Decimal(0)) + (1 if defect == "tip" else 0)
    mean = (total / len(values)).quantize(Decimal("0.0001"), "ROUND_HALF_UP")
    return common | {"category": group[0], "n": len(values), "sum": f"{total:.2f}", "mean": f"{mean}"}


def say_started(consumer: Consumer, partitions: list) -> None:
    """It reads from now on: what comes while it joins its group would be a backlog, read partition by partition."""
    print(json.dumps({"event": "started", "at": datetime.now(UTC).isoformat()}), flush=True)


def main(bootstrap: str, prefix: str, defect: str = "") -> None:
    """Read until told to stop."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "other", "auto.offset.reset": "earliest"})
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    consumer.subscribe([prefix + topic for topic in LENGTH], on_assign=say_started)
    windows = {topic: Windows(topic) for topic in LENGTH}
    while not stopped:
        for message in consumer.consume(1000, timeout=0.2):
            if message.error():
                continue
            topic = message.topic().removeprefix(prefix)
            match parse(Record(topic, message.partition(), message.offset(), message.value() or b"")):
                case Click() as click:
                    windows[topic].add(click.at_ms, (click.product, click.category), click.user)
                case Purchase() as purchase:
                    windows[topic].add(purchase.at_ms, (purchase.category,), purchase.amount)
        for topic, open_windows in windows.items():
            for start, group, values in open_windows.closed():
                producer.produce(prefix + RESULTS[topic], json.dumps(row(topic, start, group, values, defect)).encode())
        producer.poll(0)
    producer.flush(30)
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
