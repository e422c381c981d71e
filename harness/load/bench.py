"""What the load engine can do, on this machine and now: `make bench`.

Each figure is the median of interleaved rounds against a fresh embedded broker, printed as a JSON line
with name, value and unit. Delays are those of measuring.md: time handed to the client − time due.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import confluent_kafka
import numpy as np

from harness import kafka
from harness.host import cleanup
from harness.job.clickstream import events as workload
from harness.job.clickstream.events import TOPICS, Workload
from harness.kafka import topics
from harness.load.engine import Engine, Plan, producer_settings, settle_s

SHAPE = Workload(time_scale=60, malformed=0.001)
SLICE = 2_000


def generation(events: int) -> dict[str, float]:
    """Making events alone, in the slices in which the engine makes them."""
    start = time.perf_counter()
    for first in range(0, events, SLICE):
        workload.batch(SHAPE, 7, 5000, first, SLICE)
    return {"generation events/s": events / (time.perf_counter() - start)}


def unpaced(bootstrap: str, events: int) -> dict[str, float]:
    """As fast as the client takes them, to the last acknowledgement."""
    engine, seconds, _ = _offered(bootstrap, None, events)
    return {"unpaced events/s": engine.journal.acknowledged / seconds}


def paced(bootstrap: str, eps: float, seconds: float) -> dict[str, float]:
    """At a steady rate: delays over all events, and CPU."""
    engine, _, cpu_s = _offered(bootstrap, eps, round(eps * seconds))
    own = slice(0, engine.journal.size - len(TOPICS))
    delays = (engine.journal.columns["sent_us"][own] - engine.journal.columns["due_us"][own]) / 1e3
    p50, p99 = np.percentile(delays, [50, 99])
    name = f"paced {eps:,.0f}/s"
    return {
        f"{name} delay p50 ms": float(p50),
        f"{name} delay p99 ms": float(p99),
        f"{name} CPU cores": cpu_s / seconds,
    }


def _offered(bootstrap: str, eps: float | None, events: int) -> tuple[Engine, float, float]:
    """(engine, seconds from the first event due to the last acknowledgement, CPU seconds)."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, **producer_settings(eps)})
    producer.list_topics(timeout=10)
    start, cpu_s = time.time() + 0.2, time.process_time()
    plan = Plan(workload=SHAPE, seed=7, eps=eps, events=events, start_at=start, event_eps=5000)
    engine = Engine(plan, producer, "", time.time, time.sleep)
    engine.run()
    if not engine.settle(settle_s()) or engine.journal.failed:
        raise SystemExit(f"bench: not every event was acknowledged: {engine.journal.first_error or 'no answer'}")
    return engine, time.time() - start, time.process_time() - cpu_s


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure over the rounds."""
    return {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]}


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(prog="python -m harness.load.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the median counts")
    rounds = parser.parse_args().rounds
    with cleanup.scratch("bench") as scratch, kafka.open_cluster("embedded", 1, scratch / "kafka") as cluster:
        topics.create(cluster.bootstrap, {topic: {} for topic in TOPICS}, 2, 1)
        steps: tuple[Callable[[], dict[str, float]], ...] = (
            lambda: generation(400_000),
            lambda: unpaced(cluster.bootstrap, 1_000_000),
            lambda: paced(cluster.bootstrap, 100_000, 8),
            lambda: paced(cluster.bootstrap, 5_000, 8),
        )
        unpaced(cluster.bootstrap, 200_000)  # the broker warms up
        taken = [{name: value for step in steps for name, value in step().items()} for _ in range(rounds)]
    for name, value in medians(taken).items():
        figure, _, unit = name.rpartition(" ")
        print(json.dumps({"name": figure, "value": round(value, 3), "unit": unit}))


if __name__ == "__main__":
    main()
