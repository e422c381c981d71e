"""A streaming job on orders and payments. It knows nothing of the harness."""

import sys
from collections.abc import Iterator
from typing import Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.stateful_processor import StatefulProcessor, StatefulProcessorHandle

bootstrap, checkpoint, output, rates_csv, *only = sys.argv[1:]

ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"
TEN_MINUTES, FIFTEEN_MINUTES = 600_000, 900_000  # ms

spark = (
    SparkSession.builder.master("local[2]")
    .appName("orders")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.streaming.stateStore.providerClass", ROCKSDB)
    .config("spark.ui.enabled", "false")
    .config("spark.driver.host", "127.0.0.1")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .getOrCreate()
)
spark.sparkContext.setLogLevel("WARN")

ORDER = "order_id string, customer string, currency string, amount decimal(12,2), ordered_at timestamp"
PAYMENT = "payment_id string, order_id string, paid_at timestamp"


def source(topic: str, schema: str) -> DataFrame:
    """The records of a topic, parsed."""
    raw = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", "earliest")
        .load()
    )
    return raw.select(F.from_json(F.col("value").cast("string"), schema).alias("r")).select("r.*")


def orders() -> DataFrame:
    return source("orders", ORDER).withWatermark("ordered_at", "10 minutes")


def payments() -> DataFrame:
    return source("payments", PAYMENT).withWatermark("paid_at", "5 minutes")


def totals() -> DataFrame:
    """Orders and their sum, of five minutes and a currency."""
    windows = orders().groupBy(F.window("ordered_at", "5 minutes"), "currency")
    return windows.agg(F.count("*").alias("orders"), F.sum("amount").alias("total")).select(
        F.col("window.start").alias("window_start"),
        F.col("window.end").alias("window_end"),
        "currency",
        "orders",
        "total",
    )


def paid() -> DataFrame:
    """Each order with its payments of the next fifteen minutes, or without any."""
    bought = payments().withColumnRenamed("order_id", "paid_order")
    soon = F.expr("paid_order = order_id AND paid_at BETWEEN ordered_at AND ordered_at + INTERVAL 15 MINUTES")
    return orders().join(bought, soon, "leftOuter").select("order_id", "ordered_at", "amount", "payment_id", "paid_at")


def enriched() -> DataFrame:
    """Each order once, in euros."""
    rates = spark.read.csv(rates_csv, header=True, schema="currency string, rate decimal(8,4)")
    once = orders().dropDuplicatesWithinWatermark(["order_id"])
    return once.join(F.broadcast(rates), "currency").select(
        "order_id", "ordered_at", (F.col("amount") * F.col("rate")).alias("eur")
    )


class Fraud(StatefulProcessor):
    """An alert at a customer's third order within ten minutes; quiet once he has made none for fifteen."""

    def init(self, handle: StatefulProcessorHandle) -> None:
        self.handle = handle
        self.state = handle.getValueState("times", "times array<long>")

    def handleInputRows(self, key: Any, rows: Iterator[Row], timerValues: Any) -> Iterator[Row]:
        held = self.state.get()
        times = list(held[0]) if held else []
        found = []
        for at_ms in sorted(row.at_ms for row in rows):
            times = [before for before in times if before > at_ms - TEN_MINUTES] + [at_ms]
            if len(times) == 3:
                found.append(Row(customer=key[0], kind="alert", at_ms=at_ms))
        self.state.update((times,))
        for timer in list(self.handle.listTimers()):
            self.handle.deleteTimer(timer)
        self.handle.registerTimer(times[-1] + FIFTEEN_MINUTES)
        return iter(found)

    def handleExpiredTimer(self, key: Any, timerValues: Any, expiredTimerInfo: Any) -> Iterator[Row]:
        self.state.clear()
        yield Row(customer=key[0], kind="quiet", at_ms=expiredTimerInfo.getExpiryTimeInMs())

    def close(self) -> None:
        pass


def fraud() -> DataFrame:
    """Alerts and quiet customers."""
    made = orders().select("customer", F.unix_millis("ordered_at").alias("at_ms"), "ordered_at")
    schema = "customer string, kind string, at_ms long"
    return made.groupBy("customer").transformWithState(Fraud(), schema, "Append", "EventTime")


def to_kafka(rows: DataFrame, name: str) -> None:
    (
        rows.select(F.to_json(F.struct("*")).alias("value"))
        .writeStream.queryName(name)
        .format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("topic", name)
        .option("checkpointLocation", f"{checkpoint}/{name}")
        .outputMode("append")
        .start()
    )


def to_parquet(rows: DataFrame, name: str) -> None:
    (
        rows.coalesce(1)
        .writeStream.queryName(name)
        .format("parquet")
        .option("path", f"{output}/{name}")
        .option("checkpointLocation", f"{checkpoint}/{name}")
        .outputMode("append")
        .start()
    )


QUERIES = {
    "totals": (totals, to_kafka),
    "paid": (paid, to_parquet),
    "enriched": (enriched, to_parquet),
    "fraud": (fraud, to_kafka),
}

for name in only or QUERIES:
    query, start = QUERIES[name]
    start(query(), name)
spark.streams.awaitAnyTermination()
