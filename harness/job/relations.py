"""Expected rows as ordinary SQL over relations of the records that were read.

A relation has the fields of a topic's records and six hidden columns: `_time` (event time, UTC), `_late` (the watermark
by which late rows of the record's batch are judged), `_batch`, `_partition`, `_offset`, and `_delay` of the watermark.
The macros are the stateful operators of Spark. Each keeps the records that its operator does not drop: an operator
drops a record once its own watermark, as it was in the batch before, has reached the record's last use.

| macro | operator | a record is late when |
|---|---|---|
| `tumble(r, length)`, `hop(r, length, slide)` | aggregation of windows | the window's end ≤ `_late` |
| `session(r, key, gap)` | aggregation of `session_window` | `_time` + gap ≤ `_late` |
| `on_time(r)` | stream-stream join, `dropDuplicates`, stateful processor | `_time` ≤ `_late` |
| `once(r, key)` | `dropDuplicatesWithinWatermark` | `_time` ≤ `_late` |

A relation without a macro is every record that was read. A row may have the hidden columns `_final` and `_batch`: it
appears in the first batch that is no earlier than `_batch` and whose watermark has reached `_final`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from harness.errors import ScenarioError
from harness.job.lateness import Watermarks

Array = npt.NDArray[Any]
HIDDEN = ("_time", "_late", "_batch", "_partition", "_offset", "_delay")
MEMORY = "500MB"
EARLIEST_MS = -(10**13)
"""Stands for a watermark that judges nothing late, within what a timestamp of DuckDB holds."""

MACROS = """
CREATE MACRO start_of(moment, slide) AS make_timestamp_ms(
    epoch_ms(moment) - ((epoch_ms(moment) % epoch_ms(slide)) + epoch_ms(slide)) % epoch_ms(slide)
);

CREATE MACRO passed(moment) AS moment + INTERVAL 1 MILLISECOND;

CREATE MACRO _tumble(r, length) AS TABLE
    SELECT *, start_of(_time, length) AS window_start, start_of(_time, length) + length AS window_end FROM query_table(r);
