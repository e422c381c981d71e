"""Which of a row's events decide: those that make the difference between the expected and the observed row.

A hypothesis is a part of the events: without all after a moment, without a batch, with a user counted twice. It fits
where the oracle's own arithmetic on that part gives exactly the observed row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.job.clickstream.parts import Part, converted
from harness.job.clickstream.records import iso
from harness.job.clickstream.reference import HORIZON_MS, MINUTE_MS
from harness.judge.anomalies import agrees
from harness.judge.metrics import Array

GROUPS_MAX = 50
"""Users, batches or partitions of a row that are tried one by one; with more of them nothing is tried."""
EXACT = ("late", "own", "copies", "horizon")
"""Families whose events are known beforehand: that they fit is no coincidence, even of a single event."""
LEAST = 2
"""Events, or rows, that a hypothesis must explain: a single event is missing for a hundred reasons."""


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """An explanation of a row: its family, a sentence that is equal for equal causes, and the events that decide."""

    family: str
    cause: str
    decides: Array
    """A mask over the events of the row."""


Candidate = tuple[str, str, Array, Array]
"""Family, sentence, positions of the events that are counted, mask of those that decide."""


def fitting(part: Part, counts: Array, names: Sequence[str], seen: tuple[Any, ...], start_ms: int) -> list[Hypothesis]:
    """Every hypothesis that gives exactly the observed measures, the most specific first.

    `counts` masks the events that must count, `names` are those of the users, `start_ms` is the start of the window.
    """
    if not part.facts.window_s or len(seen) < LEAST or not isinstance(seen[0], int):
        return []
    found = _horizon(part, counts, seen) if part.facts.joins else []
    for family, cause, counted, decides in _candidates(part, counts, names, seen, start_ms):
        values = part.take(counted).values()
        if values is not None and decides.any() and agrees(values, seen):
            found.append(Hypothesis(family, cause, decides))
    return found


def _candidates(
    part: Part, counts: Array, names: Sequence[str], seen: tuple[Any, ...], start_ms: int
) -> Iterator[Candidate]:
    where = part.query
    if part.late.any():
        yield "late", f"late events are counted in {where}", np.flatnonzero(counts | part.late), part.late
    own = counts & part.late_by_own
    if own.any():
        cause = f"events are dropped in {where} by the watermark of their own batch"
        yield "own", cause, np.flatnonzero(counts & ~own), own
    _, firsts = np.unique(part.identity, return_index=True)
    copies = np.ones(len(part), dtype=bool)
    copies[firsts] = False
    if (copies & counts).any():
        yield "copies", f"copies of an event are not counted in {where}", np.flatnonzero(counts & ~copies), copies
    elif copies.any():
        yield "copies", f"copies of an event are counted in {where}", np.flatnonzero(counts | copies), copies
    for noun, kind in _kinds(part)[1:]:
        yield f"no {noun}", f"no {noun} are counted in {where}", np.flatnonzero(counts & ~kind), counts & kind
    yield from _cuts(part, counts, seen, start_ms)
    yield from _groups(part, counts, seen, names)


def _kinds(part: Part) -> list[tuple[str, Array]]:
    """The kinds of events that may be missing: all, and for a join those of either topic."""
    everything = ("events", np.ones(len(part), dtype=bool))
    return [everything, ("clicks", part.click), ("purchases", ~part.click)] if part.facts.joins else [everything]


def _cuts(part: Part, counts: Array, seen: tuple[Any, ...], start_ms: int) -> Iterator[Candidate]:
    """Without all events of a kind after a moment, or before it; the moment is where the first measures agree."""
    for noun, kind in _kinds(part):
        for before_ms, from_ms, is_end in _moments(part, counts, noun, seen):
            for family, at, cut_ms in _names(before_ms, from_ms, start_ms):
                missing = kind & counts & ((part.at_ms >= cut_ms) if is_end else (part.at_ms < cut_ms))
                if not (kind & counts & ~missing).any():
                    continue
                side = f"from {at} on" if is_end else f"before {at}"
                cause = f"{noun} {side} are not counted in {part.query}"
                side = "from" if is_end else "before"
                yield f"{noun} {side} {family}", cause, np.flatnonzero(counts & ~missing), missing


def _names(before_ms: int, from_ms: int, start_ms: int) -> list[tuple[str, str, int]]:
    """A cut after one moment and not after another: as a time in the window, and as a time of its own.

    It is at a whole minute where one lies between the two.
    """
    minute_ms = from_ms // MINUTE_MS * MINUTE_MS
    if minute_ms <= before_ms:
        return [("moment", iso(from_ms), from_ms)]
    within = f"{_offset(minute_ms - start_ms)} of the window"
    return [("window", within, minute_ms), ("moment", iso(minute_ms), minute_ms)]


def _moments(part: Part, counts: Array, noun: str, seen: tuple[Any, ...]) -> Iterator[tuple[int, int, bool]]:
    """(last moment before the cut, first at or after it, whether what comes after is missing)."""
    if noun == "purchases":
        first, last = part.take(counts).matches()
        ends, begins, kept = np.sort(first[first >= 0]), np.sort(last[last >= 0]), seen[1]
    else:
        of_rows = part.click if part.facts.joins else np.ones(len(part), dtype=bool)
        ends = begins = np.sort(part.at_ms[counts & of_rows])
        kept = seen[0]
    count = len(ends)
    if not isinstance(kept, int) or not 0 <= kept < count:
        return
    if kept == 0 or ends[kept - 1] < ends[kept]:
        yield int(ends[kept - 1]) if kept else -1, int(ends[kept]), True
    if kept and begins[count - kept - 1] < begins[count - kept]:
        yield int(begins[count - kept - 1]), int(begins[count - kept]), False


def _groups(part: Part, counts: Array, seen: tuple[Any, ...], names: Sequence[str]) -> Iterator[Candidate]:
    """Without all events of a batch, a partition or a user, or with them counted twice."""
    of_rows = part.click if part.facts.joins else np.ones(len(part), dtype=bool)
    total = int((counts & of_rows).sum())
    everything = np.flatnonzero(counts)
    labels: Mapping[str, tuple[Array, Callable[[int], str]]] = {
        "batch": (part.batch, lambda code: f"batch {code}"),
        "partition": (part.partition, lambda code: f"partition {code}"),
        "user": (part.user, lambda code: names[code]),
    }
    for family, (codes, label) in labels.items():
        for noun, kind in _kinds(part):
            groups = np.unique(codes[counts & kind])
            if noun != "purchases":  # the first measure counts these: it leaves few groups to try
                at, in_rows = np.unique(codes[counts & of_rows], return_counts=True)
                size_of = dict(zip(at.tolist(), in_rows.tolist(), strict=True))
                by = abs(total - seen[0])
                chosen = [code for code in groups.tolist() if size_of.get(code, 0) == by and by]
            else:
                chosen = groups.tolist() if seen[0] == total else []
            if len(groups) < LEAST or len(chosen) > GROUPS_MAX:
                continue
            for code in chosen:
                mine = counts & kind & (codes == code)
                cause = f"{noun} of {label(code)} are"
                yield (
                    f"{noun} of {family} missing",
                    f"{cause} not counted in {part.query}",
                    np.flatnonzero(counts & ~mine),
                    mine,
                )
                twice = np.sort(np.concatenate([everything, np.flatnonzero(mine)]))
                yield f"{noun} of {family} twice", f"{cause} counted twice in {part.query}", twice, mine


def _horizon(part: Part, counts: Array, seen: tuple[Any, ...]) -> list[Hypothesis]:
    """Without the purchases exactly at the end of the horizon of a click: < in place of <=."""
    counted = part.take(counts)
    without = converted(counted, HORIZON_MS - 1)
    if without is None or not agrees(without, seen) or without == counted.values():
        return []
    first, _ = counted.matches()
    clicks = counted.at_ms[counted.click]
    edge = first - clicks == HORIZON_MS
    times = np.concatenate([clicks[edge], first[edge]])
    at = f"{_offset(HORIZON_MS)}.000"
    cause = f"purchases exactly {at} after the click are not counted in {part.query}: < stands for <="
    return [Hypothesis("horizon", cause, counts & np.isin(part.at_ms, times))]


def _offset(ms: int) -> str:
    """Milliseconds as minutes and seconds: 600000 is 10:00."""
    return f"{ms // MINUTE_MS}:{ms % MINUTE_MS // 1000:02d}"


def chosen(rows: Sequence[Sequence[Hypothesis]]) -> list[Hypothesis | None]:
    """For the wrong rows of a query the hypothesis of each, None where none is sure; what fits most rows comes first."""
    support = Counter(cause for row in rows for cause in {hypothesis.cause for hypothesis in row})
    return [_best(row, support, sum(map(bool, rows))) for row in rows]


def _best(row: Iterable[Hypothesis], support: Mapping[str, int], rows: int) -> Hypothesis | None:
    found = list(row)
    families: dict[str, list[Hypothesis]] = {}
    for hypothesis in found:
        families.setdefault(hypothesis.family, []).append(hypothesis)
    sure = [sole for of_family in families.values() if (sole := _sure(of_family, support, rows))]
    return max(sure, key=lambda hypothesis: support[hypothesis.cause], default=None)


def _sure(family: Sequence[Hypothesis], support: Mapping[str, int], rows: int) -> Hypothesis | None:
    """The hypothesis of a family that is no coincidence.

    A row that lacks a single event fits a hundred users. So a hypothesis must be the only one of its family that fits
    the row, and explain two rows, or more than two events; or be the only one that fits all of three rows or more.
    """
    if len(family) == 1:
        [only] = family
        explains = support[only.cause] >= LEAST or only.decides.sum() > LEAST
        return only if explains or only.family in EXACT else None
    everywhere = [hypothesis for hypothesis in family if support[hypothesis.cause] == rows > LEAST]
    return everywhere[0] if len(everywhere) == 1 else None


def edges(part: Part, decides: Array, most: int) -> list[int]:
    """Positions of the events to show: the decisive ones at their edges, with the event before and after them.

    Where more than `most` decide, the first and the last of them are shown.
    """
    inside = np.flatnonzero(decides).tolist()
    if not inside:
        return []
    kind = part.click == part.click[inside[0]]
    same = np.flatnonzero(kind & ~decides).tolist() if (part.click[inside] == part.click[inside[0]]).all() else []
    before = [at for at in same if at < inside[0]][-1:]
    after = [at for at in same if at > inside[-1]][:1]
    room = max(LEAST, most - len(before) - len(after))
    shown = inside if len(inside) <= room else [*inside[: room - room // 2], *inside[len(inside) - room // 2 :]]
    return [*before, *shown, *after]
