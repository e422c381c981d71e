"""Why a row is wrong: the events that contribute to it, the batch that emits it, and the likely cause in a sentence.

A cause is a hypothesis that was computed and found to fit the figures that were seen; where none fits,
none is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

from harness.job.clickstream.contract import QUERIES
from harness.job.clickstream.records import Click, Purchase, iso
from harness.job.clickstream.reference import FIVE_MS, GAP_MS, HORIZON_MS, MINUTE_MS, Expected
from harness.judge import coverage
from harness.judge import timeline as runs
from harness.judge.anomalies import Comparison, Key, Seen
from harness.judge.timeline import Evidence
from harness.model import Anomaly, Record
from harness.rundir.events import FaultHealed

EVENTS_MAX = 10
NEAR_MAX = 3


@dataclass(frozen=True, slots=True)
class Contribution:
    """An event that belongs to a row: where it lies, which batch read it, whether it came too late for the row."""

    record: Record
    event: Click | Purchase
    batch: int | None
    is_late: bool

    def __str__(self) -> str:
        place = f"{self.record.topic}-{self.record.partition}@{self.record.offset}"
        read = "no batch" if self.batch is None else f"batch {self.batch}"
        return f"{place} {moment(self.event.at_ms)} {read}{' late' if self.is_late else ''}"


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one anomaly, and of the row that it is about: the batch that emits it, None where not known."""

    anomaly: Anomaly
    batch: int | None
    events: Sequence[Contribution]
    observed: Sequence[Seen]
    expected: tuple[Any, ...]

    @property
    def clicks(self) -> list[Contribution]:
        """The contributing clicks that were in time."""
        return [one for one in self.events if isinstance(one.event, Click) and not one.is_late]

    @property
    def purchases(self) -> list[Contribution]:
        """The contributing purchases that were in time."""
        return [one for one in self.events if isinstance(one.event, Purchase) and not one.is_late]


def moment(ms: int) -> str:
    """Epoch milliseconds as ISO 8601."""
    return iso(ms)


def explain(
    evidence: Evidence,
    anomalies: Sequence[Anomaly],
    answers: Mapping[str, Expected],
    comparisons: Mapping[str, Comparison],
) -> list[Anomaly]:
    """The anomalies with their evidence and their likely cause."""
    if not anomalies:
        return []
    contributions = contributing(evidence, {(one.query, one.key) for one in anomalies})
    explained = []
    for anomaly in anomalies:
        if anomaly.query not in comparisons:  # its rows could not be compared: the anomaly stands without evidence
            explained.append(anomaly)
            continue
        comparison = comparisons[anomaly.query]
        events = contributions.get((anomaly.query, anomaly.key), [])
        observed = comparison.observed.get(anomaly.key, ())
        batch = answers[anomaly.query].batch.get(anomaly.key, anomaly.batch)
        case = Case(anomaly, batch, events, observed, comparison.expected.get(anomaly.key, ()))
        explained.append(
            replace(
                anomaly,
                why=". ".join([anomaly.why, *_batch_words(evidence, anomaly, batch), *_causes(evidence, case)]),
                batch=batch,
                events=tuple(str(one) for one in events[:EVENTS_MAX]),
                near=_near(anomaly, comparison),
            )
        )
    return explained


def contributing(evidence: Evidence, wanted: set[tuple[str, Key]]) -> dict[tuple[str, Key], list[Contribution]]:
    """The events that belong to each of the rows, in order of sending."""
    found: dict[tuple[str, Key], list[Contribution]] = {row: [] for row in wanted}
    sessions = {key[0] for query, key in wanted if query == "sessions" and key}
    for record, event, batches in runs.parsed(evidence):
        if not isinstance(event, Click | Purchase):
            continue
        for query, key, end_ms in _rows_of(event, sessions):
            for row in ((query, key),) if query != "sessions" else _of_session(wanted, event):
                if row in found:
                    batch = batches.get(query)
                    late = batch is not None and _before(evidence, query, batch) >= end_ms
                    found[row].append(Contribution(record, event, batch, late))
    return found


