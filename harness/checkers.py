"""Expected rows against observed rows: one small function an anomaly, and a table guarantee → forbidden.

A checker takes a `Comparison` and returns anomalies; it knows nothing of Kafka, Spark or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import msgspec

from harness.model import Anomaly

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One observed result row: its measures as plain values, where it lies, and when it appeared."""

    values: tuple[Any, ...]
    where: str
    at_s: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One query's expected rows, and the observed ones by the same key.

    An expected value that is a frozenset allows each of its members (a record may be rejected for
    any of its faults).
    """

    query: str
    measures: tuple[str, ...]
    expected: Mapping[Key, tuple[Any, ...]]
    observed: Mapping[Key, tuple[Seen, ...]]


def decoded(rows: list[tuple[str, str, str, float]]) -> dict[Key, tuple[Seen, ...]]:
    """Rows of a run directory (encoded key, encoded values, where, at_s) grouped by key."""
    grouped: dict[Key, tuple[Seen, ...]] = {}
    for key_text, values_text, where, at_s in rows:
        key = tuple(msgspec.json.decode(key_text))
        seen = Seen(tuple(msgspec.json.decode(values_text)), where, at_s)
        grouped[key] = (*grouped.get(key, ()), seen)
    return grouped


def lost(comparison: Comparison) -> list[Anomaly]:
    """Rows that must be there and are not."""
    return [
        Anomaly(
            "lost_row", comparison.query, key, _show(comparison.measures, values), "no row", "the row never came out"
        )
        for key, values in comparison.expected.items()
        if key not in comparison.observed
    ]


def invented(comparison: Comparison) -> list[Anomaly]:
    """Rows for which no input gives a reason."""
    return [
        Anomaly(
            "invented_row",
            comparison.query,
            key,
            "no row",
            _show(comparison.measures, rows[0].values),
            f"no acknowledged record leads to it; it stands at {rows[0].where}",
        )
        for key, rows in comparison.observed.items()
        if key not in comparison.expected
    ]


def wrong(comparison: Comparison) -> list[Anomaly]:
    """Rows with the right key and a wrong measure; names the columns."""
    return [
        _wrong(comparison, key, comparison.expected[key], row)
        for key, rows in comparison.observed.items()
        if key in comparison.expected
        for row in rows
        if not _agrees(comparison.expected[key], row.values)
    ]


def duplicated(comparison: Comparison) -> list[Anomaly]:
    """Rows that stand more than once."""
    return [
        Anomaly(
            "duplicated_row",
            comparison.query,
            key,
            "one row",
            f"{len(rows)} rows, {'equal' if len({row.values for row in rows}) == 1 else 'different'}",
            "at " + ", ".join(row.where for row in rows[:5]),
        )
        for key, rows in comparison.observed.items()
        if len(rows) > 1
    ]


Checker = Callable[[Comparison], list[Anomaly]]

FORBIDDEN: dict[str, tuple[Checker, ...]] = {
    "at-least-once": (lost, invented, wrong),
    "exactly-once": (lost, invented, wrong, duplicated),
}
"""What each guarantee forbids. Without a replayed batch, at-least-once too must give every row once:
the caller then holds the sink to exactly-once."""

KINDS = ("lost_row", "invented_row", "wrong_value", "duplicated_row", "record_lost")


def check(guarantee: str, comparison: Comparison) -> list[Anomaly]:
    """Every anomaly that the guarantee forbids."""
    return [anomaly for checker in FORBIDDEN[guarantee] for anomaly in checker(comparison)]


def _wrong(comparison: Comparison, key: Key, expected: tuple[Any, ...], row: Seen) -> Anomaly:
    columns = [
        name
        for name, want, saw in zip(comparison.measures, expected, row.values, strict=True)
        if not _agrees((want,), (saw,))
    ]
    return Anomaly(
        "wrong_value",
        comparison.query,
        key,
        _show(comparison.measures, expected),
        _show(comparison.measures, row.values),
        f"wrong in {', '.join(columns)}; it stands at {row.where}",
    )


def _agrees(expected: tuple[Any, ...], observed: tuple[Any, ...]) -> bool:
    return len(expected) == len(observed) and all(
        saw in want if isinstance(want, frozenset) else plain(want) == saw
        for want, saw in zip(expected, observed, strict=True)
    )


def plain(value: Any) -> Any:
    """A value as it is after a way through JSON: a decimal is its digits."""
    return str(value) if isinstance(value, Decimal) else value


def _show(names: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in zip(names, values, strict=False))


def _text(value: Any) -> str:
    text = " or ".join(sorted(value)) if isinstance(value, frozenset) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
