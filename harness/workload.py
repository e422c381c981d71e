"""Which events there are: a pure function of seed and index, and nothing else.

Event n of a workload is the same bytes on every day, machine and version: all draws are splitmix64
of (seed, n), in integers. When an event is due is the engine's business; its event time is the fixed
start + n / eps × time_scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.schema import CLICKSTREAM, TRANSACTIONS

Array = npt.NDArray[Any]

TOPICS = (CLICKSTREAM, TRANSACTIONS)
FLUSH_AHEAD_MS = 2 * 3600 * 1000
CATALOGUE = (("electronics", 29999), ("electronics", 49999), ("clothing", 4999), ("books", 1999), ("home", 7999))
ACTIONS = ("view", "view", "view", "click", "click", "add_to_cart")
PAYMENTS = ("credit_card", "debit_card", "paypal")
REFERRERS = ("google.com", "direct", "newsletter", "partner.example")
MALFORMED = (
    "",
    "truncated",
    "missing field",
    "number for a string",
    "string for a number",
    "outside its set",
    "negative amount",
    "quantity 0",
    "random bytes",
    "empty",
    "bad timestamp",
)
"""What is wrong with a malformed record; index 0 is a valid one."""


def _share(doc: str) -> Any:
    return field(default=0.0, metadata={"min": 0, "max": 1, "doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What the events are like. Shares lie between 0 and 1, skews are Zipf exponents (0 is uniform)."""

    users: int = field(default=100, metadata={"min": 1, "max": 1_000_000, "doc": "number of users"})
    products: int = field(default=5, metadata={"min": 1, "max": 100_000, "doc": "number of products"})
    user_skew: float = field(default=0.0, metadata={"min": 0, "max": 5, "doc": "Zipf exponent of users"})
    product_skew: float = field(default=0.0, metadata={"min": 0, "max": 5, "doc": "Zipf exponent of products"})
    clickstream_share: float = field(default=0.8, metadata={"min": 0, "max": 1, "doc": "the rest is transactions"})
    malformed: float = _share("records made invalid on purpose, of every kind")
    time_scale: float = field(
        default=1.0, metadata={"min": 0.001, "max": 10_000, "doc": "seconds of event time a second"}
    )
    start: str = field(default="2026-01-01T00:00:00.000Z", metadata={"doc": "event time of event 0, ISO 8601"})


@dataclass(frozen=True, slots=True)
class Events:
    """A run of events as columns: topic (index into TOPICS), user key, value, event time, malformed kind."""

    topic: Array
    keys: list[bytes]
    values: list[bytes]
    event_time_ms: Array
    malformed: Array


@dataclass(frozen=True, slots=True)
class Flush:
    """An event far in the future of event time, which lets the watermark pass every window."""

    topic: str
    key: bytes
    value: bytes
    event_time_ms: int


def start_ms(workload: Workload) -> int:
    """Event time of event 0 in epoch milliseconds."""
    moment = datetime.fromisoformat(workload.start)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def batch(workload: Workload, seed: int, eps: float, first: int, count: int) -> Events:
    """Events first … first + count − 1."""
    n = np.arange(first, first + count, dtype=np.uint64)
    draws = _Draws(seed, n)
    times = start_ms(workload) + np.floor(n.astype(np.float64) * (1000.0 * workload.time_scale) / eps).astype(np.int64)
    users = _pick(draws.bits(1), workload.users, workload.user_skew)
    products = _pick(draws.bits(2), workload.products, workload.product_skew)
    topic = (_unit(draws.bits(0)) >= _threshold(workload.clickstream_share)).astype(np.uint8)
    kinds = np.where(
        _unit(draws.bits(5)) < _threshold(workload.malformed),
        draws.bits(6) % np.uint64(len(MALFORMED) - 1) + np.uint64(1),
        0,
    )
    values = _values(
        workload, n.tolist(), topic.tolist(), users.tolist(), products.tolist(), times.tolist(), draws.bits(3).tolist()
    )
    for at in np.flatnonzero(kinds).tolist():
        values[at] = _spoil(values[at], MALFORMED[int(kinds[at])], int(topic[at]), int(draws.bits(7)[at]))
    keys = _keys(workload.users)
    return Events(topic, [keys[user] for user in users.tolist()], values, times, kinds.astype(np.uint8))


def flush(workload: Workload, after_ms: int) -> list[Flush]:
    """One valid event a topic, two hours of event time after `after_ms`."""
    at = after_ms + FLUSH_AHEAD_MS
    session = f"sess_flush_{at // 1_800_000}"
    common = f'"user_id":"flush","session_id":"{session}","product_id":"prod_001","category":"electronics"'
    click = f'{{"event_id":"evt_flush",{common},"action":"view","timestamp":"{_iso(at)}"}}'
    sale = (
        f'{{"transaction_id":"txn_flush",{common},"amount":0.00,"quantity":1,'
        f'"timestamp":"{_iso(at)}","payment_method":"paypal"}}'
    )
    return [Flush(topic, b"flush", text.encode(), at) for topic, text in zip(TOPICS, (click, sale), strict=True)]


