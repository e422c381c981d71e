"""A second, small implementation of two of the queries: no Spark, no checkpoint, other names.

An example of a pipeline that the harness knows nothing of but other_engine.toml. It reads both topics,
keeps its windows in memory, and writes each once the newest event time has passed its end by five minutes.
It needs this file and confluent-kafka: `read` and what it calls are the input of docs/reference/contract.md,
written from that page alone.

    python other_engine.py BOOTSTRAP PREFIX [DEFECT]
"""

from __future__ import annotations

import json
import re
import signal
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from confluent_kafka import Consumer, Producer

MINUTE = 60_000
LENGTH = {"clickstream": MINUTE, "transactions": 5 * MINUTE}
RESULTS = {"clickstream": "views-by-minute", "transactions": "takings"}


RECORD_BYTES_MAX = 1_048_576
NESTING_MAX = 100
DIGITS_MAX = 1000
NAME_UNITS_MAX = 50_000
STRINGS = {
    "clickstream": ("event_id", "user_id", "session_id", "product_id", "category", "action"),
    "transactions": ("transaction_id", "user_id", "session_id", "product_id", "category", "payment_method"),
}
OPTIONAL = {"clickstream": ("page_url", "referrer"), "transactions": ()}
SETS = {
    "action": ("view", "click", "add_to_cart"),
    "payment_method": ("credit_card", "debit_card", "paypal"),
}
EPOCH = datetime(1970, 1, 1)
FIRST_MS = 1  # 1970-01-01T00:00:00.001Z
LAST_MS = (datetime(2262, 1, 1) - EPOCH) // timedelta(milliseconds=1) - 1
TIMESTAMP = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})[T ](?P<time>[0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.(?P<decimals>[0-9]{1,9}))?(?:Z|(?P<sign>[+-])(?P<hours>[0-9]{2}):(?P<minutes>[0-9]{2}))?"
)
TOKEN = re.compile(r'(?P<string>"(?:[^"\\]|\\.)*")(?P<name>\s*:)?|(?P<number>-?[0-9][0-9.eE+-]*)|[\[\]{}]', re.DOTALL)
HALF_OF_A_PAIR = re.compile("[\ud800-\udfff]")


class Event(NamedTuple):
    """A record that counts; `amount` is that of a purchase."""

    at_ms: int
    user: str
    product: str
    category: str
    amount: Decimal | None = None


class Rejected(Exception):
    """A record that counts nowhere; its text is the reason in the dead letter."""


class Number(str):
    """A number as it is written: a double would round it."""


def read(topic: str, value: bytes) -> Event:
    """The event in a record of a topic. Raises Rejected with the reason where the contract rejects the record."""
    fields = parsed(value)
    for name in STRINGS[topic]:
        text = needed(fields, name)
        if not is_text(text):
            raise Rejected(f"type {name}")
        if name in SETS and text not in SETS[name]:
            raise Rejected(f"value {name}")
    for name in OPTIONAL[topic]:
        if fields.get(name) is not None and not is_text(fields[name]):
            raise Rejected(f"type {name}")
    at_ms = event_time_ms(needed(fields, "timestamp"))
    amount = None
    if topic == "transactions":
        amount = price(needed(fields, "amount"))
        check_quantity(needed(fields, "quantity"))
    return Event(at_ms, fields["user_id"], fields["product_id"], fields["category"], amount)


def parsed(value: bytes) -> dict[str, Any]:
    """The fields of a record, numbers as they are written. The bounds hold at every place of it, in fields unused too."""
    if len(value) > RECORD_BYTES_MAX:
        raise Rejected("too long")
    try:
        text = value.decode("utf-8")
        check_bounds(text)
        fields = json.loads(text, parse_int=Number, parse_float=Number, parse_constant=refuse)
    except ValueError:
        raise Rejected("not json") from None
    if not isinstance(fields, dict):
        raise Rejected("not json")
    return fields


def check_bounds(text: str) -> None:
    """Raise Rejected where arrays and objects are too deep, and ValueError beyond another bound."""
    depth = 0
    for token in TOKEN.finditer(text):
        if token["string"]:
            content = json.loads(token["string"])
            if HALF_OF_A_PAIR.search(content):
                raise ValueError("half of a surrogate pair")
            if token["name"] and len(content.encode("utf-16-le")) > 2 * NAME_UNITS_MAX:
                raise ValueError("a long name")
        elif token["number"]:
            if sum(map(str.isdigit, token["number"])) > DIGITS_MAX:
                raise ValueError("a long number")
        else:
            depth += 1 if token[0] in "[{" else -1
            if depth > NESTING_MAX:
                raise Rejected("too deep")


def refuse(name: str) -> None:
    """NaN and Infinity are not JSON, though Python reads them."""
    raise ValueError(name)


def needed(fields: dict[str, Any], name: str) -> Any:
    """A field that must be there; null is none."""
    if fields.get(name) is None:
        raise Rejected(f"missing {name}")
    return fields[name]


