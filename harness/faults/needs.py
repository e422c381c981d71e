"""What a fault needs of the scenario or of this machine; a run without it is refused before it starts."""

from __future__ import annotations

from enum import Enum

from harness.host import cgroup, disks


class Need(Enum):
    """One thing that a kind of fault, or the part that it acts on, cannot do without."""

    CHECKPOINT = "`pipeline.checkpoint`: it watches or damages the checkpoint of one query"
    CHECKPOINT_BELOW = "`pipeline.checkpoint` below `{checkpoint}`: the whole folder is replaced"
    CONTROL_GROUP = "root on Linux: a control group limits the memory"
    DISK = "root on Linux: a small disk is mounted for its target"
    EMBEDDED = '`kafka.where = "embedded"`: it stands before brokers or under them'
    OWN_BROKERS = "brokers that the harness has started"
    PARQUET = "a query with results in Parquet, whose log shows that they have grown"
    RELAY = "a relay between clients and brokers, started by the harness"
    REPLICAS = "`kafka.nodes` of 3 or more"
    STATE = "a query that keeps state"
    TWO_BROKERS = "`kafka.nodes` of 2 or more"
    WORKERS = "`pipeline.workers` of 1 or more"

    @property
    def is_root(self) -> bool:
        """Whether it is about the machine: Linux, and the rights of root."""
        return self in (Need.CONTROL_GROUP, Need.DISK)

    def why_not(self) -> str | None:
        """Why this machine cannot meet the need, in a clause; None where it can, and for needs of the scenario."""
        if self is Need.DISK:
            return disks.why_not()
        return cgroup.why_not() if self is Need.CONTROL_GROUP else None
