"""Why a row is wrong: the events that decide, the batch that emits it, and the likely cause in a sentence.

A cause is a hypothesis that was computed and found to fit the figures that were seen; where none fits,
none is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from harness.job.clickstream.contract import DECIMAL_PLACES, QUERIES, Query
from harness.job.clickstream.parts import Part
from harness.job.clickstream.records import iso
from harness.job.clickstream.reference import GAP_MS, Expected
from harness.judge import contributions, coverage, decisive
from harness.judge import timeline as runs
from harness.judge.anomalies import Comparison, Key, Seen, agrees
from harness.judge.contributions import Contribution, Contributions
from harness.judge.decisive import Hypothesis
from harness.judge.metrics import Array
from harness.judge.timeline import Evidence
from harness.model import Anomaly
from harness.rundir.events import FaultHealed

EVENTS_MAX = 10
NEAR_MAX = 3
OF_BATCHES = ("wrong_watermark", "unreconciled_count", "state_not_released", "record_read_twice")
"""Kinds whose key is a batch or an operator, and no row."""


class Circumstances:
    """What the probes ask of a run more than once, computed once."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.runs_again = cache(lambda query: runs.runs_again(evidence, query))

    @cached_property
    def faults(self) -> list[FaultHealed]:
        """The faults that were injected."""
        return self.evidence.run.of(FaultHealed)

    @cached_property
    def started_s(self) -> list[float]:
        """The epoch seconds at which the pipeline was started."""
        return runs.started_s(self.evidence.run)

    @cached_property
    def unclaimed(self) -> int:
        """Records that were read and that no acknowledgement covers."""
        return coverage.unclaimed(self.evidence)


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known of one anomaly, and of the row that it is about: the batch that emits it, None where not known.

    `part` holds the row's acknowledged events, read or not.
    """

    anomaly: Anomaly
    batch: int | None
    part: Part
    observed: Sequence[Seen]
    expected: tuple[Any, ...]

    @property
    def facts(self) -> Query:
        """The facts of the query."""
        return QUERIES[self.anomaly.query]

    @property
    def is_comparable(self) -> bool:
        """Whether there is a row to hold against an expected one, column by column."""
        return bool(self.observed and self.expected) and len(self.observed[0].values) == len(self.expected)


def moment(ms: int) -> str:
    """Epoch milliseconds as ISO 8601."""
    return iso(ms)


def explain(
    evidence: Evidence,
    anomalies: Sequence[Anomaly],
    answers: Mapping[str, Expected],
    comparisons: Mapping[str, Comparison],
) -> list[Anomaly]:
    """The anomalies with their evidence and their likely cause, in the same order.

    An anomaly of a query whose rows could not be compared is left as it is.
    """
    chosen = [anomaly for anomaly in anomalies if anomaly.query in comparisons]
    if not chosen:
        return list(anomalies)
    of_rows = {(anomaly.query, anomaly.key) for anomaly in chosen if _is_of_row(anomaly)}
    events = Contributions(evidence, of_rows, comparisons)
    records = contributions.of_records(evidence, {(anomaly.query, anomaly.key) for anomaly in chosen})
    cases = [_case(anomaly, events, of_rows, answers, comparisons) for anomaly in chosen]
    fits = _hypotheses(evidence, cases, events)
    run = Circumstances(evidence)
    nearest = {query: Nearest(comparisons[query]) for query in {anomaly.query for anomaly in chosen}}
    explained = iter(
        [
            replace(
                _explained(run, case, fit),
                events=_evidence(evidence, case, fit, events, comparisons)
                or tuple(str(record) for record in [records.get((case.anomaly.query, case.anomaly.key))] if record),
                near=nearest[case.anomaly.query].rows(case.anomaly.key),
            )
            for case, fit in zip(cases, fits, strict=True)
        ]
    )
    return [next(explained) if anomaly.query in comparisons else anomaly for anomaly in anomalies]


def of_row(
    evidence: Evidence, query: str, key: Key, comparisons: Mapping[str, Comparison]
) -> tuple[str, list[Contribution]]:
    """A row's events in a sentence, and the first and the last of them; of a record's row the record."""
    if not QUERIES[query].stateful:
        return "", list(contributions.of_records(evidence, {(query, key)}).values())
    events = Contributions(evidence, {(query, key)}, comparisons)
    part = events.part(query, key)
    words = [f"{len(part):,} events"]
    if case_words := [f"{count:,} {what}" for what, count in _composition(evidence, part) if count]:
        words.append(", ".join(case_words))
    everything = np.ones(len(part), dtype=bool)
    return ": ".join(words), events.shown(part, decisive.edges(part, everything, EVENTS_MAX), {})


def _composition(evidence: Evidence, part: Part) -> list[tuple[str, int]]:
    read = part.batch[part.batch >= 0]
    unread = 0 if evidence.run.scenario.black_box else int((part.batch < 0).sum())
    kinds = [("clicks", int(part.click.sum())), ("purchases", int((~part.click).sum()))]
    return [*kinds, ("late", int(part.late.sum())), ("never read", unread), ("batches", len(np.unique(read)))]


def _is_of_row(anomaly: Anomaly) -> bool:
    return anomaly.kind not in OF_BATCHES and QUERIES[anomaly.query].stateful


def _case(
    anomaly: Anomaly,
    events: Contributions,
    of_rows: set[tuple[str, Key]],
    answers: Mapping[str, Expected],
    comparisons: Mapping[str, Comparison],
) -> Case:
    comparison, row = comparisons[anomaly.query], (anomaly.query, anomaly.key)
    batch = answers[anomaly.query].batch.get(anomaly.key, anomaly.batch)
    part = events.part(*row) if row in of_rows else Part.empty(anomaly.query)
    return Case(
        anomaly, batch, part, comparison.observed.get(anomaly.key, ()), comparison.expected.get(anomaly.key, ())
    )


def _hypotheses(evidence: Evidence, cases: Sequence[Case], events: Contributions) -> list[Hypothesis | None]:
    """For each case the part of its events that gives the observed row, None where none does."""
    fits: list[Hypothesis | None] = [None] * len(cases)
    for query in {case.anomaly.query for case in cases}:
        mine = [at for at, case in enumerate(cases) if case.anomaly.query == query and case.observed]
        found = decisive.chosen([_fitting(evidence, cases[at], events) for at in mine])
        for at, fit in zip(mine, found, strict=True):
            fits[at] = fit
    return fits


def _fitting(evidence: Evidence, case: Case, events: Contributions) -> list[Hypothesis]:
    if not case.facts.window_s:
        return []
    counts = _counts(evidence, case.part)
    right = case.part.take(counts).values()
    seen = case.observed[0].values
    if case.expected and not (right and agrees(right, tuple(map(_plain, case.expected)))):
        return []
    if right is not None and agrees(right, seen):
        return []
    start_ms = runs.epoch_ms(case.anomaly.key[0])
    return decisive.fitting(case.part, counts, events.users, seen, start_ms)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Decimal) else value


def _counts(evidence: Evidence, part: Part) -> Array:
    """A mask over the events that must count: read, in time, and no copies where copies are dropped."""
    counts: Array = ~part.late
    if not evidence.run.scenario.black_box:
        counts &= part.batch >= 0
    if evidence.rules.deduplicate:
        _, firsts = np.unique(part.identity, return_index=True)
        counts &= np.isin(np.arange(len(part)), firsts)
    return counts


def _explained(run: Circumstances, case: Case, fit: Hypothesis | None) -> Anomaly:
    """The anomaly with its cause and what is known of it, in sentences."""
    sentences = [case.anomaly.why, *_batch_words(run, case)]
    cause = case.anomaly.cause
    if fit:
        sentences.append(f"{_capital(fit.cause)}: {fit.decides.sum():,} of its {len(case.part):,} events")
        cause = cause or fit.cause
    for found, sentence in _causes(run, case):
        sentences.append(sentence)
        cause = cause or found
    if case.anomaly.kind == "wrong_value" and case.is_comparable and not cause:
        sentences.append("No part of its events that is missing or counted twice explains the difference")
    return replace(case.anomaly, why=". ".join(sentences), batch=case.batch, cause=cause)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def _evidence(
    evidence: Evidence,
    case: Case,
    fit: Hypothesis | None,
    events: Contributions,
    comparisons: Mapping[str, Comparison],
) -> tuple[str, ...]:
    """The events that decide, at their edges, with what became of them."""
    decides = _decides(evidence, case, fit, comparisons[case.anomaly.query])
    shown = decisive.edges(case.part, decides, EVENTS_MAX)
    return tuple(map(str, events.shown(case.part, shown, _fates(case, fit, shown))))


def _fates(case: Case, fit: Hypothesis | None, shown: Sequence[int]) -> dict[int, str]:
    """What became of each event that is shown, as far as the hypothesis has it."""
    if fit is None or not case.observed:
        return {}
    fate = "counted twice" if fit.family.endswith("twice") else "not counted"
    return {at: fate if fit.decides[at] else "counted" for at in shown}


def _decides(evidence: Evidence, case: Case, fit: Hypothesis | None, comparison: Comparison) -> Array:
    """A mask over the events of the row that make the difference, or over all that count where these are not known."""
    part, counts = case.part, _counts(evidence, case.part)
    if fit is not None:
        return fit.decides
    if case.anomaly.kind == "late_counted" and part.late.any():
        return part.late
    if case.anomaly.kind == "late_dropped" and (part.late_by_own & counts).any():
        return part.late_by_own & counts
    if case.anomaly.kind == "premature_row" and case.observed and case.anomaly.query in evidence.batches:
        committed = np.array([batch.committed_s for batch in evidence.batches[case.anomaly.query]] or [0.0])
        after = counts & (part.batch >= 0) & (committed[part.batch] > case.observed[0].at_s)
        if after.any():
            return after
    if case.facts.has_sessions:
        inside = _between_ends(case, comparison)
        if inside.any():
            return inside
    return counts if counts.any() else np.ones(len(part), dtype=bool)


def _between_ends(case: Case, comparison: Comparison) -> Array:
    """The events of a session id from the first to the last end of a session that was only expected, or only observed."""
    part = case.part
    if not len(part):
        return np.zeros(0, dtype=bool)
    reach = (int(part.at_ms.min()), int(part.at_ms.max()))
    expected = _ends(((key, values) for key, values in comparison.expected.items()), case.anomaly.key[0])
    observed = _ends(
        ((key, row.values) for key, rows in comparison.observed.items() for row in rows), case.anomaly.key[0]
    )
    differ = [at for _, at in expected ^ observed if reach[0] <= at <= reach[1]]
    if not differ:
        return np.zeros(len(part), dtype=bool)
    inside: Array = (part.at_ms >= min(differ)) & (part.at_ms <= max(differ))
    return inside


def _ends(rows: Iterator[tuple[Key, tuple[Any, ...]]], session: Any) -> set[tuple[str, int]]:
    """First and last event of the sessions of an id, in ms."""
    return {
        end
        for key, values in rows
        if key[0] == session and len(key) > 1 and values
        for end in (("start", runs.epoch_ms(str(key[1]))), ("end", runs.epoch_ms(str(values[0]))))
    }


def _batch_words(run: Circumstances, case: Case) -> list[str]:
    batch = case.batch
    if batch is None or case.anomaly.kind in OF_BATCHES:
        return []
    batches = run.evidence.batches[case.anomaly.query]
    if batch >= len(batches):
        return []
    before = batches[batch - 1].watermark_ms if batch else 0
    words = f"Batch {batch} had to emit it: watermark {moment(batches[batch].watermark_ms)}, before it {moment(before)}"
    active = [
        event.fault.name
        for event in run.faults
        if event.at_s <= batches[batch].committed_s <= (event.healed_s or float("inf")) + 10
    ]
    return [words + (f", around the fault {', '.join(active)}" if active else "")]


class Nearest:
    """The observed rows of a query by each column of their keys."""

    def __init__(self, comparison: Comparison) -> None:
        self._observed = comparison.observed
        self._keys = list(comparison.observed)
        self._by_column: dict[tuple[int, int, str], list[int]] = {}
        for at, key in enumerate(self._keys):
            for column, value in enumerate(key):
                self._by_column.setdefault((len(key), column, str(value)), []).append(at)

    def rows(self, wanted: Key) -> tuple[str, ...]:
        """Observed rows whose keys share most columns with a key, the nearest first."""
        shared: Counter[int] = Counter()
        for column, value in enumerate(wanted):
            shared.update(self._by_column.get((len(wanted), column, str(value)), ()))
        best = sorted(shared, key=lambda at: (-shared[at], at))
        found = [self._keys[at] for at in best[: NEAR_MAX + 1] if self._keys[at] != wanted][:NEAR_MAX]
        return tuple(f"{' '.join(map(str, key))}: {' '.join(map(str, self._observed[key][0].values))}" for key in found)


Cause = tuple[str, str]
"""A cause, equal for all rows that have it and empty where the probe knows none, and a sentence about the row."""


def _causes(run: Circumstances, case: Case) -> list[Cause]:
    return [found for probe in PROBES if (found := probe(run, case))]


def _replayed(run: Circumstances, case: Case) -> Cause | None:
    if case.anomaly.kind != "duplicated_row":
        return None
    query = case.anomaly.query
    times = [row.at_s for row in case.observed]
    between = [at_s for at_s in run.started_s if min(times) < at_s < max(times)]
    if not between:
        return (
            f"rows of {query} were written twice, and no batch was replayed between",
            "No batch was replayed between the two: the sink wrote it twice",
        )
    started = f"The pipeline was started again between the two ({_clock(between[0])})"
    if case.batch is None or run.runs_again(query).get(case.batch):
        return f"rows of a batch of {query} that was replayed were written again", f"{started}: its batch was replayed"
    return (
        f"rows of a batch of {query} that had been committed were written again after a start",
        f"{started}, but not within its batch: a batch that had been committed was written again",
    )


def _copies(run: Circumstances, case: Case) -> Cause | None:
    copies = len(case.part) - len(np.unique(case.part.identity))
    sentence = f"{copies:,} of its {len(case.part):,} events are copies of an event id that was sent before"
    return ("", sentence) if copies else None


def _retried(run: Circumstances, case: Case) -> Cause | None:
    """Whether more was read than was acknowledged, and more counted than the acknowledged events make."""
    if case.anomaly.kind not in ("wrong_value", "invented_row", "dead_letter_invented") or not run.unclaimed:
        return None
    sentence = (
        f"{run.unclaimed:,} records were read that no acknowledgement covers: a producer's retry wrote them twice"
    )
    return "", sentence


def _late(run: Circumstances, case: Case) -> Cause | None:
    late = int(case.part.late.sum())
    if not late:
        return None
    counted = "yet counted" if case.anomaly.kind == "late_counted" else "and must not count"
    cause = f"late events are counted in {case.anomaly.query}" if case.anomaly.kind == "late_counted" else ""
    return cause, f"{late:,} of its {len(case.part):,} events were read after the watermark had passed them, {counted}"


def _dropped(run: Circumstances, case: Case) -> Cause | None:
    if case.anomaly.kind != "late_dropped":
        return None
    early = int((case.part.late_by_own & ~case.part.late).sum())
    sentence = f"{early:,} of its {len(case.part):,} events are behind the watermark of the batch that read them"
    return f"events are dropped in {case.anomaly.query} by the watermark of their own batch", sentence


def _unread(run: Circumstances, case: Case) -> Cause | None:
    if run.evidence.run.scenario.black_box:
        return None
    unread = int((case.part.batch < 0).sum())
    return ("", f"{unread:,} of its {len(case.part):,} events were never read") if unread else None


def _pairs(run: Circumstances, case: Case) -> Cause | None:
    """Whether the row counts click-purchase pairs instead of clicks."""
    if not case.facts.joins or not case.is_comparable:
        return None
    per_click = case.part.take(_counts(run.evidence, case.part)).purchases()
    pairs, rows = int(per_click.sum()), int(np.maximum(per_click, 1).sum())
    seen = case.observed[0].values
    if seen[1] == pairs != case.expected[1] or seen[0] == rows != case.expected[0]:
        cause = f"each click of {case.anomaly.query} is counted once per purchase"
        return cause, "Each click is counted once per purchase: the join counts pairs"
    return None


def _distinct(run: Circumstances, case: Case) -> Cause | None:
    if not case.facts.distinct or not case.is_comparable:
        return None
    differ = [
        name
        for name, seen, right in zip(case.facts.measures, case.observed[0].values, case.expected, strict=True)
        if seen != right
    ]
    if differ != [case.facts.distinct]:
        return None
    return (
        f"{case.facts.distinct} of {case.anomaly.query} is not an exact count of distinct values",
        "Its events are all counted and its distinct users are not: an approximate count of distinct values",
    )


def _misaligned(run: Circumstances, case: Case) -> Cause | None:
    if case.anomaly.kind != "invented_row" or not case.facts.window_s or not case.anomaly.key:
        return None
    length = case.facts.window_s * 1000
    off = runs.epoch_ms(case.anomaly.key[0]) % length
    if not off:
        return None
    by = min(off, off - length, key=abs)
    return (
        f"windows of {case.anomaly.query} begin {by} ms off the grid of {case.facts.window_s} s",
        f"Its window begins {by} ms off the grid of {case.facts.window_s} s",
    )


def _gap(run: Circumstances, case: Case) -> Cause | None:
    """Whether the session is split at, or joined over, another gap than 30 minutes."""
    if not case.facts.has_sessions or not len(case.part):
        return None
    query, start = case.anomaly.query, runs.epoch_ms(str(case.anomaly.key[-1]))
    ends = {runs.epoch_ms(str(row.values[0])) for row in case.observed if row.values}
    for left, right in pairwise(np.unique(case.part.at_ms).tolist()):
        gap, minutes = right - left, f"{(right - left) / 60_000:.4g} minutes"
        if left in ends and start <= left and gap <= GAP_MS:
            return (
                f"sessions of {query} are split at less than a gap",
                f"It is split at a gap of {minutes}; the gap is 30",
            )
        if gap > GAP_MS and any(left < end and start <= left for end in ends):
            sentence = f"It is joined over a gap of {minutes}; the gap is 30"
            return f"sessions of {query} are joined over more than a gap", sentence
    return None


def _doubles(run: Circumstances, case: Case) -> Cause | None:
    measures = case.facts.measures
    at = next((number for number, name in enumerate(measures) if name in DECIMAL_PLACES), None)
    if at is None or not case.is_comparable:
        return None
    seen, right = case.observed[0].values[at], str(case.expected[at])
    try:
        off = Decimal(str(seen)) - Decimal(right)
    except InvalidOperation:
        return None
    if off.is_finite() and abs(off) < Decimal("0.01") and (isinstance(seen, float) or str(seen) != right):
        cause = f"{measures[at]} of {case.anomaly.query} is a double, not a decimal"
        return cause, "The sum differs by less than a cent, or in its form: doubles stand for decimals"
    return None


PROBES: tuple[Callable[[Circumstances, Case], Cause | None], ...] = (
    _replayed,
    _retried,
    _late,
    _dropped,
    _unread,
    _copies,
    _pairs,
    _distinct,
    _misaligned,
    _gap,
    _doubles,
)


def _clock(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%H:%M:%S.%f")[:-3]
