"""The pipeline's figures for Prometheus, served over HTTP: counters, timestamps and sizes, fed from each batch's progress.

Counters and histograms lose nothing between two scrapes. Gauges hold the last batch. Times are epoch seconds, so that the
reader computes ages. `docs/reference/metrics.md` lists every metric.
"""

from __future__ import annotations

import math
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import prometheus_client
import pyspark
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from pipeline import transforms
from pipeline.schema import QUERIES
from pipeline.settings import Settings

BATCH_BUCKETS_S = (0.1, 0.25, 0.5, 1, 1.6, 2.5, 5, 10, 20, 30, 60, 120, 300)
"""Of `pipeline_batch_duration_seconds`; 1.6 s and 10 s are the triggers of the two profiles."""
WHOLE_BATCH = "triggerExecution"
UNKNOWN = "unknown"
JAVA = "pipeline_java"
"""What the names of the Java process's metrics begin with."""


class Metrics:
    """Every metric of a pipeline, in a registry of its own."""

    def __init__(self, settings: Settings) -> None:
        """`settings` name the queries, their triggers and the checkpoint whose disk is watched."""
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._settings = settings
        of_registry: dict[str, Any] = {"registry": self.registry}
        self._count_rows(of_registry)
        self._time_batches(of_registry)
        self._size_state(of_registry)
        self._note_times(of_registry)
        self._follow_lag(of_registry)
        self._describe(of_registry)

    def started(self, committed_s: Mapping[str, float]) -> None:
        """Every query runs. `committed_s` is the epoch second of each query's last commit, or of the start where it has none."""
        self._standing_by.set(0)
        for query, at_s in committed_s.items():
            self._active.labels(query).set(1)
            self._last_commit_s.labels(query).set(at_s)

    def stands_by(self) -> None:
        """The pipeline waits for the checkpoint."""
        self._standing_by.set(1)

    def batch(self, query: str, progress: Mapping[str, Any]) -> None:
        """Take Spark's progress of a batch that has ended."""
        self._take_rows(query, progress)
        self._take_durations(query, progress)
        self._take_state(query, progress.get("stateOperators") or ())
        self._take_times(query, progress)

    def died(self, query: str) -> None:
        """A query has ended by itself."""
        self._active.labels(query).set(0)
        self._failures.labels(query).inc()

    def lag(self, query: str, topic: str, partition: int, records: int) -> None:
        """Records of a partition that brokers have and the query has not committed."""
        self._lag.labels(query, topic, str(partition)).set(records)

    def lag_failed(self) -> None:
        """The brokers could not be asked for their end offsets, or did not take those of the consumer group."""
        self._lag_failures.inc()

    def watch_java(self, pid: int) -> None:
        """Add CPU, memory and files of Spark's Java process."""
        ProcessCollector(namespace=JAVA, pid=lambda: pid, registry=self.registry)

    def _count_rows(self, of: Mapping[str, Any]) -> None:
        self._input = Counter(
            "pipeline_input_rows_total", "Records read, by query and topic.", ("query", "topic"), **of
        )
        self._output = Counter(
            "pipeline_output_rows_total", "Rows written to a sink that counts them.", ("query",), **of
        )
        late = "Rows dropped as late, counted by Spark after it has put together those of one group in a batch."
        self._late = Counter("pipeline_late_rows_total", late, ("query",), **of)
        dead = "Records rejected, by topic and reason."
        self._dead = Counter("pipeline_dead_letters_total", dead, ("topic", "reason"), **of)
        failures = "Queries that ended by themselves."
        self._failures = Counter("pipeline_query_failures_total", failures, ("query",), **of)
        # A series that begins above 0 would hide its first increase from Prometheus.
        for query in self._settings.queries:
            self._failures.labels(query)
            if self._settings.sinks[query] == "kafka":
                self._output.labels(query)
            if query != "dead_letter":
                self._late.labels(query)
            for topic in QUERIES[query].reads:
                name = self._settings.topic_prefix + topic
                self._input.labels(query, name)
                for reason in transforms.reasons(topic) if query == "dead_letter" else ():
                    self._dead.labels(name, reason)

    def _time_batches(self, of: Mapping[str, Any]) -> None:
        duration = "Time from a batch's trigger to its commit."
        self._duration = Histogram(
            "pipeline_batch_duration_seconds", duration, ("query",), buckets=BATCH_BUCKETS_S, **of
        )
        phases = "Time spent in each phase of batches, by Spark's name of the phase."
        self._phases = Counter("pipeline_batch_phase_seconds_total", phases, ("query", "phase"), **of)
        trigger = Gauge("pipeline_trigger_interval_seconds", "Time from batch to batch, as set.", ("query",), **of)
        for query in self._settings.queries:
            self._duration.labels(query)
            trigger.labels(query).set(self._settings.interval_ms(query) / 1e3)

    def _size_state(self, of: Mapping[str, Any]) -> None:
        by_operator = ("query", "operator")
        self._state_rows = Gauge("pipeline_state_rows", "Rows of state, by state operator.", by_operator, **of)
        self._state_bytes = Gauge("pipeline_state_bytes", "Memory of state, by state operator.", by_operator, **of)
        size = Gauge("pipeline_checkpoint_disk_size_bytes", "Size of the checkpoint's file system.", **of)
        free = Gauge("pipeline_checkpoint_disk_free_bytes", "Free bytes of the checkpoint's file system.", **of)
        checkpoint = Path(self._settings.checkpoint.removeprefix("file://"))
        size.set_function(lambda: _disk(checkpoint, "total"))
        free.set_function(lambda: _disk(checkpoint, "free"))

    def _note_times(self, of: Mapping[str, Any]) -> None:
        watermark = "Event time before which rows are late."
        self._watermark_s = Gauge("pipeline_watermark_timestamp_seconds", watermark, ("query",), **of)
        newest = "Newest event time read; of conversions in the linear form shifted by its horizon, like its watermark."
        self._newest_s = Gauge("pipeline_newest_event_timestamp_seconds", newest, ("query",), **of)
        self._newest: dict[str, float] = {}
        last = "End of the last batch; before the first one, the last commit of the checkpoint or the start."
        self._last_commit_s = Gauge("pipeline_last_commit_timestamp_seconds", last, ("query",), **of)

    def _follow_lag(self, of: Mapping[str, Any]) -> None:
        lag = "Records that brokers have and the query has not committed."
        self._lag = Gauge("pipeline_lag_records", lag, ("query", "topic", "partition"), **of)
        failures = "Attempts to ask brokers for end offsets, or to write those of the consumer group, that failed."
        self._lag_failures = Counter("pipeline_lag_failures_total", failures, **of)

    def _describe(self, of: Mapping[str, Any]) -> None:
        self._active = Gauge("pipeline_query_active", "1 while a query runs, 0 once it has ended.", ("query",), **of)
        self._standing_by = Gauge("pipeline_standing_by", "1 while a standby waits for the checkpoint.", **of)
        versions = {"version": _version(), "spark": pyspark.__version__, "python": platform.python_version()}
        Info("pipeline_build", "Versions of the pipeline, of Spark and of Python.", **of).info(versions)
        ProcessCollector(registry=self.registry)

    def _take_rows(self, query: str, progress: Mapping[str, Any]) -> None:
        for source in progress.get("sources") or ():
            self._input.labels(query, topic_of(source)).inc(max(0, source.get("numInputRows") or 0))
        written = (progress.get("sink") or {}).get("numOutputRows", -1)
        if written >= 0:  # -1 of a sink that does not count
            self._output.labels(query).inc(written)
        for name, count in ((progress.get("observedMetrics") or {}).get("dead_letter") or {}).items():
            topic, _, reason = name.partition("|")
            self._dead.labels(topic, reason).inc(count)

    def _take_durations(self, query: str, progress: Mapping[str, Any]) -> None:
        for phase, ms in (progress.get("durationMs") or {}).items():
            if phase == WHOLE_BATCH:
                self._duration.labels(query).observe(ms / 1e3)
            else:
                self._phases.labels(query, phase).inc(max(0, ms) / 1e3)

    def _take_state(self, query: str, operators: Any) -> None:
        for number, operator in enumerate(operators):
            labels = (query, f"{number} {operator.get('operatorName', UNKNOWN)}")
            self._state_rows.labels(*labels).set(operator.get("numRowsTotal", 0))
            self._state_bytes.labels(*labels).set(operator.get("memoryUsedBytes", 0))
            self._late.labels(query).inc(max(0, operator.get("numRowsDroppedByWatermark") or 0))

    def _take_times(self, query: str, progress: Mapping[str, Any]) -> None:
        ms = (progress.get("durationMs") or {}).get(WHOLE_BATCH, 0)
        self._last_commit_s.labels(query).set(_epoch_s(progress["timestamp"]) + ms / 1e3)
        times = progress.get("eventTime") or {}
        if (watermark_s := _epoch_s(times.get("watermark"))) > 0:  # Spark begins at the epoch
            self._watermark_s.labels(query).set(watermark_s)
        if (newest_s := _epoch_s(times.get("max"))) > self._newest.get(query, 0):
            self._newest[query] = newest_s
            self._newest_s.labels(query).set(newest_s)


@contextmanager
def served(metrics: Metrics, host: str, port: int) -> Iterator[None]:
    """Serve the metrics at http://host:port/metrics until the context ends. Raises OSError where the port is not to be had."""
    server, thread = prometheus_client.start_http_server(port, host, metrics.registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def topic_of(source: Mapping[str, Any]) -> str:
    """The topic of a source, as Spark describes it: ``KafkaV2[Subscribe[clickstream]]``."""
    return str(source.get("description", "")).partition("Subscribe[")[2].rstrip("]") or UNKNOWN


def _epoch_s(iso: str | None) -> float:
    return datetime.fromisoformat(iso).timestamp() if iso else 0.0


def _disk(folder: Path, what: str) -> float:
    """Bytes of the file system that holds a folder, or will hold it; NaN where that cannot be read."""
    try:
        nearest = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
        return float(getattr(shutil.disk_usage(nearest), what))
    except OSError:
        return math.nan


def _version() -> str:
    try:
        return metadata.version("streaming-harness")
    except metadata.PackageNotFoundError:  # run from an archive of its files
        return UNKNOWN
