"""What the exact oracle believes of Spark, held against Spark: lateness, emission, drops, watermarks, restarts.

Hard random histories run through the pipeline's own transforms, one step a batch; rows, the batch that
emits each, and the rows that each batch reports as dropped must be the oracle's. A Spark that changes one
of its rules is noticed here.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from random import Random

import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from harness.engines.spark.watermarks import watermarks_after
from harness.job.clickstream.records import iso, parse
from harness.job.clickstream.reference import Expected, Reference, Rules
from harness.job.lateness import Watermarks
from harness.model import Record
from pipeline import transforms
from pipeline.schema import CLICKSTREAM, QUERIES, TRANSACTIONS

pytestmark = pytest.mark.spark

MINUTE = 60_000
T0 = 1_767_261_600_000  # 2026-01-01T10:00:00Z
Step = tuple[list[bytes], list[bytes]]


def click(at_ms: int, number: int, user: str = "u", session: str = "s") -> bytes:
    """A valid clickstream record."""
    fields = {"event_id": f"e{number}", "user_id": user, "session_id": session, "product_id": "p", "category": "c"}
    return json.dumps(fields | {"action": "view", "timestamp": iso(at_ms)}).encode()


def buy(at_ms: int, number: int, user: str = "u") -> bytes:
    """A valid transaction."""
    fields = {"transaction_id": f"t{number}", "user_id": user, "session_id": "s", "product_id": "p", "category": "c"}
    own = {"amount": 1.25, "quantity": 1, "timestamp": iso(at_ms), "payment_method": "paypal"}
    return json.dumps(fields | own).encode()


def hard_history(seed: int, steps: int = 9) -> list[Step]:
    """Times that go on by minutes, with events on window edges, late ones, far late ones, copies and idle sources."""
    rng, now, number = Random(seed), T0, 0
    history: list[Step] = []
    edges = (
        0,
        1,
        MINUTE - 1,
        MINUTE,
        5 * MINUTE,
        10 * MINUTE,
        10 * MINUTE + 1,
        30 * MINUTE,
        30 * MINUTE + 1,
        90 * MINUTE,
    )
    for _ in range(steps):
        now += rng.choice((0, MINUTE, 7 * MINUTE, 31 * MINUTE))
        step: Step = ([], [])
        for side, make in ((0, click), (1, buy)):
            if rng.random() < 0.15:
                continue
            for _ in range(rng.randint(1, 6)):
                number += 1
                at = now - rng.choice(edges) + rng.choice((0, 0, 1, -1, 5 * MINUTE))
                user = rng.choice("uv")
                made = click(at, number, user, rng.choice("st")) if make is click else buy(at, number, user)
                step[side].extend([made] * rng.choice((1, 1, 1, 2)))
        history.append(step)
    # The end closes everything; in two steps, because a watermark counts from the batch after.
    far = [now + ahead * MINUTE for ahead in (300, 301)]
    return [*history, *(([click(at, at, "f", "f")], [buy(at, at, "f")]) for at in far)]


@dataclass
class Seen:
    """What Spark did: rows with the batch that emitted each, drops by batch, watermarks, and what each batch read."""

    rows: dict[tuple, tuple] = field(default_factory=dict)
    batch: dict[tuple, int] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)
    watermarks: list[int] = field(default_factory=list)
    read: dict[tuple[str, int], int] = field(default_factory=dict)
    starts: set[int] = field(default_factory=set)


def run(
    spark: SparkSession, folder: Path, history: list[Step], query: str, make: Callable, restart_at: int | None
) -> Seen:
    """Stream the history, one step a batch; with a restart from the checkpoint after some steps."""
    seen = Seen()
    parts = [history] if restart_at is None else [history[:restart_at], history[restart_at:]]
    done = 0
    for part in parts:
        for step in part:
            write(folder, done, step)
            done += 1
        commits = folder / "checkpoint" / "commits"
        seen.starts.add(len(list(commits.glob("[0-9]*"))) if commits.is_dir() else 0)
        stream(spark, folder, query, make, seen)
    log(folder, query, seen)
    return seen


def write(folder: Path, number: int, step: Step) -> None:
    """One file a topic; Spark takes files in order of their times."""
    for topic, values in zip((CLICKSTREAM, TRANSACTIONS), step, strict=True):
        target = folder / topic / f"{number:03d}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"value": value.decode(), "offset": 1000 * number + at}) for at, value in enumerate(values)]
        target.write_text("\n".join(lines))
        os.utime(target, (number + 1, number + 1))


def stream(spark: SparkSession, folder: Path, query: str, make: Callable, seen: Seen) -> None:
    """Run until everything there is has been read."""

    def source(topic: str) -> DataFrame:
        reader = spark.readStream.schema("value string, offset long").option("maxFilesPerTrigger", 1)
        return reader.json(str(folder / topic)).selectExpr(
            "CAST(NULL AS binary) key", "CAST(value AS binary) value", f"'{topic}' topic", "0 partition", "offset"
        )

    def plain(value: object) -> object:
        return iso(round(value.timestamp() * 1000)) if isinstance(value, datetime) else value

    def take(frame: DataFrame, batch: int) -> None:
        for row in frame.collect():
            key = tuple(plain(row[name]) for name in QUERIES[query].identity)
            assert key not in seen.rows
            seen.rows[key] = tuple(plain(row[name]) for name in QUERIES[query].measures)
            seen.batch[key] = batch

    writer = make(*(source(topic) for topic in QUERIES[query].reads)).writeStream.foreachBatch(take)
    started = writer.option("checkpointLocation", str(folder / "checkpoint")).trigger(availableNow=True).start()
    assert started.awaitTermination(180)
    for progress in started.recentProgress:
        rows = sum(one["numRowsDroppedByWatermark"] for one in progress["stateOperators"])
        if "addBatch" in progress["durationMs"]:
            seen.dropped[progress["batchId"]] = rows


def log(folder: Path, query: str, seen: Seen) -> None:
    """The checkpoint's own log: watermarks, and the batch that read each step of each topic."""
    numbers = sorted(int(one.name) for one in (folder / "checkpoint" / "commits").glob("[0-9]*"))
    for number in numbers:
        lines = (folder / "checkpoint" / "offsets" / str(number)).read_text().splitlines()
        seen.watermarks.append(json.loads(lines[1])["batchWatermarkMs"])
        for topic, line in zip(QUERIES[query].reads, lines[2:], strict=True):
            if line != "-":
                for step in range(json.loads(line)["logOffset"] + 1):
                    seen.read.setdefault((topic, step), number)


