"""The open-loop engine: event n is due at start + n / eps, and is sent then or as soon after as can be.

It never waits for an answer before it goes on, and counts every delay from the due time: a stalled
producer cannot hide the stall that it is there to reveal. Events are made ahead of time, a slice of
the schedule at once, so that making them does not disturb the pace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import KafkaException

from harness.job.clickstream import events as workloads
from harness.job.clickstream.events import TOPICS, Events, Workload

Array = npt.NDArray[Any]
Clock = Callable[[], float]
Sleep = Callable[[float], None]

SLICE = 2_000
# A nap is as long as so many events take to fall due, between these bounds.
NAP_EVENTS, NAP_S = 5, (0.001, 0.005)
# A request waits for so many events, between these bounds.
# At 5,000/s this costs three brokers a fifth of what 5 ms cost them.
LINGER_EVENTS, LINGER_MS = 250, (5, 100)
ACKS = 1_000

# How long a record may be without an answer of the brokers. The client gives it up then; everybody else waits longer,
# so that the one message about it is the load engine's, which counts the records.
ACKNOWLEDGED_S = 120.0
# The client reports what it has given up a moment later, and a journal of millions of events takes seconds to write.
REPORT_S, JOURNAL_S = 10.0, 30.0

PRODUCER = {
    "compression.type": "lz4",
    "queue.buffering.max.messages": 400_000,
    "queue.buffering.max.kbytes": 262_144,
    "topic.metadata.refresh.interval.ms": 3_000,  # after which a new partition is written to
}


def settle_s(acknowledged_s: float = ACKNOWLEDGED_S) -> float:
    """Seconds after which each record that was sent is acknowledged, or known not to be."""
    return acknowledged_s + REPORT_S


def end_s(acknowledged_s: float = ACKNOWLEDGED_S) -> float:
    """Seconds without an acknowledgement after which the load engine's process has ended, with its message."""
    return settle_s(acknowledged_s) + JOURNAL_S


def producer_settings(eps: float | None, acks: str = "all", acknowledged_s: float = ACKNOWLEDGED_S) -> dict[str, Any]:
    """Settings of a confluent_kafka.Producer for a rate, None is unpaced, and for a scenario's `acks`."""
    linger_ms = int(np.clip(1000 * LINGER_EVENTS / eps, *LINGER_MS)) if eps else LINGER_MS[0]
    everyone = acks == "all"
    return PRODUCER | {
        "linger.ms": linger_ms,
        "acks": "all" if everyone else "1",
        "enable.idempotence": everyone,
        "delivery.timeout.ms": round(acknowledged_s * 1000),
    }


