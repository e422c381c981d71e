"""Records that Kafka deleted before the queries had read them.

Pure: compares the offsets of the checkpoint with those of the brokers. Spark itself finds a loss only when it reads
the partition, does not report how many records are lost, and takes a topic that was made again for the old topic
once it is as long.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from pipeline.checkpoint import CheckpointError, Place, Reach

NO_ID = "A" * 22
"""The id of every topic of brokers that know of none."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the brokers have it: its id, and for each partition its first offset and the one after its last."""

    id: str
    spans: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Lost:
    """Records of a partition, from one offset to before another, that were deleted before these queries had read them."""

    topic: str
    partition: int
    first: int
    before: int
    queries: tuple[str, ...]

    @property
    def records(self) -> int:
        """Number of lost records."""
        return self.before - self.first

    def __str__(self) -> str:
        place = f"{self.topic}-{self.partition}"
        return (
            f"{place}: {self.records:,} records lost to {', '.join(self.queries)}"
            f" (read up to offset {self.first:,}, the partition begins at {self.before:,})"
        )


def gone(reaches: Mapping[str, Reach], there: Collection[str]) -> set[str]:
    """Topics that the queries have read from, and that are not there any more."""
    return {topic for reach in reaches.values() for topic, _ in reach.begun} - set(there)


def same(reaches: Mapping[str, Reach], known: Mapping[str, str], topics: Mapping[str, Topic]) -> None:
    """Refuse topics that are not those that the checkpoint was made from: its offsets mean nothing in them.

    `known` has the id of each topic when the checkpoint was made; a topic without an id is compared by its end alone.
    """
    for name, topic in sorted(topics.items()):
        if NO_ID not in (then := known.get(name, NO_ID), topic.id) and then != topic.id:
            raise _other(name, f"its id is {topic.id}, and the checkpoint was made from {then}")
    for query, reach in reaches.items():
        for (name, partition), begun in sorted(reach.begun.items()):
            end = topics[name].spans.get(partition, (0, 0))[1]
            if end < begun:
                place = f"partition {partition} ends at offset {end:,}"
                raise _other(name, f"{place}, and the checkpoint of {query} has read up to {begun:,}")


def _other(topic: str, why: str) -> CheckpointError:
    return CheckpointError(
        f"topic {topic} was deleted and made again: {why}; the old records are lost: start with a new checkpoint"
    )


def lost(reaches: Mapping[str, Reach], topics: Mapping[str, Topic]) -> list[Lost]:
    """Records that were deleted before they were read, by partition and by how far queries have read it.

    A partition that a checkpoint does not know was added after it was made, and is read from its beginning, which is 0.
    """
    found: dict[tuple[Place, int], list[str]] = {}
    for query, reach in reaches.items():
        mine = {name for name, _ in reach.read}
        for name in mine:
            for partition, (begin, _) in topics[name].spans.items():
                if (first := reach.read.get((name, partition), 0)) < begin:
                    found.setdefault(((name, partition), first), []).append(query)
    return [
        Lost(name, partition, first, topics[name].spans[partition][0], tuple(queries))
        for ((name, partition), first), queries in sorted(found.items())
    ]


def summary(losses: Sequence[Lost]) -> str:
    """The losses in one line."""
    return f"deleted from Kafka before it was read: {'; '.join(map(str, losses))}"


def refuse(losses: Sequence[Lost]) -> CheckpointError:
    """An error that names the losses and what can be done about them."""
    return CheckpointError(f"{summary(losses)}; --accept-loss goes on without them, a new checkpoint begins anew")
