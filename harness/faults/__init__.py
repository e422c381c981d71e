"""Faults: each is injected, its effect observed, then healed, and the healing observed.

A fault without both observations makes the run unknown; nothing here decides what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TypeVar

from harness.errors import StackError
from harness.faults.crash import Query, kill_at
from harness.faults.network import Wire
from harness.faults.restarts import Restartable, Restarts
from harness.faults.retention import expire
from harness.faults.surroundings import take_away
from harness.faults.target import TAKES_S, Outcome, Patience, Target
from harness.scenario import Fault

__all__ = [
    "Outcome",
    "Patience",
    "Restartable",
    "Restarts",
    "Target",
    "chosen",
    "crash",
    "expire",
    "fail_over",
    "inject",
    "roll",
    "spoil",
    "take_away",
    "widen",
]

MISSES_MAX = 5


def inject(fault: Fault, targets: Mapping[str, Target], patience: Patience) -> Outcome:
    """Hurt all targets, wait out the fault's length, heal them; StackError where a target cannot be started again."""
    before = patience.until(lambda: all(target.is_up() for target in targets.values()), TAKES_S)
    at_s = patience.clock()
    done = {name: INJECT[fault.kind](target) for name, target in targets.items()}
    patience.until(lambda: not any(target.is_up() for target in targets.values()), TAKES_S)
    after = {name: target.is_up() or done[name] is False for name, target in targets.items()}
    patience.wait_out(fault, at_s)
    with ThreadPoolExecutor() as together:  # brokers that are all down come up only together
        list(together.map(HEAL[fault.kind], targets.values()))
    healed_s = patience.healed_s(lambda: all(target.is_up() for target in targets.values()))
    proof = {"up_before": before, "up_after": after, "struck_s": round(at_s, 3)}
    return Outcome(fault, at_s, proof, healed_s)


def fail_over(
    fault: Fault, leader: Target, followers: Sequence[Target], taken_over: Callable[[], bool], patience: Patience
) -> Outcome:
    """Freeze the followers, kill the leader that went on alone, and start it again once another leads."""
    everyone = (leader, *followers)
    before = patience.until(lambda: all(one.is_up() for one in everyone), TAKES_S)
    at_s = patience.clock()
    for follower in followers:
        follower.pause()
    alone = patience.until(lambda: not any(follower.is_up() for follower in followers), TAKES_S)
    patience.wait_out(fault, at_s)
    leader.kill()
    killed = not leader.is_up()
    for follower in followers:
        follower.resume()
    led = patience.until(taken_over)
    leader.start()
    healed_s = patience.healed_s(lambda: all(one.is_up() for one in everyone))
    after = {"leader": not killed, "followers, while it was alone": not alone, "leader as before": not led}
    proof = {"up_before": before, "up_after": after, "struck_s": round(at_s, 3)}
    return Outcome(fault, at_s, proof, healed_s)


def roll(fault: Fault, brokers: Mapping[str, Target], patience: Patience) -> Outcome:
    """Stop and start the brokers one after the other, each only when the one before works again."""
    done = [inject(replace(fault, kind="stop"), {name: one}, patience) for name, one in brokers.items()]
    after = {name: up for one in done for name, up in one.proof["up_after"].items()}
    proof = {"up_before": all(one.proof["up_before"] for one in done), "up_after": after}
    healed = done[-1].healed_s if all(one.healed_s is not None for one in done) else None
    return Outcome(fault, done[0].at_s, proof, healed)


def widen(
    fault: Fault, count: Callable[[], int], add: Callable[[], int], used: Callable[[], int], patience: Patience
) -> Outcome:
    """Add a partition to each input topic: it took where the metadata has more, it is over when all have records.

    `add` returns how many it adds, and `used` is how many have records. A broker that has not heard of the new ones yet
    may be the one that is asked.
    """
    before, at_s = count(), patience.clock()
    wanted = before + add()
    patience.until(lambda: count() >= wanted)
    after = count()
    healed_s = patience.healed_s(lambda: used() >= wanted)
    proof = {"up_before": True, "up_after": {"partitions": after < wanted}, "before": before, "after": after}
    return Outcome(fault, at_s, proof, healed_s)


def crash(fault: Fault, pipeline: Target, query: Query, patience: Patience) -> Outcome:
    """The pipeline dies at a point of a micro-batch; after a miss it is started again and killed in a later batch.

    Where the point does not come it is let alone, and nothing is proved.
    """
    misses, first_s = 0, None
    while True:
        before = pipeline.is_up()
        hit = kill_at(fault.point, query, pipeline.kill, patience)
        first_s = first_s or round(hit.at_s, 3)
        after = pipeline.is_up()
        if hit.killed:
            patience.sleep(fault.for_s)  # the fault's own length
            pipeline.start()
        healed_s = patience.healed_s(pipeline.is_up)
        if hit.hit or not hit.killed or misses == MISSES_MAX or healed_s is None:
            break
        misses += 1
    proof = {
        "up_before": before,
        "up_after": {"pipeline": after or not hit.hit},
        "misses": misses,
        "first_s": first_s,
        **asdict(hit),
    }
    return Outcome(fault, hit.at_s, proof, healed_s)


def spoil(fault: Fault, wires: Mapping[str, Wire], patience: Patience) -> Outcome:
    """A fault of the network: laid on, felt, lifted, and seen to be lifted."""
    at_s = patience.clock()
    felt = {name: wire.spoil(fault.kind, patience) for name, wire in wires.items()}
    patience.wait_out(fault, at_s)
    mended = {name: wire.mend(patience) for name, wire in wires.items()}
    taken = {name: not one["taken"] for name, one in felt.items()}
    proof = {"up_before": True, "up_after": taken, "counted": felt, "mended": mended, "struck_s": round(at_s, 3)}
    healed = all(one["taken"] for one in mended.values())
    return Outcome(fault, at_s, proof, round(patience.clock(), 3) if healed else None)


INJECT: Mapping[str, Callable[[Target], bool | None]] = {
    "stop": lambda target: target.stop(),
    "kill": lambda target: target.kill(),
    "pause": lambda target: target.pause(),
}
"""False where it was not done as it is called: a process that had to be killed has not been stopped."""
HEAL: Mapping[str, Callable[[Target], None]] = {
    "stop": lambda target: target.start(),
    "kill": lambda target: target.start(),
    "pause": lambda target: target.resume(),
}


Some = TypeVar("Some")


def chosen(
    on: str, brokers: Mapping[int, Some], leader: Callable[[], int], controller: Callable[[], int]
) -> dict[str, Some]:
    """What a scenario means by ``broker N``, ``leader``, ``controller`` or ``all brokers``, by name."""
    if on == "all brokers":
        return {f"broker {number}": broker for number, broker in brokers.items()}
    if on == "two brokers":
        return {f"broker {number}": brokers[number] for number in sorted(brokers)[:2]}
    roles = {"leader": leader, "controller": controller}
    number = roles[on]() if on in roles else int(on.removeprefix("broker "))
    if number not in brokers:
        have = ", ".join(map(str, brokers)) or "none of ours"
        raise StackError(f"fault on {on}: there is no broker {number}; there are {have}")
    return {f"broker {number}": brokers[number]}
