"""What brokers of ours have in common, be they processes or containers: settings, ids, ports."""

from __future__ import annotations

import base64
import random
import socket
import sys
import uuid

from harness.errors import StackError

FOREVER = 2**63 - 1
# How long an orderly end of a broker may take before the broker is killed.
STOP_S = 60.0
# Below the ports that systems hand out by themselves: no outgoing connection takes a killed node's port.
PORTS = range(20_000, 30_000)


def settings(nodes: int) -> dict[str, str | int]:
    """The settings of a broker that do not depend on where it runs, among so many nodes."""
    copies = min(3, nodes)
    in_sync = 2 if nodes > 2 else 1
    return {
        "offsets.topic.num.partitions": 3,
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": 3,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": 3,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_sync,
        "group.initial.rebalance.delay.ms": 0,
        "auto.create.topics.enable": "false",
        # Three heartbeats may be missed; a dead leader, or controller, is given up so soon.
        "broker.session.timeout.ms": 4_000,
        "broker.heartbeat.interval.ms": 1_000,
        # Events carry their own times, which may lie years back or ahead: age removes and refuses nothing.
        "log.retention.ms": -1,
        "log.message.timestamp.after.max.ms": FOREVER,
        "log.cleaner.dedupe.buffer.size": 8 * 2**20,
        "num.network.threads": 2,
        "num.io.threads": 4,
    }


def kafka_id() -> str:
    """A random id in Kafka's notation: 22 characters that do not begin with a dash."""
    made = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return made if made[0] != "-" else kafka_id()


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that no process listens on, and that no other harness is given while this process lives."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if can_bind(port) and _lease(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise StackError(f"no {count} free ports from {PORTS.start} to {PORTS.stop} on 127.0.0.1")


def _lease(port: int) -> bool:
    """Lease a port while no process listens on it, as after a kill: by an abstract socket of that name, which Linux has.

    False where another process has it.
    """
    if sys.platform != "linux":
        return True
    hold = socket.socket(socket.AF_UNIX)
    try:
        hold.bind(f"\0streaming-harness-port-{port}")
    except OSError:
        hold.close()
        return False
    hold.detach()  # open until this process ends
    return True


def can_bind(port: int) -> bool:
    """Whether a port of 127.0.0.1 is free now."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
