"""Records of a declared job, each a pure function of seed, topic, field and number.

Record m of a topic is the same bytes on every day, machine and version: each draw is splitmix64 of the number, from a
base that is a digest of seed, topic and field. So a record can be drawn again by its number alone: by a record of another
topic that refers to it, and by the judge, who needs no bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.job.declared import Field, Job, Share, Topic, column_type, duration_ms

Array = npt.NDArray[Any]
GOLDEN = np.uint64(0x9E3779B97F4A7C15)
COPY_OF = 50
"""A copy repeats one of so many records before it."""
NEVER, FLUSH = 2**40, 2**41
"""Added to a number: of a record that is referred to and never comes, and of the record that closes every window."""
LETTERS = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz", dtype="S1")
EPOCH_MS_MIN = 1


class Workload(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records come: how fast event time runs, and the shares that are late, copied, or at an edge.

    `late` records are up to the topic's longest watermark delay old, `too_late` two to six times as old. `disorder_s` is
    the most seconds of event time by which any record is older than its place. `edges` are within a ms of a multiple
    of `edge`.
    """

    start: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    time_scale: Annotated[float, msgspec.Meta(gt=0, le=100_000)] = 60.0
    late: Share = 0.0
    too_late: Share = 0.0
    disorder_s: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0
    duplicates: Share = 0.0
    edges: Share = 0.0
    edge: str = "1 minute"

    @property
    def start_ms(self) -> int:
        """The event time at which it begins."""
        return round(self.start.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Records of a topic as columns: the typed fields, the event times in epoch ms, and which are copies."""

    fields: Mapping[str, pa.Array]
    at_ms: Array
    copy: Array


class Records:
    """The records of a job under a workload, at a number of events per second over all topics."""

    def __init__(self, job: Job, workload: Workload, seed: int, eps: float) -> None:
        self._topics = {topic.name: topic for topic in job.topics}
        self._workload = workload
        self._seed = seed
        total = sum(topic.share for topic in job.topics)
        self._eps = {topic.name: eps * topic.share / total for topic in job.topics}
        self._delay_ms = {topic.name: job.delay_ms(topic.name) for topic in job.topics}
        # A form of time in whole seconds has no event times between them.
        self._step_ms = {topic.name: 1000 if _is_in_seconds(topic) else 1 for topic in job.topics}
        self.topics = tuple(self._topics)

    def order(self, events: int) -> tuple[Array, Array]:
        """Of each of so many events, in the order in which they are sent, the index of its topic and its number in it."""
        due, topic, number = [], [], []
        total = sum(self._eps.values())
        for index, name in enumerate(self.topics):
            numbers = np.arange(int(events * self._eps[name] / total) + 2)
            due.append((numbers + 0.5) / self._eps[name])
            topic.append(np.full(len(numbers), index, dtype=np.uint8))
            number.append(numbers)
        first = np.argsort(np.concatenate(due), kind="stable")[:events]
        return np.concatenate(topic)[first], np.concatenate(number)[first]

    def draw(self, topic: str, numbers: Array) -> Drawn:
        """The records of these numbers."""
        numbers = numbers.astype(np.uint64)
        source, copy = self._sources(topic, numbers)
        at_ms = self._at_ms(topic, source)
        return Drawn(self._fields(topic, source, at_ms), at_ms, copy)

    def flush(self, topic: str, at_ms: int) -> Drawn:
        """The record that closes every window before an event time."""
        number = np.array([FLUSH], dtype=np.uint64)
        at = np.array([at_ms // self._step_ms[topic] * self._step_ms[topic]], dtype=np.int64)
        return Drawn(self._fields(topic, number, at), at, np.array([False]))

    def _fields(self, topic: str, source: Array, at_ms: Array) -> dict[str, pa.Array]:
        return {name: self._field(topic, name, source, at_ms) for name in self._topics[topic].fields}

    def _sources(self, topic: str, numbers: Array) -> tuple[Array, Array]:
        """(number of the record whose bytes it has, whether that is another one) of each."""
        share = self._workload.duplicates
        back = self._bits(topic, "", "copy of", numbers) % np.uint64(COPY_OF) + np.uint64(1)
        copy = self._is_drawn(topic, "", "copy", numbers, share) & (numbers >= back) & (numbers < NEVER)
        return np.where(copy, numbers - back, numbers), copy

    def _at_ms(self, topic: str, source: Array) -> Array:
        """Event times in epoch ms."""
        work, delay_ms = self._workload, self._delay_ms[topic]
        at_s = (source.astype(np.float64) + 0.5) / self._eps[topic]
        at_ms = work.start_ms + np.floor(at_s * work.time_scale * 1000).astype(np.int64)
        place, far = self._unit(topic, "", "late", source), self._unit(topic, "", "how late", source)
        late, too_late = place < work.late, (place >= work.late) & (place < work.late + work.too_late)
        at_ms -= np.where(late, far * delay_ms, 0).astype(np.int64)
        at_ms -= np.where(too_late, (2 + 4 * far) * delay_ms, 0).astype(np.int64)
        at_ms -= (self._unit(topic, "", "disorder", source) * work.disorder_s * 1000).astype(np.int64)
        if work.edges:
            edge_ms = duration_ms(work.edge)
            side = (self._bits(topic, "", "side", source) % np.uint64(3)).astype(np.int64) - 1
            edges = self._is_drawn(topic, "", "edge", source, work.edges)
            at_ms = np.where(edges, at_ms // edge_ms * edge_ms + side, at_ms)
        return np.maximum(at_ms, EPOCH_MS_MIN) // self._step_ms[topic] * self._step_ms[topic]

    def _field(self, topic: str, name: str, source: Array, at_ms: Array) -> pa.Array:
        field = self._topics[topic].fields[name]
        kind = column_type(self._topics, topic, name)
        if field.from_ is not None:
            values = self._referred(topic, name, field, source)
        else:
            values = pa.array(_MAKERS[field.generator](_Draw(self, topic, name, field), source, at_ms), type=kind)
        if field.nulls:
            present = ~self._is_drawn(topic, name, "null", source, field.nulls)
            values = pa.array([value if is_there else None for value, is_there in zip(values.to_pylist(), present.tolist(), strict=True)], kind)  # fmt: skip
        return values

    def _referred(self, topic: str, name: str, field: Field, source: Array) -> pa.Array:
        """The field of records of another topic that were due before; those that never come where there was none."""
        other, _, theirs = (field.from_ or "").rpartition(".")
        due_s = (source.astype(np.float64) + 0.5) / self._eps[topic]
        within_s = duration_ms(field.within) / 1000 / self._workload.time_scale
        newest = np.floor(due_s * self._eps[other] - 0.5).astype(np.int64)
        oldest = np.maximum(0, np.ceil((due_s - within_s) * self._eps[other] - 0.5)).astype(np.int64)
        span = np.maximum(1, newest - oldest + 1).astype(np.uint64)
        chosen = oldest.astype(np.uint64) + self._bits(topic, name, "from", source) % span
        missing = self._is_drawn(topic, name, "missing", source, field.missing) | (newest < oldest) | (source >= NEVER)
        number, _ = self._sources(other, np.where(missing, source + np.uint64(NEVER), chosen))
        return self._field(other, theirs, number, self._at_ms(other, number))

    def _bits(self, topic: str, field: str, use: str, numbers: Array) -> Array:
        """64 random bits a number."""
        digest = hashlib.blake2b(f"{self._seed}\0{topic}\0{field}\0{use}".encode(), digest_size=8).digest()
        return _mix(numbers * GOLDEN + np.uint64(int.from_bytes(digest, "little")))

    def _unit(self, topic: str, field: str, use: str, numbers: Array) -> Array:
        """A number from 0 to less than 1 each."""
        unit: Array = (self._bits(topic, field, use, numbers) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return unit

    def _is_drawn(self, topic: str, field: str, use: str, numbers: Array, share: float) -> Array:
        drawn: Array = self._unit(topic, field, use, numbers) < share
        return drawn


def _is_in_seconds(topic: Topic) -> bool:
    return bool(topic.time) and topic.fields[topic.time].time == "s"


@dataclass(frozen=True, slots=True)
class _Draw:
    """The draws of a field."""

    records: Records
    topic: str
    name: str
    field: Field

    def bits(self, numbers: Array, use: str = "value") -> Array:
        return self.records._bits(self.topic, self.name, use, numbers)

    def unit(self, numbers: Array) -> Array:
        return self.records._unit(self.topic, self.name, "value", numbers)


def _sequence(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    form = draw.field.sequence or ""
    return [form.format(number) for number in numbers.tolist()]


def _uuid(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    high, low = draw.bits(numbers).tolist(), draw.bits(numbers, "low").tolist()
    return [str(UUID(int=a << 64 | b, version=4)) for a, b in zip(high, low, strict=True)]


def _of(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    size = draw.field.of or 1
    if draw.field.zipf:
        weights = np.arange(1, size + 1, dtype=np.float64) ** -draw.field.zipf
        chosen = _weighted(draw.unit(numbers), weights)
    else:
        chosen = (draw.bits(numbers) % np.uint64(size)).astype(np.int64)
    return [draw.field.name.format(number) for number in chosen.tolist()]


def _choice(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    values = draw.field.choice or []
    chosen = _weighted(draw.unit(numbers), np.array(draw.field.weights or [1.0] * len(values)))
    return [values[number] for number in chosen.tolist()]


def _weighted(unit: Array, weights: Array) -> Array:
    """The index of a weight for each number from 0 to 1."""
    bounds = np.cumsum(weights)
    found: Array = np.searchsorted(bounds, unit * bounds[-1], side="right")
    return np.minimum(found, len(weights) - 1)


def _decimal(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    scale = 10**draw.field.places
    low, high = (round(bound * scale) for bound in draw.field.decimal or (0, 0))
    units = low + (draw.bits(numbers) % np.uint64(high - low + 1)).astype(np.int64)
    return [Decimal(number).scaleb(-draw.field.places) for number in units.tolist()]


def _integer(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    low, high = draw.field.integer or (0, 0)
    return low + (draw.bits(numbers) % np.uint64(high - low + 1)).astype(np.int64)


def _text(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    length = draw.field.text or 0
    columns = [LETTERS[draw.bits(numbers, f"letter {at}") % np.uint64(26)] for at in range(length)]
    return ["".join(row) for row in zip(*(column.astype(str) for column in columns), strict=True)] or [""] * len(
        numbers
    )


def _bool(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    return draw.unit(numbers) < (draw.field.bool_ or 0)


def _time(draw: _Draw, numbers: Array, at_ms: Array) -> Any:
    return at_ms * 1000


_MAKERS: Mapping[str, Callable[[_Draw, Array, Array], Any]] = {
    "sequence": _sequence,
    "uuid": _uuid,
    "of": _of,
    "choice": _choice,
    "decimal": _decimal,
    "integer": _integer,
    "text": _text,
    "bool": _bool,
    "time": _time,
}
"""Generator → the values of numbers; an event time is that of its record."""


def _mix(x: Array) -> Array:
    """The finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


_json = msgspec.json.Encoder(decimal_format="number")


def written(topic: Topic, drawn: Drawn) -> tuple[list[bytes], list[bytes]]:
    """(keys, values) of records: a JSON object each; a decimal is a number with all its digits."""
    columns = {name: _written(topic.fields[name], column) for name, column in drawn.fields.items()}
    names, encode = list(columns), _json.encode
    values = [encode(dict(zip(names, row, strict=True))) for row in zip(*columns.values(), strict=True)]
    if not topic.key:
        return [b""] * len(values), values
    return [b"" if key is None else str(key).encode() for key in columns[topic.key]], values


def _written(field: Field, column: pa.Array) -> list[Any]:
    if field.time is None and not pa.types.is_timestamp(column.type):
        return list(column.to_pylist())
    micros = column.cast(pa.int64()).to_numpy()
    match field.time:
        case "ms" | "us" | "s":
            return list((micros // {"us": 1, "ms": 1000, "s": 1_000_000}[field.time]).tolist())
        case _:
            return list(np.datetime_as_string(micros.astype("datetime64[us]"), unit="ms", timezone="UTC").tolist())
