"""What a process stands on is taken away: its disk or its memory, until it ends; then it is given back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.faults.target import TAKES_S, Patience, Struck, Target
from harness.scenario import Fault


def take_away(
    fault: Fault,
    victims: Mapping[str, Target],
    take: Callable[[], bool],
    give_back: Callable[[], None],
    tell: Callable[[], Mapping[str, Any]],
    patience: Patience,
) -> Struck:
    """Take, see that it is gone and that each victim ends of it, give back, and start the victims again.

    `take` says whether it is gone, `tell` what can be said of it while it is. A victim that goes on as if nothing
    had happened was not struck.
    """
    before = all(victim.is_up() for victim in victims.values())
    at_s = patience.clock()
    gone = take()
    patience.until(lambda: not any(victim.is_up() for victim in victims.values()), TAKES_S)
    after = {name: victim.is_up() for name, victim in victims.items()} | {"gone": not gone}
    told = tell()
    patience.wait_out(fault, at_s)
    give_back()
    for victim in victims.values():
        # What has not ended yet has lost its ground all the same: it is started anew, not gone on with.
        victim.kill()
        victim.start()
    healed_s = patience.healed_s(lambda: all(victim.is_up() for victim in victims.values()))
    proof = {"up_before": before, "up_after": after, "told": told, "struck_s": round(at_s, 3)}
    return Struck(fault, at_s, proof, healed_s)
