"""Who used how much: what has ended has used what it had."""

from __future__ import annotations

from types import SimpleNamespace

from harness import sampling
from harness.sampling import Cpu


def test_a_broker_that_was_killed_takes_no_seconds_back(monkeypatch):
    """Nor does the one that comes in its place begin where it had ended."""
    told, used = [], {1: 10.0, 2: 20.0}
    monkeypatch.setattr(sampling.processes, "tree_cpu_s", lambda pid: used.get(pid, 0.0))
    monkeypatch.setattr(sampling.processes, "tree_rss_bytes", lambda pid: 0)
    pids = [1, 2]
    cpu = Cpu(
        SimpleNamespace(write=lambda kind, **what: told.append(what)),
        SimpleNamespace(pids=list, cpu_s=lambda: 1.0),
        SimpleNamespace(pids=lambda: pids),
        SimpleNamespace(pid=None, sent=0, acknowledged=0),
        SimpleNamespace(size_bytes=lambda: 0),
    )
    cpu.sample()
    pids[:] = [2]
    used[2] = 21.0
    cpu.sample()
    pids[:] = [2, 3]
    used[3] = 0.5
    cpu.sample()

    assert [30.0, 31.0, 31.5] == [one["brokers_cpu_s"] for one in told]
