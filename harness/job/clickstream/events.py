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

from harness.job.clickstream.contract import CLICKSTREAM, EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, TRANSACTIONS

Array = npt.NDArray[Any]

TOPICS = (CLICKSTREAM, TRANSACTIONS)
FLUSH_AHEAD_MS = 2 * 3600 * 1000
HALF_HOUR_MS = 1_800_000
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
    "wrong encoding",
    "deep",
    "NaN",
    "huge number",
    "oversized",
)
"""What is wrong with a malformed record; index 0 is a valid one."""
OUT_OF_RANGE = len(MALFORMED)
"""The kind of a record whose event time the contract rejects; its bytes are not altered."""


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
    late: float = _share("events inside the watermark delay: up to 4 minutes behind")
    too_late: float = _share("events around and behind its end: 5 to 60 minutes")
    far_late_every: int = field(
        default=0, metadata={"min": 0, "max": 10**9, "doc": "each how many events one is a day behind"}
    )
    disorder_s: float = field(
        default=0.0, metadata={"min": 0, "max": 86_400, "doc": "event seconds by which events go back at most"}
    )
    duplicates: float = _share("events that are sent again, byte for byte")
    duplicate_within: int = field(
        default=500, metadata={"min": 1, "max": 10**6, "doc": "events between copy and original at most"}
    )
    odd_clocks: float = _share("timestamps with an offset, with none, or with other fractions")
    future_every: int = field(
        default=0, metadata={"min": 0, "max": 10**9, "doc": "each how many events one is in the future"}
    )
    future_s: float = field(default=600.0, metadata={"min": 0, "max": 10**8, "doc": "event seconds by which"})
    transactions_until: int = field(
        default=0,
        metadata={"min": 0, "max": 2**53, "doc": "number of the event from which only clicks come; 0 is never"},
    )
    exact_horizon: bool = field(
        default=False, metadata={"doc": "each purchase exactly 10 minutes after a click of its user and product"}
    )
    session_gaps: bool = field(
        default=False, metadata={"doc": "users in step, gaps just under, at and over 30 minutes"}
    )
    start: str = field(default="2026-01-01T00:00:00.000Z", metadata={"doc": "event time of event 0, ISO 8601"})


@dataclass(frozen=True, slots=True)
class Events:
    """A run of events as columns: topic (index into TOPICS), user key, value, event time, malformed kind, whether it is a copy."""

    topic: Array
    keys: list[bytes]
    values: list[bytes]
    event_time_ms: Array
    malformed: Array
    copy: Array


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


@dataclass(frozen=True, slots=True)
class Drawn:
    """What events are about, as columns, before they are written down as bytes.

    `n` is the number of the event whose bytes it has, `topic` an index into TOPICS, `user` and `product`
    count from 0, `period` is the half hour in a session's id, 0 where it has none.
    """

    n: Array
    topic: Array
    user: Array
    product: Array
    period: Array
    event_time_ms: Array
    malformed: Array
    copy: Array
    extra: Array
    draws: _Draws

    def cents(self, workload: Workload) -> Array:
        """The amount of each transaction, in cents; of a click what its product would have cost."""
        prices = np.array([price for _, _, price in _products(workload.products)])
        return np.asarray(prices[self.product] * (1 + self.extra % np.uint64(3)).astype(np.int64))


def draw(workload: Workload, seed: int, eps: float, numbers: Array) -> Drawn:
    """What the events of these numbers are about."""
    n = _originals(workload, seed, numbers)
    pair = n // np.uint64(2) * np.uint64(2) if workload.exact_horizon else n
    draws = _Draws(seed, n)
    times = _event_times(workload, draws, n, eps)
    draws_of_pair = _Draws(seed, pair)
    users = _pick(draws_of_pair.bits(1), workload.users, workload.user_skew)
    products = _pick(draws_of_pair.bits(2), workload.products, workload.product_skew)
    topic = (_unit(draws.bits(0)) >= _threshold(workload.clickstream_share)).astype(np.uint8)
    if workload.exact_horizon:
        topic = (n % np.uint64(2)).astype(np.uint8)
        times = _event_times(workload, draws_of_pair, pair, eps) + np.where(topic == 1, 600_000, 0)
    if workload.transactions_until:
        topic[n >= workload.transactions_until] = 0
    if workload.session_gaps:
        users = (n % np.uint64(workload.users)).astype(np.int64)
    kinds = np.where(
        _unit(draws.bits(5)) < _threshold(workload.malformed),
        draws.bits(6) % np.uint64(len(MALFORMED) - 1) + np.uint64(1),
        0,
    ).astype(np.uint8)
    out_of_range = (times < EVENT_TIME_MS_MIN) | (times > EVENT_TIME_MS_MAX)
    kinds[(kinds == 0) & out_of_range] = OUT_OF_RANGE
    periods = np.zeros(len(n), dtype=np.int64) if workload.session_gaps else times // HALF_HOUR_MS
    return Drawn(n, topic, users, products, periods, times, kinds, n != numbers, draws.bits(3), draws)


