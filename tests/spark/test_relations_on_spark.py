"""The macros against Spark itself: rows, the batch of each, and drops, over a random history that is read a file a batch.

Sources have different delays, one of them is idle for a while, and the query is stopped and started again in the middle.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from harness.job import relations
from harness.job.lateness import Watermarks

pytestmark = pytest.mark.spark

T0 = 1_767_261_600_000
MINUTE = 60_000
DELAY = {"orders": 10 * MINUTE, "payments": 5 * MINUTE}
FILES = 8
Sources = Callable[[str], DataFrame]


@dataclass(frozen=True)
class Law:
    """A query of Spark, the SQL that must give its rows, and the topics that it reads."""

    query: Callable[[Sources], DataFrame]
    sql: str
    topics: tuple[str, ...] = ("orders",)
    groups: str = ""


def tumbled(source: Sources) -> DataFrame:
    """Windows of five minutes."""
    return counted(source("orders"), F.window("at", "5 minutes"))


def hopped(source: Sources) -> DataFrame:
    """Windows of ten minutes, every four."""
    return counted(source("orders"), F.window("at", "10 minutes", "4 minutes"))


def session(source: Sources) -> DataFrame:
    """Sessions of a key with a gap of five minutes."""
    return counted(source("orders"), F.session_window("at", "5 minutes"))


def counted(rows: DataFrame, window: Any) -> DataFrame:
    """Records and the sum of their numbers by window and key."""
    groups = rows.groupBy(window.alias("w"), "k").agg(F.count("*").alias("n"), F.sum("v").alias("v"))
    return groups.select(F.unix_millis("w.start").alias("start"), F.unix_millis("w.end").alias("end"), "k", "n", "v")


def joined(how: str) -> Callable[[Sources], DataFrame]:
    """Orders with the payments of their key within three minutes."""

    def query(source: Sources) -> DataFrame:
        paid = source("payments").select(F.col("k").alias("pk"), F.col("at").alias("pat"), F.col("v").alias("pv"))
        soon = F.expr("k = pk AND pat BETWEEN at AND at + INTERVAL 3 MINUTES")
        columns = ["k", "v"] if how == "leftSemi" else ["k", "v", "pv"]
        return source("orders").join(paid, soon, how).select(*columns)

    return query


def once(source: Sources) -> DataFrame:
    """Each number once, for as long as its delay."""
    return source("orders").dropDuplicatesWithinWatermark(["k", "m"]).select("k", "m")


def distinct(source: Sources) -> DataFrame:
    """Each pair of number and time once."""
    return source("orders").dropDuplicates(["k", "at"]).select("k", F.unix_millis("at").alias("at"))


JOIN = """
SELECT o.k, o.v, p.v AS pv,
       CASE WHEN p.v IS NOT NULL THEN greatest(o._batch, p._batch) END AS _batch,
       CASE WHEN p.v IS NULL THEN passed(o._time + INTERVAL 3 MINUTE) END AS _final
FROM on_time(orders) o {how} JOIN on_time(payments) p
  ON p.k = o.k AND p._time BETWEEN o._time AND o._time + INTERVAL 3 MINUTE
"""
COUNTED = """
SELECT epoch_ms({0}_start) AS start, epoch_ms({0}_end) AS "end", k, count(*) AS n, sum(v)::BIGINT AS v,
       {0}_end AS _final, {1} AS _batch
FROM {2} GROUP BY ALL
"""
BOTH = ("orders", "payments")
LAWS = {
    "tumble": Law(tumbled, COUNTED.format("window", "NULL::INT", "tumble(orders, INTERVAL 5 MINUTE)"), groups="window_start, k"),
    "hop": Law(hopped, COUNTED.format("window", "NULL::INT", "hop(orders, INTERVAL 10 MINUTE, INTERVAL 4 MINUTE)"), groups="window_start, k"),
    "session": Law(
        session,
        """
        SELECT epoch_ms(session_start) AS start, epoch_ms(session_end) AS "end", k, count(*) AS n, sum(v)::BIGINT AS v,
               session_end AS _final, max(_batch) AS _batch
        FROM session(orders, k, INTERVAL 5 MINUTE) GROUP BY k, session_start, session_end
        """,
    ),
    "inner join": Law(joined("inner"), JOIN.format(how="INNER"), BOTH),
    "left outer join": Law(joined("leftOuter"), JOIN.format(how="LEFT"), BOTH),
    "once": Law(once, "SELECT k, m, _batch FROM once(orders, (k, m))"),
    "distinct": Law(distinct, "SELECT k, epoch_ms(_time) AS at, min(_batch) AS _batch FROM on_time(orders) GROUP BY ALL"),
}  # fmt: skip


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a topic, a file a batch: records late, on edges and in order; payments are idle for two files."""
    folder, random = tmp_path_factory.mktemp("history"), Random(26)
    for topic in BOTH:
        (folder / topic).mkdir()
        for number in range(FILES):
            idle = topic == "payments" and number in (3, 4)
            rows = [] if idle else [_record(random, number) for _ in range(40)]
            if number == FILES - 1:
                rows = [{"k": "flush", "v": 0, "m": -1, "at": _iso(T0 + 1440 * MINUTE)}]
            path = folder / topic / f"{number:03d}.json"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
    return folder


