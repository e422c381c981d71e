"""Query mutants: the four queries with windows or sessions, with every decision as a knob.

With the knobs as they are by default each query gives the rows of the reference; a mutant turns one knob.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_HALF_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, ROUND_UP, Decimal
from functools import partial
from typing import Any

from harness.job.clickstream.contract import QUERIES
from harness.job.clickstream.mutants.model import Given, Item, Mutant, Rows
from harness.job.clickstream.records import Click, Purchase, Rejected, iso
from harness.job.clickstream.reference import DELAY_MS, FIVE_MS, GAP_MS, HORIZON_MS, MINUTE_MS
from harness.job.lateness import Watermarks

Measure = Callable[[Sequence[Item]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """Every decision of a query; each default is the contract's, given a query's lengths, keys and measures.

    `shown` are the identity columns beside the window, `keys` what rows are grouped by. `end_late` drops an event whose
    window end lies exactly at the watermark, `release_ms` is added to the moment at which a row is released.
    """

    length_ms: int = FIVE_MS
    shift_ms: int = 0
    right_closed: bool = False
    shown: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    horizon_ms: int = HORIZON_MS
    before_ms: int = 0
    own_moment: bool = True
    own_horizon: bool = True
    match: tuple[str, ...] = ("user_id", "product_id")
    counted: str = "all"
    window_of: str = "click"
    rate: Callable[[int, int], Any] = lambda bought, clicks: bought / clicks
    gap_ms: int = GAP_MS
    merges: bool = True
    longest_ms: int = 2**60
    fewest: int = 1
    end_late: bool = True
    late_by: str = "end"
    release_ms: int = 0


def moment(item: Item) -> int:
    """The event time of a valid record."""
    assert not isinstance(item.event, Rejected)
    return item.event.at_ms


def read(query: str, given: Given, kind: type) -> list[tuple[Item, int]]:
    """The events of a kind that the query read, each with its batch."""
    return given.once(
        ("read", query, kind),
        lambda: [
            (item, item.batches[query])
            for item in given.items
            if isinstance(item.event, kind) and query in item.batches
        ],
    )


def keyed(query: str, given: Given, kind: type, names: tuple[str, ...]) -> list[tuple[Hashable, ...]]:
    """Values of fields of the events that `read` gives, in the same order."""
    return given.once(
        ("keyed", query, kind, names),
        lambda: [tuple(item.value(name) for name in names) for item, _ in read(query, given, kind)],
    )


def _late(knobs: Knobs, marks: Watermarks, end_ms: int, item: Item, batch: int) -> bool:
    at = moment(item) if knobs.late_by == "time" else end_ms
    if knobs.release_ms < 0 and end_ms + knobs.release_ms <= marks.before(batch):
        return True
    return at <= marks.before(batch) if knobs.end_late else at < marks.before(batch)


def _number(knobs: Knobs, at_ms: int) -> int:
    return (at_ms - knobs.shift_ms - knobs.right_closed) // knobs.length_ms


def _start(knobs: Knobs, number: int) -> int:
    return number * knobs.length_ms + knobs.shift_ms


def _row_key(knobs: Knobs, number: int, item: Item) -> tuple[Any, ...]:
    start = _start(knobs, number)
    return (iso(start), iso(start + knobs.length_ms), *(item.value(name) for name in knobs.shown))


def groups(query: str, knobs: Knobs, given: Given, kind: type) -> Mapping[Hashable, list[Item]]:
    """The events that count, of each window and key."""
    marks = given.watermarks[query]

    def make() -> Mapping[Hashable, list[Item]]:
        found: dict[Hashable, list[Item]] = defaultdict(list)
        for (item, batch), key in zip(read(query, given, kind), keyed(query, given, kind, knobs.keys), strict=True):
            number = _number(knobs, moment(item))
            if not _late(knobs, marks, _start(knobs, number + 1), item, batch):
                found[number, key].append(item)
        return found

    return given.once(("groups", query, replace(knobs, measures=(), shown=()), marks), make)


def grouped(query: str, knobs: Knobs, given: Given, kind: type) -> Rows:
    """Rows of `page_views` or `revenue`."""
    return rows_of(query, knobs, given, groups(query, knobs, given, kind).values())


def rows_of(query: str, knobs: Knobs, given: Given, groups: Iterable[list[Item]]) -> Rows:
    """A row for each group of events whose window is released."""
    marks = given.watermarks[query]
    rows = []
    for items in groups:
        number = _number(knobs, moment(items[0]))
        if marks.first_at(_start(knobs, number + 1) + knobs.release_ms) is not None:
            rows.append((_row_key(knobs, number, items[0]), tuple(measure(items) for measure in knobs.measures)))
    return rows


def page_views(knobs: Knobs, given: Given) -> Rows:
    """Rows of `page_views`."""
    return grouped("page_views", knobs, given, Click)


def revenue(knobs: Knobs, given: Given) -> Rows:
    """Rows of `revenue`."""
    return grouped("revenue", knobs, given, Purchase)


def conversions(knobs: Knobs, given: Given) -> Rows:
    """Rows of `conversions`, linear form."""
    marks = given.watermarks["conversions"]
    clicks = replace(knobs, counted="", rate=_no_rate, release_ms=min(0, knobs.release_ms))
    totals = given.once(("clicks", clicks, marks), lambda: _clicks(clicks, given))
    return [row for (number, _), found in totals.items() for row in _conversion_row(knobs, marks, number, found)]


def _no_rate(bought: int, clicks: int) -> Any:
    raise NotImplementedError


Matched = list[tuple[Item, list[int]]]


def _clicks(knobs: Knobs, given: Given) -> Mapping[tuple[int, Hashable], Matched]:
    """The clicks that count, of each window and key, each with the times of the purchases that it matches."""
    marks = given.watermarks["conversions"]
    purchases = given.once(("purchases", knobs.match, marks), lambda: _purchases(knobs, given))
    totals: dict[tuple[int, Hashable], Matched] = defaultdict(list)
    columns = (keyed("conversions", given, Click, names) for names in (knobs.match, knobs.keys))
    for (item, batch), match, key in zip(read("conversions", given, Click), *columns, strict=True):
        number = _number(knobs, moment(item))
        end = _start(knobs, number + 1) + HORIZON_MS
        if _late(knobs, marks, end, item, batch):
            continue
        matched = list(_matches(knobs, moment(item), end, purchases.get(match, [])))
        if knobs.window_of == "purchase" and matched:
            number = _number(knobs, matched[0])
        totals[number, key].append((item, matched))
    return totals


def _purchases(knobs: Knobs, given: Given) -> Mapping[Hashable, list[tuple[int, int]]]:
    """(time, watermark that it met) of the purchases of each key by which clicks are matched, in order."""
    marks = given.watermarks["conversions"]
    purchases: dict[Hashable, list[tuple[int, int]]] = defaultdict(list)
    bought = zip(read("conversions", given, Purchase), keyed("conversions", given, Purchase, knobs.match), strict=True)
    for (item, batch), key in bought:
        purchases[key].append((moment(item), marks.before(batch)))
    for found in purchases.values():
        found.sort()
    return purchases


def _matches(knobs: Knobs, click_ms: int, end: int, purchases: Sequence[tuple[int, int]]) -> Iterator[int]:
    first = click_ms - knobs.before_ms + (not knobs.own_moment)
    last = click_ms + knobs.horizon_ms - (not knobs.own_horizon)
    for at in range(bisect_left(purchases, (first, -(2**63))), len(purchases)):
        bought_ms, before = purchases[at]
        if bought_ms > last:
            return
        if before < end:
            yield bought_ms


def _conversion_row(knobs: Knobs, marks: Watermarks, number: int, found: list[tuple[Item, list[int]]]) -> Rows:
    if marks.first_at(_start(knobs, number + 1) + HORIZON_MS + knobs.release_ms) is None:
        return []
    clicks, bought = COUNTED[knobs.counted](found)
    if not clicks:
        return []
    return [(_row_key(knobs, number, found[0][0]), (clicks, bought, knobs.rate(bought, clicks)))]


def _of_first(found: list[tuple[Item, list[int]]], last: bool) -> tuple[int, int]:
    """Of a user's clicks that one purchase follows the first, or the last, alone converts."""
    taken = {
        (item.value("user_id"), matched[0])
        for item, matched in sorted(found, key=lambda pair: moment(pair[0]), reverse=last)
        if matched
    }
    return len(found), len(taken)


