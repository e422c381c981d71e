"""Topics: made, removed, measured and read. Plain functions of a bootstrap address."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as RawMessage
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic, OffsetSpec  # type: ignore[attr-defined]

from harness.errors import StackError, Stalled, Unreachable, Unready
from harness.kafka.cluster import await_true

ADMIN_S = 30.0
STALLED_S = 30.0
# Errors of a broker that leads a partition by the metadata, and has not taken it on yet, or not any more.
MOVES = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
    }
)
# Quick to notice a broker that has come back, and silent about one that is away: that is often the point.
CLIENT: Mapping[str, Any] = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100, "log_level": 0}


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it lies in a topic; `timestamp_ms` is of the topic's timestamp type."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


def create(bootstrap: str, topics: Mapping[str, Mapping[str, str]], partitions: int, replication: int) -> None:
    """Make topics (name → its configuration) and wait until every partition has a leader."""
    admin = _admin(bootstrap)
    new = [NewTopic(name, partitions, replication, config=dict(config)) for name, config in topics.items()]
    _finish(admin.create_topics(new, operation_timeout=ADMIN_S), "created", bootstrap)
    with _one_line(bootstrap):
        led = await_true(lambda: _led(admin, topics, partitions), ADMIN_S)
    if not led:
        raise StackError(f"not every new topic has its leaders after {ADMIN_S:.0f} s: {', '.join(topics)}")


def delete(bootstrap: str, names: Collection[str]) -> None:
    """Remove topics and wait until they are gone; one that is not there is no error."""
    if not names:
        return
    admin = _admin(bootstrap)
    removed = admin.delete_topics(list(names), operation_timeout=ADMIN_S)
    _finish(removed, "deleted", bootstrap, forgive=KafkaError.UNKNOWN_TOPIC_OR_PART)
    with _one_line(bootstrap):
        gone = await_true(lambda: not set(names) & _names(admin), ADMIN_S)
    if not gone:
        raise StackError(f"the deleted topics are still there after {ADMIN_S:.0f} s ({bootstrap})")


def names(bootstrap: str) -> set[str]:
    """The topics that are there."""
    with _one_line(bootstrap):
        return _names(_admin(bootstrap))


def broker_ids(bootstrap: str, timeout_s: float = 1.0) -> set[int]:
    """The brokers that are in the metadata; one that is down is not among them after a while.

    Raises Unreachable where nothing answers in time, Unready where a broker answers that knows no controller.
    """
    try:
        metadata = _admin(bootstrap).list_topics(timeout=timeout_s)
    except KafkaException as error:
        reason = error.args[0].str()
        raise Unreachable(f"no Kafka answers at {bootstrap} within {timeout_s:g} s: {reason}") from error
    if metadata.controller_id < 0:
        raise Unready(f"Kafka at {bootstrap} answers, and knows no controller")
    return set(metadata.brokers)


def is_member(bootstrap: str, number: int) -> bool:
    """Whether a broker answers and is in the metadata that it gives."""
    try:
        return number in broker_ids(bootstrap)
    except (Unreachable, Unready):
        return False


def apart(addresses: Mapping[int, str]) -> str:
    """Why brokers (id → address) are not one cluster yet; empty where each has all of them in its metadata."""
    for number, address in addresses.items():
        try:
            missing = addresses.keys() - broker_ids(address)
        except (Unreachable, Unready) as error:
            return str(error)
        if missing:
            return f"broker {number} does not see broker {', '.join(map(str, sorted(missing)))}"
    return ""


def leader(bootstrap: str, topic: str, partition: int = 0) -> int:
    """The id of the broker that leads a partition; −1 while none does."""
    with _one_line(bootstrap):
        found = _admin(bootstrap).list_topics(topic, timeout=ADMIN_S).topics[topic].partitions[partition].leader
    return int(found)


def controller(bootstrap: str) -> int:
    """The id of the node that leads the quorum of controllers; −1 while none does."""
    # Asked of the other client: what ours calls the controller is any broker. Loaded here: it takes a while.
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","))
        try:
            quorum = admin.describe_metadata_quorum()
        finally:
            admin.close()
    except KafkaError as error:
        raise StackError(f"{bootstrap} does not answer which controller leads: {error}") from error
    return int(quorum["topics"][0]["partitions"][0]["leader_id"])


def partitions(bootstrap: str, names: Collection[str]) -> int:
    """How many partitions topics have together."""
    with _one_line(bootstrap):
        return len(_partitions(_admin(bootstrap), names))


def widen(bootstrap: str, names: Collection[str]) -> int:
    """Add a partition to each topic, and wait until they are led; how many those are."""
    admin = _admin(bootstrap)
    with _one_line(bootstrap):
        known = admin.list_topics(timeout=ADMIN_S).topics
    wanted = {name: len(known[name].partitions) + 1 for name in names}
    _finish(
        admin.create_partitions([NewPartitions(name, count) for name, count in wanted.items()]), "widened", bootstrap
    )
    with _one_line(bootstrap):
        led = await_true(lambda: all(_led(admin, [name], count) for name, count in wanted.items()), ADMIN_S)
    if not led:
        raise StackError(f"the new partitions have no leaders after {ADMIN_S:.0f} s: {', '.join(names)}")
    return len(wanted)


def end_offsets(bootstrap: str, topics: Collection[str]) -> dict[str, dict[int, int]]:
    """Topic → partition → the offset that the next message will get."""
    return _offsets(bootstrap, topics, OffsetSpec.latest())  # type: ignore[no-untyped-call]  # the package's stub has none


def begin_offsets(bootstrap: str, topics: Collection[str]) -> dict[str, dict[int, int]]:
    """Topic → partition → the offset of the first message that is still there, or would be."""
    return _offsets(bootstrap, topics, OffsetSpec.earliest())  # type: ignore[no-untyped-call]  # the package's stub has none


def _offsets(bootstrap: str, topics: Collection[str], spec: OffsetSpec) -> dict[str, dict[int, int]]:
    admin = _admin(bootstrap)
    found: dict[str, dict[int, int]] = {topic: {} for topic in topics}

    def are_known() -> bool:
        asked = admin.list_offsets(dict.fromkeys(_partitions(admin, topics), spec), request_timeout=ADMIN_S)
        try:
            for place, future in asked.items():
                found[place.topic][place.partition] = future.result().offset
        except KafkaException as error:
            if error.args[0].code() in MOVES:
                return False
            raise
        return True

    with _one_line(bootstrap):
        known = await_true(are_known, ADMIN_S)
    if not known:
        raise StackError(f"no leader answers with its offsets after {ADMIN_S:.0f} s ({bootstrap}): {', '.join(topics)}")
    return found


def delete_records(bootstrap: str, topic: str, partition: int, before: int) -> None:
    """Remove the messages of a partition that lie before an offset, as retention does."""
    admin = _admin(bootstrap)
    with _one_line(bootstrap):
        removed = admin.delete_records([TopicPartition(topic, partition, before)], request_timeout=ADMIN_S)
        for future in removed.values():
            future.result(timeout=2 * ADMIN_S)


def read(bootstrap: str, topics: Collection[str]) -> Iterator[Message]:
    """Every message from the beginning to the ends that the topics had when reading began.

    Messages of a partition come in order; partitions come mixed. Stalled where nothing comes for 30 s.
    """
    ends = {
        (topic, partition): end
        for topic, partitions in end_offsets(bootstrap, topics).items()
        for partition, end in partitions.items()
    }
    with _consumer(bootstrap) as consumer:
        with _one_line(bootstrap):
            left = {place for place, end in ends.items() if _first(consumer, place) < end}
            consumer.assign([TopicPartition(*place, _first(consumer, place)) for place in left])
        yield from _until_ends(consumer, ends, left)


def _until_ends(
    consumer: Consumer, ends: Mapping[tuple[str, int], int], left: set[tuple[str, int]]
) -> Iterator[Message]:
    """Yield what comes before the ends, until each partition in `left` has come to its end."""
    moved = time.monotonic()
    while left:
        batch = consumer.consume(num_messages=10_000, timeout=0.2)
        for raw in batch:
            place = _place(raw)
            if raw.error() is None and _offset(raw) < ends[place]:
                yield _message(raw)
        arrived = {place for place in left if _position(consumer, place) >= ends[place]}
        # Markers of transactions take offsets without being messages: the end of the partition counts too.
        arrived |= {_place(raw) for raw in batch if _is_end(raw)} & left
        left -= arrived
        if batch:
            moved = time.monotonic()
        if time.monotonic() - moved > STALLED_S:
            place = min(left)
            stood = f"{place[0]}-{place[1]} at {_position(consumer, place)} of {ends[place]}"
            raise Stalled(f"reading: no progress past {stood} for {STALLED_S:.0f} s")


@contextlib.contextmanager
def _consumer(bootstrap: str) -> Iterator[Consumer]:
    consumer = Consumer(
        {
            **CLIENT,
            "bootstrap.servers": bootstrap,
            "group.id": "harness-reads-without-a-group",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,
        }
    )
    try:
        yield consumer
    finally:
        consumer.close()


def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({**CLIENT, "bootstrap.servers": bootstrap})


def _first(consumer: Consumer, place: tuple[str, int]) -> int:
    first: int = consumer.get_watermark_offsets(TopicPartition(*place), timeout=ADMIN_S)[0]
    return first


def _position(consumer: Consumer, place: tuple[str, int]) -> int:
    return int(consumer.position([TopicPartition(*place)])[0].offset)


def _place(raw: RawMessage) -> tuple[str, int]:
    return raw.topic() or "", raw.partition() or 0


def _offset(raw: RawMessage) -> int:
    return raw.offset() or 0


def _is_end(raw: RawMessage) -> bool:
    error = raw.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def _message(raw: RawMessage) -> Message:
    topic, partition = _place(raw)
    headers = cast(Sequence[tuple[str, bytes | None]], raw.headers() or ())
    return Message(topic, partition, _offset(raw), raw.key(), raw.value(), tuple(headers), raw.timestamp()[1])


def _names(admin: AdminClient) -> set[str]:
    return set(admin.list_topics(timeout=ADMIN_S).topics)


def _partitions(admin: AdminClient, topics: Collection[str]) -> list[TopicPartition]:
    known = admin.list_topics(timeout=ADMIN_S).topics
    missing = sorted(set(topics) - set(known))
    if missing:
        raise StackError(f"there is no topic {missing[0]}")
    return [TopicPartition(topic, partition) for topic in topics for partition in known[topic].partitions]


def _led(admin: AdminClient, topics: Collection[str], partitions: int) -> bool:
    """Whether each partition of each topic has a leader."""
    known = admin.list_topics(timeout=ADMIN_S).topics
    return all(
        topic in known
        and len(known[topic].partitions) == partitions
        and all(partition.leader >= 0 for partition in known[topic].partitions.values())
        for topic in topics
    )


def _finish(futures: Mapping[str, Any], what: str, bootstrap: str, forgive: int | None = None) -> None:
    """Wait for what an admin client has begun; StackError names the topic that failed."""
    for topic, future in futures.items():
        try:
            future.result(timeout=2 * ADMIN_S)
        except KafkaException as error:
            reason = error.args[0]
            if reason.code() != forgive:
                raise StackError(f"topic {topic} cannot be {what} on {bootstrap}: {reason.str()}") from error


@contextlib.contextmanager
def _one_line(bootstrap: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise StackError(f"Kafka at {bootstrap} does not answer: {error.args[0].str()}") from error
