"""What each fault cost: how long nothing was committed, until the lag was back, and what was done twice.

A fault that missed its point and was injected again costs from its first try on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from harness.judge import anomalies, metrics, timeline
from harness.judge.anomalies import Comparison
from harness.judge.guard import STRICT, Guard
from harness.judge.metrics import Span
from harness.judge.timeline import Evidence
from harness.rundir.events import FaultHealed

CALM_S = 10.0
"""What is looked at before a fault for the lag that is usual, though nothing from before the recovery of the last one."""
CALM_MIN_S = 2.0
"""Where there is less, what was usual before an earlier fault stands for it: a batch or two."""
SECONDS = ("first_commit_s", "longest_gap_s", "first_output_s", "recovered_s", "unrecovered_s")
"""The costs of a fault that are times."""


def costs(gathered: Evidence, comparisons: Mapping[str, Comparison], guard: Guard = STRICT) -> Iterator[dict[str, Any]]:
    """Each fault of the run as it was written down, and what it cost; the keys of a fault in result.json.

    None is a cost that was not seen, or one that crashed.
    """
    injections = gathered.run.of(FaultHealed)
    begins_s = [begun_s(event) for event in injections]
    healed_s = 0.0
    since_s = max((found[0].committed_s for found in gathered.batches.values() if found), default=0.0)
    calm: Span | None = None
    for fault, begin_s, next_s in zip(injections, begins_s, [*begins_s, float("inf")][1:], strict=True):
        before = Span(max(since_s, begin_s - CALM_S), begin_s)
        if before.end_s - before.start_s >= (CALM_MIN_S if calm else metrics.LAG_EVERY_S):
            calm = before
        named = f"of {fault.fault.name}"
        cost = guard.of(
            f"the recovery {named}",
            partial(_recovery, gathered, comparisons, calm, begin_s, fault.healed_s or float("inf"), healed_s),
            dict.fromkeys(SECONDS),
        )
        healed_s = fault.healed_s or fault.at_s
        since_s = max(since_s, healed_s, begin_s + (cost["recovered_s"] or 0.0))
        yield (
            written(fault)
            | cost
            | {
                "replayed": guard.of(
                    f"the replayed batches {named}", partial(_replayed, gathered, begin_s, next_s), None
                ),
                "duplicates": guard.of(
                    f"the duplicates {named}", partial(_duplicates, gathered, comparisons, begin_s, next_s), None
                ),
                "behind": guard.of(f"the lag {named}", partial(_behind, gathered, fault.at_s), {}),
            }
        )


def begun_s(event: FaultHealed) -> float:
    """The epoch second of a fault's first try: a crash that missed its point was a crash all the same."""
    return float(event.proof.get("first_s") or event.at_s)


def written(event: FaultHealed) -> dict[str, Any]:
    """What a fault did, under the keys of a fault in result.json."""
    return {
        "t": event.t,
        "kind": event.fault.kind,
        "fault": event.fault.name,
        "at": event.fault.at,
        "struck_at": event.acknowledged,
        "unread": event.unread,
        "at_s": event.at_s,
        "proved": event.effect_observed,
        "proof": event.proof,
        "healed_s": event.healed_s,
    }


def _behind(gathered: Evidence, at_s: float) -> dict[str, int]:
    """For each query, of the topic of which most was unread when a fault was injected: records acknowledged and not committed.

    Empty for a black box.
    """
    if gathered.run.scenario.black_box:
        return {}
    return {
        query: metrics.behind(gathered.sent, gathered.batch_of[query], batches, at_s)
        for query, batches in gathered.batches.items()
    }


def _recovery(
    gathered: Evidence,
    comparisons: Mapping[str, Comparison],
    calm: Span | None,
    at_s: float,
    healed_s: float,
    since_s: float,
) -> dict[str, float | None]:
    """What a fault cost, in seconds from its first try, over all queries (measuring.md, "Recovery"); None is not seen.

    What lies before `since_s`, when the fault before had healed, is that one's.

    `first_commit_s` until each had committed a batch again, `longest_gap_s` without one, `first_output_s` until a
    right row stood that had not stood before, `recovered_s` until the lag was back within the p99 of the calm before;
    `unrecovered_s` for how long the load went on without that.
    """
    outages = {
        query: found
        for query, batches in gathered.batches.items()
        if (found := metrics.outage(batches, at_s, healed_s, since_s))
    }
    if not outages or len(outages) < len(gathered.batches):
        return dict.fromkeys(SECONDS)
    back = [
        metrics.recovered_s(gathered.sent, gathered.batch_of[query], found, calm, outages[query], at_s, healed_s)
        if calm
        else None
        for query, found in gathered.batches.items()
    ]
    never = calm is not None and None in back
    outputs = [
        row_s
        for query, comparison in comparisons.items()
        for row_s in _new_right_rows(comparison)
        if row_s > max(at_s, outages[query].start_s)
    ]
    return {
        "first_commit_s": round(max(outage.end_s for outage in outages.values()) - at_s, 3),
        "longest_gap_s": round(max(outage.end_s - outage.start_s for outage in outages.values()), 3),
        "first_output_s": round(min(outputs) - at_s, 3) if outputs else None,
        "recovered_s": None
        if None in back
        else round(max(seconds for seconds in back if seconds is not None) - at_s, 3),
        "unrecovered_s": round(metrics.load_end_s(gathered.sent) - at_s, 3) if never else None,
    }


def _new_right_rows(comparison: Comparison) -> Iterator[float]:
    """When each right row appeared for the first time."""
    for key, rows in comparison.observed.items():
        if right := [row.at_s for row in rows if anomalies.is_right(comparison, key, row)]:
            yield min(right)


def _replayed(gathered: Evidence, after_s: float, until_s: float) -> int | None:
    """Batches that were run again after a fault and before the next; None for a black box."""
    if gathered.run.scenario.black_box:
        return None
    return metrics.replayed(gathered.batches.values(), _starts(gathered, after_s, until_s))


def _starts(gathered: Evidence, after_s: float, until_s: float) -> list[float]:
    """When the pipeline was started, after a fault and before the next."""
    return [at_s for at_s in timeline.started_s(gathered.run) if after_s < at_s <= until_s]


def _duplicates(
    gathered: Evidence, comparisons: Mapping[str, Comparison], after_s: float, until_s: float
) -> int | None:
    """Rows that stood already, and were written again after a fault and before the next.

    None where the rows of a query could not be compared.
    """
    if gathered.run.scenario.queries.keys() - comparisons.keys():
        return None
    return sum(
        after_s < row.at_s <= until_s
        for comparison in comparisons.values()
        for rows in comparison.observed.values()
        for row in sorted(rows, key=lambda row: row.at_s)[1:]
    )
