"""The figures of a run while it goes on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from dataclasses import replace

import prometheus_client
import pytest
from test_metrics import PAGE, listed, served_metrics

from harness import scenario
from harness.errors import ScenarioError
from harness.host import processes
from harness.rundir import history
from harness.rundir.events import FaultHealed, FaultInjected, Phase, Sample
from harness.runner.metrics import FINE_S, Latency, Metrics, Reading, served
from harness.scenario import Fault, Load, Scenario

FAULT = Fault(kind="kill", on="broker 1", at=5)
START_S = 1_000.0


@pytest.fixture
def asked() -> Scenario:
    """100 events a second for 10 s, of which the first 2 s are not measured; one fault."""
    load = Load(eps=100, warm_up_s=2, duration_s=8)
    return replace(scenario.load("load"), load=load, fault=(FAULT,))


@pytest.fixture
def metrics(asked) -> Metrics:
    """Its metrics, when the load begins."""
    live = Metrics(asked)
    live.begin(START_S)
    return live


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of a sample; None where there is none."""
    return metrics.registry.get_sample_value(name, labels)


def reading(read: int | None, sent: int = 1_000) -> Reading:
    """So many events sent, acknowledged and read, with 3 ms of delay and 70 bytes of state."""
    return Reading(sent, sent, read, 0.003, 70.0)


def sample(at_s: float, cpu_s: float) -> Sample:
    """CPU seconds of the pipeline."""
    return Sample(t=at_s, pipeline_cpu_s=cpu_s, generator_cpu_s=0, harness_cpu_s=0, machine_cpu_s=0)


def test_latency_is_of_the_measured_events_alone(asked):
    """Events 0 to 199 are due in the warm-up. 200 to 299 are due from 2 to 3 s, and committed at 4 s."""
    latency = Latency(asked)
    latency.start_s = START_S
    latency.committed(200, START_S + 3)
    assert 0 == latency.counts.sum()
    latency.committed(300, START_S + 4)
    assert 100 == latency.counts.sum()
    assert pytest.approx(150.5) == latency.total_s
    assert pytest.approx(2.0, rel=0.02) == latency.p99_s()
    latency.committed(300, START_S + 90)
    assert 100 == latency.counts.sum()


def test_flush_events_have_no_latency(asked):
    """They are sent when the load is over, and due never."""
    latency = Latency(asked)
    latency.start_s = START_S
    latency.committed(1_002, START_S + 11)

    assert 800 == latency.counts.sum()


def test_percentiles_are_rounded_up():
    """A target that is missed must not look as if it was met; between two bounds there is less than 2 %."""
    assert 1.0 < FINE_S[1] / FINE_S[0] < 1.02


def test_events_and_lag_are_those_of_the_last_look(metrics):
    """And the latencies are in their buckets."""
    metrics.look(reading(300), START_S + 4)

    assert 1_000 == value(metrics, "harness_events_sent_total")
    assert 1_000 == value(metrics, "harness_events_acknowledged_total")
    assert 700 == value(metrics, "harness_lag_events")
    assert 0.003 == value(metrics, "harness_generator_delay_seconds")
    assert 0 == value(metrics, "harness_durable_latency_seconds_bucket", le="1.0")
    assert 100 == value(metrics, "harness_durable_latency_seconds_bucket", le="2.0")
    assert 100 == value(metrics, "harness_durable_latency_seconds_count")


def test_a_black_box_has_no_lag_and_no_latency(metrics):
    """What it has read is not known."""
    metrics.heed(Phase(t=START_S + 2, phase="measure"))
    metrics.look(reading(None), START_S + 4)

    assert 0 == value(metrics, "harness_lag_events")
    assert value(metrics, "harness_target_value", target="latency") is None
    assert value(metrics, "harness_target_value", target="throughput") is None


def test_targets_are_measured_in_their_phase_alone(metrics, asked):
    """Throughput and CPU from its start, beside their limits. Events that are committed later count for the latency."""
    metrics.look(reading(150), START_S + 2)
    metrics.heed(Phase(t=START_S + 2, phase="measure"))
    for at_s, cpu_s in ((2.0, 10.0), (6.0, 14.0)):
        metrics.heed(sample(START_S + at_s, cpu_s))
    metrics.look(reading(550), START_S + 6)
    metrics.heed(Phase(t=START_S + 10, phase="drain"))
    metrics.heed(sample(START_S + 20, 99.0))
    metrics.look(reading(1_000), START_S + 20)

    assert 100 == value(metrics, "harness_target_value", target="throughput")
    assert pytest.approx(14.43, rel=0.02) == value(metrics, "harness_target_value", target="latency")
    assert 1 / min(2, processes.usable_cores()) == value(metrics, "harness_target_value", target="cpu")
    assert 70 == value(metrics, "harness_target_value", target="state_size")
    assert 1_000 == value(metrics, "harness_target_limit", target="throughput")
    assert 0 == value(metrics, "harness_phase", phase="measure")
    assert 1 == value(metrics, "harness_phase", phase="drain")


def test_faults_are_in_progress_until_they_heal(metrics):
    """By kind and target."""
    labels = {"kind": "kill", "target": "broker 1"}
    assert 0 == value(metrics, "harness_faults_in_progress", **labels)
    metrics.heed(FaultInjected(index=0, fault=FAULT))
    assert 1 == value(metrics, "harness_faults_in_progress", **labels)
    metrics.heed(healed())
    assert 0 == value(metrics, "harness_faults_in_progress", **labels)


def healed() -> FaultHealed:
    """The end of the fault."""
    counts = {"acknowledged": 0, "unread": 0, "at_s": 0.0, "effect_observed": True, "proof": {}, "healed_s": 1.0}
    return FaultHealed(index=0, fault=FAULT, targets=("broker 1",), **counts)


def test_the_history_is_heeded_with_its_times(tmp_path):
    """As it is written."""
    heard = []
    with history.recording(tmp_path, heard.append) as recorder:
        recorder.write(Phase(phase="measure"))

    assert ["measure"] == [event.phase for event in heard]
    assert heard[0].t > 0


def fed(metrics: Metrics) -> Metrics:
    """With every label seen."""
    metrics.heed(Phase(t=START_S, phase="measure"))
    metrics.look(reading(300), START_S + 4)
    return metrics


def test_every_metric_of_a_run_is_documented(metrics):
    """Name, type, labels and meaning are those of the page."""
    assert served_metrics(fed(metrics).registry) == listed(PAGE.read_text(encoding="utf-8"), "Of a run of the harness")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus")
def test_names_of_a_run_follow_the_conventions(metrics):
    """By Prometheus' own linter."""
    page = prometheus_client.generate_latest(fed(metrics).registry)
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stdout + done.stderr)


def test_a_run_is_served_until_its_end(asked):
    """On loopback; a port that is taken is bad usage."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(asked, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            assert b"harness_load_target_events_per_second 100.0" in answer.read()
        with pytest.raises(ScenarioError, match=f"--metrics-port {port}: Address already in use"), served(asked, port):
            pass
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10):
        pass


def test_a_run_without_a_port_has_no_metrics(asked):
    """Nothing is counted."""
    with served(asked, None) as metrics:
        assert metrics is None
