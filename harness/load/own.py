"""The load of a declared job: each record is sent when it is due, by a thread, and what became of it is kept.

Open loop: event n is due at start + n / eps, and its delay counts from then. After the load, a record a topic far ahead
of all event times closes every window.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import confluent_kafka
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import StackError
from harness.job.declared import Job
from harness.job.draws import FLUSH, Array, Drawn, Records, written
from harness.load.engine import ACKNOWLEDGED_S, producer_settings

SLICE = 2_000
NAP_S = 0.002
# The columns of sent.parquet: the topic's index in the job, the record's number in it, times in epoch µs, and 0 for never.
COLUMNS = ("topic", "number", "partition", "offset", "due_us", "sent_us", "acked_us", "at_ms", "copy")


class Sender:
    """Sends the records of a job; `sent` and `acknowledged` count them, the flush records included."""

    def __init__(self, job: Job, records: Records, bootstrap: str, eps: float, events: int, log: Path) -> None:
        """`log` is where the Kafka client writes its messages."""
        self._job, self._records, self._eps, self._events = job, records, eps, events
        settings = {"bootstrap.servers": bootstrap, **producer_settings(eps, "all", ACKNOWLEDGED_S)}
        client = logging.Logger("librdkafka")
        # Once closed, it is not opened again: mode "a" would be.
        self._log = logging.FileHandler(log, mode="w", delay=True)
        client.addHandler(self._log)
        self._producer = confluent_kafka.Producer(settings, logger=client)
        topic, number = records.order(events)
        flushed = np.arange(len(job.topics))
        size = events + len(flushed)
        self._columns: dict[str, Array] = {name: np.zeros(size, dtype=np.int64) for name in COLUMNS}
        self._columns["topic"][:] = np.concatenate([topic, flushed])
        self._columns["number"][:] = np.concatenate([number, np.full(len(flushed), FLUSH)])
        self._columns["offset"] -= 1
        self._acks: list[tuple[int, int, int, int]] = []
        self._error = ""
        self._failed = 0
        self._enough = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self.sent = 0
        self.acknowledged = 0
        self.flush_ms = 0

    def start(self, at_s: float) -> None:
        """Have event 0 due at an epoch second."""
        self._thread = threading.Thread(
            target=self._guarded, args=(partial(self._send, at_s),), daemon=True, name="load"
        )
        self._thread.start()

    def flush(self, ahead_ms: int) -> None:
        """Send the flush records, so far ahead of the newest event time, once everything is acknowledged."""
        self.flush_ms = int(self._columns["at_ms"].max()) + ahead_ms
        self._thread = threading.Thread(target=self._guarded, args=(self._flush,), daemon=True, name="flush")
        self._thread.start()

    def finished(self) -> bool:
        """Whether everything that was to be sent is acknowledged. StackError where a record could not be sent."""
        if self._error:
            raise StackError(f"the load broke off: {self._failed} of {self.sent} records failed: {self._error}")
        return self._thread is not None and not self._thread.is_alive() and self.acknowledged == self.sent

    def enough(self) -> None:
        """Send nothing more of the load; the flush records can follow."""
        self._enough.set()

    def stop(self) -> None:
        """Send nothing more at all."""
        self._enough.set()
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(5.0)
        self._log.close()

    def write(self, target: Path) -> None:
        """Write sent.parquet: a row for each record that was handed over."""
        self._settle()
        rows = self._columns["sent_us"] > 0
        pq.write_table(pa.table({name: column[rows] for name, column in self._columns.items()}), target)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
            while self.acknowledged + self._failed < self.sent and not self._stopped.is_set():
                self._producer.poll(0.05)
                self._settle()
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"

    def _send(self, at_s: float) -> None:
        for first in range(0, self._events, SLICE):
            rows = np.arange(first, min(first + SLICE, self._events))
            keys, values = self._drawn(rows)
            due = at_s + rows / self._eps
            self._columns["due_us"][rows] = (due * 1e6).astype(np.int64)
            for row, due_s, key, value in zip(rows.tolist(), due.tolist(), keys, values, strict=True):
                while due_s > time.time() and not self._enough.is_set():
                    self._producer.poll(0)
                    time.sleep(min(NAP_S, max(0.0, due_s - time.time())))
                if self._enough.is_set():
                    return
                self._produce(row, key, value, due_s)
            self._settle()

    def _drawn(self, rows: Array) -> tuple[list[bytes], list[bytes]]:
        """(keys, values) of the records of these rows."""
        keys, values = [b""] * len(rows), [b""] * len(rows)
        for index, topic in enumerate(self._job.topics):
            mine = np.flatnonzero(self._columns["topic"][rows] == index)
            if len(mine):
                drawn = self._records.draw(topic.name, self._columns["number"][rows[mine]])
                self._note(rows[mine], drawn)
                for place, key, value in zip(mine.tolist(), *written(topic, drawn), strict=True):
                    keys[place], values[place] = key, value
        return keys, values

    def _flush(self) -> None:
        now = time.time()
        for index, topic in enumerate(self._job.topics):
            row = self._events + index
            drawn = self._records.flush(topic.name, self.flush_ms)
            self._note(np.array([row]), drawn)
            self._columns["due_us"][row] = int(now * 1e6)
            [key], [value] = written(topic, drawn)
            self._produce(row, key, value, now)

    def _note(self, rows: Array, drawn: Drawn) -> None:
        self._columns["at_ms"][rows], self._columns["copy"][rows] = drawn.at_ms, drawn.copy

    def _produce(self, row: int, key: bytes, value: bytes, due_s: float) -> None:
        topic = self._job.topics[self._columns["topic"][row]].name
        while not self._stopped.is_set():
            try:
                self._producer.produce(
                    topic, value, key or None, timestamp=int(due_s * 1000), on_delivery=partial(self._delivered, row)
                )
            except BufferError:
                self._producer.poll(0.01)
            else:
                self._columns["sent_us"][row] = int(time.time() * 1e6)
                self.sent += 1
                return

    def _delivered(self, row: int, error: Any, message: Any) -> None:
        if error is not None:
            self._failed += 1
            self._error = str(error)
            return
        self._acks.append((row, message.partition(), message.offset(), int(time.time() * 1e6)))
        self.acknowledged += 1

    def _settle(self) -> None:
        """Put the acknowledgements that came since into their columns."""
        if self._acks:
            rows, *columns = np.array(self._acks, dtype=np.int64).T
            for name, values in zip(("partition", "offset", "acked_us"), columns, strict=True):
                self._columns[name][rows] = values
            self._acks.clear()
