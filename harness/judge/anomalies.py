"""Expected rows against observed rows: one small function an anomaly, and a table guarantee → forbidden.

A checker takes a `Comparison` and returns anomalies; it knows nothing of Kafka, Spark or files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec

from harness.job.clickstream.contract import QUERIES, SESSION_GAP_S
from harness.judge.guard import STRICT, Guard
from harness.model import Anomaly, Between, Moment

Key = tuple[Any, ...]
GAP = timedelta(seconds=SESSION_GAP_S)
CLOCK_S = 0.005
"""Kafka and file times are in whole milliseconds, cut off: less than this is no order of events."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One observed result row: its measures as plain values, where it lies, when it appeared, and under which key if
    not its own."""

    values: tuple[Any, ...]
    where: str
    at_s: float
    wrong_key: str | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """One query's expected rows, and the observed ones by the same key.

    An expected value that is a frozenset allows each of its members (a record may be rejected for
    any of its faults). `earliest_s` is the epoch second before which a row cannot have been written:
    the commit of the batch before the one that emits it. `optional` rows may be there. `if_late_counted` and `if_late_dropped` are the
    rows of a pipeline that counts every late event, or drops what is behind its batch's own watermark. `again` is how
    often the batch that emits a row was, or may have been, run again; `contradiction` names the measure in which a row
    is not even in agreement with itself; `moments` are those of `Expected`.
    """

    query: str
    measures: tuple[str, ...]
    expected: Mapping[Key, tuple[Any, ...]]
    observed: Mapping[Key, tuple[Seen, ...]]
    earliest_s: Mapping[Key, float] = field(default_factory=dict)
    optional: Mapping[Key, tuple[Any, ...]] = field(default_factory=dict)
    if_late_counted: Mapping[Key, tuple[Any, ...]] = field(default_factory=dict)
    if_late_dropped: Mapping[Key, tuple[Any, ...]] = field(default_factory=dict)
    again: Mapping[Key, float] = field(default_factory=dict)
    contradiction: Callable[[Key, tuple[Any, ...]], str | None] = lambda key, values: None
    moments: Mapping[str, Sequence[Moment]] = field(default_factory=dict)


def decoded(rows: list[tuple[str, str, str, float, str | None]]) -> dict[Key, tuple[Seen, ...]]:
    """Rows of a run directory (encoded key, encoded values, where, at_s, wrong_key) grouped by key."""
    grouped: dict[Key, list[Seen]] = {}
    for key_text, values_text, where, at_s, wrong_key in rows:
        seen = Seen(tuple(msgspec.json.decode(values_text)), where, at_s, wrong_key)
        grouped.setdefault(tuple(msgspec.json.decode(key_text)), []).append(seen)
    return {key: tuple(seen) for key, seen in grouped.items()}


def lost(comparison: Comparison) -> list[Anomaly]:
    """Missing rows: `late_dropped` if exactly those are missing that a too early watermark drops, else `lost_row`."""
    vanishing = comparison.expected.keys() - comparison.if_late_dropped.keys() if comparison.if_late_dropped else set()
    dropped = vanishing if vanishing.isdisjoint(comparison.observed) else set()
    return [
        Anomaly(
            _kind(comparison, "late_dropped" if key in dropped else "lost_row"),
            comparison.query,
            key,
            _show(comparison.measures, values),
            "no row",
            "the row never came out",
        )
        for key, values in comparison.expected.items()
        if key not in comparison.observed
    ]


def uncovered(comparison: Comparison) -> list[Anomaly]:
    """Events that must be in a row, whichever that is, and are in none; the first of each session id."""
    periods = _periods(comparison)
    first = {
        session: min((at for at, must in moments if must and not _is_within(periods[session], at)), default="")
        for session, moments in comparison.moments.items()
    }
    return [
        Anomaly("lost_row", comparison.query, (session, at), "a row with this event", "no row", "it is in no session")
        for session, at in first.items()
        if at
    ]


def parted(comparison: Comparison) -> list[Anomaly]:
    """Events that must be in one row, since less than a gap lies between them, and are in two; rows that overlap.

    No lateness explains either: an event that surely counts comes before the row that could have held it is closed.
    Of each session id the first of either.
    """
    periods = _periods(comparison)
    found = []
    for session, moments in comparison.moments.items():
        overlapping = [(left[0], right[0]) for left, right in pairwise(sorted(periods[session])) if right[0] <= left[1]]
        sure = sorted({at for at, must in moments if must and _is_within(periods[session], at)})
        apart = [
            (left, right)
            for left, right in pairwise(sure)
            if datetime.fromisoformat(right) - datetime.fromisoformat(left) < GAP
            and not _is_within(periods[session], left, right)
        ]
        for pairs, why in (
            (overlapping, "two sessions of one id overlap"),
            (apart, "less than a gap lies between two"),
        ):
            found += [
                Anomaly(
                    "wrong_value",
                    comparison.query,
                    (session, left),
                    "one row",
                    "two rows",
                    f"{why}: {left} and {right}",
                )
                for left, right in pairs[:1]
            ]
    return found


def _periods(comparison: Comparison) -> defaultdict[Any, set[tuple[str, str]]]:
    """First and last event of the rows of each session id that has `moments`."""
    periods: defaultdict[Any, set[tuple[str, str]]] = defaultdict(set)
    for key, rows in comparison.observed.items():
        if len(key) > 1 and key[0] in comparison.moments:
            periods[key[0]] |= {(str(key[1]), row.values[0]) for row in rows if isinstance(row.values[0], str)}
    return periods


def _is_within(periods: Iterable[tuple[str, str]], *moments: str) -> bool:
    """Whether one of the periods holds all of the moments."""
    return any(all(start <= at <= end for at in moments) for start, end in periods)


def invented(comparison: Comparison) -> list[Anomaly]:
    """Rows that no input leads to: `late_counted` if late events alone make the row, else `invented_row`."""
    return [
        Anomaly(
            _kind(comparison, "late_counted" if _is(comparison.if_late_counted, key, rows[0]) else "invented_row"),
            comparison.query,
            key,
            "no row",
            _show(comparison.measures, rows[0].values),
            f"no acknowledged record leads to it; it is at {rows[0].where}",
        )
        for key, rows in comparison.observed.items()
        if key not in comparison.expected and key not in comparison.optional
    ]


def wrong(comparison: Comparison) -> list[Anomaly]:
    """Rows with the right identity and a wrong measure, or under another Kafka key; names the columns."""
    return [
        _wrong(comparison, key, right, row)
        for key, rows in comparison.observed.items()
        if (right := comparison.expected.get(key, comparison.optional.get(key))) is not None
        for row in rows
        if not is_right(comparison, key, row)
    ]


def is_right(comparison: Comparison, key: Key, row: Seen) -> bool:
    """Whether a row is one that must or may come out, with every measure right, under its own key."""
    right = comparison.expected.get(key, comparison.optional.get(key))
    return (
        right is not None
        and agrees(right, row.values)
        and row.wrong_key is None
        and comparison.contradiction(key, row.values) is None
    )


def premature(comparison: Comparison) -> list[Anomaly]:
    """Rows that appeared before the batch that emits them can have run: they were not final."""
    return [
        Anomaly(
            "premature_row",
            comparison.query,
            key,
            f"not before {comparison.earliest_s[key]:.3f}",
            f"at {row.at_s:.3f}",
            f"it appeared {comparison.earliest_s[key] - row.at_s:.3f} s before the batch that closes its window began",
        )
        for key, rows in comparison.observed.items()
        if key in comparison.earliest_s
        for row in rows
        if row.at_s + CLOCK_S < comparison.earliest_s[key]
    ]


def duplicated(comparison: Comparison) -> list[Anomaly]:
    """Rows that are there more than once."""
    return [_twice(comparison, key, rows) for key, rows in comparison.observed.items() if len(rows) > 1]


def duplicated_without_replay(comparison: Comparison) -> list[Anomaly]:
    """Rows that are there more often than their batch can have been run, or that do and differ."""
    return [
        _twice(comparison, key, rows)
        for key, rows in comparison.observed.items()
        if len(rows) > 1 + comparison.again.get(key, 0) or _differ(rows)
    ]


def _twice(comparison: Comparison, key: Key, rows: tuple[Seen, ...]) -> Anomaly:
    return Anomaly(
        "duplicated_row",
        comparison.query,
        key,
        "one row",
        f"{len(rows)} rows, {'different' if _differ(rows) else 'equal'}",
        "at " + ", ".join(row.where for row in rows[:5]),
    )


def _differ(rows: tuple[Seen, ...]) -> bool:
    return any(row.values != rows[0].values for row in rows[1:])


Checker = Callable[[Comparison], list[Anomaly]]

FORBIDDEN: dict[str, tuple[Checker, ...]] = {
    "at-least-once": (lost, uncovered, parted, invented, wrong, premature, duplicated_without_replay),
    "exactly-once": (lost, uncovered, parted, invented, wrong, premature, duplicated),
}
"""What each guarantee forbids."""

KINDS = (
    "lost_row",
    "invented_row",
    "wrong_value",
    "duplicated_row",
    "premature_row",
    "row_never_closed",
    "late_counted",
    "late_dropped",
    "dead_letter_missing",
    "dead_letter_invented",
    "dead_letter_altered",
    "record_lost",
    "record_read_twice",
    "wrong_watermark",
    "state_not_released",
    "unreconciled_count",
)
OF_RECORDS = ("record_lost", "record_read_twice", "wrong_watermark", "state_not_released", "unreconciled_count")
"""Kinds that are not about a result row, and so do not count against the share of right rows."""
DEAD_LETTER = {"lost_row": "missing", "invented_row": "invented", "wrong_value": "altered"}


def _kind(comparison: Comparison, kind: str) -> str:
    return f"dead_letter_{DEAD_LETTER[kind]}" if _rejects(comparison.query) else kind


def _rejects(query: str) -> bool:
    return query in QUERIES and QUERIES[query].rejects


def check(guarantee: str, comparison: Comparison, guard: Guard = STRICT) -> list[Anomaly]:
    """Every anomaly that the guarantee forbids, of the checkers that do not crash."""
    return [
        anomaly
        for checker in FORBIDDEN[guarantee]
        for anomaly in guard.of(
            f"the checker {checker.__name__} of {comparison.query}", partial(checker, comparison), []
        )
    ]


def _wrong(comparison: Comparison, key: Key, expected: tuple[Any, ...], row: Seen) -> Anomaly:
    columns = [
        name
        for name, want, saw in zip(comparison.measures, expected, row.values, strict=True)
        if not agrees((want,), (saw,))
    ]
    kind = "wrong_value"
    if columns and _is(comparison.if_late_counted, key, row):
        kind = "late_counted"
    elif columns and _is(comparison.if_late_dropped, key, row):
        kind = "late_dropped"
    if not columns and (contradicting := comparison.contradiction(key, row.values)):
        columns.append(contradicting)
    if row.wrong_key is not None:
        columns.append(f"its Kafka key, {row.wrong_key!r}")
    return Anomaly(
        _kind(comparison, kind),
        comparison.query,
        key,
        _show(comparison.measures, expected),
        _show(comparison.measures, row.values),
        f"wrong in {', '.join(columns)}; it is at {row.where}",
    )


def agrees(expected: tuple[Any, ...], observed: tuple[Any, ...]) -> bool:
    """Whether observed measures are those expected, after a way through JSON."""
    return len(expected) == len(observed) and all(
        _allows(want, saw) for want, saw in zip(expected, observed, strict=True)
    )


def _allows(want: Any, saw: Any) -> bool:
    if isinstance(want, frozenset):
        return saw in want
    if isinstance(saw, bool):
        return False  # JSON's true is not 1
    return want.holds(saw) if isinstance(want, Between) else plain(want) == saw


def _is(rows: Mapping[Key, tuple[Any, ...]], key: Key, row: Seen) -> bool:
    return key in rows and agrees(rows[key], row.values)


def plain(value: Any) -> Any:
    """A value as it is after a way through JSON: a decimal is its digits."""
    return str(value) if isinstance(value, Decimal) else value


def _show(names: tuple[str, ...], values: tuple[Any, ...]) -> str:
    return ", ".join(f"{name} {_text(value)}" for name, value in zip(names, values, strict=False))


def _text(value: Any) -> str:
    text = " or ".join(sorted(value)) if isinstance(value, frozenset) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
