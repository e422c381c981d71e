"""Who uses how much of the machine, sampled while a run goes on."""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import psutil

from harness.engines.process import Checkpoint, System
from harness.engines.spark.standalone import Standalone
from harness.host import processes
from harness.kafka import Cluster
from harness.load.process import Load
from harness.rundir.events import Recorder, Sample


@dataclass(slots=True)
class Cpu:
    """CPU seconds and resident memory by who uses them."""

    history: Recorder
    system: System
    cluster: Cluster
    load: Load
    checkpoint: Checkpoint
    spark: Standalone | None = None
    # Of each process of a broker that there was, its CPU seconds when it was last seen: a dead one takes none back.
    _seen_s: dict[int, float] = field(default_factory=dict)

    def sample(self) -> None:
        """Take a sample and write it down."""
        machine = psutil.cpu_times()
        own = psutil.Process()
        pids: dict[str, list[int | None]] = {
            "pipeline": [*self.system.pids(), *(self.spark.pids() if self.spark else ())],
            "brokers": list(self.cluster.pids()),
            "generator": [self.load.pid],
        }
        for pid in self.cluster.pids():  # a process that ends meanwhile is left out
            self._seen_s[pid] = max(processes.tree_cpu_s(pid), self._seen_s.get(pid, 0.0))
        now: dict[str, float] = {
            "pipeline_cpu_s": round(self.system.cpu_s() + (self.spark.cpu_s() if self.spark else 0.0), 3),
            "generator_cpu_s": round(self.load.cpu_s(), 3),
        }
        if self._seen_s:  # brokers elsewhere have no processes here: what they use is not 0, it is not known
            now["brokers_cpu_s"] = round(sum(self._seen_s.values()), 3)
        now |= {f"{who}_rss": sum(processes.tree_rss_bytes(pid) for pid in ids if pid) for who, ids in pids.items()}
        now["harness_cpu_s"] = round(sum(own.cpu_times()[:2]), 3)
        now["harness_rss"] = own.memory_info().rss + now["generator_rss"]
        now["machine_cpu_s"] = round(
            sum(machine) - machine.idle - getattr(machine, "iowait", 0.0) - getattr(machine, "guest", 0.0), 3
        )
        now["checkpoint_bytes"] = self.checkpoint.size_bytes()
        counted = {"sent": self.load.sent, "acknowledged": self.load.acknowledged}
        self.history.write(msgspec.convert(now | counted, Sample))
