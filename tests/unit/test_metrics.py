"""What the pipeline reports to Prometheus, from Spark's progress."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry

from pipeline import job, settings
from pipeline.metrics import Metrics, served

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "metrics.md"


def progress(**changed: Any) -> dict[str, Any]:
    """Spark's progress of a batch of conversions."""
    source = {
        "description": "KafkaV2[Subscribe[clickstream]]",
        "endOffset": {"clickstream": {"0": 7, "1": 5}},
        "numInputRows": 10,
    }
    operator = {"operatorName": "stateStoreSave", "numRowsTotal": 3, "memoryUsedBytes": 480}
    return {
        "timestamp": "2026-12-01T00:00:10.500Z",
        "batchId": 2,
        "durationMs": {"addBatch": 3000, "triggerExecution": 4500, "walCommit": 250},
        "eventTime": {"max": "2026-01-01T00:20:00.000Z", "watermark": "2026-01-01T00:10:00.000Z"},
        "stateOperators": [operator | {"numRowsDroppedByWatermark": 2}, operator | {"numRowsDroppedByWatermark": 1}],
        "sources": [source, source | {"description": "KafkaV2[Subscribe[transactions]]", "numInputRows": 4}],
        "sink": {"numOutputRows": 6},
    } | changed


@pytest.fixture
def asked(tmp_path) -> settings.Settings:
    """The settings of a pipeline with all its queries."""
    where = ["--checkpoint", str(tmp_path / "checkpoint"), "--output", str(tmp_path)]
    return settings.parse(["--bootstrap", "b:1", *where, "--metrics-port", "9464"])


@pytest.fixture
def metrics(asked) -> Metrics:
    """Its metrics, before the first batch."""
    return Metrics(asked)


def fed(metrics: Metrics) -> Metrics:
    """After a batch of two queries, with every label seen."""
    metrics.started(dict.fromkeys(settings.QUERIES, 5.0))
    metrics.batch("conversions", progress())
    observed = {"dead_letter": {"clickstream|type user_id": 4, "transactions|not json": 0}}
    metrics.batch("dead_letter", progress(eventTime={}, stateOperators=[], observedMetrics=observed))
    metrics.lag("conversions", "clickstream", 1, 12)
    metrics.watch_java(1)
    return metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The value of a sample; None where there is none."""
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("pipeline_input_rows_total", {"topic": "clickstream"}, 20),
        ("pipeline_input_rows_total", {"topic": "transactions"}, 8),
        ("pipeline_output_rows_total", {}, 12),
        ("pipeline_late_rows_total", {}, 6),
        ("pipeline_batch_duration_seconds_count", {}, 2),
        ("pipeline_batch_duration_seconds_sum", {}, 9),
        ("pipeline_batch_phase_seconds_total", {"phase": "addBatch"}, 6),
        ("pipeline_trigger_interval_seconds", {}, 1.6),
        ("pipeline_state_rows", {"operator": "1 stateStoreSave"}, 3),
        ("pipeline_state_bytes", {"operator": "0 stateStoreSave"}, 480),
        ("pipeline_watermark_timestamp_seconds", {}, 1767226200),
        ("pipeline_newest_event_timestamp_seconds", {}, 1767226800),
        ("pipeline_last_commit_timestamp_seconds", {}, 1796083215),
        ("pipeline_query_active", {}, 1),
    ],
)
def test_counters_add_up_and_gauges_hold_the_last_batch(metrics, name, labels, expected):
    """Of two equal batches; times are epoch seconds."""
    metrics.started(dict.fromkeys(settings.QUERIES, 5.0))
    for _ in range(2):
        metrics.batch("conversions", progress())

    assert expected == value(metrics, name, query="conversions", **labels)


def test_dead_letters_are_counted_by_topic_and_reason(metrics):
    """A reason that no record had is 0: a series that appears later would hide its first increase."""
    fed(metrics)

    assert 4 == value(metrics, "pipeline_dead_letters_total", topic="clickstream", reason="type user_id")
    assert 0 == value(metrics, "pipeline_dead_letters_total", topic="transactions", reason="too deep")


def test_a_sink_that_counts_no_rows_has_no_output(metrics):
    """Spark reports -1 for Parquet; a counter cannot go down."""
    metrics.batch("revenue", progress(sink={"numOutputRows": -1}))

    assert value(metrics, "pipeline_output_rows_total", query="revenue") is None


def test_the_watermark_before_the_first_event_is_left_out(metrics):
    """Spark begins at the epoch, which would be a lag of decades."""
    metrics.batch("sessions", progress(eventTime={"watermark": "1970-01-01T00:00:00.000Z"}))

    assert value(metrics, "pipeline_watermark_timestamp_seconds", query="sessions") is None


def test_the_newest_event_never_goes_back(metrics):
    """A batch of late events has an older newest event."""
    metrics.batch("sessions", progress())
    metrics.batch("sessions", progress(eventTime={"max": "2026-01-01T00:00:00.000Z"}))

    assert 1767226800 == value(metrics, "pipeline_newest_event_timestamp_seconds", query="sessions")


def test_a_dead_query_is_counted_and_inactive(metrics):
    """The others stay as they are."""
    metrics.started(dict.fromkeys(settings.QUERIES, 5.0))
    metrics.died("revenue")

    assert 0 == value(metrics, "pipeline_query_active", query="revenue")
    assert 1 == value(metrics, "pipeline_query_active", query="sessions")
    assert 1 == value(metrics, "pipeline_query_failures_total", query="revenue")


def test_a_standby_has_no_query(metrics):
    """It must not be taken for a pipeline whose queries have died."""
    metrics.stands_by()

    assert 1 == value(metrics, "pipeline_standing_by")
    assert value(metrics, "pipeline_query_active", query="revenue") is None


def test_a_checkpoint_on_a_disk_that_is_gone_is_no_number(metrics, monkeypatch):
    """A scrape must not fail because a disk did."""

    def gone(path: Path) -> None:
        raise OSError(5, "Input/output error")

    assert value(metrics, "pipeline_checkpoint_disk_free_bytes") > 0
    monkeypatch.setattr(shutil, "disk_usage", gone)
    assert "nan" == str(value(metrics, "pipeline_checkpoint_disk_free_bytes"))


def test_metrics_are_served_until_the_end(metrics):
    """On the address that was asked for, and no other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(metrics, "127.0.0.1", port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", port), timeout=10):
            pass
    assert 'pipeline_query_failures_total{query="revenue"} 0.0' in page
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=10):
        pass


