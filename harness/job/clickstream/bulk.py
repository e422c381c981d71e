"""What must come out, of tens of millions of events at once: the exact oracle again, as set operations in DuckDB.

The reference is written to be read, this to be fast; Hypothesis holds them equal, row by row and drop by
drop. Events are columns of codes (`Columns`), and names stand beside them. A session is a gap-and-island
query where the order of arrival cannot matter; the islands in which it can are replayed by the reference.
Deduplication depends on the order of arrival throughout, so runs with it are the reference's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from harness.job.clickstream.records import Click, Purchase, iso
from harness.job.clickstream.reference import FIVE_MS, GAP_MS, HORIZON_MS, MINUTE_MS, Expected, Rules, Sessions, average
from harness.job.lateness import Watermarks

Array = npt.NDArray[Any]
MEMORY = "500MB"
NEVER = -(2**62)
EARLIEST = 2**31
"""Added to a period, which is negative before 1970, so that it fits into half a code."""
LENGTH_MS = {"page_views": MINUTE_MS, "revenue": FIVE_MS, "conversions": FIVE_MS}


@dataclass(frozen=True, slots=True)
class Columns:
    """Valid events, a row each: `click` or purchase, times in epoch ms, amounts in cents, the rest codes.

    A code is a position in `names` (of session, product, category and user). `batch` gives
    for each query the batch that read the event; what is no number of a batch was never read. `row` is where the event
    is in what was sent, empty where nobody asks.
    """

    click: Array
    partition: Array
    at_ms: Array
    user: Array
    session: Array
    product: Array
    category: Array
    cents: Array
    batch: Mapping[str, Array]
    names: Mapping[str, Sequence[str]]
    row: Array = field(default_factory=lambda: np.array([], dtype=np.int64))

    def table(self, query: str, watermarks: Watermarks, click: bool) -> pa.Table:
        """What the query read of clicks or of purchases, with the watermarks that each event met.

        `before` is what lateness is judged by, `released` what the batch before had let go, `number` the window.
        """
        batch = self.batch[query]
        rows = np.flatnonzero((self.click == click) & (batch >= 0) & (batch < len(watermarks.at)))
        batch = batch[rows]
        before = np.array([watermarks.before(number) for number in range(len(watermarks.at))], dtype=np.int64)
        released = np.array([NEVER, *watermarks.at[:-1]], dtype=np.int64)
        named = {_NEEDED[query][name]: getattr(self, name)[rows] for name in _NEEDED[query]}
        times = {"moment": self.at_ms[rows], "batch": batch, "before": before[batch] if len(rows) else batch}
        if query == "sessions":
            times["released"] = released[batch] if len(rows) else batch
        else:
            times["number"] = self.at_ms[rows] // LENGTH_MS[query]
        return pa.table(named | times)


_NEEDED = {
    "page_views": {"user": "person", "product": "product", "category": "category"},
    "revenue": {"category": "category", "cents": "cents"},
    "conversions": {"user": "person", "product": "product"},
    "sessions": {"partition": "partition", "session": "session"},
}
"""Columns of a query and their names in DuckDB, of which `user` and `at` are words."""


class Builder:
    """Makes `Columns` of a workload's events, by the thousands as columns, or one by one as read from bytes."""

    def __init__(
        self,
        users: Sequence[str],
        products: Sequence[str],
        categories: Sequence[str],
        session: Callable[[int, int], str],
    ) -> None:
        """`categories` is that of each product; `session` names the session of its owner's number and a period."""
        self._users, self._products, self._categories = Codes(users), Codes(products), Codes(categories)
        self._of_product = np.array([self._categories[name] for name in categories], dtype=np.int32)
        self._named = np.array([self._products[name] for name in products], dtype=np.int32)
        self._session = session
        self._parts: list[tuple[Array, ...]] = []
        self._ones: list[tuple[int, Click | Purchase]] = []

    def add(
        self,
        rows: Array,
        click: Array,
        at_ms: Array,
        user: Array,
        owner: Array,
        period: Array,
        product: Array,
        cents: Array,
    ) -> None:
        """Events with their rows in what was sent; users, owners of sessions and products count from 0."""
        held = (owner.astype(np.int64) << 32) + (period + EARLIEST)
        small = (column.astype(np.int32) for column in (rows, user, self._named[product]))
        self._parts.append((*small, self._of_product[product], click, at_ms, cents, held))

    def add_one(self, row: int, event: Click | Purchase) -> None:
        """An event with its row in what was sent."""
        self._ones.append((row, event))

    def columns(self, partition: Array, batch: Mapping[str, Array]) -> Columns:
        """All of them; `partition` and `batch` by row in what was sent."""
        parts = [np.concatenate(column) for column in zip(*self._parts, strict=True)] or [np.array([], np.int64)] * 8
        session, held = pd.factorize(parts[-1])
        sessions = Codes(self._session(code >> 32, (code & (2**32 - 1)) - EARLIEST) for code in held.tolist())
        ones = self._columns_of_ones(sessions)
        joined = zip((*parts[:-1], session.astype(np.int32)), ones, strict=True)
        rows, user, product, category, click, at_ms, cents, session = (
            np.concatenate(column) if len(column[1]) else column[0] for column in joined
        )
        names = {
            "session": list(sessions),
            "product": list(self._products),
            "category": list(self._categories),
            "user": list(self._users),
        }
        read = {query: index[rows] for query, index in batch.items()}
        return Columns(
            click.astype(bool),
            partition[rows],
            at_ms,
            user,
            session,
            product,
            category,
            cents,
            batch=read,
            names=names,
            row=rows,
        )

    def _columns_of_ones(self, sessions: Codes) -> list[Array]:
        rows = [
            (
                row,
                self._users[event.user],
                self._products[event.product],
                self._categories[event.category],
                isinstance(event, Click),
                event.at_ms,
                int(event.amount * 100) if isinstance(event, Purchase) else 0,
                sessions[event.session] if isinstance(event, Click) else 0,
            )
            for row, event in self._ones
        ]
        return [np.array(column) for column in zip(*rows, strict=True)] or [np.array([], dtype=np.int64)] * 8