COUNTED: dict[str, Callable[[list[tuple[Item, list[int]]]], tuple[int, int]]] = {
    "all": lambda found: (len(found), sum(bool(matched) for _, matched in found)),
    "inner": lambda found: (n := sum(bool(matched) for _, matched in found), n),
    "pairs": lambda found: (sum(max(1, len(m)) for _, m in found), sum(len(m) for _, m in found)),
    "purchase pairs": lambda found: (len(found), sum(len(m) for _, m in found)),
    "once a purchase": partial(_of_first, last=False),
    "users": lambda found: (
        len({item.value("user_id") for item, _ in found}),
        len({item.value("user_id") for item, matched in found if matched}),
    ),
    "clicks only": lambda found: _of_action(found, "click"),
    "views only": lambda found: _of_action(found, "view"),
    "event ids": lambda found: (
        len({item.value("event_id") for item, _ in found}),
        len({item.value("event_id") for item, matched in found if matched}),
    ),
    "converted windows": lambda found: COUNTED["all"](found) if any(m for _, m in found) else (0, 0),
    "one match": lambda found: (len(found), sum(len(m) == 1 for _, m in found)),
}
"""How clicks and conversions of a window are counted."""


def _of_action(found: list[tuple[Item, list[int]]], action: str) -> tuple[int, int]:
    chosen = [matched for item, matched in found if item.value("action") == action]
    return len(chosen), sum(map(bool, chosen))


