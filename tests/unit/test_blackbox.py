"""The black-box oracle: exact where nothing is open, and never narrower than what can happen."""

from __future__ import annotations

import json
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.job.clickstream.bounds import contradiction, possible
from harness.job.clickstream.records import iso, parse
from harness.job.clickstream.reference import of_one_batch
from harness.judge.anomalies import Comparison, Seen, _allows, check, parted, uncovered
from harness.model import Between, Record

MINUTE = 60_000
T0 = 1_767_261_600_000  # 2026-01-01T10:00:00Z


def record(topic: str, at_ms: int, user: str, offset: int = 0) -> Record:
    """A valid record of a topic."""
    fields = {"user_id": user, "session_id": user, "product_id": "p", "category": "c", "timestamp": iso(at_ms)}
    own = {"event_id": f"{offset}", "action": "view"}
    if topic == "transactions":
        own = {"transaction_id": f"{offset}", "amount": 1.25, "quantity": 1, "payment_method": "paypal"}
    return Record(topic, 0, offset, json.dumps(fields | own).encode())


EVENTS = st.lists(
    st.tuples(st.sampled_from(["clickstream", "transactions"]), st.integers(0, 90 * MINUTE), st.sampled_from("ab")),
    max_size=25,
)
BROKEN = Record("clickstream", 0, 901, b"{")
FLUSH = [record("clickstream", T0 + 600 * MINUTE, "f", 900), record("transactions", T0 + 600 * MINUTE, "f", 900)]


def records(events: list[tuple[str, int, str]]) -> list[Record]:
    """Records of (topic, ms after T0, user)."""
    return [record(topic, T0 + at, user, number) for number, (topic, at, user) in enumerate(events)]


@given(EVENTS)
def test_exact_when_nothing_is_open(events):
    """Every event sure to count: the exact answer, and nothing optional."""
    all_records = [*records(events), *FLUSH, BROKEN]
    answers = possible((one, parse(one), True) for one in all_records)
    exact = of_one_batch(all_records)

    assert {query: answer.rows for query, answer in exact.items()} == {q: a.rows for q, a in answers.items()}
    assert not any(answer.optional or answer.batch for answer in answers.values())


@given(EVENTS, st.data())
def test_any_subset_of_open_events_passes(events, data):
    """For each choice of what was dropped, each row is allowed and each required row is there."""
    made = records(events)
    is_sure = [data.draw(st.booleans()) for _ in made]
    counted = [one for one, sure in zip(made, is_sure, strict=True) if sure or data.draw(st.booleans())]
    answers = possible(
        (one, parse(one), sure) for one, sure in zip([*made, *FLUSH], [*is_sure, True, True], strict=True)
    )

    for query, answer in of_one_batch([*counted, *FLUSH]).items():
        assert answers[query].rows.keys() <= answer.rows.keys()
        for key, values in answer.rows.items():
            allowed = answers[query].rows.get(key, answers[query].optional.get(key))
            assert allowed is not None
            plain = [str(value) if isinstance(value, Decimal) else value for value in values]
            assert all(_allows(want, saw) for want, saw in zip(allowed, plain, strict=True)), (
                query,
                key,
                allowed,
                values,
            )
            assert None is contradiction(query, answers[query].moments, key, tuple(plain))
    sessions = compared(answers["sessions"], of_one_batch([*counted, *FLUSH])["sessions"].rows)
    assert [] == uncovered(sessions) == parted(sessions)


def compared(answer, rows) -> Comparison:
    """What came out, beside what must."""
    observed = {key: (Seen(values, "here", 0.0),) for key, values in rows.items()}
    return Comparison(
        "sessions",
        ("session_end", "event_count", "duration_seconds", "status"),
        answer.rows,
        observed,
        moments=answer.moments,
        contradiction=partial(contradiction, "sessions", answer.moments),
        optional=answer.optional,
    )


def test_sessions_with_open_events_stay_bound():
    """Three events are sure, a fourth may count; the row may have it or not, and must be there, and hold no more."""
    made = records([("clickstream", at * MINUTE, "a") for at in (0, 10, 20, 25)])
    sure = [True, True, True, False, True, True]
    answer = possible(zip([*made, *FLUSH], map(parse, [*made, *FLUSH]), sure, strict=True))["sessions"]
    end, later = iso(T0 + 20 * MINUTE), iso(T0 + 25 * MINUTE)
    key, flushed = ("a", iso(T0)), ("f", iso(T0 + 600 * MINUTE))

    def found(rows) -> list[str]:
        return [one.kind for one in check("at-least-once", compared(answer, rows)) if one.key[0] == "a"]

    assert [] == found({key: (end, 3, 1200.0, "completed")}) == found({key: (later, 4, 1500.0, "completed")})
    assert ["lost_row"] == found({})
    assert ["lost_row"] == found({("a", end): (end, 1, 0.0, "completed")})
    for values in (
        (end, "3", 1200.0),
        (end, None, 1200.0),
        (end, 2, 1200.0),
        (end, 4, 1200.0),
        (later, 5, 1500.0),
        (iso(T0 + 21 * MINUTE), 3, 1260.0),
    ):
        assert ["wrong_value"] == found({key: (*values, "completed")})
    assert flushed not in answer.rows


