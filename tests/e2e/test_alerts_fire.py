"""A real Prometheus scrapes a real pipeline, and each alert fires when its fault is injected and resolves after it.

The rules are those of `deploy/prometheus/rules.yml`, their durations divided by `FASTER`. No alert fires when its fault is
injected, and a fault lasts until its alert fires, however slow the machine is.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest

from harness.host import disks, jars
from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import CLICKSTREAM, QUERIES
from harness.job.clickstream.events import TOPICS, Workload
from harness.kafka import Cluster, topics

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is missing: apt install prometheus"),
]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FASTER = 30
WAIT_S = 200.0
LOOK_S = 0.5
TICK_S = 0.1
EVENT_S_PER_S = 10
EPS = 20
BALLAST_BYTES = 200 << 20
UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
CLICK = json.loads(workload.batch(Workload(clickstream_share=1.0), 7, 100, 0, 1).values[0])
TOO_LATE_S = 7_200


def scaled(rules: str) -> str:
    """The rules with every duration divided by `FASTER`: of `for`, of ranges and of offsets."""

    def shorter(found: re.Match[str]) -> str:
        return f"{found[1]}{int(found[2]) * UNITS_MS[found[3]] // FASTER}ms"

    return re.sub(r"(for: |\[|offset )(\d+)(ms|s|m|h)\b", shorter, rules)


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def eventually(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait for a condition; fail with what was seen instead."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(LOOK_S)


@dataclass(frozen=True)
class Prometheus:
    """A server on loopback."""

    port: int

    def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                return True
        except OSError:
            return False

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression now."""
        where = f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': expression})}"
        with urllib.request.urlopen(where, timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        return {series["metric"]["alertname"] for series in self.ask('ALERTS{alertstate="firing"}')}

    def await_firing(self, *alerts: str) -> None:
        """Wait until all of these alerts fire."""
        eventually(lambda: set(alerts) <= self.firing(), lambda: f"{alerts} expected, {self.firing()} fire")

    def await_resolved(self, *alerts: str) -> None:
        """Wait until none of these alerts fires."""
        eventually(lambda: not set(alerts) & self.firing(), lambda: f"{alerts} are over, {self.firing()} fire")


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """A server with the scaled rules, which scrapes the pipeline at a port every second."""
    (folder / "rules.yml").write_text(scaled((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8")))
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("_interval: 15s", "_interval: 1s").replace("127.0.0.1:9464", f"127.0.0.1:{target}")
    (folder / "prometheus.yml").write_text(text)
    server = Prometheus(free_port())
    args = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    args += [f"--web.listen-address=127.0.0.1:{server.port}", "--query.lookback-delta=5s"]
    with (folder / "log").open("w") as log, subprocess.Popen(args, stdout=log, stderr=log) as process:
        try:
            eventually(server.is_ready, lambda: (folder / "log").read_text())
            yield server
        finally:
            process.terminate()


@dataclass
class Load:
    """A producer of clicks; what they are like can be changed while it runs."""

    producer: confluent_kafka.Producer
    eps: int = EPS
    malformed: float = 0.0
    too_late: float = 0.0
    moves: bool = True
    sent: int = 0
    event_s: float = 1.8e9
    over: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Send until it is over."""
        while not self.over.wait(TICK_S):
            self.event_s += EVENT_S_PER_S * TICK_S * self.moves
            for _ in range(int(self.eps * TICK_S)):
                self.sent += 1
                self.producer.produce(CLICKSTREAM, self.value(), b"k")
            self.producer.poll(0)

    def value(self) -> bytes:
        """The next click: a share of them rejected, and a share of the others too late.

        Spark counts late rows by group, so that each of them is of a product of its own.
        """
        share = self.sent % 100 / 100
        if share < self.malformed:
            return b"not json"
        if share < self.malformed + self.too_late:
            return click(self.event_s - TOO_LATE_S, f"p{self.sent}")
        return click(self.event_s, "p")


def click(event_s: float, product: str) -> bytes:
    """A valid click."""
    timestamp = datetime.fromtimestamp(event_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return json.dumps(CLICK | {"timestamp": timestamp, "product_id": product}).encode()


@contextmanager
def loaded(bootstrap: str) -> Iterator[Load]:
    """A load in a thread."""
    load = Load(confluent_kafka.Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.messages": 1_000_000}))
    thread = threading.Thread(target=load.run, name="load")
    thread.start()
    try:
        yield load
    finally:
        load.over.set()
        thread.join()


@contextmanager
def pipeline(bootstrap: str, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Two queries that leave most of the machine to the others, with their metrics at a port."""
    where = ["--bootstrap", bootstrap, "--checkpoint", f"{folder}/checkpoint", "--output", f"{folder}/output"]
    flags = ["--queries", "page_views,dead_letter", "--trigger", "1 second", "--max-offsets-per-trigger", "400"]
    args = [sys.executable, "-m", "pipeline", *where, "--jars", str(jars.spark_jars()), *flags]
    args += ["--metrics-port", str(port), "--lag-group", "watch"]
    with (folder / "pipeline.log").open("w") as log:
        process = subprocess.Popen(args, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def nearly_full(disk: disks.Disk | None) -> Iterator[tuple[str, ...]]:
    """A disk with less than a twentieth of it free, until the context ends; the alerts that this must raise."""
    if disk is None:
        yield ()
        return
    ballast = disk.folder / "ballast"
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
    assert disks._mount("-o", f"remount,size={BALLAST_BYTES * 21 // 20}", str(disk.folder)) is None
    try:
        yield ("PipelineCheckpointDiskFilling",)
    finally:
        disk.mend()
        ballast.unlink()


@contextmanager
def frozen(freeze: Callable[[], None], thaw: Callable[[], None]) -> Iterator[None]:
    """What is frozen goes on when the context ends."""
    freeze()
    try:
        yield
    finally:
        thaw()


def panels() -> dict[str, str]:
    """Title and number → expression of the pipeline's dashboard, ranges scaled."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "pipeline.json").read_text(encoding="utf-8"))
    return {
        f"{panel['title']} {number}": scaled(target["expr"])
        .replace("$__rate_interval", "20s")
        .replace("$instance", ".*")
        for panel in dashboard["panels"]
        for number, target in enumerate(panel.get("targets", ()))
    }


def committed(bootstrap: str) -> int:
    """The offset of the consumer group that the pipeline writes."""
    consumer = confluent_kafka.Consumer({"bootstrap.servers": bootstrap, "group.id": "watch"})
    try:
        [place] = consumer.committed([confluent_kafka.TopicPartition(CLICKSTREAM, 0)], timeout=30)
        return int(place.offset)
    finally:
        consumer.close()


def test_durations_of_the_rules_are_scaled():
    """Of every kind, and nothing else."""
    assert "for: 4000ms\nx[10000ms] offset 120000ms > 10e6" == scaled("for: 2m\nx[5m] offset 1h > 10e6")


def test_alerts_fire_on_their_faults_and_resolve(cluster: Cluster, tmp_path):
    """Bad data, an event time that stands still, a full disk; too much load; a frozen broker; a frozen pipeline."""
    topics.create(cluster.bootstrap, {name: {} for name in (*TOPICS, *(q.topic for q in QUERIES.values()))}, 1, 1)
    port = free_port()
    of_data = ("PipelineDeadLetters", "PipelineLateRows", "PipelineWatermarkStuck")
    with ExitStack() as stack:
        (tmp_path / "checkpoint").mkdir()
        disk = None if disks.why_not() else stack.enter_context(disks.mounted(tmp_path / "checkpoint"))
        load = stack.enter_context(loaded(cluster.bootstrap))
        job = stack.enter_context(pipeline(cluster.bootstrap, tmp_path, port))
        (tmp_path / "prometheus").mkdir()
        server = stack.enter_context(prometheus(tmp_path / "prometheus", port))

        def batches() -> float:
            counts = server.ask('pipeline_batch_duration_seconds_count{query="page_views"}')
            return float(counts[0]["value"][1]) if counts else 0.0

        eventually(lambda: batches() >= 5, lambda: (tmp_path / "pipeline.log").read_text()[-2000:])
        server.await_resolved(*of_data, "PipelineCheckpointDiskFilling")

        load.malformed, load.too_late, load.moves = 0.3, 0.3, False
        with nearly_full(disk) as of_disk:
            server.await_firing(*of_data, *of_disk)
            empty = [title for title, expression in panels().items() if not server.ask(expression)]
            assert [] == empty
        server.await_resolved("PipelineLagRising")

        load.malformed, load.too_late, load.moves, load.eps = 0.0, 0.0, True, 1_500
        server.await_firing("PipelineLagRising")
        load.eps = EPS
        server.await_resolved("PipelineLagRising", *of_data, *of_disk)
        server.await_resolved("PipelineNoCommit")

        broker = cluster.brokers[1]
        with frozen(broker.pause, broker.resume):
            server.await_firing("PipelineNoCommit")
        server.await_resolved("PipelineNoCommit", "PipelineQueryNotRunning")

        with frozen(lambda: os.killpg(job.pid, signal.SIGSTOP), lambda: os.killpg(job.pid, signal.SIGCONT)):
            server.await_firing("PipelineQueryNotRunning")
        server.await_resolved("PipelineQueryNotRunning")
        assert 0 < committed(cluster.bootstrap) <= load.sent
