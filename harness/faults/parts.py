"""The parts of a run that a fault can be on, by the names that scenarios use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from harness.errors import StackError
from harness.faults.needs import Need

PIPELINE = "pipeline"
# `leader` leads the first partition of the first input topic, `controller` leads the quorum.
BROKERS = ("leader", "controller", "two brokers", "all brokers", *(f"broker {number}" for number in range(1, 6)))
ONE_BROKER = tuple(name for name in BROKERS if not name.endswith("brokers"))
# The disks of the pipeline; a broker's disk is the one of its log.
DISKS_OF_THE_PIPELINE = ("checkpoint", "results")
# Of the standalone cluster: the executor that has worked most, the worker that has it, and the master.
SPARK = ("executor", "worker", "master")
PARTS = (PIPELINE, *BROKERS, *DISKS_OF_THE_PIPELINE, *SPARK)
NEEDS: Mapping[str, tuple[Need, ...]] = {
    "two brokers": (Need.TWO_BROKERS,),
    **dict.fromkeys(SPARK, (Need.WORKERS,)),
}

Some = TypeVar("Some")


def chosen(
    on: str, brokers: Mapping[int, Some], leader: Callable[[], int], controller: Callable[[], int]
) -> dict[str, Some]:
    """The brokers that a scenario means by ``broker N``, ``leader``, ``controller``, ``two`` or ``all brokers``, by name."""
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