def sessions(knobs: Knobs, given: Given) -> Rows:
    """Rows of `sessions`; each measure takes the items of a session in order of their time."""
    marks = given.watermarks["sessions"]
    periods = given.once(("periods", replace(knobs, measures=()), marks), lambda: _periods(knobs, given))
    return [
        ((items[0].value("session_id"), iso(start)), tuple(measure(items) for measure in knobs.measures))
        for start, items in periods
    ]


def _periods(knobs: Knobs, given: Given) -> list[tuple[int, list[Item]]]:
    """Start and events, in order of time, of each period of activity that is released."""
    marks = given.watermarks["sessions"]
    events: dict[Hashable, list[tuple[int, int, int, Item]]] = defaultdict(list)
    clicks = zip(read("sessions", given, Click), keyed("sessions", given, Click, knobs.keys), strict=True)
    for at, ((item, batch), key) in enumerate(clicks):
        if not _late(knobs, marks, moment(item) + knobs.gap_ms, item, batch):
            events[key].append((batch, moment(item), at, item))
    return [row for found in events.values() for row in _replayed(knobs, marks, sorted(found, key=lambda e: e[:3]))]


Period = tuple[int, int, list[Item]]


def _replayed(
    knobs: Knobs, marks: Watermarks, events: Sequence[tuple[int, int, int, Item]]
) -> list[tuple[int, list[Item]]]:
    rows: list[tuple[int, list[Item]]] = []
    held: list[Period] = []
    last = -1
    for batch, at_ms, _, item in events:
        if batch != last:
            held, last = _released(knobs, marks, held, last, batch, rows), batch
        joined = [period for period in held if _joins(knobs, period, at_ms)]
        joined = joined if knobs.merges else joined[:1]
        held = [period for period in held if all(period is not other for other in joined)]
        starts, ends = [at_ms, *(p[0] for p in joined)], [at_ms, *(p[1] for p in joined)]
        items = joined[0][2] if joined else []
        for _, _, others in joined[1:]:
            items += others
        items.append(item)
        held.append((min(starts), max(ends), items))
    _released(knobs, marks, held, last, None, rows)
    return rows


