"""The figures of a run for Prometheus, while it goes on: load, latency, lag, faults, and the targets as they stand.

They are estimates: the verdict comes from the run directory, after the run. The latency here is that of the schedule:
event n is taken to be committed once every query has committed n events.
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import prometheus_client
from prometheus_client import CollectorRegistry, Gauge, Info
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from harness.errors import ScenarioError
from harness.host import processes
from harness.job.clickstream import events as workloads
from harness.rundir.events import Event, FaultHealed, FaultInjected, Phase, Sample
from harness.scenario import Scenario

LOOPBACK = "127.0.0.1"
LOOK_S = 0.25
LATENCY_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 20, 30, 60, 120, 300)
# Upper bounds with 1.6 % between them, in seconds: percentiles come from these.
FINE_S = np.geomspace(1e-3, 1e4, 1_000)
MEASURE = "measure"


@dataclass(frozen=True, slots=True)
class Reading:
    """Counts of events until now, p99 of the generator delay in seconds, and bytes of state. `read` is None of a black box."""

    sent: int
    acknowledged: int
    read: int | None
    delay_s: float
    state_bytes: float


class Latency:
    """Histogram of durable latency over the events of the measured part, by the schedule of the load."""

    def __init__(self, scenario: Scenario) -> None:
        self._load = scenario.load
        self._read = 0
        self.start_s = 0.0
        self.total_s = 0.0
        self.counts = np.zeros(len(LATENCY_BUCKETS_S) + 1, dtype=np.int64)
        self.fine = np.zeros(len(FINE_S) + 1, dtype=np.int64)

    def committed(self, read: int, now_s: float) -> None:
        """So many events are committed now; those that are new since the last call have their latency."""
        read = min(read, self._load.events)
        if not self.start_s or read <= self._read:
            return
        due_s = workloads.due_s(self._load.segments, np.arange(self._read, read))
        self._read = read
        warm_s = self._load.warm_up_s
        measured = due_s[(due_s >= warm_s) & (due_s < warm_s + self._load.duration_s)]
        latencies: npt.NDArray[Any] = now_s - self.start_s - measured
        self.counts += _histogram(latencies, LATENCY_BUCKETS_S)
        self.fine += _histogram(latencies, FINE_S)
        self.total_s += float(latencies.sum())

    def p99_s(self) -> float | None:
        """The 99th percentile in seconds, rounded up to a bound of `FINE_S`; None of no event."""
        total = int(self.fine.sum())
        if not total:
            return None
        at = int(np.searchsorted(self.fine.cumsum(), 0.99 * total))
        return float(FINE_S[min(at, len(FINE_S) - 1)])


class Metrics(Collector):
    """Every metric of a run, in a registry of its own. Its methods may be called from several threads."""

    def __init__(self, scenario: Scenario) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._scenario = scenario
        self._lock = threading.Lock()
        self._latency = Latency(scenario)
        self._sent = self._acknowledged = 0
        self._phase = ""
        # Of the measured part: epoch second and events read at its start, and CPU seconds of its first sample.
        self._measured: tuple[float, int] | None = None
        self._sampled: tuple[float, float] | None = None
        self._state_bytes = 0.0
        self._read = 0
        self._make_gauges()
        self.registry.register(self)

    def heed(self, event: Event) -> None:
        """Take an event of the history."""
        with self._lock:
            match event:
                case Phase():
                    self._begin(event)
                case FaultInjected():
                    self._faults.labels(event.fault.kind, event.fault.on).inc()
                case FaultHealed():
                    self._faults.labels(event.fault.kind, event.fault.on).dec()
                case Sample() if self._phase == MEASURE:
                    self._take_cpu(event)

    def begin(self, start_s: float) -> None:
        """The load begins at this epoch second."""
        self._latency.start_s = start_s

    def look(self, reading: Reading, now_s: float) -> None:
        """Take what is known of the run at an epoch second."""
        with self._lock:
            self._sent, self._acknowledged = reading.sent, reading.acknowledged
            self._delay.set(reading.delay_s)
            if reading.read is not None:
                self._read = reading.read
                self._lag.set(max(0, reading.acknowledged - reading.read))
                self._latency.committed(reading.read, now_s)
                if (p99_s := self._latency.p99_s()) is not None:
                    self._values.labels("latency").set(p99_s)
            if self._phase == MEASURE:
                self._take_targets(reading, now_s)

    def collect(self) -> Iterator[CounterMetricFamily | HistogramMetricFamily]:
        """What is counted elsewhere: events, and latencies by bucket."""
        with self._lock:
            yield CounterMetricFamily("harness_events_sent", "Events handed to the client.", self._sent)
            acknowledged = "Events that the brokers have acknowledged."
            yield CounterMetricFamily("harness_events_acknowledged", acknowledged, self._acknowledged)
            sums = self._latency.counts.cumsum().tolist()
            bounds = [*map(str, map(float, LATENCY_BUCKETS_S)), "+Inf"]
            yield HistogramMetricFamily(
                "harness_durable_latency_seconds",
                "Commit by every query less due time, of the events of the measured part so far.",
                buckets=list(zip(bounds, sums, strict=True)),
                sum_value=self._latency.total_s,
            )

    def _make_gauges(self) -> None:
        of: dict[str, Any] = {"registry": self.registry}
        offered = Gauge("harness_load_target_events_per_second", "Events offered a second, by the scenario.", **of)
        offered.set(self._scenario.load.eps)
        delay = "Send less due time of the last 5,000 events, the 99th percentile."
        self._delay = Gauge("harness_generator_delay_seconds", delay, **of)
        self._lag = Gauge("harness_lag_events", "Events acknowledged that not every query has committed.", **of)
        in_progress = "Faults that are injected and have not healed."
        self._faults = Gauge("harness_faults_in_progress", in_progress, ("kind", "target"), **of)
        for fault in self._scenario.fault:
            self._faults.labels(fault.kind, fault.on)
        self._phases = Gauge("harness_phase", "1 of the phase that the run is in, 0 of earlier ones.", ("phase",), **of)
        units = "latency in seconds, throughput in events per second, state_size in bytes, cpu as a share of cores"
        self._values = Gauge("harness_target_value", f"A target as it stands: {units}.", ("target",), **of)
        self._limits = Gauge("harness_target_limit", "The limit of a target, in the same unit.", ("target",), **of)
        limits = self._scenario.limits
        for target, limit in (
            ("latency", limits.latency_s),
            ("throughput", limits.throughput_eps),
            ("state_size", limits.state_bytes),
            ("cpu", limits.cpu_share),
        ):
            self._limits.labels(target).set(limit)
        about = {"scenario": self._scenario.name, "python": platform.python_version()}
        Info("harness_build", "The scenario that is run, and the version of Python.", **of).info(about)

    def _begin(self, phase: Phase) -> None:
        if self._phase:
            self._phases.labels(self._phase).set(0)
        self._phases.labels(phase.phase).set(1)
        self._phase = phase.phase
        if phase.phase == MEASURE:
            self._measured = (phase.t, self._read)

    def _take_cpu(self, sample: Sample) -> None:
        first_s, used_s = self._sampled = self._sampled or (sample.t, sample.pipeline_cpu_s)
        if sample.t > first_s:
            cores = (sample.pipeline_cpu_s - used_s) / (sample.t - first_s)
            given = min(self._scenario.pipeline.cores, processes.usable_cores())
            self._values.labels("cpu").set(cores / given)

    def _take_targets(self, reading: Reading, now_s: float) -> None:
        self._state_bytes = max(self._state_bytes, reading.state_bytes)
        self._values.labels("state_size").set(self._state_bytes)
        if self._measured and reading.read is not None and now_s > self._measured[0]:
            rate = (reading.read - self._measured[1]) / (now_s - self._measured[0])
            self._values.labels("throughput").set(rate)


@contextmanager
def served(scenario: Scenario, port: int | None) -> Iterator[Metrics | None]:
    """The metrics of a run, served at http://127.0.0.1:port/metrics until the context ends; None without a port.

    Raises ScenarioError where the port is not to be had.
    """
    if port is None:
        yield None
        return
    metrics = Metrics(scenario)
    try:
        server, thread = prometheus_client.start_http_server(port, LOOPBACK, metrics.registry)
    except OSError as error:
        raise ScenarioError(f"--metrics-port {port}: {error.strerror or error}") from error
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _histogram(values: npt.NDArray[Any], bounds: Any) -> npt.NDArray[np.int64]:
    """How many values are at most each bound and above the one before, and how many are above the last."""
    places = np.searchsorted(np.asarray(bounds), values, side="left")
    return np.bincount(places, minlength=len(bounds) + 1).astype(np.int64)
