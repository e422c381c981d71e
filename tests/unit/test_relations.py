"""The macros on hand-made histories, and the clickstream's queries as SQL held equal to the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import ScenarioError
from harness.job import clickstream, relations
from harness.job.clickstream.records import Click, Purchase, Rejected, iso
from harness.job.clickstream.reference import Expected, Reference, Rules
from harness.job.lateness import Watermarks
from harness.job.relations import Dropped
from harness.model import Record

SQL = Path(clickstream.__file__).parent
MINUTE = 60_000
T0 = 1_767_261_600_000
DELAY = 5 * MINUTE
NONE = pa.array([], pa.string())

Event = tuple[str, int, int]
"""A record: its key, minutes after T0, and the batch that read it."""


def table(events: Sequence[Event], watermarks: Watermarks, delay_ms: int = DELAY) -> pa.Table:
    """A relation of records with a field `k`, all in one partition."""
    keys, minutes, batches = zip(*events, strict=True) if events else ((), (), ())
    at_ms = np.array([T0 + round(minute * MINUTE) for minute in minutes], dtype=np.int64)
    batch, zero = np.array(batches, dtype=np.int64), np.zeros(len(events), dtype=np.int64)
    fields = {"k": pa.array(keys, pa.string())}
    return relations.relation(fields, at_ms, batch, zero, np.arange(len(events)), watermarks, delay_ms)


def marks(*minutes: float) -> Watermarks:
    """Watermarks of batches, in minutes after T0; the first batch has none."""
    return Watermarks((0, *(T0 + round(minute * MINUTE) for minute in minutes)))


def rows(sql: str, events: Sequence[Event], watermarks: Watermarks) -> list[tuple[Any, ...]]:
    """The rows of a query over the relation `r`, sorted, each with its batch as the last value."""
    with relations.database() as database:
        database.register("r", table(events, watermarks))
        found = relations.expected(database, sql, watermarks).rows
    return sorted(((*row.columns.values(), row.batch) for row in found), key=str)


@pytest.mark.parametrize(
    ("macro", "late", "kept"),
    [
        pytest.param("tumble(r, INTERVAL 10 MINUTE)", 10, [12], id="tumble: the window's end is at the watermark"),
        pytest.param("on_time(r)", 9, [12], id="on_time: the time is at the watermark"),
        pytest.param("once(r, k || _offset)", 9, [12], id="once: as on_time"),
        pytest.param("session(r, k || _offset, INTERVAL 5 MINUTE)", 14, [12], id="session: time and gap"),
        pytest.param("tumble(r, INTERVAL 10 MINUTE)", 9.99, [9, 12], id="tumble: the end is beyond it"),
        pytest.param("r", 99, [9, 12], id="no macro: nothing is late"),
    ],
)
def test_a_record_is_late_by_the_watermark_before(macro, late, kept):
    """A record of batch 2 is judged by the watermark of batch 1."""
    sql = f"SELECT epoch_ms(_time) AS at FROM {macro}"
    found = rows(sql, [("a", 9, 2), ("a", 12, 2)], marks(late, 200))
    assert [T0 + minute * MINUTE for minute in kept] == [row[0] for row in found]


def test_hop_puts_a_record_into_each_window():
    """A window that is late is left out; the others count."""
    sql = "SELECT window_start AS at, window_end FROM hop(r, INTERVAL 10 MINUTE, INTERVAL 4 MINUTE)"
    found = rows(sql, [("a", 9, 2)], marks(10, 14, 60))
    assert [(4, 2), (8, 3)] == [(at.minute, batch) for at, _, batch in found]


def test_hop_counts_windows_before_1970():
    """Windows begin at multiples of the slide, below zero too."""
    watermarks = Watermarks((-(10**12),) * 2)
    relation = relations.relation({}, np.array([-1]), np.array([1]), np.zeros(1, int), np.zeros(1, int), watermarks, 0)
    with relations.database() as database:
        database.register("r", relation)
        found = database.sql(
            "SELECT epoch_ms(window_start) FROM hop(r, INTERVAL 6 SECOND, INTERVAL 3 SECOND)"
        ).fetchall()
    assert {(-3000,), (-6000,)} == set(found)


def test_once_keeps_an_identity_until_its_delay_is_over():
    """A copy is dropped while the watermark has not reached first + delay, and begins anew after that."""
    events = [("a", 20, 0), ("a", 21, 1), ("a", 40, 2), ("a", 41, 3)]
    found = rows("SELECT epoch_ms(_time) AS at, _batch FROM once(r, k)", events, marks(10, 25, 30))
    assert [(T0 + 20 * MINUTE, 0), (T0 + 41 * MINUTE, 3)] == found


def test_a_copy_of_a_copy_is_held_by_the_first():
    """A dropped copy does not prolong the time for which its identity is held."""
    events = [("a", 20, 0), ("a", 24, 1), ("a", 28, 3)]
    found = rows("SELECT epoch_ms(_time) AS at, _batch FROM once(r, k)", events, marks(10, 25, 26))
    assert [T0 + 20 * MINUTE, T0 + 28 * MINUTE] == [row[0] for row in found]


def test_an_emitted_session_is_not_joined():
    """The event that would have connected two periods comes after the first one has gone."""
    events = [("a", 0, 0), ("a", 40, 1), ("a", 20, 2)]
    sql = """
        SELECT k, session_start AS first, session_last AS last, count(*) AS events, session_end AS _final
        FROM session(r, k, INTERVAL 30 MINUTE) GROUP BY ALL
    """
    found = rows(sql, events, marks(30, 31, 90))
    assert [(0, 0, 1, 1), (20, 40, 2, 3)] == [(*(at.minute for at in row[1:3]), *row[3:]) for row in found]


def test_a_row_appears_when_batch_and_watermark_allow():
    """No earlier than its last record, nor than its end; not yet where no watermark has reached the end."""
    sql = "SELECT k, max(_batch) AS _batch, max(_time) + INTERVAL 5 MINUTE AS _final FROM r GROUP BY k"
    events = [("a", 0, 2), ("b", 20, 0), ("c", 60, 1)]
    assert [("a", 2), ("b", 3), ("c", relations.NOT_YET)] == rows(sql, events, marks(10, 20, 30))


def test_an_unmatched_row_waits_for_more_than_its_bound():
    """`passed` is the first moment after a bound."""
    sql = "SELECT k, passed(_time) AS _final FROM r"
    assert [("a", 2)] == rows(sql, [("a", 10, 0)], marks(10, 11))


def test_a_macro_reads_a_table_expression():
    """Hidden columns pass through `SELECT *`."""
    sql = "WITH few AS (SELECT * FROM r WHERE k = 'a') SELECT k FROM tumble(few, INTERVAL 1 HOUR)"
    assert [("a", None)] == rows(sql, [("a", 10, 0), ("b", 10, 0)], marks(11))


def test_wrong_sql_is_named():
    """What DuckDB finds wrong is in the message."""
    with pytest.raises(ScenarioError, match=r"the SQL cannot be run: .*oders"):
        rows("SELECT * FROM tumble(oders, INTERVAL 1 HOUR)", [], marks(1))


@pytest.mark.parametrize(
    ("sql", "groups", "expected"),
    [
        pytest.param("FROM on_time(r)", "", {2: Dropped(3, 3)}, id="each record"),
        pytest.param("FROM tumble(r, INTERVAL 10 MINUTE)", "", {2: Dropped(1, 3)}, id="groups, not declared"),
        pytest.param("FROM tumble(r, INTERVAL 10 MINUTE)", "k", {2: Dropped(2, 2)}, id="groups, declared"),
        pytest.param("FROM on_time(r) a JOIN on_time(r) b ON true", "", {2: Dropped(6, 6)}, id="both sides of a join"),
        pytest.param("-- FROM on_time(r)\nFROM r", "", {}, id="a comment is no call"),
        pytest.param("WITH c AS (FROM r) FROM on_time(c)", "", None, id="over a table expression"),
    ],
)
def test_dropped_rows_follow_from_the_macros(sql, groups, expected):
    """An operator of windows counts groups, every other counts records."""
    watermarks = marks(50, 60)
    with relations.database() as database:
        database.register("r", table([("a", 1, 2), ("a", 2, 2), ("b", 3, 2), ("a", 55, 2)], watermarks))
        assert expected == relations.dropped(database, sql, ["r"], groups)


EDGES = (0, 1, MINUTE - 1, 5 * MINUTE, 10 * MINUTE, 10 * MINUTE + 1, 15 * MINUTE, 30 * MINUTE, 30 * MINUTE + 1)
times = st.builds(
    lambda minutes, edge, sign: T0 + minutes * MINUTE + sign * edge,
    st.integers(0, 120),
    st.sampled_from(EDGES),
    st.sampled_from((1, -1)),
)
histories = st.lists(
    st.tuples(st.booleans(), times, st.integers(0, 1), st.integers(0, 1), st.integers(0, 1), st.integers(-1, 6)),
    max_size=25,
)
watermarks_ms = st.lists(st.integers(0, 150), min_size=1, max_size=6).map(
    lambda minutes: tuple(sorted(T0 + minute * MINUTE for minute in minutes))
)
FIELDS = ("user_id", "session_id", "product_id", "category", "amount", "identity")


def clicks_and_purchases(
    database: duckdb.DuckDBPyConnection, events: Sequence[tuple[Any, ...]], watermarks: Watermarks
) -> None:
    """Register the relations `clicks` and `purchases`; an event is (click, ms, partition, offset, batch, *fields)."""
    for name, is_click in (("clicks", True), ("purchases", False)):
        mine = [event for event in events if event[0] == is_click]
        at_ms, partition, offset, batch = (
            np.array([event[at] for event in mine], dtype=np.int64) for at in range(1, 5)
        )
        types = {"amount": pa.decimal128(12, 2)}
        fields = {
            field: pa.array([event[at] for event in mine], types.get(field, pa.string()))
            for at, field in enumerate(FIELDS, 5)
        }
        database.register(name, relations.relation(fields, at_ms, batch, partition, offset, watermarks, DELAY))


def drawn(history: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Events of a Hypothesis history, with offsets in their order."""
    return [
        (click, at_ms, user, offset, batch, f"u{user}", f"s{session}", f"p{product}", f"c{product}",
         Decimal("1.25") + user, f"e{session}{product}")
        for offset, (click, at_ms, user, session, product, batch) in enumerate(history)
    ]  # fmt: skip


