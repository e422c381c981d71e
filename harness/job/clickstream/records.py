"""The contract's table of input, in plain Python: a record is a click, a purchase, or rejected.

Written from contract.md alone, to be read against it; it shares nothing with the pipeline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from harness.job.clickstream.contract import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN, NESTING_MAX, RECORD_BYTES_MAX
from harness.model import Record

OPTIONAL = ("page_url", "referrer")
ACTIONS = {"view", "click", "add_to_cart"}
PAYMENTS = {"credit_card", "debit_card", "paypal"}
CLICK_STRINGS = ("event_id", "user_id", "session_id", "product_id", "category", "action")
TRANSACTION_STRINGS = ("transaction_id", "user_id", "session_id", "product_id", "category", "payment_method")
TIMESTAMP = re.compile(
    r"(\d{4}-\d{2}-\d{2})[T ]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d{1,9}))?(Z|[+-](?:(?:0\d|1[0-7]):[0-5]\d|18:00))?",
    re.ASCII,
)
DIGITS_MAX, NAME_MAX = 1000, 50_000
"""Digits of a number, and UTF-16 units of a field's name; JSON parsers in Java refuse more by default."""
ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Click:
    """A valid clickstream record."""

    identity: str
    at_ms: int
    user: str
    session: str
    product: str
    category: str


@dataclass(frozen=True, slots=True)
class Purchase:
    """A valid transaction."""

    identity: str
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
    found = fields(record.value)
    if isinstance(found, Rejected):
        return found
    strings = CLICK_STRINGS if record.topic == "clickstream" else TRANSACTION_STRINGS
    problems = set(_string_problems(found, strings))
    at_ms = _timestamp(found.get("timestamp"), problems)
    if record.topic == "clickstream":
        _in_set(found, "action", ACTIONS, problems)
        problems |= {f"type {name}" for name in OPTIONAL if not isinstance(found.get(name), str | None)}
        if problems or at_ms is None:
            return Rejected(frozenset(problems))
        names = ("user_id", "session_id", "product_id", "category")
        return Click(found["event_id"], at_ms, *(found[name] for name in names))
    _in_set(found, "payment_method", PAYMENTS, problems)
    amount = _amount(found.get("amount"), problems)
    _quantity(found.get("quantity"), problems)
    if problems or at_ms is None or amount is None:
        return Rejected(frozenset(problems))
    return Purchase(found["transaction_id"], at_ms, found["user_id"], found["product_id"], found["category"], amount)


def fields(value: bytes) -> dict[str, Any] | Rejected:
    """The fields of a record, if it is a JSON object within the contract's bounds."""
    if len(value) > RECORD_BYTES_MAX:
        return Rejected(frozenset({"too long"}))
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return _not_json(value.decode("latin-1"))
    if _depth(text) > NESTING_MAX:
        return _not_json(text)
    try:
        found = json.loads(
            text, parse_int=_number, parse_float=_number, parse_constant=_refuse, object_pairs_hook=_pairs
        )
    except ValueError:
        return _not_json(text)
    return found if isinstance(found, dict) and not _has_half_pair(text) else _not_json(text)


def _not_json(text: str) -> Rejected:
    """Where a text is not JSON its nesting is not defined: with many brackets ``too deep`` is right as well."""
    many = text.count("[") + text.count("{") > NESTING_MAX
    return Rejected(frozenset({"not json", "too deep"} if many else {"not json"}))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if any(len(name.encode("utf-16-le", "surrogatepass")) > 2 * NAME_MAX for name, _ in pairs):
        raise ValueError(f"a name of more than {NAME_MAX} characters")
    return dict(pairs)


def _has_half_pair(text: str) -> bool:
    """Whether an escape stands for half of a surrogate pair, which is no character."""
    high_ends = -1
    for match in ESCAPE.finditer(text):
        unit = int(match[1] or "0", 16)
        is_low = 0xDC00 <= unit < 0xE000
        if is_low != (match.start() == high_ends):
            return True
        high_ends = match.end() if 0xD800 <= unit < 0xDC00 else -1
        if high_ends >= 0 and text[high_ends : high_ends + 2] != "\\u":
            return True
    return False


def _number(text: str) -> int | Decimal:
    """Exact; where its exponent is beyond what a decimal can have it is 0, or NaN, which is of no right type."""
    if sum(map(str.isdigit, text)) > DIGITS_MAX:
        raise ValueError(f"a number of more than {DIGITS_MAX} digits")
    try:
        return int(text) if text.lstrip("-").isdigit() else Decimal(text)
    except InvalidOperation:
        return Decimal("NaN" if re.match(r"-?[0.]*[1-9]", text) else 0)


def _depth(text: str) -> int:
    """How many arrays and objects are open at once, at most."""
    if text.count("[") + text.count("{") <= NESTING_MAX:
        return 0
    depth = deepest = 0
    for sign in STRING.sub("", text):
        depth += (sign in "[{") - (sign in "]}")
        deepest = max(deepest, depth)
    return deepest


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
    at_ms = whole_ms + int((fraction or "0").ljust(3, "0")[:3])
    if not EVENT_TIME_MS_MIN <= at_ms <= EVENT_TIME_MS_MAX:
        problems.add("value timestamp")
        return None
    return at_ms


def _amount(value: Any, problems: set[str]) -> Decimal | None:
    if value is None:
        problems.add("missing amount")
    elif isinstance(value, bool) or not isinstance(value, int | Decimal):
        problems.add("type amount")
    else:
        amount = Decimal(value)
        if not amount.is_finite() or (amount and amount.adjusted() >= 10) or amount != amount.quantize(Decimal("0.01")):
            problems.add("type amount")
        elif amount < 0:
            problems.add("value amount")
        else:
            return amount
    return None


def _quantity(value: Any, problems: set[str]) -> None:
    if value is None:
        problems.add("missing quantity")
    elif isinstance(value, bool) or not isinstance(value, int) or not -(2**31) <= value < 2**31:
        problems.add("type quantity")
    elif value < 1:
        problems.add("value quantity")


def iso(ms: int) -> str:
    """Epoch milliseconds as ISO 8601 in UTC, the form in which rows are compared."""
    return (EPOCH + timedelta(milliseconds=ms)).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"
