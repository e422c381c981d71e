"""Faults: each is injected, its effect observed, then healed, and the healing observed.

A fault without both observations makes the run unknown; nothing here decides what is right. A new kind of fault is one
module with its `FaultKind`, one line in `_ALL`, and a test.
"""

from harness.faults import cluster, crash, disk, memory, network, parts, processes, restarts, retention
from harness.faults.kind import CRASH_POINTS, KINDS, Fault, FaultKind, in_order
from harness.faults.needs import Need
from harness.faults.target import Cancelled, Outcome, Patience, Restartable, Target

# In the order of the reference page, of error messages, and of the rows of a drill.
_ALL = (
    crash.CRASH,
    processes.STOP,
    processes.KILL,
    processes.PAUSE,
    memory.MEMORY,
    cluster.ROLL,
    cluster.PARTITIONS,
    cluster.FAIL_OVER,
    network.LATENCY,
    network.BANDWIDTH,
    network.BLACKHOLE,
    network.HALF_OPEN,
    network.RESET,
    network.PARTITION,
    disk.FULL,
    disk.READ_ONLY,
    restarts.CHANGE,
    restarts.TRUNCATED,
    restarts.MISSING,
    restarts.STATE_LOST,
    restarts.OLDER,
    retention.RETENTION,
)
KINDS.update({kind.name: kind for kind in _ALL})

__all__ = [
    "CRASH_POINTS",
    "KINDS",
    "Cancelled",
    "Fault",
    "FaultKind",
    "Need",
    "Outcome",
    "Patience",
    "Restartable",
    "Target",
    "in_order",
    "parts",
]
