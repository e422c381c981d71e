"""The contract once more, in plain Python, an event at a time.

Written from contract.md alone, to be read against it: slower and smaller than the pipeline, and
sharing nothing with it. This oracle judges on-time data: every valid record counts, and every window
that the flush events close has its row. Whether the data was on time is checked apart (`late`).
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from typing import Any

from harness.model import Record

MINUTE_MS = 60_000
DELAY_MS = 5 * MINUTE_MS
HORIZON_MS = 10 * MINUTE_MS
GAP_MS = 30 * MINUTE_MS

Rows = dict[tuple[Any, ...], tuple[Any, ...]]

OPTIONAL = ("page_url", "referrer")
ACTIONS = {"view", "click", "add_to_cart"}
PAYMENTS = {"credit_card", "debit_card", "paypal"}
CLICK_STRINGS = ("event_id", "user_id", "session_id", "product_id", "category", "action")
TRANSACTION_STRINGS = ("transaction_id", "user_id", "session_id", "product_id", "category", "payment_method")
TIMESTAMP = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?(Z|[+-]\d{2}:\d{2})?")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Click:
    """A valid clickstream record."""

    at_ms: int
    user: str
    session: str
    product: str
    category: str


@dataclass(frozen=True, slots=True)
class Purchase:
    """A valid transaction."""

    at_ms: int
    user: str
    product: str
    category: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that the contract sends to the dead letter, and every reason that would be a right one."""

    reasons: frozenset[str]


def parse(record: Record) -> Click | Purchase | Rejected:
    """Read a record by the contract's table of input."""
    fields = _object(record.value)
    if fields is None:
        return Rejected(frozenset({"not json"}))
    strings = CLICK_STRINGS if record.topic == "clickstream" else TRANSACTION_STRINGS
    problems = set(_string_problems(fields, strings))
    at_ms = _timestamp(fields.get("timestamp"), problems)
    if record.topic == "clickstream":
        _in_set(fields, "action", ACTIONS, problems)
        problems |= {f"type {name}" for name in OPTIONAL if not isinstance(fields.get(name), str | None)}
        if problems or at_ms is None:
            return Rejected(frozenset(problems))
        return Click(at_ms, fields["user_id"], fields["session_id"], fields["product_id"], fields["category"])
    _in_set(fields, "payment_method", PAYMENTS, problems)
    amount = _amount(fields.get("amount"), problems)
    _quantity(fields.get("quantity"), problems)
    if problems or at_ms is None or amount is None:
        return Rejected(frozenset(problems))
    return Purchase(at_ms, fields["user_id"], fields["product_id"], fields["category"], amount)