def by_reference(events: Sequence[tuple[Any, ...]], watermarks: Watermarks, rules: Rules) -> Mapping[str, Expected]:
    """The reference's answer to the same events."""
    reference = Reference(dict.fromkeys(("page_views", "revenue", "conversions", "sessions"), watermarks), rules)
    for click, at_ms, partition, offset, batch, user, session, product, category, amount, identity in events:
        if 0 <= batch < len(watermarks.at):
            event = (
                Click(identity, at_ms, user, session, product, category)
                if click
                else Purchase(identity, at_ms, user, product, category, amount)
            )
            reads = ("page_views", "conversions", "sessions") if click else ("revenue", "conversions")
            reference.add(Record("t", partition, offset, b""), event, dict.fromkeys(reads, batch))
    return reference.expected()


def plain(value: Any) -> Any:
    """A value as the reference has it: times in ISO 8601."""
    if isinstance(value, datetime):
        return iso(round(value.replace(tzinfo=UTC).timestamp() * 1000))
    return value


def answers(found: Sequence[relations.ExpectedRow], identity: int) -> tuple[dict[Any, Any], dict[Any, int | None]]:
    """(rows, batches) of what is due, by the first `identity` columns; no two rows have the same."""
    due = [(tuple(map(plain, row.columns.values())), row.batch) for row in found if row.is_due]
    keys = [values[:identity] for values, _ in due]
    assert len(set(keys)) == len(keys)
    return {values[:identity]: values[identity:] for values, _ in due}, {
        values[:identity]: batch for values, batch in due
    }


