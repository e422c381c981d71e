"""Which events there are: a pure function of seed and index, and nothing else.

Event n of a workload is the same bytes on every day, machine and version: all draws are splitmix64
of (seed, n), in integers. When an event is due is the engine's business; its event time is the fixed
start + n / eps × time_scale. A share of the events is awkward, as `awkward` has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.job.clickstream import awkward
from harness.job.clickstream.awkward import ACTORS, BLOCK, OWNERS, ROLES, SHARE_MAX, SLOTS
from harness.job.clickstream.contract import CLICKSTREAM, EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, TRANSACTIONS
from harness.job.clickstream.spoiled import SPOILED

Array = npt.NDArray[Any]

FORMAT = 2
"""Of the events: the bytes that a seed gives. Those of format 1 are today's with `Workload.awkward` 0."""
TOPICS = (CLICKSTREAM, TRANSACTIONS)
FLUSH_AHEAD_MS = 2 * 3600 * 1000
HALF_HOUR_MS = 1_800_000
CATALOGUE = (("electronics", 29999), ("electronics", 49999), ("clothing", 4999), ("books", 1999), ("home", 7999))
ACTIONS = ("view", "view", "view", "click", "click", "add_to_cart")
PAYMENTS = ("credit_card", "debit_card", "paypal")
REFERRERS = ("google.com", "direct", "newsletter", "partner.example")
_MS = np.array([f".{ms:03d}" for ms in range(1000)], dtype=object)
_ACTIONS, _REFERRERS, _PAYMENTS = (np.array(names, dtype=object) for names in (ACTIONS, REFERRERS, PAYMENTS))
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
"""What is wrong with a malformed record without awkward events; index 0 is a valid one. With them it is an element of `SPOILED`."""
OUT_OF_RANGE = len(MALFORMED)
"""The kind of a record whose event time the contract rejects; its bytes are not altered. With awkward events it is 255."""
EVEN_MALFORMED_MAX = 0.1
"""Up to this share malformed events come at even distances, about."""


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
    awkward: float = field(
        default=SHARE_MAX,
        metadata={"min": 0, "max": SHARE_MAX, "doc": "events that show defects: odd forms, edges, ties"},
    )
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
    count from 0; `owner` is the user in a session's id and `period` the half hour, 0 where it has none. `role` is an
    index into awkward.ROLES, 0 of a plain event. The rows of `is_form` are written otherwise than these columns have it.
    """

    n: Array
    topic: Array
    user: Array
    owner: Array
    product: Array
    period: Array
    event_time_ms: Array
    malformed: Array
    copy: Array
    extra: Array
    role: Array
    draws: _Draws

    @property
    def is_form(self) -> Array:
        """The events that take their bytes to know: valid records in an odd form."""
        chosen: Array = awkward.IS_FORM[self.role] & (self.malformed == 0)
        return chosen

    def cents(self, workload: Workload) -> Array:
        """The amount of each transaction, in cents; of a click what its product would have cost."""
        prices = np.array([price for _, _, price in _products(workload.products)])
        usual = prices[self.product] * np.where(
            self.product < workload.products, 1 + self.extra % np.uint64(3), 1
        ).astype(np.int64)
        own = awkward.CENTS[self.role]
        return np.where(own >= 0, own, usual)


def draw(workload: Workload, seed: int, eps: float, numbers: Array) -> Drawn:
    """What the events of these numbers are about."""
    n = _originals(workload, seed, numbers)
    role = _roles(workload, seed, n)
    n, role = n - awkward.IS_COPY[role].astype(np.uint64), role - awkward.IS_COPY[role]
    pair = n // np.uint64(2) * np.uint64(2) if workload.exact_horizon else n
    draws = _Draws(seed, n)
    draws_of_pair = _Draws(seed, pair) if workload.exact_horizon else draws
    users = _pick(draws_of_pair.bits(1), workload.users, workload.user_skew)
    products = _pick(draws_of_pair.bits(2), workload.products, workload.product_skew)
    topic = (_unit(draws.bits(0)) >= _threshold(_plain_clicks(workload))).astype(np.uint8)
    if workload.exact_horizon:
        topic = (n % np.uint64(2)).astype(np.uint8)
    if workload.transactions_until:
        topic[n >= workload.transactions_until] = 0
    if workload.session_gaps:
        users = (n % np.uint64(workload.users)).astype(np.int64)
    topic = np.where(role > 0, awkward.TOPIC[role], topic)
    kinds = _malformed(workload, draws, n, topic)
    times = _event_times(workload, draws_of_pair, pair, eps)
    if workload.exact_horizon:
        times = times + np.where(topic == 1, awkward.HORIZON_MS, 0)
    periods = np.zeros(len(n), dtype=np.int64) if workload.session_gaps else times // HALF_HOUR_MS
    drawn = Drawn(n, topic, users, users, products, periods, times, kinds, n != numbers, draws.bits(3), role, draws)
    if workload.awkward:
        drawn = _with_roles(workload, seed, eps, drawn)
    out_of_range = (drawn.event_time_ms < EVENT_TIME_MS_MIN) | (drawn.event_time_ms > EVENT_TIME_MS_MAX)
    kinds[(kinds == 0) & out_of_range] = 255 if workload.awkward else OUT_OF_RANGE
    return drawn


def _roles(workload: Workload, seed: int, n: Array) -> Array:
    """For each event its index into awkward.ROLES; 0 is a plain one, as is each that the mix of the workload excludes."""
    if not workload.awkward:
        return np.zeros(len(n), dtype=np.int64)
    block = n // np.uint64(BLOCK)
    draws = _Draws(seed, block)
    # The first two events of a block stay plain: whoever wants one of either topic takes them.
    slot = (
        (n % np.uint64(BLOCK)).astype(np.int64) - 2 - (draws.bits(15) % np.uint64(BLOCK - SLOTS - 1)).astype(np.int64)
    )
    taken = (slot >= 0) & (slot < SLOTS)
    if workload.awkward < SHARE_MAX:
        taken &= _unit(draws.bits(16)) < _threshold(workload.awkward / SHARE_MAX)
    cycle, kind = np.divmod(block.astype(np.int64), len(awkward.CYCLE))
    kind[cycle % awkward.HUGE_EVERY == awkward.HUGE_AT] = awkward.OF_HUGE
    kind[block == 0] = awkward.OF_FIRST
    role = np.where(taken, awkward.ROLE_AT[kind, np.clip(slot, 0, SLOTS - 1)], 0)
    role[awkward.MOMENT_MS[role] >= start_ms(workload)] = 0
    sales = awkward.TOPIC[role] == 1
    if workload.clickstream_share == 0:
        role[~sales] = 0
    if workload.clickstream_share == 1:
        role[sales] = 0
    if workload.transactions_until:
        role[sales & (n >= workload.transactions_until)] = 0
    return role


def _plain_clicks(workload: Workload) -> float:
    """The share of clicks among plain events that, with the awkward ones, comes to the workload's."""
    share = workload.clickstream_share
    if not workload.awkward or share in (0, 1):
        return share
    clicks, sales = (part * workload.awkward / SHARE_MAX for part in awkward.shares())
    return min(1.0, max(0.0, (share - clicks) / (1 - clicks - sales)))


