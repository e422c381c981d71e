"""Waiting for a condition as long as there is progress, and a standstill that is named.

Progress is a commit, a new entry in an offset log, or a batch under way whose process works. The last kind has a bound:
a pipeline that burns CPU for ever and commits nothing is a standstill too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from harness.errors import Stalled

# How long nothing at all may happen.
STALL_S = 60.0
# The share of one core that counts as work, averaged over a window. Queries without new data poll below it; a batch
# uses at least a core. It is low on purpose: noise taken for work only costs time, and `Work.patience_s` bounds that.
BUSY_CORES = 0.2
WINDOW_S = 5.0
LOOK_S = 0.05

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Work:
    """What shows that a pipeline works between two commits.

    `under_way` gives query → (number of the batch whose offsets are written and that is not committed, epoch second at
    which they were). `cpu_s` gives the CPU seconds of all processes of the pipeline until now. `patience_s` gives how
    long they may work without a commit.
    """

    under_way: Callable[[], Mapping[str, tuple[int, float]]]
    cpu_s: Callable[[], float]
    patience_s: Callable[[], float]


def batch_patience_s(batch_s: float, backlog: int, eps: float, most_s: float) -> float:
    """Seconds that a batch may take: `batch_s`, and the time to read the backlog at `eps`, but `most_s` at most."""
    return min(most_s, batch_s + max(0, backlog) / eps)


class Watch:
    """Tells a standstill from work, look by look."""

    def __init__(
        self, progress: Callable[[], int], stall_s: float, work: Work | None, clock: Clock, now: Clock
    ) -> None:
        """`clock` is monotonic; `now` gives epoch seconds, for the age of batches."""
        self._progress, self._stall_s, self._work = progress, stall_s, work
        self._clock, self._now = clock, now
        self._last = progress()
        self._batches = self._under_way()
        self._moved_s = self._worked_s = self._window_s = clock()
        self._cpu_s = work.cpu_s() if work else 0.0

    def standstill(self) -> str:
        """Why this is a standstill; empty while there is progress."""
        now_s = self._clock()
        last, batches = self._progress(), self._under_way()
        begun = any(batch not in self._batches.items() for batch in batches.items())
        if last != self._last or begun:
            self._moved_s = self._worked_s = now_s
        self._last, self._batches = last, batches
        if batches and self._works(now_s):
            self._worked_s = now_s
        if now_s - self._worked_s > self._stall_s:
            return f"no progress past {last} for {now_s - self._worked_s:.0f} s{self._at()}"
        if self._work and (patience_s := max(self._stall_s, self._work.patience_s())) < now_s - self._moved_s:
            return (
                f"the pipeline works, and has committed nothing for {now_s - self._moved_s:.0f} s, where"
                f" {patience_s:.0f} s are allowed (pipeline.batch_s){self._at()}"
            )
        return ""

    def _works(self, now_s: float) -> bool:
        """Whether the window that ends now is full, and the pipeline was busy in it."""
        if self._work is None or (elapsed_s := now_s - self._window_s) < WINDOW_S:
            return False
        cpu_s = self._work.cpu_s()
        busy = cpu_s - self._cpu_s >= BUSY_CORES * elapsed_s
        self._cpu_s, self._window_s = cpu_s, now_s
        return busy

    def _under_way(self) -> Mapping[str, tuple[int, float]]:
        return dict(self._work.under_way()) if self._work else {}

    def _at(self) -> str:
        """Which query is at which batch, for how long."""
        now_s = self._now()
        ages = [
            f"{query} is at batch {number} for {now_s - begun_s:.0f} s"
            for query, (number, begun_s) in self._batches.items()
        ]
        return f": {', '.join(ages)}" if ages else ""


def eventually(
    condition: Callable[[], bool],
    progress: Callable[[], int],
    what: str,
    stall_s: float = STALL_S,
    *,
    look: Callable[[], None] = lambda: None,
    work: Work | None = None,
    clock: Clock = time.monotonic,
    now: Clock = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Wait for a condition as long as there is progress, calling `look` each time.

    Raises Stalled, naming `what` and the batches under way, once nothing has happened for `stall_s`, or the pipeline
    has worked without a commit for longer than `work` allows. What `condition` and `look` raise ends the wait.
    """
    watch = Watch(progress, stall_s, work, clock, now)
    while not condition():
        look()
        if why := watch.standstill():
            raise Stalled(f"waiting for {what}: {why}")
        sleep(LOOK_S)
