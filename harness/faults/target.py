"""The target of a fault, and the outcome of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.faults.kind import Fault

LOOK_EVERY_S = 0.05
TAKES_S = 30.0


class Cancelled(Exception):
    """The run is over before a fault is."""


class Target(Protocol):
    """A process that a fault can stop, kill, freeze and start again, and whose state can be observed."""

    def stop(self) -> bool:
        """End it in an orderly way; false where it had to be killed."""

    def kill(self) -> None:
        """End it at once."""

    def pause(self) -> None:
        """Freeze it."""

    def resume(self) -> None:
        """Let it go on."""

    def start(self) -> None:
        """Start it with the data that it had."""

    def is_up(self) -> bool:
        """Whether it does its work."""


class Restartable(Protocol):
    """What a fault needs of a pipeline that it starts again otherwise."""

    def stop(self) -> bool:
        """End it in an orderly way; false where it had to be killed."""

    def kill(self) -> None:
        """End it at once."""

    def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
        """Start it from its checkpoint, with these flags after its own for this once; it may end by itself, or not."""

    def is_up(self) -> bool:
        """Whether its queries have started."""

    def expect_end(self, expected: bool = True) -> None:
        """It may end by itself, until it is started again; or it may not any more."""

    def ended(self) -> int | None:
        """The exit code of a process that has ended, or None."""

    def last_line(self) -> str:
        """The last line of its log."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a fault: when it was injected, the evidence of its effect, and when it was observed to have healed."""

    fault: Fault
    at_s: float
    proof: Mapping[str, Any]
    healed_s: float | None

    @property
    def proved(self) -> bool:
        """It worked before, and it was seen not to work after."""
        return bool(self.proof["up_before"]) and all(not up for up in self.proof["up_after"].values())


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a fault waits for what it brings about, `for_s` seconds at most, and by which clock.

    `sleep` raises Cancelled once the run is over.
    """

    for_s: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    def until(self, condition: Callable[[], bool], at_most_s: float | None = None) -> bool:
        """Check a condition until it holds or the time is over; returns whether it holds."""
        end = self.clock() + (self.for_s if at_most_s is None else at_most_s)
        while not condition():
            if self.clock() > end:
                return False
            self.sleep(LOOK_EVERY_S)
        return True

    def healed_s(self, condition: Callable[[], bool]) -> float | None:
        """When a condition was seen to hold, or None where it never did."""
        return round(self.clock(), 3) if self.until(condition) else None

    def wait_out(self, fault: Fault, at_s: float) -> None:
        """Wait until a fault injected at `at_s` has lasted for its own length."""
        self.sleep(max(0.0, fault.for_s - (self.clock() - at_s)))
