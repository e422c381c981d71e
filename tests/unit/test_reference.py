"""The reference oracle, held against the contract in the small."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.job.clickstream.records import Click, Purchase, Rejected, iso, parse
from harness.job.clickstream.reference import Reference, Rules, of_one_batch
from harness.job.lateness import Watermarks
from harness.model import Record

MINUTE = 60_000
T0 = 1_767_261_600_000  # 2026-01-01T10:00:00Z
CLICK = {
    "event_id": "e1",
    "user_id": "user_1",
    "session_id": "s1",
    "product_id": "prod_001",
    "category": "books",
    "action": "view",
    "timestamp": iso(T0),
    "page_url": "/p",
    "referrer": "r",
}
BUY = {
    "transaction_id": "t1",
    "user_id": "user_1",
    "session_id": "s1",
    "product_id": "prod_001",
    "category": "books",
    "amount": 19.99,
    "quantity": 1,
    "timestamp": iso(T0),
    "payment_method": "paypal",
}


def click(at_ms: int, **fields: object) -> Record:
    """A clickstream record at an event time."""
    return Record("clickstream", 0, 0, json.dumps(CLICK | {"timestamp": iso(at_ms)} | fields).encode())


def buy(at_ms: int, **fields: object) -> Record:
    """A transaction at an event time."""
    return Record("transactions", 0, 0, json.dumps(BUY | {"timestamp": iso(at_ms)} | fields).encode())


def rows(*records: Record) -> dict:
    """The rows after the records and a flush far ahead."""
    flush = (click(T0 + 600 * MINUTE, user_id="f", session_id="f"), buy(T0 + 600 * MINUTE, user_id="f"))
    return {query: answer.rows for query, answer in of_one_batch([*records, *flush]).items()}


def test_a_window_is_half_open():
    """An event on the boundary belongs to the later window."""
    views = rows(click(T0), click(T0 + MINUTE - 1), click(T0 + MINUTE))["page_views"]

    assert [(2, 1), (1, 1)] == [views[key] for key in sorted(views)]
    assert (iso(T0), iso(T0 + MINUTE), "prod_001", "books") in views


def test_users_are_counted_once_a_window():
    """Views count events, unique_users counts people."""
    views = rows(click(T0), click(T0 + 1), click(T0 + 2, user_id="user_2"))["page_views"]

    assert [(3, 2)] == list(views.values())


def test_revenue_rounds_half_up_exactly():
    """0.05 / 8 = 0.00625 → 0.0063: decimals, never doubles."""
    revenue = rows(buy(T0, amount=0.05), *(buy(T0, amount=0) for _ in range(7)))["revenue"]

    assert [(8, Decimal("0.05"), Decimal("0.0063"))] == list(revenue.values())


@pytest.mark.parametrize(
    ("purchases", "converted"),
    [
        pytest.param([0], 1, id="exactly at the click"),
        pytest.param([10 * MINUTE], 1, id="exactly ten minutes later"),
        pytest.param([10 * MINUTE + 1], 0, id="a millisecond too late"),
        pytest.param([-1], 0, id="before the click"),
        pytest.param([1, 2, 3], 1, id="several purchases count once"),
        pytest.param([], 0, id="none"),
    ],
)
def test_a_click_converts_within_ten_minutes(purchases, converted):
    """Both ends included, and each click once."""
    result = rows(click(T0), *(buy(T0 + after) for after in purchases))["conversions"]

    assert [(1, converted, float(converted))] == list(result.values())


def test_another_users_purchase_converts_nothing():
    """User and product must both be the same."""
    result = rows(click(T0), buy(T0, user_id="user_2"), buy(T0, product_id="prod_002"))["conversions"]

    assert [(1, 0, 0.0)] == list(result.values())


def test_exact_gap_is_one_session():
    """A gap of 30:00.000 merges, one of 30:00.001 does not."""
    sessions = rows(click(T0), click(T0 + 30 * MINUTE), click(T0 + 60 * MINUTE + 1))["sessions"]

    assert {
        ("s1", iso(T0)): (iso(T0 + 30 * MINUTE), 2, 1800.0, "completed"),
        ("s1", iso(T0 + 60 * MINUTE + 1)): (iso(T0 + 60 * MINUTE + 1), 1, 0.0, "completed"),
    } == sessions


def test_open_window_has_no_row():
    """Results are final when they appear, so open windows have none."""
    two = [click(T0), click(T0 + 6 * MINUTE - 1)]

    assert {} == of_one_batch(two)["page_views"].rows
    assert 1 == len(of_one_batch([*two, click(T0 + 6 * MINUTE)])["page_views"].rows)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(b"", "not json", id="empty"),
        pytest.param(b"\xff\xfe", "not json", id="not UTF-8"),
        pytest.param(b"[1]", "not json", id="not an object"),
        pytest.param(b"{'a': 1}", "not json", id="single quotes"),
        pytest.param(json.dumps(BUY | {"amount": float("nan")}).encode(), "not json", id="NaN"),
        pytest.param(json.dumps(BUY | {"user_id": 5}).encode(), "type user_id", id="a number for a string"),
        pytest.param(json.dumps(BUY | {"user_id": None}).encode(), "missing user_id", id="null"),
        pytest.param(json.dumps(BUY | {"amount": "19.99"}).encode(), "type amount", id="a string for a number"),
        pytest.param(json.dumps(BUY | {"amount": -0.01}).encode(), "value amount", id="negative amount"),
        pytest.param(json.dumps(BUY | {"amount": 0.001}).encode(), "type amount", id="three decimals"),
        pytest.param(json.dumps(BUY | {"quantity": 0}).encode(), "value quantity", id="quantity 0"),
        pytest.param(json.dumps(BUY | {"quantity": 1.5}).encode(), "type quantity", id="half a piece"),
        pytest.param(
            json.dumps(BUY | {"payment_method": "cash"}).encode(), "value payment_method", id="payment method"
        ),
        pytest.param(json.dumps(BUY | {"timestamp": "yesterday"}).encode(), "type timestamp", id="not a time"),
        pytest.param(b'{"a":' + b"[" * 99 + b"]" * 99 + b"}", "missing", id="nesting of 100"),
        pytest.param(b'{"a":' + b"[" * 100 + b"]" * 100 + b"}", "too deep", id="nesting of 101"),
        pytest.param(b'{"a":' + b"[" * 100_000, "too deep", id="nesting beyond any stack"),
        pytest.param(b" " * 2**20 + b"{", "too long", id="a byte too long"),
        pytest.param(b'{"a":"\\ud83d"}', "not json", id="half of a surrogate pair"),
        pytest.param(b'{"a":"\\ud83d\\ude00"}', "missing", id="a surrogate pair"),
        pytest.param(b'{"a":"\\\\ud83d"}', "missing", id="no escape"),
        pytest.param(b'{"' + b"a" * 50_000 + b'":1}', "missing", id="name of 50,000"),
        pytest.param(b'{"' + b"a" * 50_001 + b'":1}', "not json", id="name of 50,001"),
        *(
            pytest.param(json.dumps(BUY | {"timestamp": text}).encode(), f"{kind} timestamp", id=text)
            for text, kind in (
                ("0000-01-01T00:00:00Z", "type"),
                ("2026-01-01T24:00:00Z", "type"),
                ("0001-01-01T00:00:00+05:00", "value"),
                ("1970-01-01T00:00:00Z", "value"),
                ("2262-01-01T00:00:00Z", "value"),
                ("9999-12-31T23:59:59-18:00", "value"),
            )
        ),
    ],
)
def test_a_rejected_record_says_why(value, reason):
    """Every kind of record that the contract rejects."""
    parsed = parse(Record("transactions", 0, 0, value))

    assert isinstance(parsed, Rejected)
    if reason == "missing":
        assert "missing amount" in parsed.reasons
    elif reason == "too deep":
        assert {"not json", reason} == parsed.reasons
    else:
        assert {reason} == parsed.reasons


@pytest.mark.parametrize(
    "text", ["2026-01-01T10:00:00Z", "2026-01-01T10:00:00", "2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00.000999Z"]
)
def test_times_are_utc_milliseconds(text):
    """With an offset, without one, and with more digits than count."""
    parsed = parse(Record("clickstream", 0, 0, json.dumps(CLICK | {"timestamp": text}).encode()))

    assert isinstance(parsed, Click)
    assert T0 == parsed.at_ms


def test_a_transaction_keeps_its_cents():
    """An amount is a decimal from the first moment."""
    parsed = parse(buy(T0, amount=0.1))

    assert isinstance(parsed, Purchase)
    assert Decimal("0.1") == parsed.amount


@given(
    st.lists(st.tuples(st.integers(0, 40 * MINUTE), st.sampled_from("ab"), st.sampled_from("xy")), max_size=20),
    st.lists(st.tuples(st.integers(0, 40 * MINUTE), st.sampled_from("ab"), st.sampled_from("xy")), max_size=20),
)
def test_conversions_equal_brute_force(clicks, purchases):
    """The sorted search finds what comparing every pair finds."""
    records = [click(T0 + at, user_id=user, product_id=product) for at, user, product in clicks]
    records += [buy(T0 + at, user_id=user, product_id=product) for at, user, product in purchases]
    expected: dict = {}
    for at, user, product in clicks:
        total = expected.setdefault((at // (5 * MINUTE), product), [0, 0])
        total[0] += 1
        total[1] += any((u, p) == (user, product) and at <= t <= at + 10 * MINUTE for t, u, p in purchases)

    seen = rows(*records)["conversions"]
    assert sorted(map(tuple, expected.values())) == sorted(values[:2] for values in seen.values())


def judged(query: str, batches: list[tuple[int, list[Record]]], rules: Rules | None = None):
    """The answer for batches of (watermark, records)."""
    marks = Watermarks(tuple(watermark for watermark, _ in batches))
    reference = Reference(dict.fromkeys(("page_views", "revenue", "conversions", "sessions"), marks), rules)
    for number, (_, records) in enumerate(batches):
        for record in records:
            reference.add(record, parse(record), {query: number})
    return reference.expected()[query]


def test_late_events_use_previous_watermark():
    """Behind its own batch's watermark it still counts; behind the one before it is dropped, once a group."""
    end = T0 + MINUTE
    counted = judged("page_views", [(0, [click(T0)]), (end, [click(T0)]), (end + 1, [])])
    dropped = judged("page_views", [(0, [click(T0)]), (end, []), (end + 1, [click(T0), click(T0 + 1)])])

    assert [(2, 1)] == list(counted.rows.values())
    assert {1} == set(counted.batch.values())
    assert ([(1, 1)], 2, {2: 1}) == (list(dropped.rows.values()), dropped.late_events, dropped.dropped)


