"""A right run without Kafka and Spark: a directory as a run would leave it, whose every row is the oracle's own.

For testing what judges runs, and for timing it. It proves nothing about a pipeline.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from harness import scenario as scenarios
from harness.engines.spark.watermarks import watermarks_after
from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import INPUT, QUERIES, WATERMARK_DELAY_S
from harness.job.clickstream.events import TOPICS
from harness.judge import timeline
from harness.judge.metrics import Array
from harness.load.engine import Journal
from harness.model import Row
from harness.rundir import history
from harness.rundir.events import Commit, Deleted, Event, Process, Progress, Sample, encode
from harness.rundir.history import FORMAT
from harness.scenario import Scenario

START_S = 1_767_000_000.0
BATCH_S = 1.5
COMMIT_S = 0.5
CHUNK = 50_000


def simulate(directory: Path, scenario: Scenario, expired_s: float | None = None) -> None:
    """Write the run directory of a pipeline that reads every 1.5 s and commits half a second later.

    At `expired_s` seconds of load all that is in partition 0 of the clickstream is deleted.
    """
    (directory / "logs").mkdir(parents=True)
    (directory / "scenario.toml").write_text(scenarios.dump(scenario), encoding="utf-8")
    manifest = {
        "format": FORMAT,
        "events_format": workload.FORMAT,
        "topic_prefix": "",
        "cores": 2,
        "memory_bytes": 0,
        "machine": "none: simulated",
        "python": "",
        "git": None,
        "versions": {},
        "command": ["run", scenario.name],
        "started_s": START_S,
    }
    (directory / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    sent = _sent(directory, scenario)
    events: list[Event] = [Process(t=START_S - 5, event="start", pid=1)]
    for number, query in enumerate(QUERIES):
        events += _checkpoint(directory, query, sent, 0.1 * number, expired_s)
    if expired_s is not None:
        events.append(_deletion(sent, expired_s))
    events += [_sample(at) for at in range(-5, round(float(sent["due_us"].max()) / 1e6 - START_S) + 5)]
    _write_history(directory, events)
    gathered = timeline.gather(history.read(directory))
    for query, answer in timeline.expected(gathered).items():
        batches = gathered.batches[query]
        rows = [
            Row(key, tuple(map(_plain, values)), f"{query}-0@{at}", batches[answer.batch.get(key, 0)].committed_s - 0.1)
            for at, (key, values) in enumerate(answer.rows.items())
        ]
        history.write_rows(directory, query, rows)
        events += [_progress(query, batch.number, batch.committed_s, answer.dropped) for batch in batches]
    _write_history(directory, events)


def _plain(value: Any) -> Any:
    return (
        sorted(value)[0]
        if isinstance(value, frozenset)
        else str(value)
        if not isinstance(value, int | float | str)
        else value
    )


def _write_history(directory: Path, events: list[Event]) -> None:
    lines = [encode(event) for event in sorted(events, key=lambda event: event.t)]
    (directory / "history.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sent(directory: Path, scenario: Scenario) -> Mapping[str, Array]:
    load, shape = scenario.load, scenario.workload
    total = load.events
    journal = Journal(np.arange(total + len(TOPICS)))
    columns = journal.columns
    for first in range(0, total, CHUNK):
        rows = slice(first, min(total, first + CHUNK))
        drawn = workload.draw(shape, load.seed, load.eps, np.arange(rows.start, rows.stop, dtype=np.uint64))
        columns["topic"][rows] = drawn.topic
        columns["event_time_ms"][rows], columns["malformed"][rows] = drawn.event_time_ms, drawn.malformed
        columns["copy"][rows], columns["partition"][rows] = drawn.copy, drawn.user % scenario.kafka.partitions
    for row, flush in enumerate(workload.flush(shape, int(columns["event_time_ms"][:total].max())), start=total):
        columns["topic"][row], columns["event_time_ms"][row] = row - total, flush.event_time_ms
        columns["flush"][row] = True
    columns["due_us"][:] = ((START_S + np.arange(total + len(TOPICS)) / load.eps) * 1e6).astype(np.int64)
    columns["sent_us"][:], columns["acked_us"][:] = columns["due_us"] + 100, columns["due_us"] + 5_000
    for topic in range(len(TOPICS)):
        for partition in range(scenario.kafka.partitions):
            mine = np.flatnonzero((columns["topic"] == topic) & (columns["partition"] == partition))
            columns["offset"][mine] = np.arange(len(mine))
    journal.write(directory / "sent.parquet")
    return columns | {"name": np.array(TOPICS)[columns["topic"]]}


def _deletion(sent: Mapping[str, Array], expired_s: float) -> Deleted:
    """The event of a deletion of all that was acknowledged before."""
    at_s = START_S + expired_s
    before = int(sent["offset"][_in_partition(sent) & (sent["acked_us"] / 1e6 < at_s)].max()) + 1
    return Deleted(t=at_s, topic=INPUT[0], partition=0, before_offset=before, at_s=at_s)


def _in_partition(sent: Mapping[str, Array]) -> Array:
    """Rows of partition 0 of the clickstream."""
    chosen: Array = (sent["name"] == INPUT[0]) & (sent["partition"] == 0)
    return chosen


def _checkpoint(
    directory: Path, query: str, sent: Mapping[str, Array], offset_s: float, expired_s: float | None
) -> list[Commit]:
    """Offsets and commits of the query's batches; returns the commits' events."""
    index = ((sent["acked_us"] / 1e6 - START_S - offset_s) // BATCH_S + 1).astype(np.int64)
    count = int(index.max()) + 1
    reads = QUERIES[query].reads
    gone = np.zeros(len(index), dtype=bool)
    if expired_s is not None:
        reads_at_s = offset_s + index * BATCH_S + COMMIT_S
        gone = _in_partition(sent) & (sent["acked_us"] / 1e6 < START_S + expired_s) & (reads_at_s > expired_s)
    newest = _newest(sent, np.where(gone, count, index), count, reads)
    ends = _ends(sent, index, count, reads)
    marks = watermarks_after(newest, reads, {0}, WATERMARK_DELAY_S * 1000)
    events = []
    # After the last batch that read something there is one without data, which emits what the watermark lets go.
    for number in range(count + 1):
        committed = START_S + offset_s + number * BATCH_S + COMMIT_S
        at = min(number, count - 1)
        offsets = [
            json.dumps({topic: {str(part): int(end[at]) for part, end in ends[topic].items()}}) for topic in reads
        ]
        lines = ["v1", json.dumps({"batchWatermarkMs": marks[number]}), *offsets]
        for log, text in (("offsets", "\n".join(lines)), ("commits", "v1\n{}")):
            path = directory / "checkpoints" / query / log / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            os.utime(path, (committed, committed))
        events.append(Commit(t=committed, query=query, batch=number, committed_s=committed, begun_s=committed))
    return events


def _newest(sent: Mapping[str, Array], index: Array, count: int, reads: tuple[str, ...]) -> list[dict[str, int]]:
    """For each batch the newest event time that it read, by topic."""
    newest: list[dict[str, int]] = [{} for _ in range(count)]
    for topic in reads:
        rows = (sent["malformed"] == 0) & (sent["name"] == topic) & (index < count)
        latest = np.full(count, -1, dtype=np.int64)
        np.maximum.at(latest, index[rows], sent["event_time_ms"][rows])
        for number in np.flatnonzero(latest >= 0).tolist():
            newest[number][topic] = int(latest[number])
    return newest


def _ends(sent: Mapping[str, Array], index: Array, count: int, reads: tuple[str, ...]) -> dict[str, dict[int, Array]]:
    """By topic and partition the exclusive end of every batch."""
    partitions = np.unique(sent["partition"]).tolist()
    return {
        topic: {
            partition: np.cumsum(
                np.bincount(index[(sent["name"] == topic) & (sent["partition"] == partition)], minlength=count)
            )
            for partition in partitions
        }
        for topic in reads
    }


def _sample(second: int) -> Sample:
    """Half a core for everyone."""
    cpu = {f"{who}_cpu_s": 0.5 * (second + 10) for who in ("pipeline", "brokers", "generator", "harness", "machine")}
    rss = {f"{who}_rss": 10**8 for who in ("pipeline", "brokers", "generator", "harness")}
    return msgspec.convert({"t": START_S + second, "kind": "sample", "checkpoint_bytes": 10**6, **cpu, **rss}, Sample)


def _progress(query: str, batch: int, committed_s: float, dropped: Mapping[int, int]) -> Progress:
    operators = [{"numRowsDroppedByWatermark": dropped.get(batch, 0), "numRowsTotal": 1, "memoryUsedBytes": 1000}]
    progress = {"batchId": batch, "stateOperators": operators, "durationMs": {"triggerExecution": 500}}
    return Progress(t=committed_s + 0.01, query=query, batch=batch, progress=progress)
