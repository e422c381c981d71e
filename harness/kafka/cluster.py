"""What the harness asks of Kafka: a cluster of brokers, wherever they come from.

A `Cluster` is addresses and brokers; a `Broker` is one process that can be broken and mended. Both are
Protocols: embedded, containers and external brokers have this shape and nothing else in common.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from harness.host.waiting import await_true

__all__ = ["Broker", "Cluster", "await_true"]


class Broker(Protocol):
    """One Kafka broker: what a fault can do to it, and how one sees that it did."""

    @property
    def id(self) -> int:
        """Its ``node.id``."""

    @property
    def pid(self) -> int | None:
        """The id of its process, or None where it does not run or is not ours."""

    @property
    def address(self) -> str:
        """Where it is reached with nothing in between, as ``HOST:PORT``."""

    @property
    def client_address(self) -> str:
        """Where it listens for clients that come by its advertised port; `address` where that is the same."""

    def start(self, wait_s: float = 60.0) -> None:
        """Start it with the port and the data that it had, and wait until it answers; 0 does not wait."""

    def stop(self) -> bool:
        """Shut it down in an orderly way; false where it had to be killed."""

    def kill(self) -> None:
        """End it at once, as a power cut would end the process."""

    def pause(self) -> None:
        """Freeze it: its connections stay open and nothing answers."""

    def resume(self) -> None:
        """Let a frozen broker go on."""

    def is_up(self) -> bool:
        """Whether it answers and stands in its own metadata; takes a second at most."""

    def log(self) -> str:
        """The end of what it has logged, 64 KiB at most."""


class Cluster(Protocol):
    """Brokers that form one Kafka."""

    @property
    def bootstrap(self) -> str:
        """All addresses, as ``bootstrap.servers`` wants them."""

    @property
    def brokers(self) -> Mapping[int, Broker]:
        """Every broker by its id, running or not."""

    @property
    def topic_prefix(self) -> str:
        """What the names of our topics begin with; empty where the cluster is ours alone."""

    def pids(self) -> Sequence[int]:
        """The processes to count CPU and memory of; none where they are not on this machine or not ours."""