def test_inseparable_events_share_a_row():
    """Events that surely count less than a gap apart; an open one between them changes nothing, and rows do not overlap."""
    made = records([("clickstream", at * MINUTE, "a") for at in (0, 10, 20, 60, 80)])
    sure = [True, True, False, False, True, True, True]
    answer = possible(zip([*made, *FLUSH], map(parse, [*made, *FLUSH]), sure, strict=True))["sessions"]

    def row(*minutes: int) -> tuple[tuple[str, str], tuple[str, int, float, str]]:
        first, last = iso(T0 + minutes[0] * MINUTE), iso(T0 + minutes[-1] * MINUTE)
        return ("a", first), (last, len(minutes), (minutes[-1] - minutes[0]) * 60.0, "completed")

    def found(*rows) -> list[tuple[str, str]]:
        return [
            (one.kind, one.why) for one in check("at-least-once", compared(answer, dict(rows))) if one.key[0] == "a"
        ]

    assert [] == found(row(0, 10), row(80)) == found(row(0, 10, 20), row(60, 80)) == found(row(0, 10), row(20), row(80))
    [(kind, why)] = found(row(0), row(10, 20), row(80))
    assert "wrong_value" == kind
    assert f"less than a gap lies between two: {iso(T0)} and {iso(T0 + 10 * MINUTE)}" == why
    [(kind, why)] = found(row(0, 10, 20), row(20), row(80))
    assert ("wrong_value", True) == (kind, why.startswith("two sessions of one id overlap"))


def test_no_session_spans_a_gap():
    """Not even where an event may count: none of those that may lies in it. One of exactly thirty minutes may be joined."""
    made = records([("clickstream", at * MINUTE, "a") for at in (0, 10, 40, 71, 75)])
    sure = [True, True, True, True, False, True, True]
    answer = possible(zip([*made, *FLUSH], map(parse, [*made, *FLUSH]), sure, strict=True))["sessions"]

    def column(*minutes: int) -> str | None:
        values = (iso(T0 + minutes[-1] * MINUTE), len(minutes), (minutes[-1] - minutes[0]) * 60.0, "completed")
        return contradiction("sessions", answer.moments, ("a", iso(T0 + minutes[0] * MINUTE)), values)

    assert None is column(0, 10, 40) is column(71, 75) is column(71)
    assert "session_end" == column(0, 10, 40, 71) == column(40, 71, 75)


@pytest.mark.parametrize(
    ("value", "inside"),
    [
        pytest.param(1, True, id="the least"),
        pytest.param("2.50", True, id="a decimal as text"),
        pytest.param(3.01, False, id="beyond"),
        pytest.param("many", False, id="no number"),
        pytest.param(None, False, id="nothing"),
        pytest.param("NaN", False, id="not a number, as text"),
    ],
)
def test_between_holds_both_ends(value, inside):
    """And nothing that is no number."""
    assert inside is Between(1, 3).holds(value)


KEY = ("s", "2026-01-01T00:00:00.000Z")


@pytest.mark.parametrize(
    ("query", "values", "column"),
    [
        pytest.param("conversions", (4, 1, 0.25), None, id="right rate"),
        pytest.param("conversions", (4, 1, 0.2), "conversion_rate", id="another rate"),
        pytest.param("conversions", (4, 5, 1.25), "purchases", id="more converted than clicked"),
        pytest.param("revenue", (3, "10.00", "3.3333"), None, id="right mean"),
        pytest.param("revenue", (3, "10.00", "3.3400"), "avg_transaction", id="another mean"),
        pytest.param("revenue", (3.0, "10.00", "3.3333"), None, id="right mean of a whole number in another form"),
        pytest.param("page_views", (3, 2), None, id="fewer users than views"),
        pytest.param("page_views", (3, 4), "unique_users", id="more users than views"),
        pytest.param("sessions", ("2026-01-01T00:01:00.000Z", 3, 60.0, "completed"), None, id="right length"),
        pytest.param("sessions", ("2026-01-01T00:01:00.000Z", 3, 61.0, "completed"), "duration_seconds", id="longer"),
        pytest.param(
            "sessions", ("2025-01-01T00:01:00.000Z", 3, 60.0, "completed"), "session_end", id="before it began"
        ),
        pytest.param("sessions", ("tomorrow", 3, 60.0, "completed"), "session_end", id="at no time"),
        pytest.param("sessions", (None, None, None, "completed"), "session_end", id="no session at all"),
        pytest.param("page_views", (3.5, 2), "view_count", id="half a view"),
        pytest.param("page_views", (3.0, 2), None, id="a whole number in another form"),
        pytest.param("page_views", (float("inf"), 2), "view_count", id="no number of views"),
        pytest.param("page_views", (3, "2"), "unique_users", id="a number as text"),
        pytest.param("conversions", (4.0, 1, 0.0), "conversion_rate", id="no rate of its clicks"),
        pytest.param("conversions", (4, True, 0.25), "purchases", id="a truth"),
        pytest.param("revenue", (3, 10.0, "3.3333"), "total_revenue", id="a sum in doubles"),
    ],
)
def test_a_row_must_agree_with_itself(query, values, column):
    """Whichever of the late events it counts."""
    assert column == contradiction(query, {}, KEY, values)