def _object(value: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(value.decode("utf-8"), parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError, InvalidOperation):
        return None
    return fields if isinstance(fields, dict) else None


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _string_problems(fields: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        if fields.get(name) is None:
            yield f"missing {name}"
        elif not isinstance(fields[name], str):
            yield f"type {name}"


def _in_set(fields: dict[str, Any], name: str, allowed: set[str], problems: set[str]) -> None:
    if isinstance(fields.get(name), str) and fields[name] not in allowed:
        problems.add(f"value {name}")


def _timestamp(value: Any, problems: set[str]) -> int | None:
    if value is None:
        problems.add("missing timestamp")
        return None
    match = TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        problems.add("type timestamp")
        return None
    day, clock, fraction, offset = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{(offset or 'Z')}")
    except ValueError:
        problems.add("type timestamp")
        return None
    whole_ms = (moment - EPOCH) // timedelta(milliseconds=1)
    return whole_ms + int((fraction or "0").ljust(3, "0")[:3])


def _amount(value: Any, problems: set[str]) -> Decimal | None:
    if value is None:
        problems.add("missing amount")
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        problems.add("type amount")
    else:
        amount = Decimal(value)
        if abs(amount) >= 10**10 or amount != amount.quantize(Decimal("0.01")):
            problems.add("type amount")
        elif amount < 0:
            problems.add("value amount")
        else:
            return amount
    return None


def _quantity(value: Any, problems: set[str]) -> None:
    if value is None:
        problems.add("missing quantity")
    elif isinstance(value, bool) or not isinstance(value, int) or value >= 2**31:
        problems.add("type quantity")
    elif value < 1:
        problems.add("value quantity")


def iso(ms: int) -> str:
    """Epoch milliseconds as ISO 8601 in UTC, the form in which rows are compared."""
    return (EPOCH + timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


class Reference:
    """Takes records one by one; `rows` then gives every row that must have come out."""

    def __init__(self) -> None:
        self._views: dict[tuple[int, str, str], tuple[list[int], set[str]]] = defaultdict(lambda: ([0], set()))
        self._revenue: dict[tuple[int, str], list[Decimal]] = defaultdict(list)
        self._clicks: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._purchases: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._sessions: dict[str, list[int]] = defaultdict(list)
        self._rejected: Rows = {}
        self._newest = {"clickstream": -1, "transactions": -1}
        self.counted = {"clickstream": 0, "transactions": 0}

    def add(self, record: Record) -> None:
        """Count one record wherever the contract counts it."""
        event = parse(record)
        match event:
            case Rejected(reasons):
                key = (record.topic, record.partition, record.offset)
                self._rejected[key] = (record.value.hex(), reasons)
                return
            case Click():
                self._click(event)
            case Purchase():
                self._revenue[event.at_ms // (5 * MINUTE_MS), event.category].append(event.amount)
                self._purchases[event.user, event.product].append(event.at_ms)
        self.counted[record.topic] += 1
        self._newest[record.topic] = max(self._newest[record.topic], event.at_ms)

    def _click(self, click: Click) -> None:
        views, users = self._views[click.at_ms // MINUTE_MS, click.product, click.category]
        views[0] += 1
        users.add(click.user)
        self._clicks[click.user, click.product].append(click.at_ms)
        self._sessions[click.session].append(click.at_ms)

    def rows(self) -> dict[str, Rows]:
        """Every row that the watermark has released, by query: identity columns → measures."""
        clicks = self._newest["clickstream"] - DELAY_MS
        transactions = self._newest["transactions"] - DELAY_MS
        return {
            "page_views": self._page_views(clicks),
            "revenue": self._revenues(transactions),
            "conversions": self._conversions(min(clicks, transactions)),
            "sessions": self._session_rows(clicks),
            "dead_letter": self._rejected,
        }

    def _page_views(self, watermark_ms: int) -> Rows:
        return {
            (*_window(minute, MINUTE_MS), product, category): (views[0], len(users))
            for (minute, product, category), (views, users) in self._views.items()
            if (minute + 1) * MINUTE_MS <= watermark_ms
        }

    def _revenues(self, watermark_ms: int) -> Rows:
        rows: Rows = {}
        for (five, category), amounts in self._revenue.items():
            if (five + 1) * 5 * MINUTE_MS <= watermark_ms:
                total = sum(amounts, Decimal(0)).quantize(Decimal("0.01"))
                average = (total / len(amounts)).quantize(Decimal("0.0001"), ROUND_HALF_UP)
                rows[*_window(five, 5 * MINUTE_MS), category] = (len(amounts), total, average)
        return rows

    def _conversions(self, watermark_ms: int) -> Rows:
        totals: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
        for (user, product), clicks in self._clicks.items():
            purchases = sorted(self._purchases.get((user, product), ()))
            for click in clicks:
                total = totals[click // (5 * MINUTE_MS), product]
                total[0] += 1
                total[1] += _converted(click, purchases)
        return {
            (*_window(five, 5 * MINUTE_MS), product): (clicks_, bought, bought / clicks_)
            for (five, product), (clicks_, bought) in totals.items()
            if (five + 1) * 5 * MINUTE_MS + HORIZON_MS <= watermark_ms
        }

    def _session_rows(self, watermark_ms: int) -> Rows:
        rows: Rows = {}
        for session, times in self._sessions.items():
            for start, end, count in _periods(sorted(times)):
                if end + GAP_MS <= watermark_ms:
                    rows[session, iso(start)] = (iso(end), count, (end - start) / 1000, "completed")
        return rows


def _converted(click_ms: int, purchases: list[int]) -> bool:
    """The user's first purchase no earlier than the click came at most 10 minutes after it."""
    at = bisect_left(purchases, click_ms)
    return at < len(purchases) and purchases[at] <= click_ms + HORIZON_MS


def _periods(times: list[int]) -> Iterator[tuple[int, int, int]]:
    start = end = times[0]
    count = 0
    for time in times:
        if time - end > GAP_MS:
            yield start, end, count
            start, count = time, 0
        end, count = time, count + 1
    yield start, end, count


def _window(number: int, length_ms: int) -> tuple[str, str]:
    return iso(number * length_ms), iso((number + 1) * length_ms)


def expected(records: Iterable[Record]) -> Reference:
    """Feed every record to a fresh reference."""
    reference = Reference()
    for record in records:
        reference.add(record)
    return reference
