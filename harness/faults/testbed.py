"""What a fault can reach of a run: the pipeline, the brokers, their network and disks, the checkpoint and the topics.

A Protocol, so that a fault knows no engine and no Kafka client, and a test injects it on fakes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness.faults.target import Patience, Restartable, Target
from harness.host.disks import Disk

if TYPE_CHECKING:  # these modules have kinds of faults, which are injected on a testbed
    from harness.faults.crash import Query
    from harness.faults.kind import Fault
    from harness.faults.network import Wire
    from harness.faults.retention import Log


class Pipeline(Restartable, Protocol):
    """The pipeline's process."""

    @property
    def pid(self) -> int | None:
        """The process id, or None before the start."""

    def pause(self) -> None:
        """Freeze it."""

    def resume(self) -> None:
        """Let it go on."""

    def has_ended(self) -> bool:
        """Whether its process has."""

    def check(self) -> None:
        """Raise PipelineDied if it has ended by itself, and no fault was meant to end it."""

    def become(self, args: list[str]) -> list[str]:
        """Start it by another command line from now on; returns the one that did so far."""


class Broker(Target, Protocol):
    """A broker's process, its address and its log."""

    @property
    def id(self) -> int:
        """Its ``node.id``."""

    @property
    def address(self) -> str:
        """Where it is reached with nothing in between, as ``HOST:PORT``."""

    @property
    def pid(self) -> int | None:
        """The id of its process, or None where it does not run."""

    def start(self, wait_s: float = 60.0) -> None:
        """Start it, and wait until it answers; 0 does not wait."""

    def log(self) -> str:
        """The end of what it has logged."""


class Testbed(Protocol):
    """One run, as far as a fault can reach it."""

    @property
    def patience(self) -> Patience:
        """How long a fault waits; it breaks off once the load is over."""

    @property
    def is_ours(self) -> bool:
        """Whether the pipeline is the one that comes with the harness, whose flags and messages are known."""

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline's process."""

    def targets(self, fault: Fault) -> Mapping[str, Target]:
        """What the fault is on, by name; StackError where that is not there."""

    def brokers(self, on: str) -> Mapping[str, Broker]:
        """The brokers that a part names, such as ``leader``; StackError where there is none."""

    def followers(self, leader: Broker) -> Sequence[Broker]:
        """All brokers but one."""

    def leads(self, brokers: Sequence[Broker]) -> bool:
        """Whether one of these leads the partition whose leader the part ``leader`` is; only these are asked."""

    def wires(self, on: str) -> Mapping[str, Wire]:
        """The connections of the clients of the brokers that a part names."""

    def disk(self, name: str) -> Disk:
        """The small disk that was mounted for a part or a broker."""

    def look(self) -> None:
        """Record the executors of a Spark cluster: one that the next look does not find was lost meanwhile."""

    def progress(self, query: str) -> Query:
        """Where a query shows how far it is."""

    def checkpoint(self, query: str) -> Path:
        """The folder of a query's checkpoint."""

    def aside(self) -> AbstractContextManager[None]:
        """While the context lasts nobody else reads the checkpoint; what is new is read at its end."""

    def results(self, query: str) -> int:
        """Batches that the log of a query's Parquet sink names."""

    def filled(self, command: Sequence[str]) -> list[str]:
        """A command line with its placeholders filled in."""

    def scratch(self) -> Path:
        """A new empty folder, removed after the run."""

    def partitions(self) -> int:
        """Partitions of all input topics."""

    def add_partitions(self) -> int:
        """Add one to each input topic; returns how many that are."""

    def partitions_used(self) -> int:
        """Partitions of input topics that have records."""

    def log(self) -> Log:
        """The first partition of the first input topic."""

    def has_passed(self) -> Callable[[int], bool]:
        """A function of an offset of `log`: whether the pipeline works and has gone on past it."""
