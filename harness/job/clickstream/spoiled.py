"""Records that the contract rejects: each rule of each field broken alone, and what is not a record at all.

Every kind takes a compact valid record of its topic and bits of a draw, and gives the bytes that are sent instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from harness.job.clickstream.awkward import CLICK, SALE, replaced, without
from harness.job.clickstream.records import CLICK_STRINGS, OPTIONAL, TRANSACTION_STRINGS

Spoil = Callable[[bytes, int], bytes]
TEXTS = {CLICK: CLICK_STRINGS, SALE: TRANSACTION_STRINGS}
NOT_TEXT = {"a number": b"5", "a boolean": b"true", "an array": b'["x"]', "an object": b'{"x":"y"}'}
TIMES = {
    "without a time": b"2026-01-01",
    "of month 13": b"2026-13-01T10:00:00Z",
    "of 30 February": b"2026-02-30T10:00:00Z",
    "of hour 24": b"2026-01-01T24:00:00Z",
    "of second 60": b"2026-01-01T23:59:60Z",
    "of year 0": b"0000-01-01T10:00:00Z",
    "of ten decimals": b"2026-01-01T10:00:00.1234567890Z",
    "without seconds": b"2026-01-01T10:00Z",
    "19 hours ahead": b"2026-01-01T10:00:00+19:00",
    "with a short offset": b"2026-01-01T10:00:00+0200",
    "in words": b"yesterday",
    "in epoch ms": b"1767225600000",
    "before 1970": b"1969-12-31T23:59:59.999Z",
    "at the epoch": b"1970-01-01T00:00:00Z",
    "after 2261": b"2262-01-01T00:00:00Z",
    "in spaces": b" 2026-01-01T10:00:00Z",
}
AMOUNTS = {
    "negative": b"-0.01",
    "of three places": b"29.999",
    "of a thousandth": b"1e-3",
    "of eleven digits": b"10000000000",
    "NaN": b"NaN",
    "of 41 digits": b"1" + b"0" * 40,
    "with a leading zero": b"01.50",
    "without an end": b"1.",
}
QUANTITIES = {
    "0": b"0",
    "negative": b"-2",
    "a fraction": b"1.5",
    "1.0": b"1.0",
    "beyond 32 bits": b"2147483648",
}


def _of_fields(topic: int) -> Iterator[tuple[str, Spoil]]:
    for field in (*TEXTS[topic], "timestamp", *(("amount", "quantity") if topic else ())):
        yield f"{field} absent", partial(without, field.encode())
        yield f"{field} null", partial(replaced, field.encode(), b"null")
    for field in (*TEXTS[topic], "timestamp", *(() if topic else OPTIONAL)):
        for label, raw in NOT_TEXT.items():
            yield f"{field} {label}", partial(replaced, field.encode(), raw)
    for label, raw in TIMES.items():
        yield f"timestamp {label}", partial(replaced, b"timestamp", b'"' + raw + b'"')
    chosen = "payment_method" if topic else "action"
    for raw in (b'"other"', b'"PayPal"' if topic else b'"View"', b'""'):
        yield f"{chosen} {raw.decode()}", partial(replaced, chosen.encode(), raw)
    for field, odd in (("amount", AMOUNTS), ("quantity", QUANTITIES)) if topic else ():
        yield f"{field} text", partial(replaced, field.encode(), b'"5"')
        for label, raw in odd.items():
            yield f"{field} {label}", partial(replaced, field.encode(), raw)


WHOLE: dict[str, Spoil] = {
    "truncated": lambda value, bits: value[: 1 + bits % (len(value) - 1)],
    "random bytes": lambda value, bits: b"\xff" + bits.to_bytes(8, "little") * (1 + bits % 8),
    "empty": lambda value, bits: b"",
    "wrong encoding": lambda value, bits: value.replace(b'"user_id":"', b'"user_id":"\xe9'),
    "deep": lambda value, bits: b'{"event_id":' + b"[" * 3000 + b"]" * 3000 + b"}",
    "101 deep": lambda value, bits: b'{"deep":' + b"[" * 100 + b"]" * 100 + b"," + value[1:],
    "oversized": lambda value, bits: value.replace(b'"product_id"', b'"filler":"' + b"x" * 200_000 + b'","product"'),
    "null": lambda value, bits: b"null",
    "an array": lambda value, bits: b"[" + value + b"]",
    "a text": lambda value, bits: b'"' + value.replace(b'"', b'\\"') + b'"',
    "two records": lambda value, bits: value + value,
    "a comma too many": lambda value, bits: value[:-1] + b",}",
    "single quotes": lambda value, bits: value.replace(b'"', b"'"),
    "half of a pair": lambda value, bits: value.replace(b'"user_id":"', b'"user_id":"\\ud83d'),
    "NaN elsewhere": lambda value, bits: b'{"further":NaN,' + value[1:],
    "a field inside": lambda value, bits: without(b"user_id", value)[:-1] + b',"inside":{"user_id":"user_1"}}',
}
"""What is not JSON, not an object, or out of bounds, whatever the topic."""


def _kinds() -> tuple[tuple[int, str, Spoil], ...]:
    """Every kind as (topic, name, spoil); the topics in turn, so that a few records have some of each."""
    of_topic = [[*_of_fields(topic), *WHOLE.items()] for topic in (CLICK, SALE)]
    longest = max(map(len, of_topic))
    return tuple(
        (topic, *of_topic[topic][at]) for at in range(longest) for topic in (CLICK, SALE) if at < len(of_topic[topic])
    )


SPOILED = _kinds()
"""Number k of a malformed event is element k - 1."""