def _joins(knobs: Knobs, period: Period, at_ms: int) -> bool:
    start, end, _ = period
    inside = start - knobs.gap_ms <= at_ms <= end + knobs.gap_ms
    return inside and max(end, at_ms) - min(start, at_ms) <= knobs.longest_ms


def _released(
    knobs: Knobs, marks: Watermarks, held: list[Period], last: int, until: int | None, rows: list[Any]
) -> list[Period]:
    kept = []
    for start, end, items in held:
        closes = marks.first_at(end + knobs.gap_ms + knobs.release_ms)
        if closes is None or (until is not None and max(closes, last) >= until):
            kept.append((start, end, items))
        elif len(items) >= knobs.fewest:
            rows.append((start, sorted(items, key=moment)))
    return kept


def distinct(name: str) -> Measure:
    """How many different values a field has."""
    return lambda items: len({item.value(name) for item in items})


def _amounts(items: Sequence[Item]) -> list[Decimal]:
    return [item.event.amount for item in items if isinstance(item.event, Purchase)]


def total(items: Sequence[Item]) -> Decimal:
    """The exact sum."""
    return sum(_amounts(items), Decimal(0)).quantize(Decimal("0.01"))


def mean(items: Sequence[Item], places: str = "0.0001", rounding: str = ROUND_HALF_UP) -> Decimal:
    """The mean, of as many places, rounded so."""
    return (total(items) / len(items)).quantize(Decimal(places), rounding)


def _cents(value: Any, places: str = "0.01") -> Decimal:
    return Decimal(value).quantize(Decimal(places), ROUND_HALF_UP)


def _float_sum(items: Sequence[Item]) -> float:
    sums = 0.0
    for amount in _amounts(items):
        sums += float(amount)
    return sums


def _mean_of_means(items: Sequence[Item]) -> Decimal:
    by_batch: dict[int, list[Item]] = defaultdict(list)
    for item in items:
        by_batch[item.batches["revenue"]].append(item)
    means = [total(some) / len(some) for some in by_batch.values()]
    return _cents(sum(means, Decimal(0)) / len(means), "0.0001")


def _per_batch_users(items: Sequence[Item]) -> int:
    return len({(item.batches["page_views"], item.value("user_id")) for item in items})


def _end(items: Sequence[Item]) -> str:
    return iso(moment(items[-1]))


def _seconds(items: Sequence[Item]) -> float:
    return (moment(items[-1]) - moment(items[0])) / 1000


def _completed(items: Sequence[Item]) -> str:
    return "completed"


QUERY: dict[str, tuple[Callable[[Knobs, Given], Rows], Knobs]] = {
    "page_views": (
        page_views,
        Knobs(
            length_ms=MINUTE_MS,
            shown=("product_id", "category"),
            keys=("product_id", "category"),
            measures=(len, distinct("user_id")),
        ),
    ),
    "revenue": (revenue, Knobs(shown=("category",), keys=("category",), measures=(len, total, mean))),
    "conversions": (conversions, Knobs(shown=("product_id",), keys=("product_id",))),
    "sessions": (sessions, Knobs(keys=("session_id",), measures=(_end, len, _seconds, _completed))),
}
"""How each query is computed, and the contract's knobs."""

