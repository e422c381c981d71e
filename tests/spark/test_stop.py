"""What a stop says of a batch that it breaks off."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.spark

STOPS_IN_A_BATCH = """
import pathlib, sys, time
from pyspark.sql import SparkSession
from pipeline import job

folder = pathlib.Path(sys.argv[1])
spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
spark.sparkContext.setLogLevel("ERROR")
rows = spark.readStream.format("rate").load().selectExpr("java_method('java.lang.Thread', 'sleep', 600000L) AS slept")
files = rows.writeStream.format("parquet").option("path", str(folder / "rows"))
query = files.option("checkpointLocation", str(folder / "checkpoint")).queryName("slow").start()
# The first batch may have no rows; of one with rows a task is under way.
while not spark.sparkContext.statusTracker().getActiveStageIds():
    time.sleep(0.05)
job.BETWEEN_BATCHES_S = 0
job._follow(spark, [query], [15], lambda query: None)
spark.stop()
"""


def test_broken_batch_is_named_without_stack(tmp_path):
    """Spark would write one for each of its tasks; a stop is nobody's failure."""
    command = [sys.executable, "-c", STOPS_IN_A_BATCH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    assert "pipeline: a batch of slow is broken off after 0 s" in done.stderr
    assert "\tat " not in done.stderr