def _malformed(workload: Workload, draws: _Draws, n: Array, topic: Array) -> Array:
    """For each event the kind in which it is malformed, 0 of a valid one; where the kind is of one topic, `topic` is set to it."""
    if not workload.awkward:
        chosen = _unit(draws.bits(5)) < _threshold(workload.malformed)
        return np.where(chosen, draws.bits(6) % np.uint64(len(MALFORMED) - 1) + np.uint64(1), 0).astype(np.uint8)
    if not workload.malformed:
        return np.zeros(len(n), dtype=np.uint8)
    every = np.uint64(round(1 / workload.malformed)) if workload.malformed <= EVEN_MALFORMED_MAX else np.uint64(1)
    turn = n // every
    if every > 1:
        chosen = n % every == draws.of(turn).bits(5) % every
    else:
        chosen = _unit(draws.bits(5)) < _threshold(workload.malformed)
    kinds = np.where(chosen, turn % np.uint64(len(SPOILED)) + np.uint64(1), 0).astype(np.uint8)
    if workload.clickstream_share not in (0, 1):
        topic[chosen] = _TOPIC_OF_KIND[kinds[chosen]]
        if workload.transactions_until:
            topic[n >= workload.transactions_until] = 0
    # A kind of the other topic becomes its neighbour, which is of this one.
    kinds[chosen] = _KIND_FOR[topic[chosen], kinds[chosen]]
    return kinds