def _rows_of(event: Click | Purchase, sessions: set[Any]) -> list[tuple[str, Key, int]]:
    """(query, row, moment whose passing by the watermark makes it late) of every row that the event belongs to."""
    five = event.at_ms // FIVE_MS * FIVE_MS
    if isinstance(event, Purchase):
        rows: list[tuple[str, Key, int]] = [
            ("revenue", (iso(five), iso(five + FIVE_MS), event.category), five + FIVE_MS)
        ]
        return rows + [_conversion(five - back, event.product) for back in range(0, HORIZON_MS + 1, FIVE_MS)]
    minute = event.at_ms // MINUTE_MS * MINUTE_MS
    views = (iso(minute), iso(minute + MINUTE_MS), event.product, event.category)
    mine: list[tuple[str, Key, int]] = [("page_views", views, minute + MINUTE_MS), _conversion(five, event.product)]
    return [*mine, ("sessions", (event.session,), event.at_ms + GAP_MS)] if event.session in sessions else mine


def _conversion(start_ms: int, product: str) -> tuple[str, Key, int]:
    end_ms = start_ms + FIVE_MS
    return "conversions", (iso(start_ms), iso(end_ms), product), end_ms + HORIZON_MS


def _of_session(wanted: set[tuple[str, Key]], event: Click | Purchase) -> list[tuple[str, Key]]:
    session = event.session if isinstance(event, Click) else None
    return [row for row in wanted if row[0] == "sessions" and row[1][0] == session]


def _before(evidence: Evidence, query: str, batch: int) -> int:
    return evidence.batches[query][batch - 1].watermark_ms if batch else 0


def _batch_words(evidence: Evidence, anomaly: Anomaly, batch: int | None) -> list[str]:
    if batch is None or anomaly.kind in ("wrong_watermark", "unreconciled_count"):
        return []
    batches = evidence.batches[anomaly.query]
    if batch >= len(batches):
        return []
    words = (
        f"Batch {batch} had to emit it: watermark {moment(batches[batch].watermark_ms)},"
        f" before it {moment(_before(evidence, anomaly.query, batch))}"
    )
    active = [
        event.fault.name
        for event in evidence.run.of(FaultHealed)
        if event.at_s <= batches[batch].committed_s <= (event.healed_s or float("inf")) + 10
    ]
    return [words + (f", around the fault {', '.join(active)}" if active else "")]


def _near(anomaly: Anomaly, comparison: Comparison) -> tuple[str, ...]:
    """Observed rows whose keys share most with the anomaly's, the nearest first."""

    def distance(key: Key) -> int:
        return sum(str(one) != str(other) for one, other in zip(key, anomaly.key, strict=False))

    others = [key for key in comparison.observed if key != anomaly.key and len(key) == len(anomaly.key)]
    nearest = sorted((key for key in others if distance(key) < len(key)), key=distance)[:NEAR_MAX]
    return tuple(
        f"{' '.join(map(str, key))}: {' '.join(map(str, comparison.observed[key][0].values))}" for key in nearest
    )


def _causes(evidence: Evidence, case: Case) -> list[str]:
    return [cause for probe in PROBES if (cause := probe(evidence, case))]


def _replayed(evidence: Evidence, case: Case) -> str | None:
    if case.anomaly.kind != "duplicated_row":
        return None
    times = [row.at_s for row in case.observed]
    between = [at_s for at_s in runs.started_s(evidence.run) if min(times) < at_s < max(times)]
    if not between:
        return "No batch was replayed between the two: the sink wrote it twice"
    started = f"The pipeline was started again between the two ({_clock(between[0])})"
    if case.batch is None or runs.runs_again(evidence, case.anomaly.query).get(case.batch):
        return f"{started}: its batch was replayed"
    return f"{started}, but not within its batch: a batch that had been committed was written again"


def _copies(evidence: Evidence, case: Case) -> str | None:
    identities = [one.event.identity for one in case.events]
    copies = len(identities) - len(set(identities))
    return (
        f"{copies} of its {len(identities)} events are copies of an event id that was sent before" if copies else None
    )


def _retried(evidence: Evidence, case: Case) -> str | None:
    """Was more read than was acknowledged, and more counted than the acknowledged events make?"""
    if case.anomaly.kind not in ("wrong_value", "invented_row", "dead_letter_invented"):
        return None
    more = coverage.unclaimed(evidence)
    return (
        f"{more:,} records were read that no acknowledgement covers: a producer's retry wrote them twice"
        if more
        else None
    )