LATE_GROUPS = """
SELECT _batch, count(DISTINCT (window_start, user_id, product_id)) FROM (
    SELECT * FROM late_hop(clicks, INTERVAL 15 MINUTE, INTERVAL 5 MINUTE)
    WHERE window_start = start_of(_time, INTERVAL 5 MINUTE)
    UNION ALL FROM late_hop(purchases, INTERVAL 15 MINUTE, INTERVAL 5 MINUTE)
) GROUP BY 1
"""
"""The linear form groups clicks and purchases together, which no macro alone shows."""
GROUPS = {
    "page_views": "window_start, product_id, category",
    "revenue": "window_start, category",
    "sessions": "_partition, session_id, _time",
}
IDENTITY = {"page_views": 4, "revenue": 3, "conversions": 3, "conversions_join": 3, "sessions": 2}


@settings(max_examples=40)
@given(histories, watermarks_ms)
def test_the_clickstreams_sql_equals_the_reference(history, at):
    """Rows, the batch of each, and drops of each batch, of all queries and both forms of conversions."""
    watermarks, events = Watermarks(at), drawn(history)
    wanted = dict(by_reference(events, watermarks, Rules()))
    wanted["conversions_join"] = by_reference(events, watermarks, Rules(conversions="join"))["conversions"]
    with relations.database() as database:
        clicks_and_purchases(database, events, watermarks)
        for query, identity in IDENTITY.items():
            sql = (SQL / f"{query}.sql").read_text()
            found, batches = answers(relations.expected(database, sql, watermarks).rows, identity)
            assert wanted[query].rows == found, query
            assert wanted[query].batch == batches, query
            drops = relations.dropped(database, sql, ("clicks", "purchases"), GROUPS.get(query, ""))
            assert drops is not None
            counted = {batch: of_batch.low for batch, of_batch in drops.items()}
            if query == "conversions":
                counted = dict(database.sql(LATE_GROUPS).fetchall())
            assert wanted[query].dropped == counted, query


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.just(True),
            st.builds(lambda step, edge: T0 + step * 15 * MINUTE + edge, st.integers(0, 16), st.sampled_from((-1, 0, 1))),
            st.just(0), st.just(0), st.just(0), st.integers(0, 5),
        ),
        min_size=2,
        max_size=12,
    ),
    st.lists(st.integers(0, 16), min_size=6, max_size=6).map(
        lambda steps: tuple(sorted(T0 + (step - 2) * 15 * MINUTE for step in steps))
    ),
)  # fmt: skip
def test_sessions_whose_order_decides_equal_the_reference(history, at):
    """Of one id: events that come after the period they would have joined has been emitted, or join two into one."""
    watermarks, events = Watermarks(at), drawn(history)
    wanted = by_reference(events, watermarks, Rules())["sessions"]
    with relations.database() as database:
        clicks_and_purchases(database, events, watermarks)
        found = relations.expected(database, (SQL / "sessions.sql").read_text(), watermarks).rows
    due, batches = answers(found, 2)
    assert wanted.rows == due
    assert wanted.batch == batches
    assert wanted.open == sum(not row.is_due for row in found)


