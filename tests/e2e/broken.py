"""The pipeline with defects planted in it, for runs that must fail: `python broken.py DEFECT,… …pipeline flags`.

A harness that never fails a wrong pipeline proves nothing. Production code has no switch for this;
a defect replaces functions of `pipeline` from outside.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.streaming import DataStreamWriter

from pipeline import job, transforms


def counted_twice() -> None:
    """One clickstream event in ten thousand counts twice in page_views."""
    right = transforms.page_views

    def page_views(records, **rest):
        again = records.where((F.col("offset") % 10_000) == 77)
        return right(records.unionByName(again), **rest)

    transforms.page_views = page_views


def pairs() -> None:
    """The plain left-outer join: each click counts once per purchase."""

    def linear(clicks: DataFrame, purchases: DataFrame, once: bool, one_task: bool) -> DataFrame:
        right = purchases.selectExpr("user_id buyer", "product_id bought", "timestamp bought_at")
        within = "user_id = buyer AND product_id = bought AND bought_at >= timestamp"
        joined = clicks.withWatermark("timestamp", transforms.DELAY).join(
            right.withWatermark("bought_at", transforms.DELAY),
            F.expr(f"{within} AND bought_at <= timestamp + INTERVAL 10 MINUTES"),
            "leftOuter",
        )
        grouped = joined.groupBy(F.window("timestamp", "5 minutes"), "product_id")
        counted = grouped.agg(F.count("*").alias("clicks"), F.count("buyer").alias("purchases"))
        return counted.withColumns({"window_start": F.col("window.start"), "window_end": F.col("window.end")})

    transforms._linear = linear


def approximate() -> None:
    """approx_count_distinct for distinct users."""
    right = F.size
    transforms.F = _Functions(size=lambda column: _approximate(right, column))


class _Functions:
    """pyspark.sql.functions with some of them replaced."""

    def __init__(self, **replaced: Callable) -> None:
        self.__dict__.update(replaced)

    def __getattr__(self, name: str):
        return getattr(F, name)


def _approximate(right, column):
    return F.approx_count_distinct("user_id", 0.2) if "user_id" in str(column) else right(column)


def shifted_window() -> None:
    """Windows of page_views begin a millisecond late."""
    transforms.F = _Functions(window=_shifted)


def _shifted(column, length):
    return F.window(column, length, startTime="1 millisecond") if length == "60 seconds" else F.window(column, length)


def open_boundary() -> None:
    """< for <= at ten minutes."""
    transforms.CONVERSION_HORIZON_MS = 10 * 60_000 - 1


def short_watermark() -> None:
    """A watermark delay of four minutes."""
    transforms.DELAY = "240 seconds"


def short_sessions() -> None:
    """Sessions end after 29 minutes."""
    transforms.SESSION_GAP_S = 29 * 60


def doubles() -> None:
    """Doubles for decimals."""
    right = transforms.valid

    def valid(records: DataFrame, topic: str) -> DataFrame:
        events = right(records, topic)
        return events.withColumn("amount", F.col("amount").cast("double")) if "amount" in events.columns else events

    transforms.valid = valid


def swallowed() -> None:
    """Dead letters are swallowed."""
    right = transforms.dead_letter
    transforms.dead_letter = lambda *records, **rest: right(*records, **rest).where("offset % 2 = 0")


def written_twice() -> None:
    """A row in a hundred is written twice."""
    right = transforms.page_views

    def page_views(records, **rest):
        again = F.when(F.hash("window_start", "product_id") % 100 == 0, F.array(F.lit(1), F.lit(2)))
        return right(records, **rest).withColumn("n", F.explode(F.coalesce(again, F.array(F.lit(1))))).drop("n")

    transforms.page_views = page_views


def missing() -> None:
    """One session in 5,000 is missing."""
    right = transforms.sessions
    transforms.sessions = lambda *records, **rest: right(*records, **rest).where(
        F.hash("session_id", "session_start") % 5000 != 7
    )


def state_kept() -> None:
    """State that is never dropped: event ids are remembered for ever."""
    right = transforms._watermarked
    transforms._watermarked = lambda records, topic, *rest: right(records, topic, *rest).dropDuplicates(
        [transforms.INPUT[topic][0].name]
    )


def append_sink() -> None:
    """Parquet files are appended by every attempt at a batch, instead of once a batch, and no question asked."""
    job.checkpoint.whole = lambda settings: None
    right_format, right_start = DataStreamWriter.format, DataStreamWriter.start

    def start(writer, *args, **rest):
        path = getattr(writer, "appended", None)
        if path is None:
            return right_start(writer, *args, **rest)
        return right_start(writer.foreachBatch(lambda batch, number: batch.write.mode("append").parquet(path[0])))

    def format(writer, source):
        if source != "parquet":
            return right_format(writer, source)
        writer.appended = []
        return writer

    def option(writer, name, value, right=DataStreamWriter.option):
        if name == "path":
            writer.appended.append(value)
            return writer
        return right(writer, name, value)

    DataStreamWriter.format, DataStreamWriter.start, DataStreamWriter.option = format, start, option


def brittle() -> None:
    """A malformed record ends the job."""
    right = transforms.dead_letter
    transforms.dead_letter = lambda *records, **rest: right(*records, **rest).withColumn(
        "reason", F.raise_error(F.concat(F.lit("cannot be parsed: "), "reason"))
    )


def forgetful() -> None:
    """Each start begins with an empty checkpoint, and with no question asked."""
    shutil.rmtree(sys.argv[sys.argv.index("--checkpoint") + 1], ignore_errors=True)
    job.checkpoint.whole = lambda settings: None


DEFECTS = {
    one.__name__: one
    for one in (
        counted_twice,
        pairs,
        approximate,
        shifted_window,
        open_boundary,
        short_watermark,
        short_sessions,
        doubles,
        swallowed,
        written_twice,
        missing,
        state_kept,
        append_sink,
        brittle,
        forgetful,
    )
}

if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        DEFECTS[name]()
    sys.exit(job.main(sys.argv[2:]))
