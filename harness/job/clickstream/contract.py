"""The clickstream job as the contract promises it: topics, result rows, windows and delays.

Written from contract.md alone. The pipeline has a description of its own, and a test holds the two equal
where they speak of the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

CLICKSTREAM = "clickstream"
TRANSACTIONS = "transactions"
INPUT = (CLICKSTREAM, TRANSACTIONS)

WATERMARK_DELAY_S = 5 * 60
PAGE_VIEWS_WINDOW_S = 60
REVENUE_WINDOW_S = 5 * 60
CONVERSIONS_WINDOW_S = 5 * 60
CONVERSION_HORIZON_S = 10 * 60
SESSION_GAP_S = 30 * 60
RECORD_BYTES_MAX = 1024 * 1024
"""Of the value of an input record; brokers take no larger message by default."""
NESTING_MAX = 100
"""Arrays and objects open at once in an input record, the record itself included."""
EVENT_TIME_MS_MIN, EVENT_TIME_MS_MAX = 1, 9_214_646_399_999
"""After the epoch, where Spark's watermark begins, to the end of 2261: nanoseconds in 64 bits end in 2262."""

# The largest record that brokers take by default fits into the dead letter with its headers, also where a
# producer had compressed it to a sixteenth. A result's topic must take it too (``max.message.bytes``).
RESULT_BYTES_MAX = 16 * 1024 * 1024

SinkKind = Literal["kafka", "parquet", "console"]


@dataclass(frozen=True, slots=True)
class Query:
    """One result of the job: the topics it reads, the columns of a row, and the sink that the row goes to.

    `identity` names the columns that identify a row, `measures` the others, both in the order of the row.
    A row of a `stateful` query is final once the watermark has passed its column `end` by `stays_open_s` seconds.
    Its rows are windows of `window_s` seconds, or sessions where that is 0. The rows of a query that `counts_each`
    count each valid event of its topic once. `distinct` names the measure that counts distinct values.
    `rejects` is true of the query that emits each record that the contract refuses, at once and as it is, and keeps
    no state.
    """

    name: str
    reads: tuple[str, ...]
    identity: tuple[str, ...]
    measures: tuple[str, ...]
    topic: str
    sink: SinkKind = "kafka"
    end: str = "window_end"
    stays_open_s: int = 0
    rejects: bool = False
    window_s: int = 0
    counts_each: bool = False
    distinct: str = ""

    @property
    def joins(self) -> bool:
        """Whether a row holds events of a second topic, which come up to `stays_open_s` after its window."""
        return self.stateful and len(self.reads) > 1

    @property
    def has_sessions(self) -> bool:
        """Whether the rows are sessions, which a gap ends, and no windows."""
        return self.stateful and not self.window_s

    @property
    def stateful(self) -> bool:
        """Whether the query has windows or sessions, and so a watermark and state."""
        return not self.rejects


WINDOW = ("window_start", "window_end")
TIMES = (*WINDOW, "session_start", "session_end")
# Digits after the point of each decimal column.
DECIMAL_PLACES = {"total_revenue": 2, "avg_transaction": 4}

# `dead_letter` is a record, not a JSON row: value and headers as the contract has them.
QUERIES: dict[str, Query] = {
    query.name: query
    for query in (
        Query(
            "page_views",
            reads=(CLICKSTREAM,),
            identity=(*WINDOW, "product_id", "category"),
            measures=("view_count", "unique_users"),
            topic="page-views",
            window_s=PAGE_VIEWS_WINDOW_S,
            counts_each=True,
            distinct="unique_users",
        ),
        Query(
            "revenue",
            reads=(TRANSACTIONS,),
            identity=(*WINDOW, "category"),
            measures=("transaction_count", "total_revenue", "avg_transaction"),
            topic="revenue",
            sink="parquet",
            window_s=REVENUE_WINDOW_S,
            counts_each=True,
        ),
        Query(
            "conversions",
            reads=(CLICKSTREAM, TRANSACTIONS),
            identity=(*WINDOW, "product_id"),
            measures=("clicks", "purchases", "conversion_rate"),
            topic="analytics-results",
            window_s=CONVERSIONS_WINDOW_S,
            stays_open_s=CONVERSION_HORIZON_S,
        ),
        Query(
            "sessions",
            reads=(CLICKSTREAM,),
            identity=("session_id", "session_start"),
            measures=("session_end", "event_count", "duration_seconds", "status"),
            topic="sessions",
            end="session_end",
            stays_open_s=SESSION_GAP_S,
        ),
        Query(
            "dead_letter",
            reads=(CLICKSTREAM, TRANSACTIONS),
            identity=("topic", "partition", "offset"),
            measures=("value", "reason"),
            topic="dead-letter",
            rejects=True,
        ),
    )
}


def first(fact: Callable[[Query], bool]) -> str:
    """The name of the first query of which a fact holds; StopIteration where it holds of none."""
    return next(query.name for query in QUERIES.values() if fact(query))


# Count of the result → the queries whose rows hold it; a single such query is enough.
COUNTED_BY: Mapping[str, tuple[str, ...]] = {
    "dropped_late": ("page_views", "revenue"),
    "dropped_late_sessions": ("sessions",),
    "dead_letter": ("dead_letter",),
    "sessions_merged": ("sessions",),
    "deduplicated": ("page_views", "revenue"),
    "sessions_over_restarts": ("sessions",),
    "hot_views": ("page_views",),
}