def is_text(value: object) -> bool:
    """Whether a field is a string; a number is kept as one, too."""
    return isinstance(value, str) and not isinstance(value, Number)


def event_time_ms(text: Any) -> int:
    """The event time in ms since the epoch; decimals beyond milliseconds are cut off."""
    match = TIMESTAMP.fullmatch(text) if is_text(text) else None
    if match is None:
        raise Rejected("type timestamp")
    try:
        local = datetime.strptime(f"{match['date']} {match['time']}", "%Y-%m-%d %H:%M:%S")
    except ValueError:
        raise Rejected("type timestamp") from None
    offset = timedelta(hours=int(match["hours"] or 0), minutes=int(match["minutes"] or 0))
    if local.second != int(match["time"][-2:]) or int(match["minutes"] or 0) > 59 or offset > timedelta(hours=18):
        raise Rejected("type timestamp")
    since = local - EPOCH + (offset if match["sign"] == "-" else -offset)
    at_ms = since // timedelta(milliseconds=1) + int((match["decimals"] or "").ljust(3, "0")[:3])
    if not FIRST_MS <= at_ms <= LAST_MS:
        raise Rejected("value timestamp")
    return at_ms


def price(text: Any) -> Decimal:
    """A decimal(12,2): at most ten digits before the point and two after it, however it is written."""
    if not isinstance(text, Number):
        raise Rejected("type amount")
    if not re.search("^[^eE]*[1-9]", text):
        return Decimal(0)  # whatever its exponent
    try:
        amount = Decimal(text)
        if amount.adjusted() > 9 or amount != round(amount, 2):
            raise Rejected("type amount")
    except InvalidOperation:  # an exponent that no decimal has
        raise Rejected("type amount") from None
    if amount < 0:
        raise Rejected("value amount")
    return amount


def check_quantity(text: Any) -> None:
    """An integer of 32 bits, written without a point and an exponent, and 1 or more."""
    if not isinstance(text, Number) or not re.fullmatch("-?[0-9]+", text) or not -(2**31) <= int(text) < 2**31:
        raise Rejected("type quantity")
    if int(text) < 1:
        raise Rejected("value quantity")


def iso(at_ms: int) -> str:
    """ISO 8601 in UTC, with milliseconds."""
    return (EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds") + "Z"


class Windows:
    """The open windows of one topic, and the newest event time seen in it."""

    def __init__(self, topic: str) -> None:
        self.length = LENGTH[topic]
        self.newest = 0
        self.open: dict[int, dict[tuple[str, ...], list]] = defaultdict(lambda: defaultdict(list))

    def add(self, at_ms: int, group: tuple[str, ...], value: object) -> None:
        """Count an event, unless its window has been written."""
        start = at_ms // self.length * self.length
        if start + self.length > self.newest - 5 * MINUTE:
            self.open[start][group].append(value)
        self.newest = max(self.newest, at_ms)

    def closed(self):
        """(start, group, values) of every window that has just closed."""
        for start in sorted(start for start in self.open if start + self.length <= self.newest - 5 * MINUTE):
            for group, values in self.open.pop(start).items():
                yield start, group, values


def row(topic: str, start: int, group: tuple[str, ...], values: list, defect: str) -> dict[str, object]:
    """The result as JSON, under this engine's own names."""
    common = {"from": iso(start), "to": iso(start + LENGTH[topic])}
    if topic == "clickstream":
        return common | {"product": group[0], "category": group[1], "n": len(values), "people": len(set(values))}
    total = sum(values, Decimal(0)) + (1 if defect == "tip" else 0)
    mean = (total / len(values)).quantize(Decimal("0.0001"), "ROUND_HALF_UP")
    return common | {"category": group[0], "n": len(values), "sum": f"{total:.2f}", "mean": f"{mean}"}


def say_started(consumer: Consumer, partitions: list) -> None:
    """It reads from now on: what comes while it joins its group would be a backlog, read partition by partition."""
    print(json.dumps({"event": "started", "at": datetime.now(UTC).isoformat()}), flush=True)


def main(bootstrap: str, prefix: str, defect: str = "") -> None:
    """Read until told to stop."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "other", "auto.offset.reset": "earliest"})
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    consumer.subscribe([prefix + topic for topic in LENGTH], on_assign=say_started)
    windows = {topic: Windows(topic) for topic in LENGTH}
    while not stopped:
        for message in consumer.consume(1000, timeout=0.2):
            if message.error():
                continue
            topic = message.topic().removeprefix(prefix)
            try:
                event = read(topic, message.value() or b"")
            except Rejected:
                continue  # it has no dead letter
            if topic == "clickstream":
                windows[topic].add(event.at_ms, (event.product, event.category), event.user)
            else:
                windows[topic].add(event.at_ms, (event.category,), event.amount)
        for topic, open_windows in windows.items():
            for start, group, values in open_windows.closed():
                producer.produce(prefix + RESULTS[topic], json.dumps(row(topic, start, group, values, defect)).encode())
        producer.poll(0)
    producer.flush(30)
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