def batch(workload: Workload, seed: int, eps: float, first: int, count: int) -> Events:
    """Events first … first + count − 1."""
    return written(workload, draw(workload, seed, eps, np.arange(first, first + count, dtype=np.uint64)))


def written(workload: Workload, drawn: Drawn) -> Events:
    """The events as records: key and value in bytes."""
    draws, times, topic = drawn.draws, drawn.event_time_ms, drawn.topic
    columns = (drawn.n, topic, drawn.user, drawn.product, drawn.period, times, drawn.extra)
    values = _values(workload, *(column.tolist() for column in columns))
    for at in np.flatnonzero(_unit(draws.bits(8)) < _threshold(workload.odd_clocks)).tolist():
        values[at] = _other_clock(values[at], int(times[at]), int(draws.bits(9)[at]))
    for at in np.flatnonzero(drawn.malformed % OUT_OF_RANGE).tolist():
        values[at] = _spoil(values[at], MALFORMED[int(drawn.malformed[at])], int(topic[at]), int(draws.bits(7)[at]))
    keys = _keys(workload.users)
    return Events(topic, [keys[user] for user in drawn.user.tolist()], values, times, drawn.malformed, drawn.copy)


def users(workload: Workload) -> list[str]:
    """The ids of the users."""
    return [key.decode() for key in _keys(workload.users)]


def products(workload: Workload) -> tuple[list[str], list[str]]:
    """The ids of the products, and the category of each."""
    known = _products(workload.products)
    return [name for name, _, _ in known], [category for _, category, _ in known]


def session(workload: Workload, user: int, period: int) -> str:
    """The id of a user's session."""
    return f"sess_user_{user + 1}" + ("" if workload.session_gaps else f"_{period}")


def flush(workload: Workload, after_ms: int) -> list[Flush]:
    """One valid event a topic, two hours of event time after `after_ms`."""
    at = after_ms + FLUSH_AHEAD_MS
    session = f"sess_flush_{at // HALF_HOUR_MS}"
    common = f'"user_id":"flush","session_id":"{session}","product_id":"prod_001","category":"electronics"'
    click = f'{{"event_id":"evt_flush",{common},"action":"view","timestamp":"{_iso(at)}"}}'
    sale = (
        f'{{"transaction_id":"txn_flush",{common},"amount":0.00,"quantity":1,'
        f'"timestamp":"{_iso(at)}","payment_method":"paypal"}}'
    )
    return [Flush(topic, b"flush", text.encode(), at) for topic, text in zip(TOPICS, (click, sale), strict=True)]


def _originals(workload: Workload, seed: int, n: Array) -> Array:
    """For each event the number of the one whose bytes it has: its own, or that of an earlier one."""
    if not workload.duplicates:
        return n
    draws = _Draws(seed, n)
    back = np.uint64(1) + draws.bits(11) % np.uint64(workload.duplicate_within)
    chosen = (_unit(draws.bits(10)) < _threshold(workload.duplicates)) & (n >= back)
    return np.where(chosen, n - np.minimum(back, n), n)


