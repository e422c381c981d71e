"""Kafka for a run: brokers of our own, or someone else's, behind one small interface."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from harness.errors import ScenarioError
from harness.kafka import embedded, external
from harness.kafka.cluster import Broker, Cluster

__all__ = ["Broker", "Cluster", "open_cluster"]


def open_cluster(
    where: str, nodes: int, directory: Path, advertised: Mapping[int, int] | None = None
) -> AbstractContextManager[Cluster]:
    """A running cluster for as long as the context lasts.

    Parameters
    ----------
    where
        ``embedded``, ``containers``, or ``HOST:PORT`` of a broker that is never started or stopped.
    nodes
        How many brokers, where they are ours.
    directory
        Where brokers of ours keep their data and logs.
    advertised
        By broker, the port at which clients find it, where a relay stands in between; for embedded ones alone.

    Raises
    ------
    ScenarioError
        Where `where` is none of these.
    StackError
        On entering, where the brokers do not start or cannot be reached.
    """
    if where == "embedded":
        return embedded.open_cluster(nodes, directory, advertised)
    if advertised:
        raise ScenarioError(f"kafka.where = {where!r}: faults of the network need embedded brokers")
    if where == "containers":
        from harness.kafka import containers  # the Docker client is loaded where it is asked for

        return containers.open_cluster(nodes)
    if where.rpartition(":")[2].isdigit():
        return external.open_cluster(where)
    raise ScenarioError(f"kafka.where = {where!r}: it is neither embedded, nor containers, nor HOST:PORT")