def _late(evidence: Evidence, case: Case) -> str | None:
    late = [one for one in case.events if one.is_late]
    if not late:
        return None
    counted = "yet counted" if case.anomaly.kind == "late_counted" else "and must not count"
    return f"{len(late)} of its {len(case.events)} events were read after the watermark had passed them, {counted}"


def _unread(evidence: Evidence, case: Case) -> str | None:
    if evidence.run.scenario.black_box:
        return None
    unread = sum(one.batch is None for one in case.events)
    return f"{unread} of its {len(case.events)} events were never read" if unread else None


def _pairs(evidence: Evidence, case: Case) -> str | None:
    """Does the row count click-purchase pairs instead of clicks?"""
    if case.anomaly.query != "conversions" or not _both(case):
        return None
    per_click = [_matches(click, case.purchases, HORIZON_MS) for click in case.clicks]
    pairs = sum(per_click)
    seen = case.observed[0].values
    if seen[1] == pairs != case.expected[1] or seen[0] == sum(max(1, found) for found in per_click) != case.expected[0]:
        return "Each click is counted once per purchase: the join counts pairs"
    return None


def _boundary(evidence: Evidence, case: Case) -> str | None:
    """Is a purchase exactly ten minutes after its click left out?"""
    if case.anomaly.query != "conversions" or not _both(case):
        return None
    without = sum(bool(_matches(click, case.purchases, HORIZON_MS - 1)) for click in case.clicks)
    if case.observed[0].values[1] == without != case.expected[1]:
        return "Purchases exactly 10:00.000 after the click are not counted: < stands for <="
    return None


def _distinct(evidence: Evidence, case: Case) -> str | None:
    if case.anomaly.query != "page_views" or not _both(case):
        return None
    seen = case.observed[0].values
    if seen[0] == case.expected[0] and seen[1] != case.expected[1]:
        return "Its events are all counted and its distinct users are not: an approximate count of distinct values"
    return None


def _misaligned(evidence: Evidence, case: Case) -> str | None:
    if case.anomaly.kind != "invented_row" or QUERIES[case.anomaly.query].identity[:2] != (
        "window_start",
        "window_end",
    ):
        return None
    length = MINUTE_MS if case.anomaly.query == "page_views" else FIVE_MS
    off = runs.epoch_ms(case.anomaly.key[0]) % length
    return f"Its window begins {min(off, off - length, key=abs)} ms off the grid of {length // 1000} s" if off else None


def _gap(evidence: Evidence, case: Case) -> str | None:
    """Is the session split at, or joined over, another gap than 30 minutes?"""
    if case.anomaly.query != "sessions" or not case.events:
        return None
    times = sorted(one.event.at_ms for one in case.events)
    ends = {runs.epoch_ms(str(row.values[0])) for row in case.observed if row.values}
    for left, right in pairwise(times):
        gap = right - left
        split = left in ends and gap <= GAP_MS and gap > 0
        if split or (gap > GAP_MS and any(left < end and runs.epoch_ms(case.anomaly.key[-1]) <= left for end in ends)):
            return f"It is {'split at' if split else 'joined over'} a gap of {gap / 60_000:.4g} minutes; the gap is 30"
    return None


def _doubles(evidence: Evidence, case: Case) -> str | None:
    if case.anomaly.query != "revenue" or not _both(case):
        return None
    try:
        off = Decimal(str(case.observed[0].values[1])) - Decimal(str(case.expected[1]))
    except (InvalidOperation, IndexError):
        return None
    seen = case.observed[0].values[1]
    if (
        off.is_finite()
        and abs(off) < Decimal("0.01")
        and (isinstance(seen, float) or str(seen) != str(case.expected[1]))
    ):
        return "The sum differs by less than a cent, or in its form: doubles stand for decimals"
    return None


PROBES: tuple[Callable[[Evidence, Case], str | None], ...] = (
    _replayed,
    _retried,
    _late,
    _unread,
    _copies,
    _pairs,
    _boundary,
    _distinct,
    _misaligned,
    _gap,
    _doubles,
)


def _both(case: Case) -> bool:
    return bool(case.observed and case.expected) and len(case.observed[0].values) == len(case.expected)


def _matches(click: Contribution, purchases: Sequence[Contribution], horizon_ms: int) -> int:
    return sum(
        one.event.user == click.event.user and 0 <= one.event.at_ms - click.event.at_ms <= horizon_ms
        for one in purchases
    )


def _clock(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%H:%M:%S.%f")[:-3]
