"""Java's classes laid out once in an archive, so that later starts of Spark map them instead of loading them.

`python -m pipeline.classes --jars DIR ARCHIVE` runs every query over a few records and writes the archive, about 180 MB.
A pipeline that is started with ``SPARK_SUBMIT_OPTS=-XX:SharedArchiveFile=ARCHIVE`` then has its first batches in
three quarters of the time. It is Java's own class-data sharing: Java passes over an archive that does not fit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from pyspark import SparkContext
from pyspark.sql import SparkSession

from pipeline import generator, job, queries
from pipeline import settings as flags
from pipeline.schema import CLICKSTREAM, QUERIES, TRANSACTIONS
from pipeline.settings import Settings
from pipeline.transforms import COLUMNS

RECORDS = 500


def main() -> int:
    """Lay out the classes; 1 where Java could not write them, and then there is no archive."""
    args = _arguments()
    java_options = (f"-XX:ArchiveClassesAtExit={args.archive}", f"-Djava.io.tmpdir={tempfile.gettempdir()}")
    os.environ["SPARK_SUBMIT_OPTS"] = shlex.join(("-XX:TieredStopAtLevel=1", *java_options))
    settings = flags.parse(["--bootstrap", "none", "--checkpoint", "none", "--output", "none", "--jars", args.jars])
    # An archive fits a longer class path than its own, and no shorter one, which Spark's workers have.
    settings = replace(settings, local_files="")
    spark = job.session(settings)
    with tempfile.TemporaryDirectory() as folder:
        _load(spark, settings, folder)
    spark.stop()
    assert SparkContext._gateway is not None
    java = SparkContext._gateway.proc
    java.stdin.close()
    if java.wait() != 0 or not args.archive.exists():
        args.archive.unlink(missing_ok=True)
        print(
            f"classes: Java ended with {java.returncode} and wrote no {args.archive}: is there space?", file=sys.stderr
        )
        return 1
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m pipeline.classes", description=__doc__.partition("\n")[0])
    parser.add_argument("archive", type=Path, metavar="ARCHIVE", help="file to write")
    parser.add_argument("--jars", required=True, metavar="DIR", help="folder with Spark's Kafka connector")
    return parser.parse_args()


def _load(spark: SparkSession, settings: Settings, folder: str) -> None:
    """Run every query over some records, from a folder instead of Kafka."""
    rng = random.Random(7)
    events = [generator.event(rng) for _ in range(RECORDS)] + [(CLICKSTREAM, "user", {}), (TRANSACTIONS, "user", {})]
    records = [
        (bytearray(key.encode()), bytearray(json.dumps(value).encode()), topic, 0, at)
        for at, (topic, key, value) in enumerate(events)
    ]
    spark.createDataFrame(records, COLUMNS).write.parquet(f"{folder}/records")
    stream = spark.readStream.schema(COLUMNS).parquet(f"{folder}/records")
    running = [
        queries.compute(name, [stream.where(f"topic = '{topic}'") for topic in QUERIES[name].reads], settings)
        .writeStream.trigger(availableNow=True)
        .option("checkpointLocation", f"{folder}/{name}")
        .start(f"{folder}/{name}.parquet")
        for name in QUERIES
    ]
    for query in running:
        query.awaitTermination()


if __name__ == "__main__":
    sys.exit(main())
