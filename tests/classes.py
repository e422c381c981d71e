"""Spark's Java classes laid out once, so that every later start maps them instead of loading them: a quarter less CPU.

Most of what the tests cost is some hundred starts of Spark. The archive is Java's own (class-data sharing),
about 200 MB in pytest's cache; Java passes over one that does not fit.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from pyspark import SparkContext, __version__

from harness import jars, workload
from harness.workload import TOPICS, Workload
from pipeline import job, settings
from pipeline.schema import QUERIES

PATIENCE_S = 300
COLUMNS = "key binary, value binary, topic string, partition int, offset long"
"""Records in the shape of Spark's Kafka source."""


def flag(folder: Path) -> str:
    """What has Java use the archive in `folder`, made where it is missing; empty where it cannot be, or another test is at it."""
    archive = folder / f"classes-{__version__}.jsa"
    with (folder / "classes").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return ""
        if not archive.exists():
            _make(archive)
    return f"-XX:SharedArchiveFile={archive}" if archive.exists() else ""


@functools.cache
def _make(archive: Path) -> None:
    """Once a process at most: where it fails, tests are slower and nothing else."""
    fresh = archive.with_suffix(".fresh")
    flags = f"-XX:TieredStopAtLevel=1 -XX:ArchiveClassesAtExit={fresh}"
    environment = {**os.environ, "SPARK_SUBMIT_OPTS": flags}
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(subprocess.TimeoutExpired):
        command = [sys.executable, __file__, folder]
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=PATIENCE_S)
        if done.returncode == 0 and fresh.exists():
            os.replace(fresh, archive)


def _load(folder: Path) -> None:
    """Run every query of the pipeline over some records, from a folder instead of Kafka, and end in an orderly way."""
    places = ["--bootstrap", "none", "--checkpoint", "none", "--output", "none", "--jars", str(jars.spark_jars())]
    given = settings.parse(places)
    spark = job.session(given)
    events = workload.batch(Workload(malformed=0.1), 7, 100, 0, 500)
    rows = zip(events.keys, events.values, events.topic, strict=True)
    records = [(key, value, TOPICS[topic], 0, offset) for offset, (key, value, topic) in enumerate(rows)]
    spark.createDataFrame(records, COLUMNS).write.mode("overwrite").parquet(f"{folder}/records")
    stream = spark.readStream.schema(COLUMNS).parquet(f"{folder}/records")
    queries = [
        job.compute(name, [stream.where(f"topic = '{topic}'") for topic in QUERIES[name].reads], given)
        .writeStream.trigger(availableNow=True)
        .option("checkpointLocation", f"{folder}/{name}")
        .start(f"{folder}/{name}.parquet")
        for name in QUERIES
    ]
    for query in queries:
        query.awaitTermination()
    spark.stop()
    java = SparkContext._gateway.proc
    java.stdin.close()
    java.wait()


if __name__ == "__main__":
    _load(Path(sys.argv[1]))