class _Draws:
    """Independent 64-bit draws for each event: splitmix64 of seed, index and the number of the draw."""

    def __init__(self, seed: int, n: Array) -> None:
        self._base = _mix(n * np.uint64(0x9E3779B97F4A7C15) + _mix(np.array([seed], dtype=np.uint64)))

    def bits(self, number: int) -> Array:
        return _mix(self._base + np.uint64((number + 1) * 0xD1B54A32D192ED03 % 2**64))


def _mix(x: Array) -> Array:
    """The finalizer of splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Array = x ^ (x >> np.uint64(31))
    return mixed


def _unit(bits: Array) -> Array:
    return bits >> np.uint64(32)


def _threshold(share: float) -> np.uint64:
    return np.uint64(int(Decimal(repr(float(share))) * 2**32))


def _pick(bits: Array, size: int, skew: float) -> Array:
    if skew == 0:
        return (_unit(bits) * np.uint64(size)) >> np.uint64(32)
    return np.searchsorted(_zipf(size, skew), _unit(bits), side="right")


@lru_cache(maxsize=16)
def _zipf(size: int, skew: float) -> Array:
    """Upper thresholds on 32 bits; in decimals, so that every machine has the same."""
    exponent = Decimal(repr(skew))
    weights = [Decimal(1) / Decimal(rank) ** exponent for rank in range(1, size + 1)]
    total, below, thresholds = sum(weights), Decimal(0), []
    for weight in weights[:-1]:
        below += weight
        thresholds.append(int(below / total * 2**32))
    return np.array(thresholds, dtype=np.uint64)


@lru_cache(maxsize=4)
def _keys(users: int) -> list[bytes]:
    return [b"user_%d" % (number + 1) for number in range(users)]


@lru_cache(maxsize=4)
def _products(count: int) -> list[tuple[str, str, int]]:
    return [(f"prod_{number + 1:03d}", *CATALOGUE[number % len(CATALOGUE)]) for number in range(count)]


@lru_cache(maxsize=4)
def _middles(count: int) -> list[tuple[str, str]]:
    """For each product what stands between session and timestamp: click's, and the part of a transaction before its amount."""
    return [
        (
            f'","product_id":"{name}","category":"{category}","action":"',
            f'","product_id":"{name}","category":"{category}","amount":',
        )
        for name, category, _ in _products(count)
    ]


@lru_cache(maxsize=65_536)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _iso(ms: int) -> str:
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


def _values(
    workload: Workload,
    n: Sequence[int],
    topics: Sequence[int],
    users: Sequence[int],
    products: Sequence[int],
    times: Sequence[int],
    bits: Sequence[int],
) -> list[bytes]:
    catalogue, middles, values = _products(workload.products), _middles(workload.products), []
    for index, topic, user, product, ms, extra in zip(n, topics, users, products, times, bits, strict=True):
        second, rest = divmod(ms, 1000)
        who = f'","user_id":"user_{user + 1}","session_id":"sess_user_{user + 1}_{second // 1800}'
        if topic == 0:
            text = (
                f'{{"event_id":"evt_{index:012x}{who}{middles[product][0]}{ACTIONS[extra % 6]}","timestamp":"'
                f'{_second(second)}.{rest:03d}Z","page_url":"/product/{catalogue[product][0]}","referrer":"{REFERRERS[(extra >> 8) % 4]}"}}'
            )
        else:
            quantity = 1 + extra % 3
            cents = catalogue[product][2] * quantity
            text = (
                f'{{"transaction_id":"txn_{index:012x}{who}{middles[product][1]}{cents // 100}.{cents % 100:02d},"quantity":{quantity},'
                f'"timestamp":"{_second(second)}.{rest:03d}Z","payment_method":"{PAYMENTS[(extra >> 8) % 3]}"}}'
            )
        values.append(text.encode())
    return values


def _spoil(value: bytes, kind: str, topic: int, bits: int) -> bytes:
    """The record made invalid in the way that `kind` says; a kind of transactions' fields becomes its like for clicks."""
    match kind:
        case "truncated":
            return value[: 1 + bits % (len(value) - 1)]
        case "missing field":
            return value.replace(b'"product_id"', b'"product"')
        case "number for a string":
            return value.replace(b'"user_id":"user_', b'"user_id":1').replace(b'","session_id"', b',"session_id"', 1)
        case "string for a number" if topic:
            return value.replace(b'"quantity":', b'"quantity":"').replace(b',"timestamp"', b'","timestamp"')
        case "negative amount" if topic:
            return value.replace(b'"amount":', b'"amount":-')
        case "quantity 0" if topic:
            at = value.index(b'"quantity":') + 11
            return value[:at] + b"0" + value[at + 1 :]
        case "random bytes":
            return b"\xff" + bits.to_bytes(8, "little") * (1 + bits % 8)
        case "empty":
            return b""
        case "bad timestamp":
            return value.replace(b'"timestamp":"2', b'"timestamp":"second ')
    outside = (b'"payment_method":"', b'"payment_method":"cash or ') if topic else (b'"action":"', b'"action":"re')
    return value.replace(*outside)