def _record(random: Random, number: int) -> dict[str, Any]:
    """A record of a file: event time goes on by six minutes a file, and is up to thirty behind."""
    at_ms = T0 + number * 6 * MINUTE + random.randrange(6 * MINUTE)
    behind = random.random()
    if behind < 0.5:
        at_ms -= random.randrange((12 if behind < 0.35 else 30) * MINUTE)
    if random.random() < 0.3:
        at_ms = at_ms // MINUTE * MINUTE + random.choice((-1, 0, 1))
    return {"k": random.choice("abcde"), "v": random.randrange(1000), "m": random.randrange(30), "at": _iso(at_ms)}


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_a_macro_is_sparks_operator(spark: SparkSession, history: Path, tmp_path: Path, law: Law) -> None:
    """Row by row and batch by batch, with a restart after half of the files."""
    shown: list[tuple[int, dict[str, Any]]] = []
    drops: Counter[int] = Counter()

    def source(topic: str) -> DataFrame:
        rows = spark.readStream.schema("k string, v long, m long, at timestamp").option("maxFilesPerTrigger", 1)
        minutes = f"{DELAY[topic] // MINUTE} minutes"
        return rows.json(str(tmp_path / topic)).withWatermark("at", minutes)

    for numbers in (range(FILES // 2), range(FILES // 2, FILES)):
        for topic in law.topics:
            (tmp_path / topic).mkdir(exist_ok=True)
            for number in numbers:
                os.link(history / topic / f"{number:03d}.json", tmp_path / topic / f"{number:03d}.json")
        rows = law.query(source).writeStream.option("checkpointLocation", str(tmp_path / "checkpoint"))

        def take(frame: DataFrame, batch: int) -> None:
            shown.extend((batch, row.asDict()) for row in frame.collect())

        query = rows.foreachBatch(take).outputMode("append").trigger(availableNow=True).start()
        query.awaitTermination()
        for report in query.recentProgress:
            drops[report["batchId"]] = sum(state["numRowsDroppedByWatermark"] for state in report["stateOperators"])

    watermarks, read = offsets(tmp_path / "checkpoint", law.topics)
    with relations.database() as database:
        for topic in law.topics:
            database.register(topic, relation(history, topic, watermarks, read[topic]))
        answer = relations.expected(database, law.sql, watermarks)
        wanted = relations.dropped(database, law.sql, law.topics, law.groups)
    due = Counter((row.batch, _plain(row.columns)) for row in answer.rows if row.is_due)
    seen = Counter((batch, _plain({name: row[name] for name in answer.types})) for batch, row in shown)
    assert due == seen
    assert wanted is not None
    assert any(drops.values())
    assert [] == [
        batch for batch, count in drops.items() if not wanted.get(batch, relations.Dropped(0, 0)).holds(count)
    ]


def _plain(columns: Any) -> tuple[Any, ...]:
    return tuple(columns.values())


def offsets(checkpoint: Path, topics: tuple[str, ...]) -> tuple[Watermarks, dict[str, dict[int, int]]]:
    """The watermarks of batches, and of each topic which batch read each file."""
    marks: list[int] = []
    read: dict[str, dict[int, int]] = {topic: {} for topic in topics}
    for batch in sorted(int(path.name) for path in (checkpoint / "commits").glob("[0-9]*")):
        _, conf, *sources = (checkpoint / "offsets" / str(batch)).read_text().splitlines()
        marks.append(json.loads(conf)["batchWatermarkMs"])
        for topic, line in zip(topics, sources, strict=True):
            for number in range(0 if line == "-" else json.loads(line)["logOffset"] + 1):
                read[topic].setdefault(number, batch)
    return Watermarks(tuple(marks)), read


def relation(history: Path, topic: str, watermarks: Watermarks, read: dict[int, int]) -> pa.Table:
    """The records of a topic with the batch of each."""
    rows = [
        (number, json.loads(line))
        for number in range(FILES)
        for line in (history / topic / f"{number:03d}.json").read_text().splitlines()
    ]
    at_ms = np.array([round(datetime.fromisoformat(row["at"]).timestamp() * 1000) for _, row in rows])
    batch = np.array([read.get(number, -1) for number, _ in rows])
    fields = {"k": pa.array([row["k"] for _, row in rows])} | {
        name: pa.array([row[name] for _, row in rows]) for name in ("v", "m")
    }
    place = np.zeros(len(rows), dtype=int), np.arange(len(rows))
    return relations.relation(fields, at_ms, batch, *place, watermarks, DELAY[topic])
