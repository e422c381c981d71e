"""The events of one result row as arrays, and what the row would be of any part of them.

The oracle gives the rows of a whole run; this gives one row for many choices of its events, to find the choice that a
wrong row was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.job.clickstream.contract import QUERIES, Query
from harness.job.clickstream.records import iso
from harness.job.clickstream.reference import HORIZON_MS, average

Array = npt.NDArray[Any]
Values = tuple[Any, ...]
CODED = {"product_id": "product", "category": "category", "session_id": "session"}
"""Identity columns and the columns of `bulk.Columns` that hold them as codes."""


@dataclass(frozen=True, slots=True)
class Part:
    """Events of one row of a query, in order of event time; all arrays have one length.

    `row` is the row of `sent`, `batch` the batch that read the event (−1: none), `identity` equal for copies, `late`
    whether the event must not count, and `late_by_own` whether it is behind the watermark of its own batch.
    """

    query: str
    row: Array
    click: Array
    at_ms: Array
    user: Array
    cents: Array
    partition: Array
    batch: Array
    identity: Array
    late: Array
    late_by_own: Array

    @classmethod
    def empty(cls, query: str) -> Part:
        """No event of a query."""
        flags, numbers = np.array([], dtype=bool), np.array([], dtype=np.int64)
        return cls(query, numbers, flags, numbers, numbers, numbers, numbers, numbers, numbers, flags, flags)

    def __len__(self) -> int:
        return len(self.row)

    @property
    def facts(self) -> Query:
        """The query's facts."""
        return QUERIES[self.query]

    def take(self, chosen: Array) -> Part:
        """The events at these positions, or where a mask is true; a position that comes twice is counted twice."""
        arrays = (getattr(self, column.name)[chosen] for column in fields(self) if column.name != "query")
        return Part(self.query, *arrays)

    def values(self) -> Values | None:
        """The measures of the row that these events make, None where they make no row."""
        return _VALUES[self.query](self)

    def matches(self, horizon_ms: int = HORIZON_MS) -> tuple[Array, Array]:
        """For each click the event time of the first and of the last purchase that converts it, −1 where none does."""
        return _matches(self, horizon_ms)

    def purchases(self) -> Array:
        """For each click how many purchases convert it."""
        _, first, last = _found(self, HORIZON_MS)
        return np.asarray(np.maximum(last - first + 1, 0))


def _found(part: Part, horizon_ms: int) -> tuple[Array, Array, Array]:
    """Event times of the purchases by user and time, and of each click the positions there of the first and last match.

    Where a click has no match the last is before the first.
    """
    clicks, purchases = np.flatnonzero(part.click), np.flatnonzero(~part.click)
    if not len(clicks) or not len(purchases):
        return np.array([0], dtype=np.int64), np.zeros(len(clicks), dtype=np.int64), np.full(len(clicks), -1)
    origin = int(part.at_ms.min())
    block = int(part.at_ms.max()) - origin + HORIZON_MS + 1
    of_click = part.user[clicks].astype(np.int64) * block + part.at_ms[clicks] - origin
    of_purchase = np.sort(part.user[purchases].astype(np.int64) * block + part.at_ms[purchases] - origin)
    first = np.searchsorted(of_purchase, of_click, side="left")
    last = np.searchsorted(of_purchase, of_click + horizon_ms, side="right") - 1
    return of_purchase % block + origin, first, last


def _matches(part: Part, horizon_ms: int) -> tuple[Array, Array]:
    times, first, last = _found(part, horizon_ms)
    converts = first <= last
    return (
        np.where(converts, times[np.minimum(first, len(times) - 1)], -1),
        np.where(converts, times[np.maximum(last, 0)], -1),
    )


def _views(part: Part) -> Values | None:
    return (len(part), len(np.unique(part.user))) if len(part) else None


def _revenue(part: Part) -> Values | None:
    if not len(part):
        return None
    total = (Decimal(int(part.cents.sum())) / 100).quantize(Decimal("0.01"))
    return len(part), total, average(total, len(part))


def _conversions(part: Part) -> Values | None:
    return converted(part, HORIZON_MS)


def converted(part: Part, horizon_ms: int) -> Values | None:
    """Clicks, those with a purchase within the horizon, and their share."""
    first, _ = part.matches(horizon_ms)
    if not len(first):
        return None
    bought = int((first >= 0).sum())
    return len(first), bought, bought / len(first)


def _session(part: Part) -> Values | None:
    if not len(part):
        return None
    start, end = int(part.at_ms.min()), int(part.at_ms.max())
    return iso(end), len(part), (end - start) / 1000, "completed"


_VALUES: Mapping[str, Callable[[Part], Values | None]] = {
    "page_views": _views,
    "revenue": _revenue,
    "conversions": _conversions,
    "sessions": _session,
}
