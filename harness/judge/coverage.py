"""What a scenario is about, counted: a run in which it did not happen proves nothing, and is unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

import numpy as np

from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import CONVERSION_HORIZON_S, QUERIES, first
from harness.job.clickstream.reference import Expected
from harness.judge import metrics, timeline
from harness.judge.anomalies import Comparison
from harness.judge.guard import STRICT, Guard
from harness.judge.timeline import Evidence
from harness.model import Between
from harness.rundir.events import FaultHealed, Process

SESSIONS = first(lambda query: query.has_sessions)
VIEWS = first(lambda query: bool(query.distinct))
CLICKS, PURCHASES = QUERIES[first(lambda query: query.joins)].reads


def counts(
    gathered: Evidence,
    answers: Mapping[str, Expected],
    comparisons: Mapping[str, Comparison],
    guard: Guard = STRICT,
) -> dict[str, int | None]:
    """Every count that `proves` of a scenario can name, and that is no count of the reconciliation.

    None is unknown: the count crashed, or what it counts crashed before.
    """
    queries = gathered.run.scenario.queries
    sessions = answers.get(SESSIONS, Expected())
    of: dict[str, Callable[[], int]] = {
        "out_of_order": lambda: metrics.out_of_order(gathered.sent),
        "dropped_late_sessions": lambda: sessions.late_events,
        "sessions_merged": lambda: sessions.merged,
        "sessions_over_restarts": lambda: _over_restarts(gathered, sessions),
        "copies_sent": lambda: int(gathered.sent["copy"].sum()),
        "restarts": lambda: _restarts(gathered),
        "burst_events": lambda: _burst(gathered),
        "hot_views": lambda: _hot(gathered, comparisons),
        "idle_clicks": lambda: _idle(gathered),
        "edge_purchases": lambda: _on_the_edge(gathered),
        "executors_replaced": lambda: timeline.executors_replaced(gathered.run),
    }
    unknown: set[str] = set()
    if SESSIONS in queries.keys() - answers.keys():
        unknown |= {"dropped_late_sessions", "sessions_merged", "sessions_over_restarts"}
    if gathered.run.scenario.black_box:
        unknown.add("sessions_over_restarts")
    if VIEWS in queries.keys() - comparisons.keys():
        unknown.add("hot_views")
    return counted(of, unknown, guard)


def counted(of: Mapping[str, Callable[[], int]], unknown: Collection[str], guard: Guard) -> dict[str, int | None]:
    """Each count by its name; None for those that are `unknown` beforehand, and for those that crash."""
    return {name: None if name in unknown else guard.of(f"the count {name}", count, None) for name, count in of.items()}


def _restarts(gathered: Evidence) -> int:
    """How often the pipeline was started again and did start: not where it refused."""
    ready = [event for event in gathered.run.of(Process) if event.event == "ready"]
    return max(0, len(ready) - 1)


def _burst(gathered: Evidence) -> int:
    """Events sent in seconds that had more than half of the burst's rate."""
    load = gathered.run.scenario.load
    if not load.burst_s or load.burst_factor <= 1:
        return 0
    sent_us = gathered.sent["sent_us"][(gathered.sent["sent_us"] > 0) & ~gathered.sent["flush"]]
    a_second = np.bincount((sent_us - sent_us.min(initial=2**62)) // 1_000_000)
    return int(a_second[a_second > max(load.eps, load.eps * load.burst_factor / 2)].sum())


def _hot(gathered: Evidence, comparisons: Mapping[str, Comparison]) -> int:
    """Views of the most viewed product beyond twice the mean of all usual products; of views that may count, none does."""
    shape = gathered.run.scenario.workload
    views = Counter(dict.fromkeys(workload.products(shape)[0][: shape.products], 0))
    if VIEWS in comparisons:
        product = QUERIES[VIEWS].identity.index("product_id")
        for key, values in comparisons[VIEWS].expected.items():
            if key[product] in views:
                views[key[product]] += values[0].low if isinstance(values[0], Between) else values[0]
    mean = sum(views.values()) / max(1, len(views))
    return max(0, round(max(views.values(), default=0) - 2 * mean))


def _idle(gathered: Evidence) -> int:
    """Clicks due more than a second after the last transaction, the flush left out."""
    own = ~gathered.sent["flush"]
    last = gathered.sent["due_us"][own & (gathered.sent["topic"] == PURCHASES)].max(initial=0)
    return (
        int((own & (gathered.sent["topic"] == CLICKS) & (gathered.sent["due_us"] > last + 1_000_000)).sum())
        if last
        else 0
    )


def _on_the_edge(gathered: Evidence) -> int:
    """Acknowledged purchases exactly ten minutes after the click that was sent before them."""
    sent = gathered.sent
    after = sent["event_time_ms"][1:] - sent["event_time_ms"][:-1] == CONVERSION_HORIZON_S * 1000
    both = (sent["offset"][1:] >= 0) & (sent["offset"][:-1] >= 0)
    pair = (sent["topic"][:-1] == CLICKS) & (sent["topic"][1:] == PURCHASES)
    return int((after & both & pair).sum())


def _over_restarts(gathered: Evidence, sessions: Expected) -> int:
    """Sessions that begin before and end after what the query had read when the pipeline was started again."""
    if SESSIONS not in gathered.batches:
        return 0
    index, times = gathered.batch_of[SESSIONS], gathered.sent["event_time_ms"]
    periods = [(timeline.epoch_ms(key[1]), timeline.epoch_ms(values[0])) for key, values in sessions.rows.items()]
    found = 0
    for batch in timeline.starts(gathered, SESSIONS) - {0}:
        newest = times[(index >= 0) & (index < batch) & (gathered.sent["malformed"] == 0)].max(initial=0).item()
        found += sum(first <= newest < last for first, last in periods)
    return found


def unproved(fault: FaultHealed) -> str:
    """Which part of a fault's proof is missing, in words; empty where it took effect and healed."""
    proof = fault.proof
    if not proof.get("up_before", True):
        return "its target did not work before"
    if not fault.effect_observed:
        unhurt = ", ".join(name for name, up in proof.get("up_after", {}).items() if up)
        return f"no effect was seen{unhurt and ' on '}{unhurt}"
    return "" if fault.healed_s is not None else "it was not seen to heal"


def unclaimed(gathered: Evidence) -> int:
    """Offsets that were read and that no acknowledgement covers: a producer's retry, a send that was given up, or what
    transactions leave: their markers and their aborted records. Run directories do not distinguish them."""
    ends: Counter[tuple[str, int]] = Counter()
    for found in gathered.batches.values():
        for batch in found[-1:]:
            ends |= Counter(batch.ends)
    sent = gathered.sent
    acknowledged = sent["offset"] >= 0
    known: dict[tuple[str, int], int] = {}
    for topic in {topic for topic, _ in ends}:
        partitions = sent["partition"][acknowledged & (sent["topic"] == topic)]
        known |= {(topic, partition): count for partition, count in enumerate(np.bincount(partitions).tolist())}
    return sum((ends - Counter(known)).values())
