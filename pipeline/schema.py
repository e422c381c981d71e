"""The contract in names and numbers: topics, fields, result columns, windows and delays.

The harness has a description of its own, and a test of the harness compares the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CLICKSTREAM = "clickstream"
TRANSACTIONS = "transactions"

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

ACTIONS = ("view", "click", "add_to_cart")
PAYMENT_METHODS = ("credit_card", "debit_card", "paypal")

FieldType = Literal["string", "decimal(12,2)", "integer", "timestamp"]


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an input record: its JSON type, and the values it may have; `minimum` is of numbers."""

    name: str
    type: FieldType = "string"
    required: bool = True
    allowed: tuple[str, ...] = ()
    minimum: int = 0


INPUT: dict[str, tuple[Field, ...]] = {
    CLICKSTREAM: (
        Field("event_id"),
        Field("user_id"),
        Field("session_id"),
        Field("product_id"),
        Field("category"),
        Field("action", allowed=ACTIONS),
        Field("timestamp", "timestamp"),
        Field("page_url", required=False),
        Field("referrer", required=False),
    ),
    TRANSACTIONS: (
        Field("transaction_id"),
        Field("user_id"),
        Field("session_id"),
        Field("product_id"),
        Field("category"),
        Field("amount", "decimal(12,2)", minimum=0),
        Field("quantity", "integer", minimum=1),
        Field("timestamp", "timestamp"),
        Field("payment_method", allowed=PAYMENT_METHODS),
    ),
}

RESULT_BYTES_MAX = 16 * 1024 * 1024
"""Of a record of a result: the largest that brokers take by default fits into the dead letter with its headers, also where a
producer had compressed it to a sixteenth. A result's topic must take it too (``max.message.bytes``)."""

SinkKind = Literal["kafka", "parquet", "console"]


@dataclass(frozen=True, slots=True)
class Query:
    """One result of the pipeline: its topics, the identity and measures of a row, and its sink."""

    name: str
    reads: tuple[str, ...]
    identity: tuple[str, ...]
    measures: tuple[str, ...]
    topic: str
    sink: SinkKind = "kafka"


WINDOW = ("window_start", "window_end")

QUERIES: dict[str, Query] = {
    query.name: query
    for query in (
        Query(
            "page_views",
            reads=(CLICKSTREAM,),
            identity=(*WINDOW, "product_id", "category"),
            measures=("view_count", "unique_users"),
            topic="page-views",
        ),
        Query(
            "revenue",
            reads=(TRANSACTIONS,),
            identity=(*WINDOW, "category"),
            measures=("transaction_count", "total_revenue", "avg_transaction"),
            topic="revenue",
            sink="parquet",
        ),
        Query(
            "conversions",
            reads=(CLICKSTREAM, TRANSACTIONS),
            identity=(*WINDOW, "product_id"),
            measures=("clicks", "purchases", "conversion_rate"),
            topic="analytics-results",
        ),
        Query(
            "sessions",
            reads=(CLICKSTREAM,),
            identity=("session_id", "session_start"),
            measures=("session_end", "event_count", "duration_seconds", "status"),
            topic="sessions",
        ),
        Query(
            "dead_letter",
            reads=(CLICKSTREAM, TRANSACTIONS),
            identity=("topic", "partition", "offset"),
            measures=("value", "reason"),
            topic="dead-letter",
        ),
    )
}
"""The five queries. `dead_letter` emits records, not JSON rows: value and headers as the contract has them."""
