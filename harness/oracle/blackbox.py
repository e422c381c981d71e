"""What must, may and must not come out of any pipeline, from what was acknowledged and the watermark delay alone.

Without a checkpoint nobody knows which event was read when. An event is sure to count if it is at most
five minutes behind the newest event that can have been read before it; any other may count. So each
value has a least and a most, and where no event is open they are equal, and the answer is the exact one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from harness.model import Between, Record
from harness.oracle.batches import Watermarks
from harness.oracle.records import Click, Purchase, Rejected, iso
from harness.oracle.reference import DELAY_MS, Expected, Key, Reference, Rows, average

READS = {
    "page_views": ("clickstream",),
    "revenue": ("transactions",),
    "conversions": ("clickstream", "transactions"),
    "sessions": ("clickstream",),
}
Judged = tuple[Record, Click | Purchase | Rejected, bool]
"""A record, the event that it holds, and whether that is sure to count."""


def possible(events: Iterable[Judged]) -> dict[str, Expected]:
    """The answer for records of which each may count or surely does; one that may not exist has offset −1.

    `rows` of the answer must be there, `optional` may be; a value that is not determined is a `Between`.
    """
    known = list(events)
    marks = {query: Watermarks((0, end)) for query, end in _final(known).items()}
    least, most = Reference(marks), Reference(marks)
    for record, event, sure in known:
        queries = dict.fromkeys((*READS, *(("dead_letter",) if record.offset >= 0 else ())), 0)
        most.add(record, event, queries)
        if sure:
            least.add(record, event, queries)
    below, above = least.expected(), most.expected()
    answers = {query: _between(query, below[query], above[query]) for query in ("page_views", "revenue", "conversions")}
    letters = replace(above["dead_letter"], batch={})
    return answers | {"sessions": _sessions(below["sessions"], known), "dead_letter": letters}


def contradiction(query: str, key: Key, values: tuple[Any, ...]) -> str | None:
    """The measure that does not follow from the rest of its row; lateness excuses none."""
    match query, values:
        case "conversions", (int(clicks), int(purchases), rate):
            if purchases > clicks:
                return "purchases"
            return None if clicks and rate == purchases / clicks else "conversion_rate"
        case "revenue", (int(count), str(total), mean):
            return None if count and mean == str(average(Decimal(total), count)) else "avg_transaction"
        case "page_views", (int(views), int(users)):
            return None if 0 < users <= views else "unique_users"
        case "sessions", (str(end), _, duration, _):
            if end < str(key[1]) or not _is_time(end):
                return "session_end"
            length = datetime.fromisoformat(end) - datetime.fromisoformat(str(key[1]))
            return None if duration == length / timedelta(seconds=1) else "duration_seconds"
    return None


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _final(events: list[Judged]) -> dict[str, int]:
    """The watermark at the end, by query: everything that is sure has been read."""
    newest = {"clickstream": 0, "transactions": 0}
    for record, event, sure in events:
        if sure and not isinstance(event, Rejected):
            newest[record.topic] = max(newest[record.topic], event.at_ms)
    return {query: max(0, min(newest[topic] for topic in topics) - DELAY_MS) for query, topics in READS.items()}


def _between(query: str, below: Expected, above: Expected) -> Expected:
    rows: Rows = {}
    optional: Rows = {}
    for key, most in above.rows.items():
        if below.rows.get(key) == most:
            rows[key] = most
        elif key in below.rows:
            rows[key] = _values(query, below.rows[key], most)
        else:
            optional[key] = _values(query, tuple(type(value)(0) for value in most), most)
    return replace(above, rows=rows, optional=optional, batch={})


def _values(query: str, least: tuple[Any, ...], most: tuple[Any, ...]) -> tuple[Any, ...]:
    ranges: list[Any] = [low if low == high else Between(low, high) for low, high in zip(least, most, strict=True)]
    if query == "conversions":  # a rate falls with clicks and rises with purchases
        ranges[-1] = Between(0, 1)
    if query == "revenue":  # a mean is at most the sum
        ranges[-1] = Between(0, most[1])
    return tuple(ranges)


def _sessions(below: Expected, events: list[Judged]) -> Expected:
    """Sessions without an open event are determined; of the others any period that begins with an event may be seen.

    Of how many events, is bounded by those of its id; its end and length must agree.
    """
    open_ids = {event.session for _, event, sure in events if isinstance(event, Click) and not sure}
    rows = {key: values for key, values in below.rows.items() if key[0] not in open_ids}
    clicks = [event for _, event, _ in events if isinstance(event, Click) and event.session in open_ids]
    most = Counter(event.session for event in clicks)
    optional: dict[Key, tuple[Any, ...]] = {
        (event.session, iso(event.at_ms)): (Between(), Between(1, most[event.session]), Between(), "completed")
        for event in clicks
    }
    return replace(below, rows=rows, optional=optional, batch={})
