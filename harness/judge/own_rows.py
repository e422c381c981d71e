"""The rows of a declared query, as they were seen, held against those that its declaration expects.

Rows are compared by their identity, each column in the type that the SQL gives it. An identity may have several rows:
they are compared as a multiset.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from harness.engines.spark.offset_log import Batch
from harness.job.declared import Column, Query
from harness.job.relations import Answer, ExpectedRow
from harness.model import Anomaly

CLOCK_S = 0.005
"""Kafka and file times are in whole milliseconds, cut off: less than this is no order of events."""
FLOATS_WITHIN = 1e-9
"""Relative difference of two doubles that are the same sum in another order."""
Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A row as it was seen: its columns, None where it is no row, its text, where it is, and when it appeared."""

    columns: Mapping[str, Any] | None
    text: str
    where: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """What came of a query's rows: how many had to come out, were right, and were copies, and each that was neither."""

    expected: int
    right: int
    copies: int
    anomalies: tuple[Anomaly, ...]


def typed(text: str, types: Mapping[str, pa.DataType]) -> dict[str, Any] | None:
    """The declared columns of a row, in the types that the SQL gives them; None where the text is no JSON object."""
    try:
        row = json.loads(text, parse_float=Decimal)
    except ValueError:
        return None
    return {name: _value(row.get(name), kind) for name, kind in types.items()} if isinstance(row, dict) else None


def _value(value: Any, kind: pa.DataType) -> Any:
    """A value of JSON in the type of its column; as it is where it has none of that type."""
    try:
        if value is None or isinstance(value, bool):
            return value
        if pa.types.is_timestamp(kind) and isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return (moment.astimezone(UTC) if moment.tzinfo else moment).replace(tzinfo=None)
        if pa.types.is_date(kind) and isinstance(value, str):
            return date.fromisoformat(value)
        if pa.types.is_floating(kind) and isinstance(value, int | Decimal | str):
            return float(value)
        if pa.types.is_integer(kind) and isinstance(value, Decimal) and value == int(value):
            return int(value)
        if pa.types.is_decimal(kind) and isinstance(value, int | Decimal | str):
            return Decimal(value)
    except (ValueError, ArithmeticError):
        pass
    return value


def hold(query: Query, answer: Answer, seen: Sequence[Seen], batches: Sequence[Batch], restarts: int) -> Held:
    """Hold rows that were seen against those expected; without an identity, a row is its own.

    A sink that promises at least once may have each row once more for each restart.
    """
    names = [name for name in answer.types if not query.columns.get(name, Column()).ignore]
    identity = [name for name in (query.row or names) if name in names]
    expected: dict[Key, list[ExpectedRow]] = defaultdict(list)
    for row in answer.rows:
        expected[_key(row.columns, identity)].append(row)
    found: dict[Key, list[Seen]] = defaultdict(list)
    for row_seen in seen:
        found[(row_seen.where,) if row_seen.columns is None else _key(row_seen.columns, identity)].append(row_seen)
    copies_max = restarts if query.promise == "at-least-once" else 0
    others = [name for name in names if name not in identity]
    checks = [
        _Identity(query, others, key, expected.get(key, []), found.get(key, []), batches, copies_max)
        for key in expected.keys() | found.keys()
    ]
    anomalies = tuple(anomaly for check in checks for anomaly in check.anomalies())
    due = sum(row.is_due for row in answer.rows)
    wrong = sum(anomaly.kind in ("lost_row", "wrong_value") for anomaly in anomalies)
    return Held(due, due - wrong, sum(check.copies for check in checks), anomalies)


def _key(columns: Mapping[str, Any], names: Sequence[str]) -> Key:
    """Identity columns, doubles rounded to the digits in which they are compared."""
    return tuple(float(f"{value:.9g}") if isinstance(value := columns[name], float) else value for name in names)


@dataclass(slots=True)
class _Identity:
    """All rows of an identity, and the columns in which they are compared."""

    query: Query
    names: Sequence[str]
    key: Key
    expected: Sequence[ExpectedRow]
    found: Sequence[Seen]
    batches: Sequence[Batch]
    copies_max: int
    copies: int = 0

    def anomalies(self) -> Iterator[Anomaly]:
        """Rows that are not as expected; each that was seen stands for one expected row that is equal, or is a copy."""
        # Of equal rows the first that was seen stands for the one that is due first.
        missing, wrong = sorted(self.expected, key=_due), []
        for seen in sorted(self.found, key=lambda seen: seen.at_s):
            free = next((row for row in missing if self._agree(row, seen)), None)
            if free is not None:
                missing.remove(free)
                yield from self._premature(free, seen)
            elif equal := next((row for row in self.expected if self._agree(row, seen)), None):
                self.copies += 1
                if self.copies > self.copies_max * len(self.expected):
                    yield self._anomaly("duplicated_row", equal, seen, "it is there more than once")
            else:
                wrong.append(seen)
        missing = [row for row in missing if row.is_due]
        for seen in wrong:
            if self.expected:
                row = missing.pop() if missing else self.expected[0]
                yield self._anomaly("wrong_value", row, seen, self._difference(row, seen))
            else:
                yield self._anomaly("invented_row", None, seen, "no record that counts is in it")
        for row in missing:
            yield self._anomaly("lost_row", row, None, "the row never came out")

    def _premature(self, row: ExpectedRow, seen: Seen) -> Iterator[Anomaly]:
        """A row that appeared before the batch that emits it, or that no batch does."""
        if not row.is_due:
            yield self._anomaly("premature_row", row, seen, "no batch's watermark has released it")
        elif row.batch is not None and seen.at_s < self.batches[row.batch].begun_s - CLOCK_S:
            yield self._anomaly("premature_row", row, seen, f"it appeared before batch {row.batch} began")

    def _anomaly(self, kind: str, row: ExpectedRow | None, seen: Seen | None, why: str) -> Anomaly:
        values = "" if row is None else ", ".join(f"{name} {row.columns[name]}" for name in self.names)
        return Anomaly(
            kind,
            self.query.name,
            tuple(map(str, self.key)),
            "no row" if row is None else values or "a row",
            "no row" if seen is None else f"{seen.text[:300]} at {seen.where}",
            why,
            batch=row.batch if row is not None and row.is_due else None,
        )

    def _agree(self, row: ExpectedRow, seen: Seen) -> bool:
        return seen.columns is not None and not any(self._differing(row, seen.columns))

    def _differing(self, row: ExpectedRow, columns: Mapping[str, Any]) -> Iterator[str]:
        for name in self.names:
            within = self.query.columns.get(name, Column()).within
            if not _equal(row.columns[name], columns[name], within):
                yield f"{name}: expected {row.columns[name]}, saw {columns[name]}"

    def _difference(self, row: ExpectedRow, seen: Seen) -> str:
        """The columns in which a row is wrong."""
        if seen.columns is None:
            return "it is no JSON object"
        return "; ".join(self._differing(row, seen.columns)) or "a row more than expected with this identity"


def _due(row: ExpectedRow) -> float:
    """The batch in which a row appears, last if in none."""
    return (row.batch or 0) if row.is_due else math.inf


def _equal(expected: Any, seen: Any, within: float) -> bool:
    """Equal, or within a relative difference; doubles always are compared within their last digits."""
    if isinstance(expected, float) or within:
        try:
            return math.isclose(float(expected), float(seen), rel_tol=max(within, FLOATS_WITHIN), abs_tol=1e-12)
        except (TypeError, ValueError):
            return bool(expected == seen)
    return bool(expected == seen)
