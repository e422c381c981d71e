"""Every transform against the reference oracle, and the two forms of conversions against each other."""

from __future__ import annotations

import json
import os
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from harness.job.clickstream import events as workload
from harness.job.clickstream.events import TOPICS, Workload
from harness.job.clickstream.records import iso
from harness.job.clickstream.reference import of_one_batch
from harness.model import Record
from pipeline import queries, settings, transforms
from pipeline.schema import CLICKSTREAM, QUERIES, TRANSACTIONS

pytestmark = pytest.mark.spark

MINUTE = 60_000
T0 = 1_767_261_600_000  # 2026-01-01T10:00:00Z
FAR = T0 + 300 * MINUTE


def click(at_ms: int, user: str = "u", product: str = "p", session: str = "s") -> bytes:
    """A valid clickstream record."""
    fields = {"event_id": "e", "user_id": user, "session_id": session, "product_id": product, "category": "books"}
    return json.dumps(fields | {"action": "click", "timestamp": iso(at_ms)}).encode()


def buy(at_ms: int, user: str = "u", product: str = "p", amount: float = 1.25) -> bytes:
    """A valid transaction."""
    fields = {"transaction_id": "t", "user_id": user, "session_id": "s", "product_id": product, "category": "books"}
    own = {"amount": amount, "quantity": 1, "timestamp": iso(at_ms), "payment_method": "paypal"}
    return json.dumps(fields | own).encode()


def expected(query: str, clicks: list[bytes], transactions: list[bytes]) -> dict:
    """The oracle's rows, with every window closed."""
    streams = {CLICKSTREAM: [*clicks, click(FAR, "f", "f", "f")], TRANSACTIONS: [*transactions, buy(FAR, "f")]}
    records = [Record(topic, 0, at, value) for topic, values in streams.items() for at, value in enumerate(values)]
    return of_one_batch(records)[query].rows


def observed(query: str, frame: DataFrame) -> dict:
    """Rows of a result, in the form in which the oracle has them."""

    def plain(value: object) -> object:
        return iso(round(value.timestamp() * 1000)) if isinstance(value, datetime) else value

    names = QUERIES[query]
    rows = [row.asDict() for row in frame.collect()]
    assert all(set(row) == {*names.identity, *names.measures} for row in rows)
    return {tuple(plain(row[n]) for n in names.identity): tuple(plain(row[n]) for n in names.measures) for row in rows}


@pytest.fixture(scope="module")
def day() -> tuple[list[bytes], list[bytes]]:
    """Three hours of the workload, awkward and malformed records among it."""
    events = workload.batch(Workload(users=20, malformed=0.02, time_scale=1), 7, 1, 0, 10_000)
    pairs = list(zip(events.topic.tolist(), events.values, strict=True))
    return [v for t, v in pairs if TOPICS[t] == CLICKSTREAM], [v for t, v in pairs if TOPICS[t] == TRANSACTIONS]


@pytest.mark.parametrize(
    ("query", "compute"),
    [
        ("page_views", lambda clicks, buys: transforms.page_views(clicks)),
        ("revenue", lambda clicks, buys: transforms.revenue(buys)),
        ("sessions", lambda clicks, buys: transforms.sessions(clicks)),
        ("conversions", lambda clicks, buys: transforms.conversions(clicks, buys, "linear")),
        ("conversions", lambda clicks, buys: transforms.conversions(clicks, buys, "join")),
    ],
    ids=["page_views", "revenue", "sessions", "conversions linear", "conversions join"],
)
def test_every_row_is_the_oracles(day, records, query, compute):
    """To the value, over three hours of mixed data."""
    rows = expected(query, *day)

    assert len(rows) > 10
    assert rows == observed(query, compute(*records(*day)))


@pytest.mark.parametrize(("query", "form"), [*((query, "linear") for query in QUERIES), ("conversions", "join")])
def test_single_state_partition_needs_no_shuffle(spark, tmp_path, query, form):
    """Seen in the plan of a batch that was run: a watermark hides from Spark that there is one partition."""
    for topic, value in ((CLICKSTREAM, click(T0)), (TRANSACTIONS, buy(T0))):
        (tmp_path / topic).mkdir()
        (tmp_path / topic / "one").write_bytes(value)
    topics = [
        spark.readStream.text(str(tmp_path / topic)).selectExpr(
            "CAST(NULL AS binary) key", "CAST(value AS binary) value", f"'{topic}' topic", "0 partition", "0L offset"
        )
        for topic in QUERIES[query].reads
    ]
    flags = ["--bootstrap", "none", "--checkpoint", "none", "--output", "none", "--conversions", form]
    result = queries.compute(query, topics, settings.parse(flags)).writeStream.format("noop").trigger(availableNow=True)
    started = result.option("checkpointLocation", str(tmp_path / "checkpoint")).start()
    started.awaitTermination(60)

    plan = started._jsq.explainInternal(False)
    assert "Coalesce" in plan
    assert "Exchange" not in plan


