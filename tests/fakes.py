"""Stand-ins for what a run waits on: a clock, the pipeline's process and its checkpoint. None of them sleeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Clock:
    """A clock that only `sleep` moves; what is due by then happens then."""

    now_s: float = 1000.0
    due: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def __call__(self) -> float:
        """The second that it shows."""
        return self.now_s

    def at(self, after_s: float, happens: Callable[[], None]) -> None:
        """Have something happen so many seconds from now."""
        self.due.append((self.now_s + after_s, happens))

    def sleep(self, seconds: float) -> None:
        """Move on."""
        self.now_s += seconds
        for moment in [moment for moment in self.due if moment[0] <= self.now_s]:
            self.due.remove(moment)
            moment[1]()


@dataclass
class Process:
    """A process that uses `cores` of CPU from its start on."""

    clock: Clock
    cores: float = 0.0
    used_s: float = 0.0
    since_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.since_s = self.clock()

    def cpu_s(self) -> float:
        """CPU seconds until now."""
        return self.used_s + self.cores * (self.clock() - self.since_s)

    def use(self, cores: float) -> None:
        """Use as many cores from now on."""
        self.used_s, self.since_s, self.cores = self.cpu_s(), self.clock(), cores


@dataclass
class Checkpoint:
    """Batches of queries: those that are committed, and those under way."""

    clock: Clock
    commits: int = 0
    batches: dict[str, tuple[int, float]] = field(default_factory=dict)

    def begin(self, query: str, number: int) -> None:
        """A batch's offsets are written."""
        self.batches[query] = (number, self.clock())

    def commit(self, query: str) -> None:
        """The query's batch is committed."""
        del self.batches[query]
        self.commits += 1

    def committed(self) -> int:
        """How many batches are committed."""
        return self.commits

    def under_way(self) -> dict[str, tuple[int, float]]:
        """Query → (batch, when it began)."""
        return dict(self.batches)
