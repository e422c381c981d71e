"""Faults: each strikes, proves that it took effect, heals, and proves that it healed.

A fault that cannot prove both makes the run unknown; nothing here decides what is right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, TypeVar

from harness.errors import StackError
from harness.faults.crash import Query
from harness.faults.crash import strike as strike_at
from harness.faults.network import Wire
from harness.scenario import Fault

LOOK_EVERY_S = 0.05
TAKES_S = 30.0
MISSES_MAX = 5
UNREAD_MIN = 300
"""Records that must have come after the stop before they are deleted: enough to be seen in every result."""


class Target(Protocol):
    """What a fault needs of a process: to be hurt, to come back, and to say whether it works."""

    def stop(self) -> None:
        """End it in an orderly way."""

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


class Refusing(Target, Protocol):
    """A pipeline that may refuse to start, and say why."""

    def start(self, extra: Sequence[str] = ()) -> None:
        """Start it, with further flags."""

    def expect_end(self) -> None:
        """Its end is part of the plan."""

    def code(self) -> int | None:
        """Its exit code, None while it runs."""

    def last_line(self) -> str:
        """What it said last."""


class Log(Protocol):
    """A partition of a topic, as its broker has it."""

    def begin(self) -> int:
        """The first offset that is there."""

    def end(self) -> int:
        """The offset of the next record."""

    def delete(self, before: int) -> None:
        """Remove what lies before an offset, and write it down."""


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
    for target in targets.values():
        STRIKE[fault.kind](target)
    _eventually(lambda: not any(target.is_up() for target in targets.values()), TAKES_S, clock, sleep)
    after = {name: target.is_up() for name, target in targets.items()}
    sleep(max(0.0, fault.for_s - (clock() - at_s)))  # the fault's own length
    for target in targets.values():
        HEAL[fault.kind](target)
    healed = _eventually(lambda: all(target.is_up() for target in targets.values()), patience_s, clock, sleep)
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


def widen(fault: Fault, count: Callable[[], int], add: Callable[[], None], clock: Callable[[], float]) -> Struck:
    """Add a partition to each input topic: it took where the metadata has more of them; there is nothing to heal."""
    before, at_s = count(), clock()
    add()
    after = count()
    proof = {"up_before": True, "up_after": {"partitions": after <= before}, "before": before, "after": after}
    return Struck(fault, at_s, proof, round(clock(), 3))


def crash(
    fault: Fault,
    pipeline: Target,
    query: Query,
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """The pipeline dies at a point of a micro-batch; a miss is started again and struck at a later batch."""
    misses = 0
    while True:
        before = pipeline.is_up()
        hit = strike_at(fault.point, query, pipeline.kill, patience_s, clock, sleep)
        after = pipeline.is_up()
        sleep(fault.for_s)  # the fault's own length
        pipeline.start()
        healed = _eventually(pipeline.is_up, patience_s, clock, sleep)
        if hit.hit or misses == MISSES_MAX or not healed:
            break
        misses += 1
    proof = {"up_before": before, "up_after": {"pipeline": after or not hit.hit}, "misses": misses, **asdict(hit)}
    return Struck(fault, hit.at_s, proof, round(clock(), 3) if healed else None)


def expire(
    fault: Fault,
    pipeline: Refusing,
    log: Log,
    has_passed: Callable[[int], bool],
    patience_s: float,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
) -> Struck:
    """Delete records that a stopped pipeline has not read, start it to see whether it refuses, then with the flags.

    It took where records that came after the stop are gone. `has_passed` says whether the pipeline has gone on past an
    offset; one that does so without the flags has not refused, and is let alone.
    """
    before = pipeline.is_up()
    pipeline.stop()
    # Its last batches end while it stops; what the fault costs counts from here.
    at_s, stopped_at = clock(), log.end()
    _eventually(lambda: log.end() >= stopped_at + UNREAD_MIN, patience_s, clock, sleep)
    asked = log.end()
    log.delete(asked)
    begin = log.begin()
    pipeline.start()
    pipeline.expect_end()
    _eventually(lambda: pipeline.code() is not None or has_passed(begin), patience_s, clock, sleep)
    refused = {"code": code, "said": pipeline.last_line()} if (code := pipeline.code()) is not None else None
    if refused:
        pipeline.start(fault.flags)
    healed = _eventually(pipeline.is_up, patience_s, clock, sleep)
    proof = {
        "up_before": before,
        "up_after": {"records": begin < stopped_at + UNREAD_MIN},
        "struck_s": round(at_s, 3),
        "stopped_at": stopped_at,
        "asked": asked,
        "begin": begin,
        "refused": refused,
    }
    return Struck(fault, at_s, proof, round(clock(), 3) if healed else None)


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


def _eventually(
    condition: Callable[[], bool], deadline_s: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> bool:
    end = clock() + deadline_s
    while not condition():
        if clock() > end:
            return False
        sleep(LOOK_EVERY_S)
    return True


STRIKE: Mapping[str, Callable[[Target], None]] = {
    "stop": lambda target: target.stop(),
    "kill": lambda target: target.kill(),
    "pause": lambda target: target.pause(),
}
HEAL: Mapping[str, Callable[[Target], None]] = {
    "stop": lambda target: target.start(),
    "kill": lambda target: target.start(),
    "pause": lambda target: target.resume(),
}


Some = TypeVar("Some")


def chosen(on: str, brokers: Mapping[int, Some], leader: Callable[[], int]) -> dict[str, Some]:
    """What a scenario means by ``broker N``, ``leader`` or ``all brokers``, by name."""
    if on == "all brokers":
        return {f"broker {number}": broker for number, broker in brokers.items()}
    if on == "two brokers":
        return {f"broker {number}": brokers[number] for number in sorted(brokers)[:2]}
    number = leader() if on == "leader" else int(on.removeprefix("broker "))
    if number not in brokers:
        have = ", ".join(map(str, brokers)) or "none of ours"
        raise StackError(f"fault on {on}: there is no broker {number}; there are {have}")
    return {f"broker {number}": brokers[number]}
