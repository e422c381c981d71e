"""A fault of a scenario, and the record of each kind of fault.

A kind is one record beside the code that injects it. Validation, needs, dispatch, the matrix of drills and
docs/reference/faults.md follow from the records; no other module has a table of kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.faults import parts
from harness.faults.needs import Need
from harness.job.clickstream.contract import QUERIES

if TYPE_CHECKING:
    from harness.faults.target import Outcome
    from harness.faults.testbed import Testbed

# Points of a micro-batch N; `harness/faults/crash.py` has what each leaves on disk.
CRASH_POINTS = ("after offsets", "in state", "after sink", "after commits")
# Name → record of every kind. The package fills it, from its modules, before anything can import `Fault`.
KINDS: dict[str, FaultKind] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that breaks, and heals: placed at a position of the stream, not at a second."""

    kind: str = field(default="kill", metadata={"choices": KINDS})
    point: str = field(
        default="after offsets", metadata={"choices": CRASH_POINTS, "doc": "of a micro-batch, for a crash"}
    )
    query: str = field(
        default=next(iter(QUERIES)),
        metadata={"choices": tuple(QUERIES), "doc": "whose micro-batch, checkpoint or results it is about"},
    )
    on: str = field(default=parts.PIPELINE, metadata={"choices": parts.PARTS})
    at: int = field(default=0, metadata={"min": 1, "max": 2**53, "doc": "acknowledged events before it is injected"})
    after: int = field(
        default=0, metadata={"min": 0, "max": 2**53, "doc": "events read since the fault before has healed"}
    )
    caught_up: bool = field(
        default=False, metadata={"doc": "delay the fault until everything sent before `at` has been read"}
    )
    for_s: float = field(default=0, metadata={"min": 0, "max": 600, "doc": "seconds until it heals"})
    flags: tuple[str, ...] = field(default=(), metadata={"doc": "with which the pipeline is started again"})
    command: tuple[str, ...] = field(
        default=(), metadata={"doc": "by which it is started again from then on: the pipeline upgraded"}
    )
    refused: bool = field(default=False, metadata={"doc": "whether it must refuse a change, with a clear line"})

    @property
    def of_kind(self) -> FaultKind:
        """The record of its kind."""
        return KINDS[self.kind]

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs: by its kind, by the part that it is on, and by whom it hurts."""
        own = (Need.OWN_BROKERS,) if self.breaks_brokers else ()
        return (*self.of_kind.needs, *self.of_kind.needs_also(self), *parts.NEEDS.get(self.on, ()), *own)

    @property
    def breaks_brokers(self) -> bool:
        """Whether brokers may be down because of it."""
        hurts = self.of_kind.hurts
        return hurts == "brokers" or (hurts == "target" and self.on in parts.BROKERS)

    def brokers_hurt(self, nodes: int) -> set[int]:
        """The brokers of `nodes` that may be down because of it: all of them where it is on a role."""
        if not self.breaks_brokers:
            return set()
        if self.of_kind.hurts == "target":
            if self.on.startswith("broker "):
                return {int(self.on.removeprefix("broker "))}
            if self.on == "two brokers":
                return {1, 2}
        return set(range(1, nodes + 1))

    @property
    def name(self) -> str:
        """The fault in a few words, for display only: in a message, a table or a chart."""
        return self.of_kind.title(self)


def _of_part(fault: Fault) -> str:
    return f"{fault.kind} {fault.on}"


def nothing_more(_: Fault) -> tuple[Need, ...]:
    """No need beyond those of its kind."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultKind:
    """One way in which something breaks: what it acts on, what it needs, how it is injected, and when it is proved.

    `inject` carries a fault out on a testbed, from the injection until it has healed, and returns the evidence. `effect`
    and `heals` are what it must observe, in words. `fields` are the fields of a fault that this kind uses and not every
    kind has.
    """

    name: str
    about: str
    effect: str
    heals: str
    targets: tuple[str, ...]
    inject: Callable[[Testbed, Fault], Outcome]
    needs: tuple[Need, ...] = ()
    # Needs that depend on a field of the fault.
    needs_also: Callable[[Fault], tuple[Need, ...]] = nothing_more
    fields: tuple[str, ...] = ()
    # Who may be down because of it: its target, some or all brokers whatever its target is, or nobody.
    hurts: Literal["target", "brokers", "nobody"] = "target"
    # Whether the job goes on reading while the fault lasts: such a time is no outage.
    reads_through: bool = False
    # Whether a producer may be satisfied with the leader's acknowledgement: any other kind would make it write twice.
    any_acks: bool = False
    # Whether a hot standby may take over: the fault ends the pipeline once, and nothing else.
    standby: bool = False
    # The fault in a few words, for display.
    title: Callable[[Fault], str] = _of_part
    # Cell of the drill matrix → fields of its fault.
    drills: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def why_not(self) -> str | None:
        """Why no fault of this kind can be injected on this machine; None where it can."""
        return next((why for need in self.needs if (why := need.why_not())), None)

    def cells(self) -> dict[str, Fault]:
        """Its rows of the drill matrix: name → fault, still without a position."""
        return {name: Fault(kind=self.name, **fields) for name, fields in self.drills.items()}


def in_order(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Faults in the order in which they are injected; a fault's index in it is its identity in a run's history."""
    return tuple(sorted(faults, key=lambda fault: fault.at))
