"""What a fault needs of what it strikes, and what it says of itself afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.scenario import Fault

LOOK_EVERY_S = 0.05
TAKES_S = 30.0


class Cancelled(Exception):
    """The run is over before a fault is."""


class Target(Protocol):
    """What a fault needs of a process: to be hurt, to come back, and to say whether it works."""

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


@dataclass(frozen=True, slots=True)
class Struck:
    """What became of a fault: when it struck, whether that is proved, and when it was seen to be healed."""

    fault: Fault
    at_s: float
    proof: Mapping[str, Any]
    healed_s: float | None

    @property
    def proved(self) -> bool:
        """It worked before, and it was seen not to work after."""
        return bool(self.proof["up_before"]) and all(not up for up in self.proof["up_after"].values())


def eventually(
    condition: Callable[[], bool], deadline_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> bool:
    """Look again until a condition holds or the time is over; says which of the two."""
    end = clock() + deadline_s
    while not condition():
        if clock() > end:
            return False
        sleep(LOOK_EVERY_S)
    return True
