"""What 1, 2 and 4 workers send on one machine, and what each costs: `make load-workers`.

Rounds are interleaved, against a fresh embedded broker; figures are medians, with least and most in brackets, and each
round is a JSON line on standard error. The rate
is unpaced, from the start to the last acknowledgement. Delays are those of measuring.md at a steady rate, and so are
cores and core-seconds: of the load engines and of Locust, not of the broker.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from harness import kafka
from harness.errors import StackError
from harness.host import cleanup
from harness.job.clickstream.events import TOPICS, Workload
from harness.kafka import topics
from harness.kafka.cluster import await_true
from harness.load.process import Load

SHAPE = Workload(time_scale=60, malformed=0.001)
COUNTS = (1, 2, 4)
UNPACED = 400_000
PACED_S = 4.0
# Of the unpaced rate, what a steady load may take: the rest is for moments in which the machine does something else.
USABLE = 0.7
END_S = 180.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One round of a number of workers: `rate` in events/s, unpaced; the others at the steady rate."""

    rate: float
    delay_ms_p50: float
    delay_ms_p99: float
    cores: float
    core_s_per_million: float


def measure(bootstrap: str, count: int, eps: float, folder: Path) -> Figures:
    """A round of `count` workers."""
    sent, _ = _offered(bootstrap, count, None, UNPACED, folder / "unpaced")
    rate = UNPACED / ((sent["acked_us"].max() - sent["due_us"].min()) / 1e6)
    events = round(eps * PACED_S)
    sent, cpu_s = _offered(bootstrap, count, eps, events, folder / "paced")
    delay_ms = (sent["sent_us"] - sent["due_us"]) / 1e3
    p50, p99 = (float(value) for value in np.percentile(delay_ms, [50, 99]))
    return Figures(rate, p50, p99, cpu_s / PACED_S, cpu_s / events * 1e6)


def _offered(
    bootstrap: str, count: int, eps: float | None, events: int, folder: Path
) -> tuple[dict[str, np.ndarray], float]:
    """(journal without flush events, CPU seconds from the word to start until the last acknowledgement)."""
    folder.mkdir(parents=True)
    plan = {"workload": msgspec.to_builtins(SHAPE), "seed": 7, "eps": eps, "acks": "all", "events": events}
    (folder / "plan.json").write_text(json.dumps(plan | {"event_eps": 5000}), encoding="utf-8")
    files = ["--plan", str(folder / "plan.json"), "--sent", str(folder / "sent.parquet")]
    folders = ["--folder", str(folder / "journals"), "--logs", str(folder)]
    command = [sys.executable, "-m", "harness.load.distributed", "--bootstrap", bootstrap, "--workers", str(count)]
    load = Load([*command, *files, *folders], folder / "load.log")
    load.prepare()
    try:
        _await(load, load.is_ready)
        load.start(round(time.time() + 1.5, 6))
        cpu_s = load.cpu_s()
        _await(load, lambda: load.acknowledged == events)
        cpu_s = load.cpu_s() - cpu_s
        load.flush()
        _await(load, load.finished)
    finally:
        load.stop()
    sent = pq.read_table(folder / "sent.parquet", columns=["due_us", "sent_us", "acked_us", "flush"])
    own = ~sent["flush"].to_numpy()
    return {name: sent[name].to_numpy()[own] for name in ("due_us", "sent_us", "acked_us")}, cpu_s


def _await(load: Load, condition: object) -> None:
    assert callable(condition)
    if not await_true(lambda: load.finished() or condition(), END_S):
        raise StackError(f"the load did not come to its end within {END_S:g} s")


def slope(rates: Mapping[int, float]) -> float:
    """Events/s that each further worker adds: least squares of the rate over the number of workers."""
    return float(np.polyfit(list(rates), list(rates.values()), 1)[0])


def advice(rates: Mapping[int, float]) -> list[str]:
    """What to set for a steady rate, in sentences; `rates` are unpaced events/s by number of workers."""
    single, further = rates[1], slope(rates)
    lines = [
        f"one worker sends {single:,.0f} events/s, and each further one adds {further:,.0f} on this machine (slope)",
        f"up to {USABLE * single:,.0f} events/s, {USABLE:.0%} of that: one worker, or the load engine without Locust",
    ]
    best = max(rates, key=lambda count: rates[count])
    if further < 0.1 * single:
        return [*lines, "above that: workers on more machines (--master), since further ones here add next to nothing"]
    return [
        *lines,
        f"above that: --workers 1 + ⌈(rate − {USABLE * single:,.0f}) ÷ {USABLE * further:,.0f}⌉, such as"
        f" {needed(rates, USABLE * single * 1.5)} for {USABLE * single * 1.5:,.0f}; {best} sent most, so above"
        f" {USABLE * rates[best]:,.0f} events/s use more machines (--master)",
    ]


def needed(rates: Mapping[int, float], eps: float) -> int:
    """Workers for a steady rate in events/s."""
    return 1 + max(0, math.ceil((eps - USABLE * rates[1]) / (USABLE * slope(rates))))


def table(taken: Mapping[int, Sequence[Figures]], eps: float) -> Table:
    """A row for each number of workers."""
    shown = Table(
        "workers",
        "unpaced, events/s",
        f"delay p50 at {eps:,.0f}/s, ms",
        f"delay p99 at {eps:,.0f}/s, ms",
        f"cores at {eps:,.0f}/s",
        "core-s per million events",
    )
    for count, rounds in taken.items():
        cells = [
            _spread([figures.rate for figures in rounds], "{:,.0f}"),
            *(
                _spread([getattr(figures, name) for figures in rounds], "{:.2f}")
                for name in ("delay_ms_p50", "delay_ms_p99", "cores", "core_s_per_million")
            ),
        ]
        shown.add_row(str(count), *cells)
    return shown


def _spread(values: Sequence[float], form: str) -> str:
    least, middle, most = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({least}–{most})"


def main() -> None:
    """Print the table, and what follows from it."""
    parser = argparse.ArgumentParser(prog="python -m harness.load.scaling", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; the median counts")
    parser.add_argument("--eps", type=float, default=60_000, help="the steady rate")
    args = parser.parse_args()
    taken: dict[int, list[Figures]] = {count: [] for count in COUNTS}
    with cleanup.scratch("scaling") as scratch, kafka.open_cluster("embedded", 1, scratch / "kafka") as cluster:
        topics.create(cluster.bootstrap, {topic: {} for topic in TOPICS}, 2, 1)
        for number in range(args.rounds):
            for count in COUNTS:
                figures = measure(cluster.bootstrap, count, args.eps, scratch / f"{number}-{count}")
                taken[count].append(figures)
                printed = {"round": number, "workers": count, **asdict(figures)}
                print(json.dumps(printed), file=sys.stderr, flush=True)
    console = Console()
    console.print(table(taken, args.eps))
    for line in advice(
        {count: statistics.median(figures.rate for figures in rounds) for count, rounds in taken.items()}
    ):
        console.print(line, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    main()
