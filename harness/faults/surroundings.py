"""A resource of a process is taken away, its disk or its memory, until it ends; then it is given back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from harness.faults.kind import Fault
from harness.faults.target import TAKES_S, Outcome, Patience, Target


def take_away(
    fault: Fault,
    name: str,
    victim: Target,
    take: Callable[[], bool],
    ended: Callable[[], bool],
    give_back: Callable[[], None],
    describe: Callable[[], Mapping[str, Any]],
    patience: Patience,
) -> Outcome:
    """Take, see that it is gone and that the victim ends of it, give back, and start the victim again.

    `take` returns whether it is gone, `ended` whether the target has ended, `describe` the evidence while it is gone. The
    fault has no effect on a target that lives on, however slowly it answers.
    """
    before = patience.until(victim.is_up, TAKES_S)
    at_s = patience.clock()
    gone = take()
    after = {name: not patience.until(ended, TAKES_S), "gone": not gone}
    described = describe()
    patience.wait_out(fault, at_s)
    give_back()
    # What has not ended yet has lost its ground all the same: it is started anew, not gone on with.
    victim.kill()
    victim.start()
    healed_s = patience.healed_s(victim.is_up)
    proof = {"up_before": before, "up_after": after, "told": described, "struck_s": round(at_s, 3)}
    return Outcome(fault, at_s, proof, healed_s)
