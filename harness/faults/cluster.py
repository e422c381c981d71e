"""The brokers as a group: a leader that was alone is lost, all restart in turn, topics get more partitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from harness.faults import parts, processes
from harness.faults.kind import Fault, FaultKind
from harness.faults.needs import Need
from harness.faults.target import TAKES_S, Outcome, Patience, Target
from harness.faults.testbed import Testbed


def fail_over(
    fault: Fault, leader: Target, followers: Sequence[Target], taken_over: Callable[[], bool], patience: Patience
) -> Outcome:
    """Freeze the followers, kill the leader that went on alone, and start it again once another leads."""
    everyone = (leader, *followers)
    before = patience.until(lambda: all(broker.is_up() for broker in everyone), TAKES_S)
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
    healed_s = patience.healed_s(lambda: all(broker.is_up() for broker in everyone))
    after = {"leader": not killed, "followers, while it was alone": not alone, "leader as before": not led}
    proof = {"up_before": before, "up_after": after, "struck_s": round(at_s, 3)}
    return Outcome(fault, at_s, proof, healed_s)


def roll(fault: Fault, brokers: Mapping[str, Target], patience: Patience) -> Outcome:
    """Stop and start the brokers one after the other, each only when the one before works again."""
    done = [processes.inject(replace(fault, kind="stop"), {name: broker}, patience) for name, broker in brokers.items()]
    after = {name: up for outcome in done for name, up in outcome.proof["up_after"].items()}
    proof = {"up_before": all(outcome.proof["up_before"] for outcome in done), "up_after": after}
    healed = done[-1].healed_s if all(outcome.healed_s is not None for outcome in done) else None
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


def _fail_over(bed: Testbed, fault: Fault) -> Outcome:
    [leader] = bed.brokers(fault.on).values()
    followers = bed.followers(leader)
    return fail_over(fault, leader, followers, lambda: bed.leads(followers), bed.patience)


def _roll(bed: Testbed, fault: Fault) -> Outcome:
    return roll(fault, bed.brokers("all brokers"), bed.patience)


def _widen(bed: Testbed, fault: Fault) -> Outcome:
    return widen(fault, bed.partitions, bed.add_partitions, bed.partitions_used, bed.patience)


FAIL_OVER = FaultKind(
    name="fail_over",
    about="The followers are frozen, and the leader that went on alone is killed: they have not copied what came then.",
    effect="No follower worked while the leader was alone, the leader ended, and another leads.",
    heals="All brokers work again.",
    targets=("leader",),
    inject=_fail_over,
    needs=(Need.REPLICAS,),
    any_acks=True,
    drills={"fail over leader": {"on": "leader", "for_s": 2}},
)
ROLL = FaultKind(
    name="roll",
    about="All brokers are stopped and started, one after the other.",
    effect="Each worked before, and ended without having to be killed.",
    heals="Each works again before the next is stopped.",
    targets=(parts.PIPELINE, *parts.BROKERS),
    inject=_roll,
    hurts="brokers",
    title=lambda _: "roll brokers",
    drills={"roll brokers": {"on": "all brokers"}},
)
PARTITIONS = FaultKind(
    name="partitions",
    about="Each input topic gets one more partition.",
    effect="The metadata has the new partitions.",
    heals="Every partition has records.",
    targets=(parts.PIPELINE, *parts.BROKERS),
    inject=_widen,
    hurts="nobody",
    reads_through=True,
    title=lambda _: "partitions added",
    drills={"add partitions": {}},
)
