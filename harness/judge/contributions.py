"""The events of the rows to be explained: selected by time and key as columns; only those shown are written as records."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import QUERIES, SESSION_GAP_S
from harness.job.clickstream.parts import CODED, Part
from harness.job.clickstream.records import Click, Purchase, Rejected, iso, parse
from harness.judge import lateness, timeline
from harness.judge.anomalies import Comparison, Key
from harness.judge.metrics import Array
from harness.judge.timeline import Evidence
from harness.model import Record

VALUE_MAX = 120
"""Bytes of a rejected record that are shown."""
GAP_MS = SESSION_GAP_S * 1000


@dataclass(frozen=True, slots=True)
class Contribution:
    """An event that belongs to a row: its record, the batch that read it, and what became of it."""

    record: Record
    event: Click | Purchase | Rejected
    batch: int | None
    fate: str = ""

    def __str__(self) -> str:
        place = f"{self.record.topic}-{self.record.partition}@{self.record.offset}"
        read = "no batch" if self.batch is None else f"batch {self.batch}"
        fate = f" {self.fate}" if self.fate else ""
        match self.event:
            case Rejected(reasons):
                value = self.record.value[:VALUE_MAX]
                more = f" … {len(self.record.value):,} bytes" if len(self.record.value) > VALUE_MAX else ""
                return f"{place} {read}{fate}: {value!r}{more} ({' or '.join(sorted(reasons))})"
            case Click() as click:
                content = f"{click.identity} {click.user} {click.session} {click.product} {click.category}"
                return f"{place} {iso(click.at_ms)} {read}{fate}: {content}"
            case Purchase() as sale:
                content = f"{sale.identity} {sale.user} {sale.product} {sale.category} {sale.amount}"
                return f"{place} {iso(sale.at_ms)} {read}{fate}: {content}"


@dataclass(frozen=True, slots=True)
class Span:
    """The event time in ms of a row's events: from `start` to before `end`, those of a joined topic to before `until`."""

    start: int
    end: int
    until: int


def span(query: str, key: Key, comparison: Comparison | None) -> Span | None:
    """The event times of a row's events; None where the key is that of no window or session.

    A session's events are those of its id from a gap before it to a gap after it, by the longer of the expected and the
    observed row.
    """
    facts = QUERIES[query]
    if not facts.stateful or len(key) != len(facts.identity):
        return None
    if facts.window_s:
        start, length = timeline.epoch_ms(key[0]), facts.window_s * 1000
        if start % length or (iso(start), iso(start + length)) != key[:2]:
            return None
        return Span(start, start + length, start + length + facts.stays_open_s * 1000)
    start = timeline.epoch_ms(key[1])
    ends = [start]
    if comparison is not None:
        rows = [row.values for row in comparison.observed.get(key, ())]
        rows += [values for values in (comparison.expected.get(key),) if values]
        ends += [timeline.epoch_ms(str(values[0])) for values in rows if values]
    end = max(ends) + GAP_MS + 1
    return Span(start - GAP_MS, end, end)