HARD_CASES = {
    "no purchase": ([click(T0)], []),
    "exactly at the click": ([click(T0)], [buy(T0)]),
    "exactly ten minutes later": ([click(T0)], [buy(T0 + 10 * MINUTE)]),
    "a millisecond beyond": ([click(T0)], [buy(T0 + 10 * MINUTE + 1)]),
    "a millisecond before": ([click(T0)], [buy(T0 - 1)]),
    "several purchases": ([click(T0)], [buy(T0 + at * MINUTE) for at in range(8)]),
    "one purchase, many clicks": ([click(T0 + at * MINUTE) for at in range(12)], [buy(T0 + 11 * MINUTE)]),
    "last moment of a window": ([click(T0 + 5 * MINUTE - 1)], [buy(T0 + 15 * MINUTE - 1)]),
    "first moment of a window": ([click(T0 + 5 * MINUTE)], [buy(T0 + 5 * MINUTE)]),
    "purchases without a click": ([click(T0, product="other")], [buy(T0), buy(T0 + 7 * MINUTE)]),
    "another user": ([click(T0, user="v")], [buy(T0)]),
    "the same record twice": ([click(T0), click(T0)], [buy(T0), buy(T0)]),
}


@pytest.mark.parametrize("form", ["linear", "join"])
def test_both_variants_pass_hard_cases(records, form):
    """All cases in one run, each with products of its own."""
    clicks, buys = [], []
    for number, (some, more) in enumerate(HARD_CASES.values()):
        own = f'"c{number}-'.encode()
        clicks += [value.replace(b'"product_id": "', b'"product_id": ' + own) for value in some]
        buys += [value.replace(b'"product_id": "', b'"product_id": ' + own) for value in more]

    rows = expected("conversions", clicks, buys)
    assert rows == observed("conversions", transforms.conversions(*records(clicks, buys), form))


def test_revenue_keeps_every_cent(records):
    """A mean of 0.00625 rounds half up, and sums are decimals."""
    _, buys = records([], [buy(T0, amount=0.05), *(buy(T0, amount=0.0) for _ in range(7))])

    assert [(8, Decimal("0.05"), Decimal("0.0063"))] == list(observed("revenue", transforms.revenue(buys)).values())


def streamed(spark: SparkSession, folder: Path, steps: list[tuple[list[bytes], list[bytes]]], form: str) -> dict:
    """Conversions of a stream that takes one step a batch; records come from files, a folder a topic."""
    schema = "value string, offset long"
    for number, step in enumerate(steps):
        for topic, values in zip((CLICKSTREAM, TRANSACTIONS), step, strict=True):
            target = folder / topic
            target.mkdir(parents=True, exist_ok=True)
            lines = [
                json.dumps({"value": value.decode(), "offset": 1000 * number + at}) for at, value in enumerate(values)
            ]
            path = target / f"{number:03d}.json"
            path.write_text("\n".join(lines))
            os.utime(path, (number, number))  # Spark takes files in order of their times

    def source(topic: str) -> DataFrame:
        files = spark.readStream.schema(schema).option("maxFilesPerTrigger", 1).json(str(folder / topic))
        return files.selectExpr(
            "CAST(NULL AS binary) key", "CAST(value AS binary) value", f"'{topic}' topic", "0 partition", "offset"
        )

    result = transforms.conversions(source(CLICKSTREAM), source(TRANSACTIONS), form)
    name = f"conversions_{form}"
    writer = result.writeStream.format("memory").queryName(name).outputMode("append")
    query = writer.option("checkpointLocation", str(folder / form)).trigger(availableNow=True).start()
    assert query.awaitTermination(120)
    return observed("conversions", spark.table(name))


def test_both_variants_drop_only_beyond_delay(spark, tmp_path):
    """A click 4 minutes behind the newest counts; one an hour behind the watermark does not."""
    minute = [([click(T0 + at * MINUTE)], [buy(T0 + at * MINUTE)]) for at in range(0, 60, 2)]
    late = [([click(T0 + 54 * MINUTE + 1)], [buy(T0 + 54 * MINUTE + 2)])]
    gone = [([click(T0 - 60 * MINUTE)], [buy(T0 - 60 * MINUTE)])]
    flush = [([click(FAR)], [buy(FAR)])] * 2
    kept = minute + late

    rows = expected(
        "conversions", [value for clicks, _ in kept for value in clicks], [v for _, buys in kept for v in buys]
    )
    steps = kept + gone + flush
    assert rows == streamed(spark, tmp_path / "a", steps, "linear")
    assert rows == streamed(spark, tmp_path / "b", steps, "join")
