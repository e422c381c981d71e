"""Wrong pipelines as variants of the oracle: none of them is the contract itself."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from itertools import chain
from random import Random

import pytest

from harness.job.clickstream.mutants import model, values
from harness.job.clickstream.records import iso
from harness.job.clickstream.reference import Reference
from harness.job.lateness import Watermarks
from harness.model import Record

MINUTE = 60_000
T0 = 1_767_261_600_000  # 2026-01-01T10:00:00Z
QUERIES = ("page_views", "revenue", "conversions", "sessions", "dead_letter")
MARKS = tuple(T0 + minutes * MINUTE for minutes in (-60, -5, 5, 10, 15, 40, 75, 140, 300))


def click(at_ms, **fields):
    plain = {"event_id": f"e{at_ms}", "user_id": "u1", "session_id": "s1", "product_id": "p1", "category": "c1"}
    rest = {"action": "view", "timestamp": iso(at_ms), "page_url": "/p", "referrer": "r"}
    return "clickstream", json.dumps({**plain, **rest, **fields}).encode()


def buy(at_ms, amount="10.05", **fields):
    plain = {"transaction_id": f"t{at_ms}", "user_id": "u1", "session_id": "s1", "product_id": "p1", "category": "c1"}
    text = json.dumps({**plain, "quantity": 2, "timestamp": iso(at_ms), "payment_method": "paypal", **fields})
    return "transactions", (text[:-1] + f', "amount": {amount}}}').encode()


def by_hand():
    """(topic, value, batch) of records about each boundary, amount and key that a mutant may get wrong."""
    times = [minute * MINUTE + ms for minute in (0, 1, 2, 5, 9, 10, 15, 30) for ms in (-1, 0, 1, 500, 30_000)]
    for at in times:
        yield *click(T0 + at, session_id=f"a{at % 7}", user_id=f"u{at % 5}"), 2
        yield *click(T0 + at, session_id="long", user_id=" U1", action="click", event_id="same"), 2
    for amount in ("0", "0.01", "0.02", "0.07", "1000000", "9999999999.99", "29999999.95", "0.1"):
        for repeat in range(3 if amount < "0.05" else 1):
            yield *buy(T0 + len(amount) * MINUTE + repeat, amount, category=f"c{amount}", user_id=f"u{repeat}"), 2
    for number, gap in enumerate((0, 1, 599_999, 600_000, 600_001, -1, -200_000, 650_000, 1_000_000)):
        who = {"user_id": f"m{number}", "product_id": f"q{number}", "session_id": f"m{number}"}
        yield *click(T0 + 240_000, **who), 2
        yield *buy(T0 + 240_000 + gap, **who), 2
        if gap >= 0:
            yield *buy(T0 + 240_000 + gap + 1, **{**who, "session_id": "other", "category": "c9"}), 2
    for user in ("bob", "Bob", "bob ", "bob"):
        yield *click(T0, user_id=user, category="users"), 2
        yield *buy(T0, user_id=user, category="users", payment_method="credit_card"), 2
    yield *buy(T0, user_id="bob", category="users"), 2
    for number, gap in enumerate((60_001, 300_001, 1_740_001, 1_799_999, 1_800_000, 1_800_001, 1_830_000, 3_000_000)):
        yield *click(T0, session_id=f"g{number}"), 2
        yield *click(T0 + gap, session_id=f"g{number}"), 2
    for number in range(6):
        yield *click(T0 + number * 20 * MINUTE, session_id="two hours", user_id=f"u{number}"), 2
    for session, batch in (("joined", 3), ("joined twice", 4)):
        yield *click(T0, session_id=session), 1
        yield *click(T0 + 40 * MINUTE, session_id=session), 1
        yield *click(T0 + 20 * MINUTE, session_id=session), batch
    for batch, mark in enumerate(MARKS):
        for behind in (-1_800_001, -1_800_000, -900_000, -300_001, -300_000, -60_000, -1, 0, 1, 60_000, 300_000):
            who = {"user_id": f"l{behind}", "session_id": f"l{batch} {behind}", "category": f"l{behind}"}
            yield *click(mark + behind, **who), min(batch + 1, len(MARKS) - 1)
            yield *buy(mark + behind, "0.05", **who), min(batch + 1, len(MARKS) - 1)


def drawn(seed):
    """(topic, value, batch) of valid records with few values, so that they meet."""
    rng = Random(seed)
    yield *click(T0 + 139 * MINUTE + 30_000, session_id="open"), 7
    yield *click(T0 + 110 * MINUTE, session_id="just open"), 7
    for _ in range(1200):
        at = T0 + rng.choice((1, 1000, 150_000)) * rng.randrange(-100, 100)
        names = ("user_id", "session_id", "product_id", "category")
        fields = {name: f"{name[0]}{rng.randrange(3)}" for name in names}
        if rng.random() < 0.5:
            actions = rng.choice(("view", "click", "add_to_cart"))
            yield *click(at, **fields, action=actions, event_id=f"e{rng.randrange(900)}"), rng.randrange(8)
        else:
            cents = rng.choice((0, 5, 10**11, 10**12 - 1, rng.randrange(10**6)))
            yield (
                *buy(at, f"{cents // 100}.{cents % 100:02d}", **fields, quantity=1 + rng.randrange(9)),
                rng.randrange(8),
            )


def largest():
    """So many of the largest amount that a double no longer holds the cents of their sum."""
    for number in range(6000):
        yield *buy(T0, "9999999999.99", transaction_id=f"t{number}"), 2


def marks(seed):
    """Watermarks that end while rows are open, for odd seeds; a millisecond off the end of windows."""
    return tuple(mark - 1 for mark in MARKS[:-1]) if isinstance(seed, int) and seed % 2 else MARKS


@cache
def given(seed=None):
    rows = list(by_hand() if seed is None else largest() if seed == "largest" else drawn(seed))
    rows.sort(key=lambda row: row[2])
    records = [
        (Record(topic, 0, at, value), dict.fromkeys(QUERIES, batch)) for at, (topic, value, batch) in enumerate(rows)
    ]
    return model.given(records, dict.fromkeys(QUERIES, Watermarks(marks(seed))))


@cache
def right(seed=None):
    reference = Reference(given(seed).watermarks)
    for item in given(seed).items:
        reference.add(item.record, item.event, item.batches)
    return {query: Counter(answer.rows.items()) for query, answer in reference.expected().items()}


def differs(mutant, seed=None):
    return any(Counter(rows) != right(seed)[query] for query, rows in mutant.rows(given(seed)).items())


ALL = tuple(values.mutants())


@pytest.mark.parametrize("seed", [None, *range(10)])
@pytest.mark.parametrize("query", values.QUERY)
def test_default_knobs_give_the_reference_rows(query, seed):
    """A mutant differs from the contract in its own knob alone."""
    compute, knobs = values.QUERY[query]
    assert right(seed)[query]
    assert right(seed)[query] == Counter(compute(knobs, given(seed)))


@pytest.mark.parametrize("mutant", [m for m in ALL if m.equivalent is None], ids=lambda mutant: mutant.name)
def test_a_mutant_is_not_the_contract(mutant):
    """Awkward records made by hand, or a few seeds of drawn ones, part each mutant from the oracle."""
    assert any(differs(mutant, seed) for seed in (None, *range(10), "largest"))


def test_names_are_unique_and_mutants_many():
    """At least 150, each with a name of its own."""
    assert [] == [name for name, times in Counter(mutant.name for mutant in ALL).items() if times > 1]
    assert len(ALL) >= 150


def test_sentences_complete_nothing_tells():
    """A sentence is a phrase without a full stop, and names both things or one and its like."""
    assert [] == [m.name for m in ALL if m.sentence.endswith(".") or " from " not in m.sentence]
    assert set(chain(QUERIES)) >= {mutant.query for mutant in ALL}
