"""Topics at the brokers: names, ids, and the first and last offset of each partition.

Queried through Spark's own Kafka client, so that the job needs no other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from pipeline.loss import Topic

ANSWERS_MS = 5_000
# A partition that has just lost its leader has a new leader within this time.
LEADS_MS = 20_000


class BrokerError(Exception):
    """No broker answers, or there can be none; the message is one line for a person."""


def names(spark: SparkSession, bootstrap: str) -> set[str]:
    """The names of all topics."""
    with client(spark, bootstrap, ANSWERS_MS) as admin:
        return set(admin.listTopics().names().get())


def topics(spark: SparkSession, bootstrap: str, wanted: Collection[str]) -> dict[str, Topic]:
    """Id and offsets of each wanted topic; every one must exist."""
    jvm: Any = spark._jvm
    with client(spark, bootstrap, LEADS_MS) as admin:
        described = _described(jvm, admin, wanted)
        places = _places(described, wanted)
        begins, ends = (_offsets(jvm, admin, places, spec) for spec in ("earliest", "latest"))
        return {
            name: Topic(
                str(described.get(name).topicId().toString()),
                {part: (begins[topic, part], ends[topic, part]) for topic, part in places if topic == name},
            )
            for name in wanted
        }


def ends(spark: SparkSession, admin: Any, wanted: Collection[str]) -> dict[tuple[str, int], int]:
    """The exclusive end offset of each partition of the wanted topics, by a client of `client`."""
    jvm: Any = spark._jvm
    return _offsets(jvm, admin, _places(_described(jvm, admin, wanted), wanted), "latest")


def write_group(spark: SparkSession, admin: Any, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    """Set a consumer group's offsets, by a client of `client`."""
    jvm: Any = spark._jvm
    java = jvm.java.util.HashMap()
    for place, offset in offsets.items():
        java.put(
            jvm.org.apache.kafka.common.TopicPartition(*place),
            jvm.org.apache.kafka.clients.consumer.OffsetAndMetadata(offset),
        )
    admin.alterConsumerGroupOffsets(group, java).all().get()


def _described(jvm: Any, admin: Any, wanted: Collection[str]) -> Any:
    asked = jvm.java.util.ArrayList()
    for name in sorted(wanted):
        asked.add(name)
    return admin.describeTopics(asked).allTopicNames().get()


def _places(described: Any, wanted: Collection[str]) -> list[tuple[str, int]]:
    return [(name, info.partition()) for name in sorted(wanted) for info in described.get(name).partitions()]


def _offsets(jvm: Any, admin: Any, places: Collection[tuple[str, int]], spec: str) -> dict[tuple[str, int], int]:
    asked = jvm.java.util.HashMap()
    at = getattr(jvm.org.apache.kafka.clients.admin.OffsetSpec, spec)()
    java = {place: jvm.org.apache.kafka.common.TopicPartition(*place) for place in places}
    for place in places:
        asked.put(java[place], at)
    answer = admin.listOffsets(asked).all().get()
    return {place: int(answer.get(java[place]).offset()) for place in places}


@contextmanager
def client(spark: SparkSession, bootstrap: str, timeout_ms: int = ANSWERS_MS) -> Iterator[Any]:
    """An admin client of Java's; an error of Kafka inside the context leaves it as a BrokerError."""
    jvm: Any = spark._jvm
    properties = jvm.java.util.Properties()
    for name, value in (
        ("bootstrap.servers", bootstrap),
        ("request.timeout.ms", str(ANSWERS_MS)),
        ("default.api.timeout.ms", str(timeout_ms)),
    ):
        properties.setProperty(name, value)
    admin = None
    try:
        admin = jvm.org.apache.kafka.clients.admin.Admin.create(properties)
        yield admin
    except Py4JJavaError as error:
        cause = error.java_exception.getCause() or error.java_exception
        if "TimeoutException" in cause.getClass().getName():
            raise BrokerError(
                f"no broker answers at {bootstrap} within {timeout_ms // 1000} s: is it running?"
            ) from error
        if admin is None:
            raise BrokerError(
                f"--bootstrap {bootstrap}: {cause.getMessage()}: HOST:PORT of brokers, joined by commas"
            ) from error
        raise BrokerError(f"{bootstrap}: {cause.toString()}") from error
    finally:
        if admin is not None:
            admin.close(jvm.java.time.Duration.ofMillis(0))