def test_a_port_that_is_taken_is_one_line(asked):
    """Before Spark is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        again = ["--bootstrap", "b:1", "--checkpoint", asked.checkpoint, "--output", asked.output]
        with pytest.raises(job.JobError) as refused:
            job._run(settings.parse([*again, "--metrics-port", str(port)]), [])

    assert f"--metrics-port {port} at 127.0.0.1: Address already in use" == str(refused.value)


def test_a_library_that_is_missing_is_one_line(asked, monkeypatch):
    """A cluster's image may have Spark and no more."""
    monkeypatch.delitem(sys.modules, "pipeline.metrics")
    monkeypatch.delattr("pipeline.metrics")
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(job.JobError) as refused:
        job._run(asked, [])

    assert "--metrics-port 9464: prometheus_client is not installed" == str(refused.value)


def test_without_the_flag_nothing_is_imported():
    """Who does not ask for metrics pays nothing for them."""
    loaded = "import sys; from pipeline import job; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()


def listed(page: str, heading: str) -> dict[str, tuple[str, str, str]]:
    """Metric → (type, labels, meaning), from the table below a heading."""
    part = page[page.index(f"\n## {heading}\n") + 4 :].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", part, re.MULTILINE)
    return {name: (kind, labels, meaning) for name, kind, labels, meaning in rows}


def served_metrics(registry: CollectorRegistry) -> dict[str, tuple[str, str, str]]:
    """Metric → (type, labels, meaning), as they are served."""
    found = {}
    for family in registry.collect():
        name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = {"info": "gauge"}.get(family.type, family.type)
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (kind, ", ".join(f"`{label}`" for label in sorted(labels)), family.documentation)
    return found


def test_every_metric_is_documented(metrics):
    """Name, type, labels and meaning are those of the page."""
    assert served_metrics(fed(metrics).registry) == listed(PAGE.read_text(encoding="utf-8"), "Of the pipeline")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is missing: apt install prometheus")
def test_names_follow_the_conventions_of_prometheus(metrics):
    """By Prometheus' own linter."""
    page = prometheus_client.generate_latest(fed(metrics).registry)
    done = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stdout + done.stderr)