def oracle(history: list[Step], query: str, seen: Seen, rules: Rules) -> Expected:
    """What the oracle makes of the same log."""
    marks = Watermarks(tuple(seen.watermarks))
    reference = Reference(dict.fromkeys(("page_views", "revenue", "conversions", "sessions"), marks), rules)
    for number, step in enumerate(history):
        for topic, values in zip((CLICKSTREAM, TRANSACTIONS), step, strict=True):
            for at, value in enumerate(values):
                record = Record(topic, 0, 1000 * number + at, value)
                if (topic, number) in seen.read:
                    reference.add(record, parse(record), {query: seen.read[topic, number]})
    return reference.expected()[query]


def newest(history: list[Step], query: str, seen: Seen) -> list[dict[str, int]]:
    """For each batch the newest event time that it read, by topic."""
    found: list[dict[str, int]] = [{} for _ in seen.watermarks]
    for (topic, number), batch in seen.read.items():
        values = history[number][(CLICKSTREAM, TRANSACTIONS).index(topic)]
        times = [parse(Record(topic, 0, 0, value)).at_ms for value in values]
        if times:
            found[batch][topic] = max([*times, found[batch].get(topic, 0)])
    return found


CASES = {
    "page_views": ("page_views", transforms.page_views, Rules()),
    "revenue": ("revenue", transforms.revenue, Rules()),
    "sessions": ("sessions", transforms.sessions, Rules()),
    "conversions linear": ("conversions", partial(transforms.conversions, form="linear"), Rules()),
    "conversions join": ("conversions", partial(transforms.conversions, form="join"), Rules(conversions="join")),
    "page_views once": ("page_views", partial(transforms.page_views, once=True), Rules(deduplicate=True)),
    "sessions once": ("sessions", partial(transforms.sessions, once=True), Rules(deduplicate=True)),
    "conversions once": (
        "conversions",
        partial(transforms.conversions, form="linear", once=True),
        Rules(deduplicate=True),
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("seed", "restart_at", "one_task"),
    [(1, None, False), (2, 5, True)],
    ids=["one run", "restarted, in one task"],
)
def test_spark_does_what_the_oracle_says(spark, tmp_path, case, seed, restart_at, one_task):
    """Rows, the batch that emits each, drops by batch, and the watermark of every batch."""
    query, make, rules = CASES[case]
    make = partial(make, one_task=one_task)
    history = hard_history(seed)
    seen = run(spark, tmp_path, history, query, make, restart_at)
    answer = oracle(history, query, seen, rules)

    assert len(answer.rows) > 2
    assert answer.rows == seen.rows
    assert answer.batch == seen.batch
    assert answer.dropped == {batch: rows for batch, rows in seen.dropped.items() if rows}
    law = watermarks_after(newest(history, query, seen), QUERIES[query].reads, seen.starts, 5 * MINUTE)
    assert law[: len(seen.watermarks)] == seen.watermarks


@pytest.mark.parametrize("in_sink", [True, False])
def test_replayed_committed_batch_moves_no_watermark(spark, tmp_path, in_sink):
    """The sink skips it, so nothing of it is run: its events are not seen by the watermark. Otherwise it is run again."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.json").write_text(json.dumps({"at": iso(T0)}))

    def run() -> int:
        events = spark.readStream.schema("at TIMESTAMP").json(str(tmp_path / "in")).withWatermark("at", "5 minutes")
        counted = events.groupBy(F.window("at", "1 minute")).count()
        places = {"checkpointLocation": str(tmp_path / "checkpoint"), "path": str(tmp_path / "out")}
        query = counted.writeStream.format("parquet").options(**places).trigger(availableNow=True).start()
        query.awaitTermination()
        committed = (tmp_path / "checkpoint" / "commits" / "0").read_text().splitlines()[1]
        return json.loads(committed)["nextBatchWatermarkMs"]

    spark.conf.set("spark.sql.streaming.noDataMicroBatches.enabled", "false")
    try:
        assert T0 - 5 * MINUTE == run()
        (tmp_path / "checkpoint" / "commits" / "0").unlink()
        (tmp_path / "checkpoint" / "commits" / ".0.crc").unlink(missing_ok=True)
        if not in_sink:
            shutil.rmtree(tmp_path / "out" / "_spark_metadata")
        assert (0 if in_sink else T0 - 5 * MINUTE) == run()
    finally:
        spark.conf.unset("spark.sql.streaming.noDataMicroBatches.enabled")
