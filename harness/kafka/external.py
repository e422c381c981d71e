"""Someone else's Kafka: used, never started or stopped.

Topics of ours bear a prefix with this machine's mark and this process's, ``harness-<machine>-<owner>-``.
They are removed at the end; what a dead process of this machine left is removed at the next start, and
nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from harness.errors import StackError, Unreachable
from harness.host.ownership import OWNER, Owner, machine
from harness.kafka import topics
from harness.kafka.cluster import Broker, Cluster

REACH_S = 5.0


@dataclass(frozen=True, slots=True)
class ExternalBroker:
    """One broker that is not ours: it can be looked at, and nothing else."""

    id: int
    bootstrap: str
    pid: None = None

    @property
    def address(self) -> str:
        """Where its cluster is reached."""
        return self.bootstrap

    @property
    def client_address(self) -> str:
        """The same."""
        return self.bootstrap

    def start(self, wait_s: float = 0.0) -> NoReturn:
        """Not ours to start."""
        self._refuse("start")

    def stop(self) -> NoReturn:
        """Not ours to stop."""
        self._refuse("stop")

    def kill(self) -> NoReturn:
        """Not ours to kill."""
        self._refuse("kill")

    def pause(self) -> NoReturn:
        """Not ours to pause."""
        self._refuse("pause")

    def resume(self) -> NoReturn:
        """Not ours to resume."""
        self._refuse("resume")

    def is_up(self) -> bool:
        """Whether it stands in the metadata of its cluster."""
        return topics.is_member(self.bootstrap, self.id)

    def log(self) -> str:
        """Nothing: its log is where it runs."""
        return ""

    def _refuse(self, verb: str) -> NoReturn:
        raise StackError(
            f"broker {self.id} of {self.bootstrap} is external and not ours to {verb}: "
            "run scenarios that break brokers with --kafka embedded"
        )


@dataclass(frozen=True, slots=True)
class ExternalCluster:
    """External brokers, and the prefix that keeps the run's topics apart from all others."""

    bootstrap: str
    topic_prefix: str
    brokers: Mapping[int, Broker]

    def pids(self) -> Sequence[int]:
        """None: they are not ours to measure."""
        return ()


@contextlib.contextmanager
def open_cluster(bootstrap: str) -> Iterator[Cluster]:
    """Reach a cluster, clear away what dead processes of this machine left, and leave nothing behind."""
    try:
        brokers = topics.broker_ids(bootstrap, timeout_s=REACH_S)
    except Unreachable:
        raise Unreachable(
            f"no Kafka answers at {bootstrap} within {REACH_S:.0f} s: check the address, that it is up, "
            "and that its advertised.listeners can be reached from here"
        ) from None
    _clear(bootstrap, lambda: abandoned(topics.names(bootstrap)))
    prefix = topic_prefix(Owner.me())
    cluster = ExternalCluster(bootstrap, prefix, {i: ExternalBroker(i, bootstrap) for i in sorted(brokers)})
    try:
        yield cluster
    finally:
        _clear(bootstrap, lambda: [name for name in topics.names(bootstrap) if name.startswith(prefix)])


def _clear(bootstrap: str, names: Callable[[], Collection[str]]) -> None:
    """Remove topics; a failure is printed, not raised, since the run's results do not depend on it."""
    try:
        topics.delete(bootstrap, names())
    except StackError as error:
        print(f"kafka: topics of ours are left at {bootstrap}: {error}", file=sys.stderr)


def topic_prefix(owner: Owner) -> str:
    """What the names of a process's topics begin with."""
    return f"harness-{machine()}-{owner.mark}-"


def abandoned(names: set[str]) -> list[str]:
    """The topics of this machine whose owner is dead."""
    ours = re.compile(rf"harness-{re.escape(machine())}-({OWNER})-.+")
    owners = {name: Owner.parse(match[1]) for name in names if (match := ours.fullmatch(name))}
    return sorted(name for name, owner in owners.items() if owner and owner.is_dead())
