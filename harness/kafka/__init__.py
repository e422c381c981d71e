"""Kafka for a run: brokers of our own, or someone else's, behind one small interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from harness.errors import ScenarioError
from harness.kafka import embedded, external
from harness.kafka.cluster import Broker, Cluster

__all__ = ["OWN", "Broker", "Cluster", "open_cluster"]

Opener = Callable[[int, Path], AbstractContextManager[Cluster]]

OWN: Mapping[str, Opener] = {"embedded": embedded.open_cluster}


def open_cluster(where: str, nodes: int, directory: Path) -> AbstractContextManager[Cluster]:
    """A running cluster for as long as the context lasts.

    Parameters
    ----------
    where
        A key of `OWN`, or ``HOST:PORT`` of a broker that is never started or stopped.
    nodes
        How many brokers, where they are ours.
    directory
        Where brokers of ours keep their data and logs.

    Raises
    ------
    ScenarioError
        Where `where` is neither.
    StackError
        On entering, where the brokers do not start or cannot be reached.
    """
    if where in OWN:
        return OWN[where](nodes, directory)
    if where.rpartition(":")[2].isdigit():
        return external.open_cluster(where)
    raise ScenarioError(f"kafka: {where!r} is neither {', '.join(OWN)} nor HOST:PORT")
