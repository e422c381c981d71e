"""Who used how much: what has ended has used what it had."""

from __future__ import annotations

import sys
from types import SimpleNamespace

from msgspec import structs

from harness.judge import metrics
from harness.judge.metrics import Span
from harness.kafka.cluster import await_true
from harness.load.process import Load
from harness.runner import sampler
from harness.runner.sampler import Cpu


def test_killed_broker_keeps_its_seconds(monkeypatch):
    """Nor does the one that comes in its place begin where it had ended."""
    told, used = [], {1: 10.0, 2: 20.0}
    monkeypatch.setattr(sampler.processes, "tree_cpu_s", lambda pid: used.get(pid, 0.0))
    monkeypatch.setattr(sampler.processes, "tree_rss_bytes", lambda pid: 0)
    pids = [1, 2]
    cpu = Cpu(
        SimpleNamespace(write=told.append),
        SimpleNamespace(pids=list, cpu_s=lambda: 1.0),
        SimpleNamespace(pids=lambda: pids),
        SimpleNamespace(pid=None, cpu_s=lambda: 0.0, sent=0, acknowledged=0),
        SimpleNamespace(size_bytes=lambda: 0),
    )
    cpu.sample()
    pids[:] = [2]
    used[2] = 21.0
    cpu.sample()
    pids[:] = [2, 3]
    used[3] = 0.5
    cpu.sample()

    assert [30.0, 31.0, 31.5] == [sample.brokers_cpu_s for sample in told]


def test_external_broker_usage_is_unknown(monkeypatch):
    """They have no processes here; 0 would be a figure."""
    told = []
    monkeypatch.setattr(sampler.processes, "tree_rss_bytes", lambda pid: 0)
    Cpu(
        SimpleNamespace(write=told.append),
        SimpleNamespace(pids=list, cpu_s=lambda: 1.0),
        SimpleNamespace(pids=list),
        SimpleNamespace(pid=None, cpu_s=lambda: 0.0, sent=0, acknowledged=0),
        SimpleNamespace(size_bytes=lambda: 0),
    ).sample()

    [sample] = told
    assert sample.brokers_cpu_s is None
    later = structs.replace(sample, t=9.0)
    assert None is metrics.consumed([sample, later], "brokers_cpu_s", Span(1.0, 8.0))


ENGINE = (
    "import json, os, sys, time\n"
    "while time.process_time() < 0.3: pass\n"
    "print(json.dumps({'event': 'done', 'sent': 1, 'cpu_s': 0.25}), flush=True)\n"
    "sys.stdin.readline()\n"
)


def test_ended_engine_keeps_its_cpu(tmp_path):
    """At least what it said last: the measured part may end a moment before it."""
    load = Load([sys.executable, "-c", ENGINE], tmp_path / "load.log")
    load.prepare()
    assert await_true(lambda: load.sent == 1, 20)
    used_s = load.cpu_s()
    load.flush()
    assert await_true(load.finished, 20)

    assert 0.25 <= used_s <= load.cpu_s()
    load.stop()
