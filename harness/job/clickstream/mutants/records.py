"""Record mutants: each rule of parsing and validation, laxer or stricter, generated from the contract's fields.

A lax mutant takes a record that is rejected for one reason alone; a strict one refuses, or silently drops, a valid record.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from harness.job.clickstream.mutants import values
from harness.job.clickstream.mutants.model import Given, Item, Mutant, Rows
from harness.job.clickstream.records import CLICK_STRINGS, OPTIONAL, TRANSACTION_STRINGS, Click, Purchase, Rejected

Test = Callable[[Item], bool]
FIELDS = {
    "clickstream": (*CLICK_STRINGS, "timestamp", *OPTIONAL),
    "transactions": (*TRANSACTION_STRINGS, "amount", "quantity", "timestamp"),
}
SUBJECTS = ("user_id", "session_id", "product_id", "category")
FRACTION = re.compile(r"[T ]\d\d:\d\d:\d\d(?:\.(\d+))?")
BEYOND_ASCII = re.compile(rb"[^\x00-\x7f]")


def _letter(item: Item) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    record = item.record
    reasons = item.event.reasons if isinstance(item.event, Rejected) else frozenset({"refused"})
    return (record.topic, record.partition, record.offset), (record.value.hex(), reasons)


def letters(given: Given) -> list[tuple[Item, tuple[tuple[Any, ...], tuple[Any, ...]]]]:
    """The records that are rejected, each with its dead letter."""
    return given.once(
        "letters",
        lambda: [
            (item, _letter(item))
            for item in given.items
            if "dead_letter" in item.batches and isinstance(item.event, Rejected)
        ],
    )


def _valid(given: Given, test: Test) -> list[Item]:
    """The valid records of a kind."""
    return given.once(
        ("valid", test), lambda: [item for item in given.items if not isinstance(item.event, Rejected) and test(item)]
    )


def _accepts(test: Test, given: Given) -> Mapping[str, Rows]:
    """The dead letters of a pipeline that takes, or drops, rejected records of a kind."""
    return {"dead_letter": [letter for item, letter in letters(given) if not test(item)]}


def _refuses(test: Test, given: Given) -> Mapping[str, Rows]:
    """The dead letters of a pipeline that refuses valid records of a kind."""
    more = [_letter(item) for item in _valid(given, test) if "dead_letter" in item.batches]
    return {"dead_letter": [*(letter for _, letter in letters(given)), *more]}


def _drops(test: Test, given: Given) -> Mapping[str, Rows]:
    """Rows of a pipeline that neither counts valid records of a kind nor sends them to the dead letter.

    Of the queries that count all of a topic: what they do not show is late.
    """
    gone = {id(item) for item in _valid(given, test)}
    return {
        query: _rows_without(query, kind, gone, given) for query, kind in COUNTING.items() if query in given.watermarks
    }


COUNTING: dict[str, type] = {"page_views": Click, "revenue": Purchase}


def _rows_without(query: str, kind: type, gone: set[int], given: Given) -> Rows:
    _, knobs = values.QUERY[query]
    groups = values.groups(query, knobs, given, kind).values()
    rows = given.once(
        ("rows", query, given.watermarks[query]),
        lambda: [(items, values.rows_of(query, knobs, given, [items])) for items in groups],
    )
    found: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []
    for items, right in rows:
        kept = [item for item in items if id(item) not in gone]
        found += right if len(kept) == len(items) else values.rows_of(query, knobs, given, [kept] if kept else [])
    return found


def _alone(topic: str, reason: str, value: Test, item: Item) -> bool:
    found = isinstance(item.event, Rejected) and item.event.reasons == {reason}
    return found and item.record.topic == topic and value(item)


def _any(item: Item) -> bool:
    return True


def _null(name: str, item: Item) -> bool:
    return item.fields is not None and name in item.fields and item.fields[name] is None


def _absent(name: str, item: Item) -> bool:
    return item.fields is not None and name not in item.fields


def _kind(name: str, kinds: tuple[type, ...], item: Item) -> bool:
    return type(item.value(name)) in kinds


KINDS: dict[str, tuple[type, ...]] = {
    "a number": (int, float),
    "a boolean": (bool,),
    "an array": (list,),
    "an object": (dict,),
    "text": (str,),
}


def _lax(topic: str, name: str) -> Iterator[tuple[str, str, Test]]:
    """(name, what is taken, test) of each laxer rule of a field."""
    if name not in OPTIONAL:
        yield "absent", f"missing {name}", partial(_absent, name)
        yield "null", f"missing {name}", partial(_null, name)
    for label, kinds in KINDS.items():
        textual = name not in ("amount", "quantity")
        if textual == (label != "text"):
            yield f"as {label}", f"type {name}", partial(_kind, name, kinds)
    if name in ("action", "payment_method", "amount", "quantity"):
        yield "out of range", f"value {name}", _any


def _text(item: Item, name: str) -> str:
    value = item.value(name)
    return value if isinstance(value, str) else ""


def _fraction(digits: int, item: Item) -> bool:
    found = FRACTION.search(_text(item, "timestamp"))
    return found is not None and len(found[1] or "") == digits


def _in_order(topic: str, item: Item) -> bool:
    names = [name for name in item.fields or () if name in FIELDS[topic]]
    usual = {
        "clickstream": "event_id user_id session_id product_id category action timestamp page_url referrer",
        "transactions": "transaction_id user_id session_id product_id category amount quantity timestamp payment_method",
    }[topic].split()
    return names == [name for name in usual if name in names]


def _offset(item: Item, sign: str) -> bool:
    return sign in _text(item, "timestamp")[10:]


def _number_is(item: Item, name: str, test: Callable[[Any], bool]) -> bool:
    value = item.value(name)
    return value is not None and not isinstance(value, str) and bool(test(value))


def _at_least(name: str, limit: int, item: Item) -> bool:
    return _number_is(item, name, lambda value: value >= limit)


def _unsent(name: str, item: Item) -> bool:
    return item.record.topic == "clickstream" and _absent(name, item)


def _empty(name: str, item: Item) -> bool:
    return bool(item.value(name) == "")


def _capitals(name: str, item: Item) -> bool:
    return _text(item, name) != _text(item, name).lower()


def _spaces(name: str, item: Item) -> bool:
    return _text(item, name) != _text(item, name).strip()


STRICT: dict[str, Test] = {
    "spaces between tokens": lambda item: b'": ' in item.record.value or b", " in item.record.value,
    "a line break": lambda item: b"\n" in item.record.value,
    "another order of fields": lambda item: not _in_order(item.record.topic, item),
    "an escape": lambda item: b"\\" in item.record.value,
    "a \\u escape": lambda item: b"\\u" in item.record.value,
    "an escaped quote": lambda item: b'\\"' in item.record.value,
    "a further field": lambda item: bool(set(item.fields or ()) - set(FIELDS[item.record.topic])),
    "a field twice": lambda item: item.record.value.count(b'"user_id"') > 1,
    "a letter beyond ASCII": lambda item: BEYOND_ASCII.search(item.record.value) is not None,
    "an object inside": lambda item: item.record.value.count(b"{") > 1,
    "more than 4096 bytes": lambda item: len(item.record.value) > 4096,
    "an offset ahead of UTC": lambda item: _offset(item, "+"),
    "an offset behind UTC": lambda item: _offset(item, "-"),
    "an offset of half hours": lambda item: _text(item, "timestamp").endswith((":30", ":45")),
    "no offset": lambda item: re.search(r"(Z|[+-]\d\d:\d\d)$", _text(item, "timestamp")) is None,
    "a space for the T": lambda item: _text(item, "timestamp")[10:11] == " ",
    "a timestamp before 1970": lambda item: _text(item, "timestamp") < "1970",
    "a 29 February": lambda item: _text(item, "timestamp")[4:10] == "-02-29",
    **{f"a fraction of {digits} digits": partial(_fraction, digits) for digits in range(1, 10)},
    "no fraction": partial(_fraction, 0),
    "an exponent in the amount": lambda item: re.search(rb'"amount":\s*[0-9.]+[eE]', item.record.value) is not None,
    "a whole amount": lambda item: re.search(rb'"amount":\s*\d+[,}\s]', item.record.value) is not None,
    "an amount of one place": lambda item: re.search(rb'"amount":\s*\d+\.\d[,}\s]', item.record.value) is not None,
    "an amount of three places": lambda item: re.search(rb'"amount":\s*\d+\.\d{3}', item.record.value) is not None,
    "an amount of 0": lambda item: _number_is(item, "amount", lambda value: value == 0),
    **{f"an amount of {limit} or more": partial(_at_least, "amount", limit) for limit in (10**4, 10**6, 10**8, 10**9)},
    **{f"a quantity of {limit} or more": partial(_at_least, "quantity", limit) for limit in (4, 11, 128, 32_768)},
    **{f"{name} null": partial(_null, name) for name in OPTIONAL},
    **{f"{name} absent": partial(_unsent, name) for name in OPTIONAL},
    **{f"{name} empty": partial(_empty, name) for name in (*SUBJECTS, "event_id", "transaction_id", *OPTIONAL)},
    **{f"{name} with capitals": partial(_capitals, name) for name in SUBJECTS},
    **{f"{name} with spaces around": partial(_spaces, name) for name in SUBJECTS},
}
"""Valid records that a stricter pipeline refuses or drops."""
BROKEN: dict[str, Test] = {
    "an empty value": lambda item: item.record.value == b"",
    "a value that is not UTF-8": lambda item: not _is_utf8(item.record.value),
    "truncated JSON": lambda item: item.record.value[:1] == b"{" and item.record.value[-1:] != b"}",
    "an array": lambda item: item.record.value[:1] == b"[",
    "NaN": lambda item: b"NaN" in item.record.value,
    "null": lambda item: item.record.value.strip() == b"null",
    "arrays a thousand deep": lambda item: b"[" * 1001 in item.record.value,
}


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_broken(test: Test, item: Item) -> bool:
    return isinstance(item.event, Rejected) and "not json" in item.event.reasons and test(item)


def mutants() -> Iterator[Mutant]:
    """Every mutant of parsing and validation."""
    for topic, names in FIELDS.items():
        for name in names:
            for label, reason, value in _lax(topic, name):
                test = partial(_alone, topic, reason, value)
                sentence = f"a record of {topic} with {name} {label} alone from a valid one"
                yield Mutant(
                    f"{topic}: {name} {label} is not rejected", "dead_letter", sentence, partial(_accepts, test)
                )
    for label, broken in BROKEN.items():
        sentence = f"a record that is {label} from one that is read"
        yield Mutant(
            f"{label} is not rejected", "dead_letter", sentence, partial(_accepts, partial(_is_broken, broken))
        )
    for label, strict in STRICT.items():
        yield Mutant(
            f"{label} is refused",
            "dead_letter",
            f"a valid record with {label} from a rejected one",
            partial(_refuses, strict),
        )
        yield Mutant(
            f"{label} is dropped",
            "page_views",
            f"a valid record with {label} from one never sent",
            partial(_drops, strict),
        )