class Codes(dict[str, int]):
    """A number for each name, in order of appearance."""

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        for name in names:
            self[name]

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]


def expected(columns: Columns, watermarks: Mapping[str, Watermarks], form: str) -> dict[str, Expected]:
    """Every row that the watermark has released, by query, of those that have read anything; `form` is that of conversions."""
    makers = {
        "page_views": _page_views,
        "revenue": _revenue,
        "conversions": {"linear": _linear, "join": _join}[form],
        "sessions": _sessions,
    }
    answers = {}
    with _database() as database:
        for query in columns.batch:
            answers[query] = makers[query](database, columns, watermarks[query])
            for table in ("in_time", "arrivals", "islands"):
                database.execute(f"DROP TABLE IF EXISTS {table}")
            for view in ("clicks", "purchases"):
                database.unregister(view)
    return answers


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that goes to disk beyond its limit."""
    with tempfile.TemporaryDirectory(prefix="harness-oracle-") as spill:
        database = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill})
        try:
            yield database
        finally:
            database.close()


def _page_views(database: duckdb.DuckDBPyConnection, columns: Columns, watermarks: Watermarks) -> Expected:
    database.register("clicks", columns.table("page_views", watermarks, click=True))
    answer = _late(
        database, f"SELECT *, (number + 1) * {MINUTE_MS} AS ending FROM clicks", "batch, number, product, category"
    )  # fmt: skip
    rows = database.execute(
        """
        SELECT number, product, category, sum(views)::BIGINT, count(*)
        FROM (SELECT number, product, category, person, count(*) AS views FROM in_time GROUP BY ALL) GROUP BY 1, 2, 3
        """
    ).fetchall()
    products, categories = columns.names["product"], columns.names["category"]
    for minute, product, category, views, users in rows:
        key = (*_window(minute, MINUTE_MS), products[product], categories[category])
        _close(answer, watermarks, (minute + 1) * MINUTE_MS, key, (views, users), views)
    return answer


def _revenue(database: duckdb.DuckDBPyConnection, columns: Columns, watermarks: Watermarks) -> Expected:
    database.register("purchases", columns.table("revenue", watermarks, click=False))
    answer = _late(
        database, f"SELECT *, (number + 1) * {FIVE_MS} AS ending FROM purchases", "batch, number, category"
    )  # fmt: skip
    rows = database.execute("SELECT number, category, count(*), sum(cents) FROM in_time GROUP BY 1, 2").fetchall()
    for five, category, count, cents in rows:
        total = (Decimal(int(cents)) / 100).quantize(Decimal("0.01"))
        key = (*_window(five, FIVE_MS), columns.names["category"][category])
        _close(answer, watermarks, (five + 1) * FIVE_MS, key, (count, total, average(total, count)), count)
    return answer


def _linear(database: duckdb.DuckDBPyConnection, columns: Columns, watermarks: Watermarks) -> Expected:
    database.register("clicks", columns.table("conversions", watermarks, click=True))
    database.register("purchases", columns.table("conversions", watermarks, click=False))
    answer = _late(
        database,
        f"""
        SELECT *, (five + 1) * {FIVE_MS} + {HORIZON_MS} AS ending FROM (
            SELECT *, true AS click, number AS five FROM clicks
            UNION ALL
            SELECT purchases.*, false AS click, number - back AS five FROM purchases, range({HORIZON_MS // FIVE_MS + 1}) AS of(back)
        )
        """,
        "batch, five, product, person",
    )
    groups = database.execute(
        "SELECT five, product, count(*) FROM (SELECT DISTINCT five, product, person FROM in_time) GROUP BY 1, 2"
    ).fetchall()
    counted = _converted(database, "five, product, person")
    for five, product, held in groups:
        end = (five + 1) * FIVE_MS + HORIZON_MS
        if (five, product) in counted:
            clicks, bought = counted[five, product]
            key = (*_window(five, FIVE_MS), columns.names["product"][product])
            _close(answer, watermarks, end, key, (clicks, bought, bought / clicks), clicks, held)
        elif watermarks.first_at(end) is None:
            answer.open += held
    return answer


def _join(database: duckdb.DuckDBPyConnection, columns: Columns, watermarks: Watermarks) -> Expected:
    database.register("clicks", columns.table("conversions", watermarks, click=True))
    database.register("purchases", columns.table("conversions", watermarks, click=False))
    answer = _late(
        database,
        """
        SELECT *, moment AS ending, number AS five FROM (
            SELECT *, true AS click FROM clicks UNION ALL SELECT *, false AS click FROM purchases
        )
        """,
        None,
    )
    for (five, product), (clicks, bought) in _converted(database, "product, person").items():
        # The join lets the watermark on to the aggregation only as far as it can no longer emit a click.
        end = (five + 1) * FIVE_MS + HORIZON_MS + 1
        key = (*_window(five, FIVE_MS), columns.names["product"][product])
        _close(answer, watermarks, end, key, (clicks, bought, bought / clicks), clicks)
    return answer


def _converted(database: duckdb.DuckDBPyConnection, same: str) -> dict[tuple[int, int], tuple[int, int]]:
    """(clicks, those whose first purchase no earlier came at most ten minutes after) of each window and product."""
    equal = " AND ".join(f"c.{name} = p.{name}" for name in same.split(", "))
    rows = database.execute(
        f"""
        SELECT c.five, c.product, count(*), count(*) FILTER (p.moment - c.moment <= {HORIZON_MS})
        FROM (SELECT * FROM in_time WHERE click) c
        ASOF LEFT JOIN (SELECT {same}, moment FROM in_time WHERE NOT click) p ON {equal} AND c.moment <= p.moment
        GROUP BY 1, 2
        """
    ).fetchall()
    return {(five, product): (clicks, bought) for five, product, clicks, bought in rows}


def _sessions(database: duckdb.DuckDBPyConnection, columns: Columns, watermarks: Watermarks) -> Expected:
    database.register("clicks", columns.table("sessions", watermarks, click=True))
    answer = _late(database, f"SELECT *, moment + {GAP_MS} AS ending FROM clicks", "batch, partition, session, moment")
    # An island is what would be one session if all came in order. What came before an event is one period as long as
    # each event touches it and the watermark has not yet passed it; where that fails the order of arrival decides.
    database.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE arrivals AS
        WITH parted AS (
            SELECT session, batch, moment, released,
                   (moment - lag(moment, 1, {NEVER}) OVER (PARTITION BY session ORDER BY moment) > {GAP_MS})::INT AS begins
            FROM in_time
        ), islands AS (
            SELECT *, sum(begins) OVER (PARTITION BY session ORDER BY moment) AS island FROM parted
        )
        SELECT session, island, batch, moment,
               coalesce(moment > max(moment) OVER earlier + {GAP_MS} OR moment < min(moment) OVER earlier - {GAP_MS}
                        OR released >= max(moment) OVER earlier + {GAP_MS}, false) AS hard
        FROM islands
        WINDOW earlier AS (PARTITION BY session, island ORDER BY batch, moment ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
        """
    )
    database.execute(
        """
        CREATE OR REPLACE TEMP TABLE islands AS
        SELECT session, island, min(moment) AS first, max(moment) AS last, count(*) AS events, max(batch) AS batch, bool_or(hard) AS hard
        FROM arrivals GROUP BY 1, 2
        """
    )
    names = columns.names["session"]
    easy = database.execute("SELECT session, first, last, events, batch FROM islands WHERE NOT hard").fetchall()
    for session, first, last, events, batch in easy:
        answer.merged += events - 1
        closes = watermarks.first_at(last + GAP_MS)
        if closes is None:
            answer.open += 1
            answer.open_events += events
        else:
            values = (iso(last), events, (last - first) / 1000, "completed")
            answer.emit((names[session], iso(first)), values, max(closes, batch))
    _replay(database, answer, watermarks, names)
    return answer


def _replay(
    database: duckdb.DuckDBPyConnection, answer: Expected, watermarks: Watermarks, names: Sequence[str]
) -> None:
    """The islands in which the order of arrival decides, by the reference."""
    reference = Sessions(watermarks, Rules())
    reference.answer = answer
    hard = database.execute(
        """
        SELECT session, list([batch, moment] ORDER BY batch, moment) FROM arrivals SEMI JOIN (FROM islands WHERE hard) USING (session, island)
        GROUP BY session, island
        """
    )
    while rows := hard.fetchmany(1000):
        for session, events in rows:
            reference.replay(names[session], [(batch, at) for batch, at in events])


def _late(database: duckdb.DuckDBPyConnection, events: str, groups: str | None) -> Expected:
    """Part events, each with the end that the watermark must not have passed, into `in_time` and the late ones.

    An operator reports late ones as dropped by groups of these columns, or one by one.
    """
    database.execute(f"CREATE OR REPLACE TEMP TABLE in_time AS FROM ({events}) WHERE ending > before")
    dropped = "SELECT batch, count(*) FROM (SELECT {} FROM ({}) WHERE ending <= before) GROUP BY batch"
    reported = dropped.format("batch" if groups is None else f"DISTINCT {groups}", events)
    late = database.execute(f"SELECT count(*) FROM ({events}) WHERE ending <= before").fetchall()
    counted = database.execute("SELECT count(*) FROM in_time").fetchall()
    return Expected(dropped=dict(database.execute(reported).fetchall()), counted=counted[0][0], late_events=late[0][0])


def _close(
    answer: Expected,
    watermarks: Watermarks,
    end_ms: int,
    key: tuple[Any, ...],
    values: tuple[Any, ...],
    events: int,
    groups: int = 1,
) -> None:
    """Emit the row in the first batch whose watermark has reached the end; else it is still open."""
    batch = watermarks.first_at(end_ms)
    if batch is None:
        answer.open += groups
        answer.open_events += events
    else:
        answer.emit(key, values, batch)


def _window(number: int, length_ms: int) -> tuple[str, str]:
    return iso(number * length_ms), iso((number + 1) * length_ms)