CREATE MACRO _hop(r, length, slide) AS TABLE
    SELECT * FROM (
        SELECT every.*, start_of(_time, slide) - back.back * slide AS window_start,
               start_of(_time, slide) - back.back * slide + length AS window_end
        FROM query_table(r) AS every,
             range((epoch_ms(length) + epoch_ms(slide) - 1) // epoch_ms(slide)) AS back(back)
    ) WHERE window_end > _time;
CREATE MACRO tumble(r, length) AS TABLE FROM _tumble(r, length) WHERE window_end > _late;
CREATE MACRO late_tumble(r, length) AS TABLE FROM _tumble(r, length) WHERE window_end <= _late;
CREATE MACRO hop(r, length, slide) AS TABLE FROM _hop(r, length, slide) WHERE window_end > _late;
CREATE MACRO late_hop(r, length, slide) AS TABLE FROM _hop(r, length, slide) WHERE window_end <= _late;

CREATE MACRO on_time(r) AS TABLE FROM query_table(r) WHERE _time > _late;
CREATE MACRO late_on_time(r) AS TABLE FROM query_table(r) WHERE _time <= _late;

CREATE MACRO once(r, _of) AS TABLE
    WITH copies AS (
        SELECT *, _of AS _key, {b: _batch, p: _partition, o: _offset} AS _place,
               count(*) OVER (PARTITION BY _of) AS _copies
        FROM on_time(r)
    ), folded AS (
        SELECT _key, list_reduce(
            list({late: _late, until: _time + _delay, kept: [_place]} ORDER BY _place),
            lambda held, next: CASE
                WHEN held.until > next.late THEN {late: next.late, until: held.until, kept: held.kept}
                ELSE {late: next.late, until: next.until, kept: list_concat(held.kept, next.kept)}
            END
        ).kept AS kept
        FROM copies WHERE _copies > 1 GROUP BY _key
    )
    SELECT * EXCLUDE (_key, _place, _copies) FROM copies
    WHERE _copies = 1 OR (_key, _place) IN (SELECT (_key, unnest(kept)) FROM folded);
CREATE MACRO late_once(r, _of) AS TABLE FROM late_on_time(r);

CREATE MACRO late_session(r, _of, gap) AS TABLE FROM query_table(r) WHERE _time + gap <= _late;
CREATE MACRO session(r, _of, gap) AS TABLE
    WITH marked AS (
        SELECT *, _of AS _key, {b: _batch, t: _time, p: _partition, o: _offset} AS _place
        FROM query_table(r) WHERE _time + gap > _late
    ), parted AS (
        SELECT *, coalesce(_time - lag(_time) OVER (PARTITION BY _key ORDER BY _time) > gap, true)::INT AS _begins
        FROM marked
    ), islands AS (
        SELECT *, sum(_begins) OVER (PARTITION BY _key ORDER BY _time) AS _island FROM parted
    ), arrivals AS (
        SELECT *, coalesce(
            _time > max(_time) OVER earlier + gap OR _time < min(_time) OVER earlier - gap
            OR _late >= max(_time) OVER earlier + gap, false) AS _hard
        FROM islands
        WINDOW earlier AS (
            PARTITION BY _key, _island ORDER BY _place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )
    ), periods AS (
        SELECT *, min(_time) OVER island AS session_start, max(_time) OVER island AS session_last,
               bool_or(_hard) OVER island AS _replayed
        FROM arrivals WINDOW island AS (PARTITION BY _key, _island)
    ), replayed AS (
        SELECT _key, _island, list_reduce(
            list({late: _late, done: [], open: [{first: _time, last: _time, places: [_place]}]} ORDER BY _place),
            lambda held, next: {
                late: next.late,
                done: list_concat(held.done, list_filter(held.open, lambda x: x.last + gap <= next.late)),
                open: list_concat(
                    list_filter(held.open, lambda x: x.last + gap > next.late
                        AND NOT (next.open[1].first BETWEEN x.first - gap AND x.last + gap)),
                    [list_reduce(
                        list_concat(next.open, list_filter(held.open, lambda x: x.last + gap > next.late
                            AND next.open[1].first BETWEEN x.first - gap AND x.last + gap)),
                        lambda a, b: {first: least(a.first, b.first), last: greatest(a.last, b.last),
                                      places: list_concat(a.places, b.places)}
                    )]
                )
            }
        ) AS state
        FROM periods WHERE _replayed GROUP BY _key, _island
    ), found AS (
        SELECT _key, unnest(list_concat(state.done, state.open)) AS period FROM replayed
    ), placed AS (
        SELECT _key, period.first AS first, period.last AS last, unnest(period.places) AS place FROM found
    )
    SELECT * EXCLUDE (_key, _place, _begins, _island, _hard, _replayed),
           session_last + gap AS session_end
    FROM (
        SELECT * FROM periods WHERE NOT _replayed
        UNION ALL BY NAME
        SELECT periods.* REPLACE (first AS session_start, last AS session_last)
        FROM periods JOIN placed ON periods._key = placed._key AND _place = place WHERE _replayed
    );
"""
"""`late_…` are the records that a macro leaves out; `start_of(t, length)` is the start of t's window; `passed(t)` is the first moment after t: a join emits an unmatched
row once the watermark is beyond its bound, not at it."""

OF_WINDOWS = ("tumble", "hop", "session")
"""Macros of operators that group the records of a batch before they look at the watermark, and count groups as dropped."""
CALL = re.compile(r"\b(tumble|hop|session|on_time|once)\s*\(", re.IGNORECASE)


@contextmanager
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with the macros, in UTC, that goes to disk beyond its limit."""
    with tempfile.TemporaryDirectory(prefix="harness-oracle-") as spill:
        connection = duckdb.connect(config={"memory_limit": MEMORY, "temp_directory": spill})
        try:
            connection.execute(MACROS)
            yield connection
        finally:
            connection.close()


def timestamps(at_ms: Array) -> pa.Array:
    """Epoch ms as timestamps in UTC without a zone."""
    return pa.array(at_ms.astype(np.int64) * 1000, type=pa.timestamp("us"))


def relation(
    fields: Mapping[str, Any],
    at_ms: Array,
    batch: Array,
    partition: Array,
    offset: Array,
    watermarks: Watermarks,
    delay_ms: int,
) -> pa.Table:
    """Records with their hidden columns. Arrays have a value a record; what is no number of a batch was never read."""
    read = np.flatnonzero((batch >= 0) & (batch < len(watermarks.at)))
    before = [max(EARLIEST_MS, watermarks.before(number)) for number in range(len(watermarks.at))]
    of_batch = np.array(before or [0], dtype=np.int64)
    number = batch[read].astype(np.int64)
    hidden = {
        "_time": timestamps(at_ms[read]),
        "_late": timestamps(of_batch[number]),
        "_batch": pa.array(number),
        "_partition": pa.array(partition[read]),
        "_offset": pa.array(offset[read]),
        "_delay": pa.array(np.full(len(read), delay_ms * 1000), type=pa.duration("us")),
    }
    taken = {name: pa.array(column).take(pa.array(read)) for name, column in fields.items()}
    return pa.table(taken | hidden)


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """A row that must come out, and the batch in which it appears: None is not determined, −1 not yet."""

    columns: Mapping[str, Any]
    batch: int | None

    @property
    def is_due(self) -> bool:
        """Whether the watermark has released it."""
        return self.batch != NOT_YET


NOT_YET = -1


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a query, and the types of their columns, hidden ones left out."""

    types: Mapping[str, pa.DataType]
    rows: list[ExpectedRow]


def expected(connection: duckdb.DuckDBPyConnection, sql: str, watermarks: Watermarks) -> Answer:
    """Every row of a query, those that no batch has released yet included.

    Without a column `_final`, a row with `window_end` or `session_end` is final then.
    Raises ScenarioError with what DuckDB finds wrong in the SQL.
    """
    try:
        table = connection.sql(sql.strip().rstrip(";")).to_arrow_table()
    except duckdb.Error as error:
        raise ScenarioError(f"the SQL cannot be run: {error}") from error
    final = next((name for name in ("_final", "window_end", "session_end") if name in table.column_names), None)
    shown = [name for name in table.column_names if not name.startswith("_")]
    rows = table.to_pylist()
    found = [
        ExpectedRow(
            {name: row[name] for name in shown},
            _appears(row.get("_batch"), row[final] if final else None, watermarks),
        )
        for row in rows
    ]
    return Answer({name: table.schema.field(name).type for name in shown}, found)


def _appears(batch: int | None, final: Any, watermarks: Watermarks) -> int | None:
    """The first batch that is no earlier than `batch` and whose watermark has reached `final`."""
    if final is None:
        return batch
    reached = watermarks.first_at(_epoch_ms(final))
    if reached is None:
        return NOT_YET
    return reached if batch is None else max(batch, reached)


def _epoch_ms(at: Any) -> int:
    """A time without a zone, in UTC, as epoch ms, rounded up: a watermark in whole ms reaches it then."""
    micros = int(np.datetime64(at, "us").astype(np.int64))
    return -(-micros // 1000)


@dataclass(frozen=True, slots=True)
class Use:
    """A call of a macro in a query's SQL: the relation, and the other arguments as they are written."""

    macro: str
    relation: str
    arguments: str

    @property
    def late(self) -> str:
        """The call of the macro's complement: the records that it leaves out."""
        return f"late_{self.macro}({', '.join(filter(None, (self.relation, self.arguments)))})"


def uses(sql: str) -> list[Use]:
    """The macros that a query's SQL calls, in order; comments and texts are not looked at."""
    bare = re.sub(r"--[^\n]*|/\*.*?\*/", " ", sql, flags=re.DOTALL)
    found = []
    for call in CALL.finditer(bare):
        first, _, rest = _arguments(bare[call.end() :]).partition(",")
        found.append(Use(call[1].lower(), first.strip(), rest.strip()))
    return found


def _arguments(text: str) -> str:
    """What stands before the parenthesis that ends a call."""
    depth = 1
    for at, sign in enumerate(text):
        depth += (sign == "(") - (sign == ")")
        if not depth:
            return text[:at]
    return text


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many rows Spark must report as dropped in a batch: at least and at most, both included."""

    low: int
    high: int

    def __add__(self, other: Dropped) -> Dropped:
        return Dropped(self.low + other.low, self.high + other.high)

    def holds(self, rows: int) -> bool:
        """Whether a number of rows agrees."""
        return self.low <= rows <= self.high


def dropped(
    connection: duckdb.DuckDBPyConnection, sql: str, topics: Sequence[str], groups: str = ""
) -> dict[int, Dropped] | None:
    """Batch → rows that its operators must report as dropped by the watermark; None where the SQL does not determine it.

    An operator of windows counts groups of a batch: exactly known if `groups` names their columns, joined by commas,
    else at least one and at most the number of late records. A macro over anything but a topic is not determined.
    """
    answer: dict[int, Dropped] = {}
    for use in uses(sql):
        if use.relation not in topics:
            return None
        counted = f"SELECT _batch, {_low(use, groups)}, {_high(use, groups)} FROM {use.late} GROUP BY 1"
        for batch, low, high in connection.execute(counted).fetchall():
            answer[batch] = answer.get(batch, Dropped(0, 0)) + Dropped(low, high)
    return answer


def _low(use: Use, groups: str) -> str:
    if use.macro not in OF_WINDOWS:
        return "count(*)"
    return f"count(DISTINCT ({groups},))" if groups else "1"


def _high(use: Use, groups: str) -> str:
    return _low(use, groups) if groups else "count(*)"
