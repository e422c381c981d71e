"""Faults: each strikes, proves that it took effect, heals, and proves that it healed.

A fault that cannot prove both makes the run unknown; nothing here decides what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import TypeVar

from harness.errors import StackError
from harness.faults.crash import Query
from harness.faults.crash import strike as strike_at
from harness.faults.network import Wire
from harness.faults.restarts import Restartable, restart, restart_on_an_older, restart_spoiled
from harness.faults.retention import expire
from harness.faults.surroundings import take_away
from harness.faults.target import TAKES_S, Struck, Target, eventually
from harness.scenario import Fault

__all__ = [
    "Restartable",
    "Struck",
    "Target",
    "chosen",
    "crash",
    "expire",
    "fail_over",
    "restart",
    "restart_on_an_older",
    "restart_spoiled",
    "roll",
    "spoil",
    "strike",
    "take_away",
    "widen",
]

MISSES_MAX = 5


def strike(
    fault: Fault,
    targets: Mapping[str, Target],
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """Hurt all targets, wait out the fault's length, heal them; StackError where a target cannot be started again."""
    before = all(target.is_up() for target in targets.values())
    at_s = clock()
    done = {name: STRIKE[fault.kind](target) for name, target in targets.items()}
    eventually(lambda: not any(target.is_up() for target in targets.values()), TAKES_S, clock, sleep)
    after = {name: target.is_up() or done[name] is False for name, target in targets.items()}
    sleep(max(0.0, fault.for_s - (clock() - at_s)))  # the fault's own length
    with ThreadPoolExecutor() as together:  # brokers that are all down come up only together
        list(together.map(HEAL[fault.kind], targets.values()))
    healed = eventually(lambda: all(target.is_up() for target in targets.values()), patience_s, clock, sleep)
    proof = {"up_before": before, "up_after": after, "struck_s": round(at_s, 3)}
    return Struck(fault, at_s, proof, round(clock(), 3) if healed else None)


def fail_over(
    fault: Fault,
    leader: Target,
    followers: Sequence[Target],
    taken_over: Callable[[], bool],
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """Freeze the followers, kill the leader that went on alone, and start it again once another leads."""
    everyone = (leader, *followers)
    before, at_s = all(one.is_up() for one in everyone), clock()
    for follower in followers:
        follower.pause()
    alone = eventually(lambda: not any(follower.is_up() for follower in followers), TAKES_S, clock, sleep)
    sleep(max(0.0, fault.for_s - (clock() - at_s)))  # the fault's own length
    leader.kill()
    killed = not leader.is_up()
    for follower in followers:
        follower.resume()
    led = eventually(taken_over, patience_s, clock, sleep)
    leader.start()
    healed = eventually(lambda: all(one.is_up() for one in everyone), patience_s, clock, sleep)
    after = {"leader": not killed, "followers, while it was alone": not alone, "leader as before": not led}
    proof = {"up_before": before, "up_after": after, "struck_s": round(at_s, 3)}
    return Struck(fault, at_s, proof, round(clock(), 3) if healed else None)


def roll(
    fault: Fault,
    brokers: Mapping[str, Target],
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """Stop and start the brokers one after the other, each only when the one before works again."""
    done = [strike(replace(fault, kind="stop"), {name: one}, patience_s, clock, sleep) for name, one in brokers.items()]
    after = {name: up for one in done for name, up in one.proof["up_after"].items()}
    proof = {"up_before": all(one.proof["up_before"] for one in done), "up_after": after}
    healed = done[-1].healed_s if all(one.healed_s is not None for one in done) else None
    return Struck(fault, done[0].at_s, proof, healed)


def widen(
    fault: Fault,
    count: Callable[[], int],
    add: Callable[[], None],
    used: Callable[[], bool],
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """Add a partition to each input topic: it took where the metadata has more, it is over when `used`, with records in all."""
    before, at_s = count(), clock()
    add()
    after = count()
    healed = eventually(used, patience_s, clock, sleep)
    proof = {"up_before": True, "up_after": {"partitions": after <= before}, "before": before, "after": after}
    return Struck(fault, at_s, proof, round(clock(), 3) if healed else None)


def crash(
    fault: Fault,
    pipeline: Target,
    query: Query,
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """The pipeline dies at a point of a micro-batch; a miss is started again and struck at a later batch.

    Where the point does not come it is let alone, and nothing is proved.
    """
    misses = 0
    while True:
        before = pipeline.is_up()
        hit = strike_at(fault.point, query, pipeline.kill, patience_s, clock, sleep)
        after = pipeline.is_up()
        if hit.struck:
            sleep(fault.for_s)  # the fault's own length
            pipeline.start()
        healed = eventually(pipeline.is_up, patience_s, clock, sleep)
        if hit.hit or not hit.struck or misses == MISSES_MAX or not healed:
            break
        misses += 1
    proof = {"up_before": before, "up_after": {"pipeline": after or not hit.hit}, "misses": misses, **asdict(hit)}
    return Struck(fault, hit.at_s, proof, round(clock(), 3) if healed else None)


def spoil(
    fault: Fault,
    wires: Mapping[str, Wire],
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """A fault of the network: laid on, felt, lifted, and seen to be lifted."""
    at_s = clock()
    felt = {name: wire.spoil(fault.kind, TAKES_S, clock, sleep) for name, wire in wires.items()}
    sleep(max(0.0, fault.for_s - (clock() - at_s)))  # the fault's own length
    mended = {name: wire.mend(patience_s, clock, sleep) for name, wire in wires.items()}
    taken = {name: not one["taken"] for name, one in felt.items()}
    proof = {"up_before": True, "up_after": taken, "counted": felt, "mended": mended, "struck_s": round(at_s, 3)}
    healed = all(one["taken"] for one in mended.values())
    return Struck(fault, at_s, proof, round(clock(), 3) if healed else None)


STRIKE: Mapping[str, Callable[[Target], bool | None]] = {
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