MEASURES: dict[str, dict[str, dict[str, Measure]]] = {
    "page_views": {
        "view_count": {
            **{f"distinct {name}": distinct(name) for name in ("user_id", "session_id", "event_id", "timestamp")},
            "events of action view": lambda items: sum(item.value("action") == "view" for item in items),
            "one less": lambda items: len(items) - 1,
            "events without a copy": lambda items: len({item.record.value for item in items}),
        },
        "unique_users": {
            **{f"distinct {name}": distinct(name) for name in ("session_id", "event_id", "action", "referrer")},
            "all events": len,
            "users counted anew in each batch": _per_batch_users,
            "users in lower case": lambda items: len({str(item.value("user_id")).lower() for item in items}),
            "users trimmed": lambda items: len({str(item.value("user_id")).strip() for item in items}),
            "an approximate count": lambda items: len({hash_64(item.value("user_id")) for item in items}),
            "users of action view": lambda items: len(
                {item.value("user_id") for item in items if item.value("action") == "view"}
            ),
        },
    },
    "revenue": {
        "transaction_count": {
            **{f"distinct {name}": distinct(name) for name in ("user_id", "session_id", "transaction_id", "amount")},
            "quantities": lambda items: sum(item.value("quantity") for item in items),
            "amounts above zero": lambda items: sum(amount > 0 for amount in _amounts(items)),
        },
        "total_revenue": {
            "a sum of floats": lambda items: _cents(_float_sum(items)),
            "a sum of different amounts": lambda items: _cents(sum(set(_amounts(items)), Decimal(0))),
            "whole units": lambda items: _cents(sum(int(amount) for amount in _amounts(items))),
            "amount times quantity": lambda items: _cents(
                sum((a * i.value("quantity") for a, i in zip(_amounts(items), items, strict=True)), Decimal(0))
            ),
            "the largest amount": lambda items: _cents(max(_amounts(items))),
            "the first amount": lambda items: _cents(_amounts(items)[0]),
            "the last amount": lambda items: _cents(_amounts(items)[-1]),
            "one place": lambda items: total(items).quantize(Decimal("0.1"), ROUND_HALF_UP),
            "sums below 1,000,000": lambda items: _cents(sum((a for a in _amounts(items) if a < 10**6), Decimal(0))),
            "a sum of 32-bit cents": lambda items: _cents(Decimal(int(total(items) * 100) % 2**31) / 100),
        },
        "avg_transaction": {
            **{
                f"rounded by {mode}": partial(mean, rounding=mode)
                for mode in (ROUND_HALF_EVEN, ROUND_HALF_DOWN, ROUND_DOWN, ROUND_UP, ROUND_CEILING)
            },
            "two places": partial(mean, places="0.01"),
            "a mean rounded twice": lambda items: _cents(mean(items, "0.01"), "0.0001"),
            "a mean of floats": lambda items: Decimal(str(round(_float_sum(items) / len(items), 4))).quantize(
                Decimal("0.0001")
            ),
            "a mean of the batches' means": _mean_of_means,
            "the median": lambda items: _cents(sorted(_amounts(items))[len(items) // 2], "0.0001"),
            "a mean by users": lambda items: _cents(total(items) / distinct("user_id")(items), "0.0001"),
        },
    },
    "sessions": {
        "session_end": {
            "the end of the gap": lambda items: iso(moment(items[-1]) + GAP_MS),
            "the last event read": lambda items: iso(moment(max(items, key=lambda item: item.batches["sessions"]))),
            "whole seconds": lambda items: iso(moment(items[-1]) // 1000 * 1000),
        },
        "event_count": {
            **{f"distinct {name}": distinct(name) for name in ("event_id", "product_id", "timestamp", "page_url")},
            "views": lambda items: sum(item.value("action") == "view" for item in items),
            "one less": lambda items: len(items) - 1,
        },
        "duration_seconds": {
            "whole seconds": lambda items: float(_seconds(items) // 1),
            "milliseconds": lambda items: _seconds(items) * 1000,
            "with the gap": lambda items: _seconds(items) + GAP_MS / 1000,
            "seconds of the minute": lambda items: _seconds(items) % 60,
            "one hour at most": lambda items: min(3600.0, _seconds(items)),
        },
        "status": {"capitals": lambda items: "COMPLETED", "active": lambda items: "active"},
    },
}
"""For each measure, other functions that a wrong pipeline may compute."""


def hash_64(value: Any) -> int:
    """A hash of 6 bits, as of a sketch that is too small."""
    return sum((at + 1) * byte for at, byte in enumerate(str(value).encode())) % 64


KNOBS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    query: {
        f"window of {seconds} s": (f"a window of {seconds} s from the contract's", {"length_ms": seconds * 1000})
        for seconds in ({"page_views": (30, 59, 61, 120)}.get(query, (60, 299, 301, 600)))
    }
    | {
        f"shifted by {shift} ms": (f"windows shifted by {shift} ms from aligned ones", {"shift_ms": shift})
        for shift in (1, 1000, 30_000, 120_000)
        if shift < (60_000 if query == "page_views" else 300_000)
    }
    | {"closed at the end": ("(start, end] from [start, end)", {"right_closed": True})}
    for query in ("page_views", "revenue", "conversions")
}
KNOBS["sessions"] = {
    f"gap of {ms} ms": (f"a gap of {ms} ms from one of 30 minutes", {"gap_ms": ms})
    for ms in (60_000, 300_000, 1_740_000, 1_799_999, 1_800_001, 1_860_000, 3_600_000)
} | {
    "does not merge": ("sessions joined by a late event from sessions left apart", {"merges": False}),
    "at most an hour": ("a session longer than an hour from one cut there", {"longest_ms": 3_600_000}),
    "at most 75 minutes": ("a session longer than 75 minutes from one cut there", {"longest_ms": 4_500_000}),
    "two events at least": ("a session of one event from none", {"fewest": 2}),
}
KNOBS["conversions"] |= {
    f"horizon of {ms} ms": (f"a horizon of {ms} ms from one of 10 minutes", {"horizon_ms": ms})
    for ms in (0, 300_000, 590_000, 599_000, 601_000, 660_000, 900_000, 1_800_000)
} | {
    "horizon excluded": ("a purchase exactly 10 minutes later from a later one", {"own_horizon": False}),
    "own moment excluded": ("a purchase in the click's own millisecond from an earlier one", {"own_moment": False}),
    "purchase 1 ms before": ("a purchase 1 ms before the click from one at the click", {"before_ms": 1}),
    "purchase before": ("a purchase before the click from one after it", {"before_ms": HORIZON_MS}),
    "window of the purchase": ("the click's window from the purchase's", {"window_of": "purchase"}),
    **{
        f"counts {way}": (f"each click counted once from counting {way}", {"counted": way})
        for way in COUNTED
        if way != "all"
    },
    **{
        f"joined by {'+'.join(names)}": (
            f"a match by user and product from one by {' and '.join(names)}",
            {"match": names},
        )
        for names in (
            ("user_id",),
            ("product_id",),
            ("session_id",),
            ("session_id", "product_id"),
            ("user_id", "category"),
            ("user_id", "product_id", "session_id"),
            ("user_id", "product_id", "category"),
        )
    },
    "rate of two places": ("an exact rate from one of 2 places", {"rate": lambda b, c: round(b / c, 2)}),
    "rate of four places": ("an exact rate from one of 4 places", {"rate": lambda b, c: round(b / c, 4)}),
    "rate in percent": ("a rate from a percentage", {"rate": lambda b, c: 100 * b / c}),
    "rate inverted": ("purchases / clicks from clicks / purchases", {"rate": lambda b, c: c / b if b else 0}),
    "rate of integers": ("a division of decimals from one of integers", {"rate": lambda b, c: b // c}),
    "rate null where 0": ("a rate of 0 from null", {"rate": lambda b, c: b / c if b else None}),
}
LATENESS: dict[str, tuple[str, dict[str, Any]]] = {
    "at the end is in time": ("a late event exactly at the watermark from one in time", {"end_late": False}),
    "late by its own time": ("lateness by the window's end from lateness by the event's time", {"late_by": "time"}),
    "released a minute early": ("a row released by the watermark from one a minute early", {"release_ms": -60_000}),
    "released a ms late": ("a row released at the watermark from one after it", {"release_ms": 1}),
}
EQUIVALENT = {
    "released a ms late": "the rows are the same, at most a batch later: an event of the window that comes in between is late"
}
"""Mutants of windows that no input can kill, with the reason; of sessions an event in between may join one that is still held."""
SUBJECTS = ("user_id", "session_id", "product_id", "category")
"""Fields of both topics that a key may be made of."""


def _keys(query: str, right: tuple[str, ...]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Each key column dropped, replaced by, or joined with, another field."""
    for name in right:
        rest = tuple(other for other in right if other != name)
        yield f"key without {name}", f"rows of different {name} from rows added up over {name}", rest
        for other in SUBJECTS:
            if other not in right:
                yield f"key {other} for {name}", f"a {name} from a {other} in the key", (*rest, other)
    others = (*SUBJECTS, "action") if query != "revenue" else (*SUBJECTS, "payment_method")
    for other in others:
        if other not in right:
            yield f"key with {other}", f"a key with {other} from one without", (*right, other)


def _turned(query: str, changes: dict[str, Any], given: Given) -> Mapping[str, Rows]:
    compute, right = QUERY[query]
    return {query: compute(replace(right, **changes), given)}


def _at(marks: Watermarks, shift_ms: int) -> Watermarks:
    return replace(marks, at=tuple(max(0, at + shift_ms) if at > 0 else at for at in marks.at))


def _with_marks(query: str, change: Callable[[Given], Watermarks], given: Given) -> Mapping[str, Rows]:
    compute, right = QUERY[query]
    return {query: compute(right, replace(given, watermarks={**given.watermarks, query: change(given)}))}


def _one_source(kind: type, given: Given) -> Watermarks:
    """The watermark of `conversions` by one of its topics alone."""
    right = given.watermarks["conversions"]
    newest = [0] * (len(right.at) + 1)
    for item, batch in read("conversions", given, kind):
        if batch < len(right.at):
            newest[batch + 1] = max(newest[batch + 1], moment(item) - DELAY_MS)
    for at in range(1, len(newest)):
        newest[at] = max(newest[at], newest[at - 1])
    return replace(right, at=tuple(newest[: len(right.at)]))


def _marks_mutants(query: str) -> Iterator[Mutant]:
    for lateness, sentence in (
        ("never", "late events dropped from late events counted"),
        ("own", "the watermark of the batch before from that of an event's own batch"),
    ):
        change = partial(lambda given, how: replace(given.watermarks[query], lateness=how), how=lateness)
        yield Mutant(f"{query}: lateness {lateness}", query, sentence, partial(_with_marks, query, change))
    for shift in (-300_000, -60_000, -1, 1, 60_000, 300_000):
        delay_ms = DELAY_MS - shift
        change = partial(lambda given, ms: _at(given.watermarks[query], ms), ms=shift)
        sentence = f"a delay of {delay_ms} ms from one of 5 minutes"
        yield Mutant(f"{query}: delay of {delay_ms} ms", query, sentence, partial(_with_marks, query, change))
    if query == "conversions":
        for kind, name in ((Click, "clicks"), (Purchase, "purchases")):
            sentence = f"the watermark of both topics from that of {name} alone"
            run = partial(_with_marks, query, partial(_one_source, kind))
            yield Mutant(f"{query}: watermark of {name}", query, sentence, run)


def _measure_mutants(query: str) -> Iterator[Mutant]:
    _, right = QUERY[query]
    names = QUERIES[query].measures
    for column, others in MEASURES.get(query, {}).items():
        at = names.index(column)
        for label, measure in others.items():
            changes = {"measures": (*right.measures[:at], measure, *right.measures[at + 1 :])}
            sentence = f"{column} from {label}"
            yield Mutant(f"{query}: {column} is {label}", query, sentence, partial(_turned, query, changes))


def mutants() -> Iterator[Mutant]:
    """Every query mutant of the four queries with windows or sessions."""
    for query, (_, right) in QUERY.items():
        for name, (sentence, changes) in (KNOBS[query] | LATENESS).items():
            same = EQUIVALENT.get(name) if query != "sessions" else None
            yield Mutant(f"{query}: {name}", query, sentence, partial(_turned, query, changes), same)
        for name, sentence, keys in _keys(query, right.keys):
            yield Mutant(f"{query}: {name}", query, sentence, partial(_turned, query, {"keys": keys}))
        yield from _measure_mutants(query)
        yield from _marks_mutants(query)