class Producer(Protocol):
    """What the engine needs of a Kafka client; confluent_kafka.Producer is one."""

    def produce(
        self, topic: str, value: bytes, key: bytes, *, timestamp: int, on_delivery: Callable[[Any, Any], None]
    ) -> None: ...
    def poll(self, timeout: float) -> int: ...
    def flush(self, timeout: float) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send: `eps` None is as fast as the client takes it; `start_at` is an epoch second.

    `segments` are (events per second, seconds) of each stretch of the schedule; without any it is steady.
    `share` is (index, count): this engine sends the events whose number modulo `count` is `index`.
    """

    workload: Workload
    seed: int
    eps: float | None
    events: int
    start_at: float
    event_eps: float = 1000.0
    segments: tuple[tuple[float, float], ...] = ()
    share: tuple[int, int] = (0, 1)

    @property
    def density(self) -> float:
        """Events a second by which event time advances, those of other engines included."""
        return self.eps or self.event_eps

    @property
    def numbers(self) -> Array:
        """The numbers of the events that this engine sends, ascending; shape (own events,), int64."""
        index, count = self.share
        return np.arange(index, self.events, count, dtype=np.int64)


@dataclass(slots=True)
class Journal:
    """What became of every event: times in epoch µs, 0 for never; offset −1 until acknowledged.

    `numbers` are those of its rows; the flush events have the numbers after the last of the plan.
    """

    numbers: Array
    sent: int = 0
    acknowledged: int = 0
    failed: int = 0
    first_error: str = ""
    acks: list[tuple[int, int, int, int]] = field(default_factory=list)
    columns: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        types = {"topic": np.uint8, "partition": np.int32, "malformed": np.uint8, "copy": np.bool_, "flush": np.bool_}
        names = (
            "topic",
            "partition",
            "offset",
            "due_us",
            "sent_us",
            "acked_us",
            "event_time_ms",
            "malformed",
            "copy",
            "flush",
        )
        self.columns = {name: np.zeros(self.size, dtype=types.get(name, np.int64)) for name in names}
        self.columns["offset"] -= 1

    @property
    def size(self) -> int:
        """Rows: all events that are planned, and the flush events."""
        return len(self.numbers)

    def settle_acks(self) -> None:
        """Put the acknowledgements that came since into their columns."""
        if self.acks:
            rows, partitions, offsets, times = np.array(self.acks, dtype=np.int64).T
            for name, values in (("partition", partitions), ("offset", offsets), ("acked_us", times)):
                self.columns[name][rows] = values
            self.acks.clear()

    def write(self, target: Path) -> None:
        """Write sent.parquet: a row for each event that was handed over, whole or not at all."""
        self.settle_acks()
        rows = self.columns["sent_us"] > 0
        table = {"n": pa.array(self.numbers[rows])}
        for name, column in self.columns.items():
            table[name] = pa.array(column[rows])
        topics = pa.DictionaryArray.from_arrays(table["topic"].cast(pa.int8()), list(TOPICS))
        temporary = target.with_name(target.name + ".tmp")
        pq.write_table(pa.table(table | {"topic": topics.cast(pa.string())}), temporary, compression="zstd")
        os.replace(temporary, target)


class Engine:
    """Sends a plan through a producer and keeps the journal. Clock and sleep come in as arguments."""

    def __init__(self, plan: Plan, producer: Producer, prefix: str, clock: Clock, sleep: Sleep) -> None:
        self._plan = plan
        self._producer = producer
        self._topics = [prefix + topic for topic in TOPICS]
        self._clock = clock
        self._sleep = sleep
        self._stopped = False
        self._nap_s = float(np.clip(NAP_EVENTS * plan.share[1] / plan.density, *NAP_S))
        self.flush_ms = 0
        # Why the client takes nothing any more; empty while it does.
        self.broken = ""
        numbers = plan.numbers
        self._own = len(numbers)
        self.journal = Journal(np.append(numbers, plan.events + np.arange(len(TOPICS))))

    def stop(self) -> None:
        """Send no further event."""
        self._stopped = True

    def run(self) -> None:
        """Send everything that is planned; returns once the last event is handed over."""
        for first, events, due in self._slices():
            self._send(first, events, due)
            if self._stopped:
                return

    @property
    def newest_ms(self) -> int:
        """The newest event time that was made, in epoch ms; the start of event time before there is any."""
        made = self.journal.columns["event_time_ms"][: self._own]
        return int(made.max(initial=workloads.start_ms(self._plan.workload)))

    def flush_events(self, newest_ms: int = 0) -> None:
        """Send the two events that let every window close, due now: after `newest_ms` of other engines too."""
        after_ms = max(self.newest_ms, newest_ms)
        for index, event in enumerate(workloads.flush(self._plan.workload, after_ms)):
            row = self._own + index
            self.flush_ms = event.event_time_ms
            now = self._clock()
            self._note(row, index, now, event.event_time_ms, malformed=0)
            self.journal.columns["flush"][row] = True
            if self._produce(row, self._topics[index], event.key, event.value, int(now * 1000)):
                self.journal.columns["sent_us"][row] = int(self._clock() * 1e6)
                self.journal.sent += 1

    @property
    def unacknowledged(self) -> int:
        """Records that were sent and are not acknowledged, failed or not."""
        return self.journal.sent - self.journal.acknowledged

    def settle(self, deadline_s: float, over: Callable[[], object] = lambda: False) -> bool:
        """Wait until every event is acknowledged or has failed; False when the deadline passes first, or it is `over`."""
        end = self._clock() + deadline_s
        while self.journal.acknowledged + self.journal.failed < self.journal.sent:
            if self._clock() >= end or over():
                break
            self._producer.poll(0.05)
        return self.journal.acknowledged + self.journal.failed == self.journal.sent

    def _slices(self) -> Iterator[tuple[int, Events, Array]]:
        plan = self._plan
        for first in range(0, self._own, SLICE):
            numbers = self.journal.numbers[first : min(first + SLICE, self._own)]
            drawn = workloads.draw(plan.workload, plan.seed, plan.density, numbers.astype(np.uint64))
            yield first, workloads.written(plan.workload, drawn), self._due(numbers)

    def _due(self, numbers: Array) -> Array:
        if self._plan.eps is None:
            return np.full(len(numbers), self._plan.start_at)
        if not self._plan.segments:
            return self._plan.start_at + numbers / self._plan.eps
        return self._plan.start_at + workloads.due_s(self._plan.segments, numbers)

    def _send(self, first: int, events: Events, due: Array) -> None:
        rows = slice(first, first + len(due))
        columns = self.journal.columns
        columns["topic"][rows] = events.topic
        columns["event_time_ms"][rows] = events.event_time_ms
        columns["malformed"][rows] = events.malformed
        columns["copy"][rows] = events.copy
        columns["due_us"][rows] = (due * 1e6).astype(np.int64)
        topics = [self._topics[topic] for topic in events.topic.tolist()]
        clock, produce = self._clock, self._produce
        sent_us: list[int] = []

        def note() -> None:
            """What is counted as sent has its time in the journal."""
            noted = self.journal.sent - first
            columns["sent_us"][first + noted : first + len(sent_us)] = sent_us[noted:]
            self.journal.sent = first + len(sent_us)

        for index, (moment, topic, key, value) in enumerate(
            zip(due.tolist(), topics, events.keys, events.values, strict=True)
        ):
            if moment > clock():
                note()
                self._wait(moment)
            if self._stopped:
                break
            if not produce(first + index, topic, key, value, int(moment * 1000)):
                break
            # Only now is it handed over: time spent waiting for room in the buffer is delay.
            sent_us.append(int(clock() * 1e6))
            if index % 64 == 63:
                self._producer.poll(0)
                note()
        note()

    def _wait(self, moment: float) -> None:
        """Waking for each event alone would cost more than sending it: what is due within a nap is sent after it."""
        while moment > self._clock() and not self._stopped:
            self._producer.poll(0)
            self._sleep(self._nap_s)

    def _note(self, row: int, topic: int, due: float, event_time_ms: int, malformed: int) -> None:
        for name, value in (
            ("topic", topic),
            ("due_us", int(due * 1e6)),
            ("event_time_ms", event_time_ms),
            ("malformed", malformed),
        ):
            self.journal.columns[name][row] = value

    def _produce(self, row: int, topic: str, key: bytes, value: bytes, timestamp_ms: int) -> bool:
        """Hand an event over, once there is room; false where a stop came before, or the client takes nothing any more."""
        while True:
            try:
                self._producer.produce(
                    topic, value, key, timestamp=timestamp_ms, on_delivery=partial(self._delivered, row)
                )
                return True
            except BufferError:
                if self._stopped:
                    return False
                self._producer.poll(0.01)
            except KafkaException as error:
                self.broken = str(error)
                self.stop()
                return False

    def _delivered(self, row: int, error: Any, message: Any) -> None:
        journal = self.journal
        if error is not None:
            journal.failed += 1
            journal.first_error = journal.first_error or str(error)
            return
        journal.acks.append((row, message.partition(), message.offset(), int(self._clock() * 1e6)))
        journal.acknowledged += 1
        if len(journal.acks) >= ACKS:
            journal.settle_acks()

    def delay_ms_p99(self, last: int = 5_000) -> float:
        """p99 of the generator delay over the last events that were sent."""
        sent = min(self.journal.sent, self._own)
        delays = self._delays_us(max(0, sent - last), sent)
        return round(float(np.percentile(delays, 99)) / 1e3, 3) if len(delays) else 0.0

    def delays_ms(self, since: int) -> tuple[int, list[tuple[int, int]]]:
        """(events sent until now, [(generator delay in whole ms, events)] of those sent after the first `since`)."""
        sent = min(self.journal.sent, self._own)
        values, counts = np.unique(self._delays_us(since, sent) // 1000, return_counts=True)
        return sent, list(zip(values.tolist(), counts.tolist(), strict=True))

    def _delays_us(self, first: int, last: int) -> Array:
        columns = self.journal.columns
        delays: Array = columns["sent_us"][first:last] - columns["due_us"][first:last]
        return delays[columns["sent_us"][first:last] > 0]  # flush events count as sent, and stand at the end
