"""What must, may and must not come out of any pipeline, from what was acknowledged and the watermark delay alone.

Without a checkpoint nobody knows which event was read when. An event is sure to count if it is at most
five minutes behind the newest event that can have been read before it; any other may count. So each
value has a least and a most, and where no event is open they are equal, and the answer is the exact one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

from harness.job.clickstream.records import Click, Purchase, Rejected, iso
from harness.job.clickstream.reference import DELAY_MS, GAP_MS, Expected, Key, Reference, Rows, average
from harness.job.lateness import Watermarks
from harness.model import Between, Moment, Record

READS = {
    "page_views": ("clickstream",),
    "revenue": ("transactions",),
    "conversions": ("clickstream", "transactions"),
    "sessions": ("clickstream",),
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    """JSON has one kind of numbers: 3.0 is 3."""
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


KINDS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "page_views": {"view_count": _is_count, "unique_users": _is_count},
    "revenue": {"transaction_count": _is_count, "total_revenue": _is_text, "avg_transaction": _is_text},
    "conversions": {"clicks": _is_count, "purchases": _is_count, "conversion_rate": _is_number},
    "sessions": {
        "session_end": _is_text,
        "event_count": _is_count,
        "duration_seconds": _is_number,
        "status": _is_text,
    },
}
"""What each measure is after a way through JSON; a decimal is its digits."""
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
    sessions = _sessions(below["sessions"], above["sessions"], known)
    return answers | {"sessions": sessions, "dead_letter": letters}


def contradiction(query: str, moments: Mapping[str, Sequence[Moment]], key: Key, values: tuple[Any, ...]) -> str | None:
    """The measure that does not follow from the rest of its row, or from the `moments` in it; lateness excuses none."""
    for (name, kind), value in zip(KINDS.get(query, {}).items(), values, strict=False):
        if not kind(value):
            return name
    match query, values:
        case "conversions", (clicks, purchases, rate):
            if purchases > clicks:
                return "purchases"
            return None if clicks and rate == purchases / clicks else "conversion_rate"
        case "revenue", (count, total, mean):
            return None if count and mean == str(average(Decimal(total), int(count))) else "avg_transaction"
        case "page_views", (views, users):
            return None if 0 < users <= views else "unique_users"
        case "sessions", (end, count, duration, _):
            return _contradiction_of_session(moments.get(str(key[0])), str(key[1]), end, count, duration)
    return None


def _contradiction_of_session(
    moments: Sequence[Moment] | None, start: str, end: str, count: int, duration: float
) -> str | None:
    if end < start or not _is_time(end):
        return "session_end"
    if duration != (datetime.fromisoformat(end) - datetime.fromisoformat(start)) / timedelta(seconds=1):
        return "duration_seconds"
    if moments is None:
        return None
    inside = [(at, sure) for at, sure in moments if start <= at <= end]
    if end not in dict(inside) or _is_parted(sorted(at for at, _ in inside)):
        return "session_end"
    return None if sum(sure for _, sure in inside) <= count <= len(inside) else "event_count"


def _is_parted(moments: Sequence[str]) -> bool:
    """Whether there is more than a gap between two that follow each other, so that no event can have joined them."""
    times = [datetime.fromisoformat(at) for at in moments]
    return any(later - earlier > timedelta(milliseconds=GAP_MS) for earlier, later in pairwise(times))


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


def _sessions(below: Expected, above: Expected, events: list[Judged]) -> Expected:
    """Sessions without an open event are determined; of the others any period that begins with an event may be seen.

    It holds the events of its id from its start to its end, those that are sure and maybe others. One that is sure must
    be in a row, where the longest session that it can be in is closed.
    """
    open_ids = {event.session for _, event, sure in events if isinstance(event, Click) and not sure}
    rows = {key: values for key, values in below.rows.items() if key[0] not in open_ids}
    clicks = [event for _, event, _ in events if isinstance(event, Click) and event.session in open_ids]
    anything: tuple[Any, ...] = (Between(), Between(), Between(), "completed")
    optional = {(event.session, iso(event.at_ms)): anything for event in clicks}
    closed: dict[str, list[tuple[str, str]]] = {}
    for (session, start), (end, *_) in above.rows.items():
        closed.setdefault(session, []).append((start, end))
    moments: dict[str, list[Moment]] = {}
    for _, event, sure in events:
        if isinstance(event, Click) and event.session in open_ids:
            at = iso(event.at_ms)
            must = sure and any(start <= at <= end for start, end in closed.get(event.session, ()))
            moments.setdefault(event.session, []).append((at, must))
    return replace(below, rows=rows, optional=optional, moments=moments, batch={})