@settings(max_examples=40)
@given(histories, watermarks_ms)
def test_once_equals_the_references_deduplication(history, at):
    """Windows over events that count once, late by their own time."""
    watermarks, events = Watermarks(at), sorted(drawn(history), key=lambda event: (event[4], event[2], event[3]))
    wanted = by_reference(events, watermarks, Rules(deduplicate=True))["page_views"]
    sql = (SQL / "page_views.sql").read_text().replace("FROM tumble(clicks", "FROM _tumble(firsts")
    with relations.database() as database:
        clicks_and_purchases(database, events, watermarks)
        found, batches = answers(
            relations.expected(database, f"WITH firsts AS (FROM once(clicks, identity)) {sql}", watermarks).rows, 4
        )
        drops = relations.dropped(database, "FROM once(clicks, identity)", ("clicks",))
    assert wanted.rows == found
    assert wanted.batch == batches
    assert wanted.dropped == {batch: of_batch.low for batch, of_batch in (drops or {}).items()}


def test_a_dead_letter_is_each_refused_record():
    """It appears with the batch that read it."""
    watermarks = marks(1, 2)
    zero = np.zeros(1, int)
    fields = {"topic": ["clickstream"], "value": ["7b"], "reason": ["not JSON"]}
    relation = relations.relation(fields, zero, np.array([1]), zero, zero + 7, watermarks, 0)
    reference = Reference(dict.fromkeys(("page_views", "revenue", "conversions", "sessions"), watermarks))
    reference.add(Record("clickstream", 0, 7, b"{"), Rejected(frozenset({"not JSON"})), {"dead_letter": 1})
    wanted = reference.expected()["dead_letter"]
    with relations.database() as database:
        database.register("rejected", relation)
        [row] = relations.expected(database, (SQL / "dead_letter.sql").read_text(), watermarks).rows
    topic, partition, offset, value, reason = row.columns.values()
    assert {(topic, partition, offset): (value, frozenset({reason}))} == wanted.rows
    assert {(topic, partition, offset): row.batch} == wanted.batch
