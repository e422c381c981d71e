"""The rows that another judgement of lateness would give, computed only where it makes a difference.

A second answer of the oracle costs as much as the first. Few events meet a watermark that decides differently about
them, so only the windows and sessions of those events are computed again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from harness.job.clickstream.contract import QUERIES, SESSION_GAP_S, WATERMARK_DELAY_S
from harness.job.clickstream.records import iso
from harness.job.clickstream.reference import Expected, Rows
from harness.job.lateness import Watermarks
from harness.judge import timeline
from harness.judge.anomalies import Comparison
from harness.judge.metrics import Array
from harness.judge.timeline import Evidence
from harness.model import Anomaly

OF_LATENESS = ("lost_row", "invented_row", "wrong_value")
"""Kinds of anomalies that wrong lateness can be the cause of."""
Lateness = Literal["previous", "own", "never"]
Scope = Mapping[str, Collection[str]]
"""Query → the first key columns (window starts or session ids) of the rows to compute."""


def with_lateness(
    gathered: Evidence, comparisons: Mapping[str, Comparison], found: Sequence[Anomaly]
) -> dict[str, Comparison]:
    """The comparisons with the rows of a pipeline that counts late events, and of one that drops too many.

    Rows that are equal either way may be left out of `if_late_counted`.
    """
    suspects: dict[str, set[str]] = {}
    lost: dict[str, set[str]] = {}
    for anomaly in found:
        if anomaly.kind in OF_LATENESS and anomaly.key and anomaly.query in comparisons:
            suspects.setdefault(anomaly.query, set()).add(str(anomaly.key[0]))
            if anomaly.kind == "lost_row":
                lost.setdefault(anomaly.query, set()).add(str(anomaly.key[0]))
    never: dict[str, set[str]] = {}
    own: dict[str, set[str]] = {}
    for query, keys in suspects.items():
        never[query] = _touched(gathered, query, "never") & keys
        touched = _touched(gathered, query, "own")
        # A lost row is late_dropped only if every row that would vanish is lost: then all of those are needed.
        own[query] = touched if touched & lost.get(query, set()) else touched & keys
    counted, dropped = recomputed(gathered, never, "never"), recomputed(gathered, own, "own")
    return {
        name: replace(
            comparison,
            if_late_counted=counted.get(name, {}),
            if_late_dropped=_beside(comparison.expected, own[name], dropped[name]) if name in dropped else {},
        )
        for name, comparison in comparisons.items()
    }


def _beside(
    expected: Rows | Mapping[tuple[object, ...], tuple[object, ...]], scope: Collection[str], rows: Rows
) -> Rows:
    """The expected rows, with those of a scope replaced."""
    return {key: values for key, values in expected.items() if key[0] not in scope} | rows


def _touched(gathered: Evidence, query: str, lateness: Lateness) -> set[str]:
    ours, theirs = (timeline.marks(gathered, mode)[query] for mode in ("previous", lateness))
    return touched(gathered, query, ours, theirs)


def touched(gathered: Evidence, query: str, ours: Watermarks, theirs: Watermarks) -> set[str]:
    """First key columns of the rows with an event, or an end, that the two watermarks decide differently about."""
    count = len(gathered.batches[query])
    rows = _valid(gathered, query)
    if not count or not len(rows):
        return set()
    batch = gathered.batch_of[query][rows]
    befores = [np.array([marks.before(number) for number in range(count)], dtype=np.int64) for marks in (ours, theirs)]
    low, high = np.minimum(*befores)[batch], np.maximum(*befores)[batch]
    lasts = (min(ours.at[-1], theirs.at[-1]), max(ours.at[-1], theirs.at[-1]))
    at_ms = gathered.sent["event_time_ms"][rows]
    # What is held of an event id, and so whether a copy of it counts, depends on the watermark as well.
    held_ms = at_ms + WATERMARK_DELAY_S * 1000
    of_copies = (low < held_ms) & (held_ms <= high) if gathered.rules.deduplicate else np.zeros(len(rows), dtype=bool)
    if QUERIES[query].has_sessions:
        late_by = at_ms if gathered.rules.deduplicate else at_ms + SESSION_GAP_S * 1000
        # Other watermarks also release a session before or after a further event of it.
        differs = (low < late_by) & (late_by <= high) | of_copies | (ours.at != theirs.at)
        columns = timeline.columns(gathered, rows[differs])
        return {columns.names["session"][code] for code in np.unique(columns.session[columns.click]).tolist()}
    starts: set[int] = set()
    for some, start in _windows(gathered, query, rows):
        ends = start + (QUERIES[query].window_s + QUERIES[query].stays_open_s) * 1000
        late_by = at_ms[some] if is_late_alone(gathered, query) else ends
        differs = (low[some] < late_by) & (late_by <= high[some]) | of_copies[some]
        # The join form releases a millisecond later: both are covered.
        differs |= (lasts[0] <= ends) & (ends <= lasts[1]) & (lasts[0] < lasts[1])
        starts |= set(np.unique(start[differs]).tolist())
    return {iso(start) for start in starts}


def is_late_alone(gathered: Evidence, query: str) -> bool:
    """Whether an event is late by its own time, not by the end of its window."""
    rules = gathered.rules
    return rules.deduplicate or (QUERIES[query].joins and rules.conversions == "join")


def _valid(gathered: Evidence, query: str) -> Array:
    """Rows of `sent` of the valid events that a query has read."""
    index = gathered.batch_of[query]
    read = (index >= 0) & (index < len(gathered.batches[query]))
    return np.flatnonzero(read & (gathered.sent["malformed"] == 0))


def _windows(gathered: Evidence, query: str, rows: Array) -> list[tuple[Array, Array]]:
    """(positions in `rows`, window starts in ms of the events there), a pair for each window that an event belongs to.

    An event of a joined topic belongs to as many windows as stay open for it.
    """
    facts = QUERIES[query]
    length = facts.window_s * 1000
    start = gathered.sent["event_time_ms"][rows] // length * length
    pairs = [(np.arange(len(rows)), start)]
    if facts.joins:
        joined = np.flatnonzero(gathered.sent["topic"][rows] != facts.reads[0])
        pairs += [(joined, start[joined] - back) for back in range(length, facts.stays_open_s * 1000 + 1, length)]
    return pairs


def recomputed(
    gathered: Evidence,
    scope: Scope,
    lateness: Lateness = "previous",
    watermarks: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Rows]:
    """The expected rows of a scope, from the watermarks and by the lateness given; a query without a scope is left out."""
    chosen = {query: keys for query, keys in scope.items() if keys}
    if not chosen:
        return {}
    batch_of = {
        query: np.where(_holds(gathered, query, keys), gathered.batch_of[query], -1) for query, keys in chosen.items()
    }
    restricted = replace(gathered, batches={query: gathered.batches[query] for query in chosen}, batch_of=batch_of)
    answers: dict[str, Expected] = timeline.expected(restricted, lateness, watermarks)
    return {
        query: {key: values for key, values in answers[query].rows.items() if key[0] in keys}
        for query, keys in chosen.items()
    }


def _holds(gathered: Evidence, query: str, keys: Collection[str]) -> Array:
    """Which rows of `sent` are events of the windows or sessions of a scope."""
    holds = np.zeros(len(gathered.sent["n"]), dtype=bool)
    rows = _valid(gathered, query)
    if QUERIES[query].window_s:
        wanted = np.array(sorted(timeline.epoch_ms(key) for key in keys), dtype=np.int64)
        for some, start in _windows(gathered, query, rows):
            holds[rows[some[np.isin(start, wanted)]]] = True
        return holds
    columns = timeline.columns(gathered, rows)
    codes = [code for code, name in enumerate(columns.names["session"]) if name in keys]
    holds[columns.row[np.isin(columns.session, codes) & columns.click]] = True
    return holds