class Contributions:
    """The events of some rows of a run; `part` gives those of one of them."""

    def __init__(
        self, evidence: Evidence, wanted: Collection[tuple[str, Key]], comparisons: Mapping[str, Comparison]
    ) -> None:
        self.evidence = evidence
        self._spans = {(query, key): span(query, key, comparisons.get(query)) for query, key in wanted}
        self._columns = timeline.columns(evidence, self._candidates())
        self._order = np.argsort(self._columns.at_ms, kind="stable")
        self._at_ms = self._columns.at_ms[self._order]

    def _candidates(self) -> Array:
        """Rows of `sent` of the acknowledged events that lie in the time of any row."""
        sent = self.evidence.sent
        times = sent["event_time_ms"]
        inside = np.zeros(len(times), dtype=bool)
        for start, end in _merged((found.start, found.until) for found in self._spans.values() if found):
            inside |= (times >= start) & (times < end)
        return np.flatnonzero(inside & (sent["offset"] >= 0))

    @cached_property
    def _codes(self) -> Mapping[str, Mapping[str, int]]:
        return {kind: {name: code for code, name in enumerate(names)} for kind, names in self._columns.names.items()}

    @property
    def users(self) -> Sequence[str]:
        """The names of the users, by code."""
        return self._columns.names["user"]

    def part(self, query: str, key: Key) -> Part:
        """The valid, acknowledged events of a row, in order of event time; none where the key is that of no row."""
        found, facts, columns = self._spans[query, key], QUERIES[query], self._columns
        at = np.array([], dtype=np.int64)
        if found is not None:
            bounds = np.searchsorted(self._at_ms, [found.start, found.until if facts.joins else found.end])
            at = self._order[bounds[0] : bounds[1]]
            first = columns.click[at] == (facts.reads[0] == workload.TOPICS[0])
            at = at[(first & (columns.at_ms[at] < found.end)) | (~first if facts.joins else False)]
            for name, value in zip(facts.identity, key, strict=True):
                if name in CODED:
                    at = at[getattr(columns, CODED[name])[at] == self._codes[CODED[name]].get(value, -1)]
        return self._made(query, found, at)

    def _made(self, query: str, found: Span | None, at: Array) -> Part:
        columns, batches = self._columns, self.evidence.batches[query]
        at_ms, rows = columns.at_ms[at], columns.row[at].astype(np.int64)
        batch = self.evidence.batch_of[query][rows]
        batch = np.where((batch >= 0) & (batch < len(batches)), batch, -1)
        closes = at_ms + GAP_MS
        if lateness.is_late_alone(self.evidence, query):
            closes = at_ms
        elif QUERIES[query].window_s and found is not None:
            closes = np.full(len(at), found.until, dtype=np.int64)
        own = np.array([read_by.watermark_ms for read_by in batches] or [0], dtype=np.int64)
        before = np.concatenate([[0], own[:-1]])
        return Part(
            query,
            rows,
            columns.click[at],
            at_ms,
            columns.user[at],
            columns.cents[at],
            columns.partition[at],
            batch,
            self._identities(rows),
            late=(batch >= 0) & (before[batch] >= closes),
            late_by_own=(batch >= 0) & (own[batch] >= closes),
        )

    def _identities(self, rows: Array) -> Array:
        """The number of the event whose bytes each has: its own, or that of the event it is a copy of."""
        sent, scenario = self.evidence.sent, self.evidence.run.scenario
        identities = sent["n"][rows].astype(np.int64)
        copies = sent["copy"][rows]
        if copies.any():
            numbers = identities[copies].astype(np.uint64)
            drawn = workload.draw(scenario.workload, scenario.load.seed, scenario.load.eps, numbers)
            identities[copies] = drawn.n.astype(np.int64)
        return identities

    def shown(self, part: Part, positions: Sequence[int], fates: Mapping[int, str]) -> list[Contribution]:
        """The events at some positions of a part with their content, in the order given; `fates` by position."""
        rows = part.row[np.array(positions, dtype=np.int64)]
        records = dict(timeline.written(self.evidence, np.unique(rows)))
        found = [(records[row], at) for row, at in zip(rows.tolist(), positions, strict=True)]
        return [
            Contribution(
                record,
                parse(record),
                None if part.batch[at] < 0 else int(part.batch[at]),
                "late" if part.late[at] else fates.get(at, ""),
            )
            for record, at in found
        ]


def of_records(evidence: Evidence, wanted: Collection[tuple[str, Key]]) -> dict[tuple[str, Key], Contribution]:
    """The acknowledged records that keys of (topic, partition, offset) name, by query and key."""
    sent = evidence.sent
    found: dict[Key, int] = {}
    keys = {key for _, key in wanted if len(key) == 3 and isinstance(key[1], int) and isinstance(key[2], int)}
    for topic, partition in {key[:2] for key in keys}:
        there = np.flatnonzero((sent["topic"] == topic) & (sent["partition"] == partition))
        offsets = [key[2] for key in keys if key[:2] == (topic, partition)]
        for row in there[np.isin(sent["offset"][there], offsets)].tolist():
            found[topic, partition, int(sent["offset"][row])] = row
    records = dict(timeline.written(evidence, np.unique(np.array(list(found.values()), dtype=np.int64))))
    shown = {}
    for query, key in wanted:
        if key in found:
            batch = int(evidence.batch_of[query][found[key]])
            record = records[found[key]]
            read = batch if 0 <= batch < len(evidence.batches[query]) else None
            shown[query, key] = Contribution(record, parse(record), read)
    return shown


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Disjoint spans that cover the same times."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