def _event_times(workload: Workload, draws: _Draws, n: Array, eps: float) -> Array:
    """Event times in epoch ms: on the scenario's scale, then late, disordered or in the future as it says."""
    if workload.session_gaps:
        return start_ms(workload) + _steps_ms(int(n.max(initial=0)) // workload.users)[n // np.uint64(workload.users)]
    times = start_ms(workload) + np.floor(n.astype(np.float64) * (1000.0 * workload.time_scale) / eps).astype(np.int64)
    which, how_far = _unit(draws.bits(12)), draws.bits(13)
    inside, behind = _threshold(workload.late), _threshold(workload.too_late)
    times -= np.where(which < inside, how_far % np.uint64(240_000), 0).astype(np.int64)
    too_late = (which >= inside) & (which < inside + behind)
    times -= np.where(too_late, 300_000 + how_far % np.uint64(3_300_000), 0).astype(np.int64)
    if workload.disorder_s:
        times -= (draws.bits(14) % np.uint64(round(workload.disorder_s * 1000) + 1)).astype(np.int64)
    if workload.far_late_every:
        times -= np.where(_every(n, workload.far_late_every), 86_400_000, 0)
    if workload.future_every:
        times += np.where(_every(n, workload.future_every), round(workload.future_s * 1000), 0)
    return times


def _every(n: Array, every: int) -> Array:
    last: Array = n % np.uint64(every) == np.uint64(every - 1)
    return last


def _steps_ms(last: int) -> Array:
    """Event time of each step since the start: its gaps lie just under, at and over 30 minutes, or are short."""
    gaps = np.array([60_000, 1_799_999, 1_800_000, 1_800_001, 600_000, 240_000])
    steps: Array = np.concatenate([[0], np.cumsum(gaps[np.arange(last) % len(gaps)])])
    return steps


def due_s(segments: Sequence[tuple[float, float]], numbers: Array) -> Array:
    """Seconds after the start at which each event is due, for stretches of (events per second, seconds)."""
    due = np.zeros(len(numbers))
    first, begins_s = 0.0, 0.0
    for rate, seconds in segments:
        inside = numbers >= first
        if rate:
            due[inside] = begins_s + (numbers[inside] - first) / rate
        first, begins_s = first + rate * seconds, begins_s + seconds
    return due


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
    periods: Sequence[int],
    times: Sequence[int],
    bits: Sequence[int],
) -> list[bytes]:
    catalogue, middles, values = _products(workload.products), _middles(workload.products), []
    of_period = "" if workload.session_gaps else "_"
    for index, topic, user, product, period, ms, extra in zip(
        n, topics, users, products, periods, times, bits, strict=True
    ):
        second, rest = divmod(ms, 1000)
        who = (
            f'","user_id":"user_{user + 1}","session_id":"sess_user_{user + 1}{of_period}{period if of_period else ""}'
        )
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


def _other_clock(value: bytes, ms: int, bits: int) -> bytes:
    """The same record with the same moment written otherwise: with an offset, without, finer, or with a space."""
    ahead = ms + 7_200_000
    forms = (
        f"{_iso(ahead)[:-1]}+02:00",
        _iso(ms)[:-1],
        f"{_iso(ms)[:-1]}999Z",
        _iso(ms).replace("T", " "),
        f"{_iso(ms - 19_800_000)[:-1]}-05:30",
    )
    return value.replace(_iso(ms).encode(), forms[bits % len(forms)].encode())


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
        case "wrong encoding":
            return value.decode().replace('"user_id":"', '"user_id":"é').encode("latin-1")
        case "deep":
            return b'{"event_id":' + b"[" * 3000 + b"]" * 3000 + b"}"
        case "NaN" if topic:
            return _replace_amount(value, b"NaN")
        case "huge number" if topic:
            return _replace_amount(value, b"1" + b"0" * 40)
        case "oversized":
            return value.replace(b'"product_id"', b'"filler":"' + b"x" * 200_000 + b'","product"')
        case "bad timestamp":
            year = value.index(b'"timestamp":"') + 13
            return value[:year] + b"second " + value[year + 1 :]
    outside = (b'"payment_method":"', b'"payment_method":"cash or ') if topic else (b'"action":"', b'"action":"re')
    return value.replace(*outside)


def _replace_amount(value: bytes, number: bytes) -> bytes:
    before, _, after = value.partition(b'"amount":')
    return before + b'"amount":' + number + after[after.index(b",") :]
