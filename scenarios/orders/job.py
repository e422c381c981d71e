"""A streaming job on orders and payments. It knows nothing of the harness."""

import sys

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

bootstrap, checkpoint, output, rates_csv, *only = sys.argv[1:]

spark = (
    SparkSession.builder.master("local[2]")
    .appName("orders")
    .config("spark.sql.shuffle.partitions", "2")
    .config("spark.sql.session.timeZone", "UTC")
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


QUERIES = {"totals": (totals, to_kafka), "paid": (paid, to_parquet), "enriched": (enriched, to_parquet)}

for name in only or QUERIES:
    query, start = QUERIES[name]
    start(query(), name)
spark.streams.awaitAnyTermination()