def _with_roles(workload: Workload, seed: int, eps: float, drawn: Drawn) -> Drawn:
    """The events with what their roles make of them."""
    rows = np.flatnonzero(drawn.role)
    role, n = drawn.role[rows], drawn.n[rows]
    columns = {name: getattr(drawn, name).copy() for name in ("user", "owner", "product", "period", "event_time_ms")}
    blocks = n // np.uint64(BLOCK)
    first = (blocks - np.minimum(awkward.AFTER[role], blocks)) * np.uint64(BLOCK)
    block = first.astype(np.int64) // BLOCK
    scene = awkward.IS_SCENE[role]
    times = columns["event_time_ms"][rows]
    own = _clock(workload, first, eps) + awkward.AT_MS[role]
    if workload.exact_horizon:
        own += np.where(awkward.IS_SALES_ALONE[role], awkward.HORIZON_MS, 0)
    own = awkward.watermark_at(own, role)
    times = np.where(scene, own, times // awkward.GRAIN_MS[role] * awkward.GRAIN_MS[role])
    times = np.where(awkward.MOMENT_MS[role] >= 0, awkward.MOMENT_MS[role], times)
    actor = workload.users + (_Draws(seed, first).bits(17) % np.uint64(ACTORS // 4)).astype(np.int64) * 4
    shared = awkward.OWNER[role] < 0
    owner = np.where(shared, workload.users + ACTORS - 1 - awkward.OWNER[role], actor + awkward.OWNER[role])
    period = np.where(shared, -1 - own // awkward.LONG_MS, block + 1)
    columns["event_time_ms"][rows] = times
    for name, values in (
        ("user", actor + awkward.USER[role]),
        ("owner", owner),
        ("product", workload.products + awkward.PRODUCT[role]),
        ("period", period),
    ):
        columns[name][rows] = np.where(scene, values, columns[name][rows])
    return replace(drawn, **columns)


def _kinds_by_topic() -> tuple[Array, Array]:
    """Topic of each kind of `SPOILED`, and for a topic and a kind the nearest kind of that topic; kinds count from 1."""
    of_kind = np.array([0, *(topic for topic, _, _ in SPOILED)], dtype=np.uint8)
    mine = [np.flatnonzero(of_kind[1:] == topic) + 1 for topic in range(len(TOPICS))]
    kinds = np.arange(len(of_kind))
    return of_kind, np.array([some[np.abs(some[:, None] - kinds).argmin(axis=0)] for some in mine], dtype=np.uint8)


_TOPIC_OF_KIND, _KIND_FOR = _kinds_by_topic()


def batch(workload: Workload, seed: int, eps: float, first: int, count: int) -> Events:
    """Events first … first + count − 1."""
    return written(workload, draw(workload, seed, eps, np.arange(first, first + count, dtype=np.uint64)))


def written(workload: Workload, drawn: Drawn) -> Events:
    """The events as records: key and value in bytes."""
    draws, times, topic = drawn.draws, drawn.event_time_ms, drawn.topic
    values = _values(workload, drawn)
    names = _keys(workload.users)
    keys = list(map(names.__getitem__, drawn.user.tolist()))
    if workload.odd_clocks:
        odd = _unit(draws.bits(8)) < _threshold(workload.odd_clocks)
        for at in np.flatnonzero(odd & (drawn.role == 0)).tolist():
            values[at] = _other_clock(values[at], int(times[at]), int(draws.bits(9)[at]))
    for at in np.flatnonzero(drawn.is_form).tolist():
        role = int(drawn.role[at])
        values[at] = ROLES[role].write(values[at], int(times[at]))  # type: ignore[misc]
        keys[at] = awkward.KEYS.get(role, keys[at])
    malformed = np.flatnonzero(drawn.malformed)
    for at, bits in zip(malformed.tolist(), draws.bits(7)[malformed].tolist(), strict=True):
        kind = int(drawn.malformed[at])
        if workload.awkward and kind <= len(SPOILED):
            values[at] = SPOILED[kind - 1][2](values[at], bits)
        elif not workload.awkward and kind < OUT_OF_RANGE:
            values[at] = _spoil(values[at], MALFORMED[kind], int(topic[at]), bits)
    return Events(topic, keys, values, times, drawn.malformed, drawn.copy)


def users(workload: Workload) -> list[str]:
    """The ids of the users, then those of the users that only awkward events have, and of the owners of shared sessions."""
    return [key.decode() for key in _keys(workload.users)]


def products(workload: Workload) -> tuple[list[str], list[str]]:
    """The ids of the products, then those of awkward events, and the category of each; a product with two is there twice."""
    known = _products(workload.products)
    return [name for name, _, _ in known], [category for _, category, _ in known]


def session(workload: Workload, owner: int, period: int) -> str:
    """The id of a user's session."""
    return f"sess_user_{owner + 1}" + ("" if workload.session_gaps and not period else f"_{period}")


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


def _clock(workload: Workload, n: Array, eps: float) -> Array:
    """The event time in epoch ms at which each event comes, on the scenario's scale."""
    if workload.session_gaps:
        return start_ms(workload) + _steps_ms(int(n.max(initial=0)) // workload.users)[n // np.uint64(workload.users)]
    passed_ms = np.floor(n.astype(np.float64) * (1000.0 * workload.time_scale) / eps)
    return start_ms(workload) + passed_ms.astype(np.int64)


def _event_times(workload: Workload, draws: _Draws, n: Array, eps: float) -> Array:
    """Event times in epoch ms: on the scenario's scale, then late, disordered or in the future as it asks."""
    times = _clock(workload, n, eps)
    if workload.session_gaps:
        return times
    if workload.late or workload.too_late:
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
        self._seed = seed
        self._base = _mix(n * np.uint64(0x9E3779B97F4A7C15) + _mix(np.array([seed], dtype=np.uint64)))

    def of(self, n: Array) -> _Draws:
        """Draws of the same seed for other numbers."""
        return _Draws(self._seed, n)

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
    return [b"user_%d" % (number + 1) for number in range(users + ACTORS + OWNERS)]


@lru_cache(maxsize=4)
def _products(count: int) -> list[tuple[str, str, int]]:
    usual = [(f"prod_{number + 1:03d}", *CATALOGUE[number % len(CATALOGUE)]) for number in range(count)]
    return usual + list(awkward.VARIANTS)


@lru_cache(maxsize=4)
def _of_products(products: int) -> tuple[Array, Array, Array]:
    """Of each product the text before a click's action, after its time, and before a sale's amount."""
    known = _products(products)
    middles = [f'","product_id":"{name}","category":"{category}"' for name, category, _ in known]
    return (
        _texts(f'{middle},"action":"' for middle in middles),
        _texts(f'Z","page_url":"/product/{name}","referrer":"' for name, _, _ in known),
        _texts(f'{middle},"amount":' for middle in middles),
    )


@lru_cache(maxsize=4)
def _of_users(users: int) -> tuple[Array, Array]:
    """Of each user the text between a record's id and its session's owner, and its name."""
    names = [key.decode() for key in _keys(users)]
    return _texts(f'","user_id":"{name}","session_id":"sess_' for name in names), _texts(names)


def _texts(texts: Iterable[str]) -> Array:
    """Texts as an array of objects, which another array can index."""
    return np.array([*texts], dtype=object)


@lru_cache(maxsize=65_536)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _iso(ms: int) -> str:
    return f"{_second(ms // 1000)}.{ms % 1000:03d}Z"


def _values(workload: Workload, drawn: Drawn) -> list[bytes]:
    """Compact records of these events; a column of texts at a time, since a call an event costs more than its text."""
    texts = np.empty(len(drawn.n), dtype=object)
    of_user, names = _of_users(workload.users)
    before_action, after_time, before_amount = _of_products(workload.products)
    hexes = drawn.n.astype(">u8").tobytes().hex()
    seconds, of_second = np.unique(drawn.event_time_ms // 1000, return_inverse=True)
    seconds, thousandths = _texts(map(_second, seconds.tolist()))[of_second], _MS[drawn.event_time_ms % 1000]
    cents = drawn.cents(workload)
    choice = drawn.extra >> np.uint64(8)
    clicks, sales = np.flatnonzero(drawn.topic == 0), np.flatnonzero(drawn.topic != 0)

    def common(rows: Array) -> tuple[list[str], ...]:
        """Number, text of the user, owner and period of the session, and second and ms of records."""
        periods, of_period = np.unique(drawn.period[rows], return_inverse=True)
        plain = workload.session_gaps
        suffixes = _texts("" if plain and not period else f"_{period}" for period in periods.tolist())
        numbers = [hexes[16 * row + 4 : 16 * row + 16] for row in rows.tolist()]
        columns = (
            of_user[drawn.user[rows]],
            names[drawn.owner[rows]],
            suffixes[of_period],
            seconds[rows],
            thousandths[rows],
        )
        return numbers, *(column.tolist() for column in columns)

    product, extra, other = drawn.product[clicks], drawn.extra[clicks], choice[clicks]
    texts[clicks] = [
        f'{{"event_id":"evt_{number}{who}{owner}{period}{before}{action}","timestamp":"{second}{ms}{after}{referrer}"}}'
        for number, who, owner, period, second, ms, before, action, after, referrer in zip(
            *common(clicks),
            before_action[product].tolist(),
            _ACTIONS[extra % np.uint64(6)].tolist(),
            after_time[product].tolist(),
            _REFERRERS[other % np.uint64(4)].tolist(),
            strict=True,
        )
    ]
    product, extra, other = drawn.product[sales], drawn.extra[sales], choice[sales]
    texts[sales] = [
        f'{{"transaction_id":"txn_{number}{who}{owner}{period}{before}{cent // 100}.{cent % 100:02d},"quantity":{1 + quantity},'
        f'"timestamp":"{second}{ms}Z","payment_method":"{payment}"}}'
        for number, who, owner, period, second, ms, before, cent, quantity, payment in zip(
            *common(sales),
            before_amount[product].tolist(),
            cents[sales].tolist(),
            (extra % np.uint64(3)).tolist(),
            _PAYMENTS[other % np.uint64(3)].tolist(),
            strict=True,
        )
    ]
    return "\n".join(texts).encode().split(b"\n") if len(texts) else []


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
    """The record made invalid in the way of `kind`; a kind of transactions' fields becomes its like for clicks."""
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
