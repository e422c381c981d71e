"""One local Spark for all Spark tests, and records in the shape of its Kafka source."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator

import pytest
from pyspark.sql import DataFrame, SparkSession

from pipeline.schema import CLICKSTREAM, TRANSACTIONS
from pipeline.settings import FAST_CHECKPOINTS
from pipeline.transforms import COLUMNS


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Two cores, no UI, UTC."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "1")
        .config("spark.sql.adaptive.enabled", "false")
        .config("spark.sql.variant.allowDuplicateKeys", "true")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .config("spark.sql.streaming.checkpointFileManagerClass", FAST_CHECKPOINTS)
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


Records = Callable[[list[bytes], list[bytes]], tuple[DataFrame, DataFrame]]


@pytest.fixture(scope="session")
def records(spark: SparkSession) -> Records:
    """(clickstream values, transaction values) → their DataFrames, offsets counting from 0."""

    def make(clicks: list[bytes], transactions: list[bytes]) -> tuple[DataFrame, DataFrame]:
        frames = [
            spark.createDataFrame(
                [(bytearray(b"k"), bytearray(v), topic, 0, at) for at, v in enumerate(values)], COLUMNS
            )
            for topic, values in ((CLICKSTREAM, clicks), (TRANSACTIONS, transactions))
        ]
        return frames[0], frames[1]

    return make
