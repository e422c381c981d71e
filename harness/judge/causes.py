"""Anomalies with one cause as one group: its number, and an example to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.job.clickstream.contract import QUERIES, TIMES
from harness.job.clickstream.reference import Expected
from harness.judge.anomalies import Comparison, Key
from harness.model import Anomaly

LEAST = 2
"""Rows that a common cause needs: a single row has every property of itself."""
OF_LOSS = ("lost_row", "dead_letter_missing")
LOST, TWICE = "no row of {} came out", "every row of {} was written more than once"
EXAMPLES = 3


@dataclass(frozen=True, slots=True)
class Group:
    """Anomalies with one cause, in their order; where no cause is known those of one kind and query."""

    cause: str
    anomalies: tuple[Anomaly, ...]

    def __str__(self) -> str:
        """A sentence: the cause, or that none is known, with the first anomaly."""
        first = self.anomalies[0]
        return f"{self.cause or 'no cause found'}: {first.kind} in {first.query} at {'|'.join(map(str, first.key))}"


def groups(anomalies: Sequence[Anomaly]) -> list[Group]:
    """The anomalies by cause, in the order of the first of each."""
    found: dict[tuple[str, ...], list[Anomaly]] = {}
    for anomaly in anomalies:
        name = (anomaly.cause,) if anomaly.cause else (anomaly.kind, anomaly.query)
        found.setdefault(name, []).append(anomaly)
    return [Group(members[0].cause, tuple(members)) for members in found.values()]


def common(
    anomalies: Sequence[Anomaly], answers: Mapping[str, Expected], comparisons: Mapping[str, Comparison]
) -> list[Anomaly]:
    """The anomalies with the causes that their keys alone show: all rows of a query, of a value or of a batch."""
    causes: dict[tuple[str, str], Mapping[Key, str]] = {}
    for query, comparison in comparisons.items():
        batches = answers[query].batch
        lost = set(comparison.expected.keys() - comparison.observed.keys())
        twice = {key for key, rows in comparison.observed.items() if len(rows) > 1}
        of_lost = _common(query, lost, comparison.expected, batches, LOST)
        causes |= dict.fromkeys([(kind, query) for kind in OF_LOSS], of_lost)
        causes["duplicated_row", query] = _common(query, twice, comparison.observed, batches, TWICE)
        # Rows that wrong lateness loses as well have a common cause only together with others.
        sure = {
            of_lost.get(anomaly.key) for anomaly in anomalies if (anomaly.kind, anomaly.query) == ("lost_row", query)
        }
        causes["late_dropped", query] = {key: cause for key, cause in of_lost.items() if cause in sure}
    return [
        replace(anomaly, cause=causes.get((anomaly.kind, anomaly.query), {}).get(anomaly.key, ""))
        if not anomaly.cause
        else anomaly
        for anomaly in anomalies
    ]


def _common(
    query: str, wrong: set[Key], rows: Mapping[Key, object], batches: Mapping[Key, int], what: str
) -> dict[Key, str]:
    """By key what all rows with one property, and more than one row, have in common; the most general first."""
    if len(wrong) < LEAST:
        return {}
    if len(wrong) == len(rows):
        return dict.fromkeys(wrong, what.format(query))
    total = Counter(trait for key in rows for trait in _traits(query, key, batches))
    bad = Counter(trait for key in wrong for trait in _traits(query, key, batches))
    whole = {trait for trait, count in bad.items() if count == total[trait] >= LEAST}
    return {
        key: what.format(f"{query} {trait}")
        for key in wrong
        if (trait := next((trait for trait in _traits(query, key, batches) if trait in whole), ""))
    }


def _traits(query: str, key: Key, batches: Mapping[Key, int]) -> Iterator[str]:
    """What a row has in common with others: the values of its key that are no times, and the batch that emits it."""
    for name, value in zip(QUERIES[query].identity, key, strict=False):
        if name not in TIMES:
            yield f"with {name} {value}"
    if key in batches:
        yield f"of batch {batches[key]}"


def ordered(anomalies: Sequence[Anomaly]) -> list[Anomaly]:
    """The first anomaly of each group, then all others, each in the order given."""
    firsts = {id(group.anomalies[0]) for group in groups(anomalies)}
    return sorted(anomalies, key=lambda anomaly: id(anomaly) not in firsts)


def extended(explained: Sequence[Anomaly], rest: Sequence[Anomaly]) -> list[Anomaly]:
    """The rest with the cause that all explained anomalies of its kind and query share; no cause where they differ."""
    causes: dict[tuple[str, str], set[str]] = {}
    for anomaly in explained:
        causes.setdefault((anomaly.kind, anomaly.query), set()).add(anomaly.cause)
    return [
        replace(anomaly, cause=anomaly.cause or _only(causes.get((anomaly.kind, anomaly.query), set())))
        for anomaly in rest
    ]


def _only(causes: set[str]) -> str:
    return next(iter(causes)) if len(causes) == 1 else ""
