"""A fault is proved by what is seen before and after, and never by having been ordered."""

from __future__ import annotations

import pytest

from harness import faults
from harness.errors import StackError
from harness.scenario import Fault


class Process:
    """A process that works, and may be immune, or dead for good."""

    def __init__(self, immune: bool = False, dead: bool = False) -> None:
        self.up = not dead
        self.immune = immune
        self.did: list[str] = []

    def __getattr__(self, verb: str):
        def do() -> None:
            self.did.append(verb)
            self.up = verb in ("start", "resume") or self.immune

        return do

    def is_up(self) -> bool:
        """Whether it works."""
        return self.up


def struck(process: Process, kind: str = "kill") -> faults.Struck:
    """The fault on one process, in a time that only passes by sleeping."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return faults.strike(Fault(kind=kind, at=1, for_s=2), {"p": process}, 5, lambda: now[0], sleep)


@pytest.mark.parametrize(
    ("kind", "did"), [("kill", ["kill", "start"]), ("stop", ["stop", "start"]), ("pause", ["pause", "resume"])]
)
def test_a_fault_strikes_and_heals(kind, did):
    """Each kind has its remedy, and the length is the fault's own."""
    process = Process()
    result = struck(process, kind)

    assert (did, True, 2.0) == (process.did, result.proved, result.healed_s)


def test_a_fault_that_did_not_take_is_not_proved():
    """The process went on working."""
    assert not struck(Process(immune=True)).proved


def test_a_fault_on_what_did_not_work_before_proves_nothing():
    """It was down already."""
    assert not struck(Process(dead=True)).proved


def test_a_broker_that_is_not_there_is_named():
    """With those that are."""
    with pytest.raises(StackError, match="there is no broker 3; there are 1"):
        faults.chosen("broker 3", {1: Process()}, lambda: 1, lambda: 1)


@pytest.mark.parametrize(("immune", "proved"), [(False, True), (True, False)])
def test_brokers_are_restarted_one_after_the_other(immune, proved):
    """Never two at once; proved only where each was seen to be down."""
    order: list[tuple[str, str]] = []

    class Named(Process):
        def __init__(self, name: str, immune: bool = False) -> None:
            super().__init__(immune)
            self.name = name

        def stop(self) -> None:
            order.append((self.name, "stop"))
            self.up = self.immune

        def start(self) -> None:
            order.append((self.name, "start"))
            self.up = True

    now = [0.0]
    brokers = {"1": Named("1"), "2": Named("2", immune)}
    result = faults.roll(
        Fault(kind="roll", at=1),
        brokers,
        5,
        lambda: now[0],
        lambda seconds: now.__setitem__(0, now[0] + seconds + 0.01),
    )

    assert [("1", "stop"), ("1", "start"), ("2", "stop"), ("2", "start")] == order
    assert proved is result.proved


@pytest.mark.parametrize(("added", "proved"), [(2, True), (0, False)])
def test_partitions_that_are_not_there_after_are_not_proved(added, proved):
    """Counted in the metadata, before and after."""
    there = [2]
    result = faults.widen(
        Fault(kind="partitions", at=1), lambda: there[0], lambda: there.__setitem__(0, there[0] + added), lambda: 1.0
    )

    assert (proved, 1.0) == (result.proved, result.healed_s)


def test_two_brokers_are_the_first_two_of_them():
    """Of three they leave no quorum."""
    brokers = {number: Process() for number in (1, 2, 3)}

    assert ["broker 1", "broker 2"] == list(faults.chosen("two brokers", brokers, lambda: 3, lambda: 1))
