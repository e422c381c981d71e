"""The queries: topics → transforms → sinks, one streaming query a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipeline import transforms
from pipeline.loss import Topic
from pipeline.schema import QUERIES, RESULT_BYTES_MAX
from pipeline.settings import Settings

AGAIN_SOON = {"kafka.retry.backoff.max.ms": "200", "kafka.reconnect.backoff.max.ms": "200"}
"""Kafka's clients wait up to a second between tries: that would come on top of every election of a leader."""
REHEARSED = 20_000
"""Records of a partition that a rehearsal reads, at most."""


def prepare(spark: SparkSession, settings: Settings) -> list[DataStreamWriter]:
    """Every query of the settings, ready to be started; no broker is asked for that, and no checkpoint looked at."""
    return [_prepare(spark, settings, name) for name in settings.queries]


def rehearse(
    spark: SparkSession, settings: Settings, topics: Mapping[str, Topic], scratch: str
) -> list[StreamingQuery]:
    """Start every query on the newest records of its topics, for one batch whose rows go nowhere; `scratch` is a folder.

    What a first batch takes longest for is then behind Java: to load Spark's classes, and to generate and compile ours.
    """
    newest = {
        name: json.dumps({name: {part: max(begin, end - REHEARSED) for part, (begin, end) in topic.spans.items()}})
        for name, topic in topics.items()
    }
    return [
        _rows(spark, settings, name, newest)
        .writeStream.queryName(name)
        .outputMode("append")
        .trigger(availableNow=True)
        .option("checkpointLocation", f"{scratch}/{name}")
        .format("noop")
        .start()
        for name in settings.queries
    ]


def _prepare(spark: SparkSession, settings: Settings, name: str) -> DataStreamWriter:
    writer = _rows(spark, settings, name, {}).writeStream
    writer = (
        writer.queryName(name)
        .outputMode("append")
        .trigger(processingTime=f"{settings.interval_ms(name)} milliseconds")
        .option("checkpointLocation", f"{settings.checkpoint}/{name}")
    )
    match settings.sinks[name]:
        case "kafka":
            writer = writer.format("kafka").options(**AGAIN_SOON).option("kafka.bootstrap.servers", settings.bootstrap)
            writer = writer.option("topic", settings.topic_prefix + QUERIES[name].topic)
            writer = writer.option("kafka.max.request.size", RESULT_BYTES_MAX)
        case "parquet":
            writer = writer.format("parquet").option("path", f"{settings.output}/{name}")
        case "console":
            writer = writer.format("console").option("truncate", "false")
    return writer


def _rows(spark: SparkSession, settings: Settings, name: str, begin: Mapping[str, str]) -> DataFrame:
    """The rows of a query as its sink takes them; topics are read from the offsets of the settings, or from those given."""
    records = [_topic(spark, settings, settings.topic_prefix + topic, begin) for topic in QUERIES[name].reads]
    result = compute(name, records, settings)
    return _as_records(result, name) if settings.sinks[name] == "kafka" else result


def compute(name: str, records: Sequence[DataFrame], settings: Settings) -> DataFrame:
    """The result of a query, from the records of the topics that it reads, in their order."""
    once, one_task = settings.deduplicate, settings.partitions == 1
    makers: dict[str, Callable[..., DataFrame]] = {
        "page_views": partial(transforms.page_views, once=once, one_task=one_task),
        "revenue": partial(transforms.revenue, once=once, one_task=one_task),
        "conversions": partial(transforms.conversions, form=settings.conversions, once=once, one_task=one_task),
        "sessions": partial(transforms.sessions, once=once, one_task=one_task),
        "dead_letter": partial(transforms.dead_letter, one_task=one_task),
    }
    result = makers[name](*records)
    if name == "dead_letter" and settings.metrics_port is not None:
        return result.observe(name, *transforms.rejections(settings.topic_prefix))
    return result


def _topic(spark: SparkSession, settings: Settings, topic: str, begin: Mapping[str, str]) -> DataFrame:
    reader = (
        spark.readStream.format("kafka")
        .options(**AGAIN_SOON)
        .option("kafka.bootstrap.servers", settings.bootstrap)
        .option("kafka.isolation.level", settings.isolation)
        .option("subscribe", topic)
        .option("startingOffsets", begin.get(topic, settings.starting_offsets))
        .option("failOnDataLoss", "false" if settings.accept_loss else "true")
    )
    if settings.max_offsets_per_trigger:
        reader = reader.option("maxOffsetsPerTrigger", settings.max_offsets_per_trigger)
    return reader.load()


def _as_records(result: DataFrame, name: str) -> DataFrame:
    """Rows as Kafka records: JSON keyed by the row's identity; a rejected record as it came, with headers."""
    if name == "dead_letter":
        pairs = [
            F.struct(F.lit(header).alias("key"), F.col(header).cast("string").cast("binary").alias("value"))
            for header in ("topic", "partition", "offset", "reason")
        ]
        return result.select("key", "value", F.array(*pairs).alias("headers"))
    query = QUERIES[name]
    times = {column for column, kind in result.dtypes if kind == "timestamp"}

    def text(column: str) -> Column:
        moment = F.date_format(column, "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'")
        return moment if column in times else F.col(column).cast("string")

    value = F.to_json(
        F.struct(
            *(
                text(column).alias(column) if column in times else F.col(column)
                for column in query.identity + query.measures
            )
        )
    )
    return result.select(F.concat_ws("|", *map(text, query.identity)).alias("key"), value.alias("value"))