def test_late_event_opens_new_session():
    """It is 20 minutes behind the session's end, but the session is gone."""
    gone = T0 + 30 * MINUTE
    answer = judged("sessions", [(0, [click(T0)]), (gone, []), (gone, [click(T0 + 20 * MINUTE)]), (gone * 2, [])])

    assert {("s1", iso(T0)): 1, ("s1", iso(T0 + 20 * MINUTE)): 3} == answer.batch


@pytest.mark.parametrize(("form", "clicks"), [("linear", 1), ("join", 0)])
def test_conversion_variants_differ_in_lateness(form, clicks):
    """The join drops a click behind the watermark; the linear form counts it while its window is open."""
    batches = [(0, []), (T0 + 2, []), (T0 + 2, [click(T0)]), (T0 + 90 * MINUTE, [])]
    answer = judged("conversions", batches, Rules(conversions=form))

    assert clicks == len(answer.rows)
    assert 1 - clicks == answer.late_events == sum(answer.dropped.values())


def test_deduplication_counts_an_event_id_once():
    """Copies are counted as repeated, in every query that counts events."""
    same = [click(T0), click(T0), click(T0, event_id="e2")]
    flush = [click(T0 + 600 * MINUTE, session_id="f", event_id="f"), buy(T0 + 600 * MINUTE)]
    answers = of_one_batch([*same, *flush], Rules(deduplicate=True))

    assert (2, 1) == (next(iter(answers["page_views"].rows.values()))[0], answers["page_views"].repeated)
    assert [2] == [values[0] for values in answers["conversions"].rows.values()]
    assert [2] == [values[1] for values in answers["sessions"].rows.values()]
