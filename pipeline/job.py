"""The job: start Spark, then the queries on a checkpoint that may be continued, and run until a signal asks to stop.

Exit code 0 after SIGTERM or SIGINT, 1 when a query died or the job could not start, 2 for bad usage,
128 + N where signal N ended Spark's Java process; each with one line on standard error. Standard output carries JSON lines: started, progress,
stopped; before them, of a standby, standing by and taking over.
"""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # as a file, for spark-submit
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pyspark
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql.streaming.query import StreamingQuery
from pyspark.sql.streaming.readwriter import DataStreamWriter

from pipeline import broker, checkpoint, claim, lag, loss, queries
from pipeline import settings as flags
from pipeline.broker import BrokerError
from pipeline.checkpoint import CheckpointError, Reach
from pipeline.loss import Lost, Topic
from pipeline.progress import Listener, Progress, emit
from pipeline.schema import QUERIES
from pipeline.settings import GATEWAY, LOCAL_FILES_JAR, PINNED, Settings

if TYPE_CHECKING:
    from pipeline.metrics import Metrics

LOOK_EVERY_S = 0.2
BETWEEN_BATCHES_S = 20.0
ENDS_WITHIN_S = 2.0
SIGNALS_FROM = 128
ROCKSDB = "org.apache.spark.sql.execution.streaming.state.RocksDBStateStoreProvider"


class JobError(Exception):
    """The job cannot start or go on; the message is one line for a person."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run until a signal asks to stop; return the exit code."""
    settings = flags.parse(argv)
    stop: list[int] = []
    _listen(stop)
    try:
        _run(settings, stop)
        emit("stopped")
    except (JobError, CheckpointError, BrokerError) as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 1
    except (Py4JJavaError, PySparkException) as error:
        print(f"pipeline: {_cause(str(error))}", file=sys.stderr)
        return 1
    except (Py4JError, ConnectionError) as error:
        code = _end_of_java()
        if code is None and isinstance(error, BrokenPipeError):
            return _breaks_off("its standard output is closed")
        # Java that is asked to end, by SIGTERM or SIGHUP, adds the signal's number to 128.
        number = 0 if code is None else -code if code < 0 else max(0, code - SIGNALS_FROM)
        how = (
            f"by signal {number}: from another process, or from the kernel for want of memory"
            if number
            else f"with code {code}"
        )
        print(f"pipeline: Spark's Java process has ended ({type(error).__name__}), {how}", file=sys.stderr)
        return SIGNALS_FROM + number if number else 1
    except OSError as error:
        return _breaks_off(f"{error.strerror or error}: {error.filename or 'standard output, or a temporary file'}")
    return 0


def _breaks_off(why: str) -> int:
    """Print why on standard error, silence standard output, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains once more as it ends
    print(f"pipeline: {why}", file=sys.stderr)
    return 1


def _run(settings: Settings, stop: list[int]) -> None:
    """Work on the checkpoint until a signal asks to stop. A standby prepares everything before it waits for the checkpoint."""
    with ExitStack() as claimed, ExitStack() as ends:  # the checkpoint is let go last, once Spark has stopped
        metrics = ends.enter_context(_served(settings))
        if metrics and settings.standby:
            metrics.stands_by()
        prepared = ends.enter_context(_stood_by(settings, stop)) if settings.standby else None
        if not claimed.enter_context(_claimed(settings, stop)) or stop:
            return
        if prepared:
            claim.outlive_java(checkpoint.where(settings), ENDS_WITHIN_S)
            emit("taking over")
        checkpoint.agree(settings)
        checkpoint.whole(settings)
        spark, writers = prepared or ends.enter_context(_prepared(settings, stop))
        if stop:
            return
        topics, lost = _look_for_records(spark, settings, settings.queries)
        if stop:
            return
        if lost:
            print(f"pipeline: {loss.summary(lost)}; going on without them", file=sys.stderr)
        checkpoint.sign(settings, {name: topic.id for name, topic in topics.items()})
        claim.note_java(checkpoint.where(settings), _java())
        is_followed = metrics is not None or settings.lag_group is not None
        committed = {name: _committed(settings, name, topics) for name in settings.queries if is_followed}
        running = [writer.start() for writer in writers]
        emit("started", queries=list(settings.queries))
        listeners = ends.enter_context(_listening(spark, settings, metrics, committed))
        _follow(spark, running, stop, partial(_gone, spark, settings), listeners)


@contextmanager
def _served(settings: Settings) -> Iterator[Metrics | None]:
    """The metrics, served over HTTP; None where nobody asked for them."""
    if settings.metrics_port is None:
        yield None
        return
    try:
        from pipeline import metrics as of_prometheus  # only here: without the flag it costs nothing
    except ImportError as error:
        raise JobError(f"--metrics-port {settings.metrics_port}: {error.name} is not installed") from error
    with ExitStack() as server:
        metrics = of_prometheus.Metrics(settings)
        try:
            server.enter_context(of_prometheus.served(metrics, settings.metrics_host, settings.metrics_port))
        except OSError as error:
            where = f"--metrics-port {settings.metrics_port} at {settings.metrics_host}"
            raise JobError(f"{where}: {error.strerror or error}") from error
        yield metrics


@contextmanager
def _listening(
    spark: SparkSession,
    settings: Settings,
    metrics: Metrics | None,
    committed: Mapping[str, Mapping[lag.Place, int]],
) -> Iterator[list[Listener]]:
    """Metrics and consumer group, fed while the queries run; empty where neither is asked for."""
    if not committed:
        yield []
        return
    behind = lag.Lag(committed, metrics or lag.Unmeasured(), settings.lag_group)
    if metrics:
        metrics.watch_java(_java())
        now_s = time.time()
        metrics.started({name: checkpoint.committed_s(settings, name) or now_s for name in settings.queries})
    with lag.followed(spark, settings, behind, _read(settings, settings.queries)):
        yield [metrics, behind] if metrics else [behind]


def _committed(settings: Settings, query: str, topics: Mapping[str, Topic]) -> Mapping[lag.Place, int]:
    """The exclusive ends that a query has committed, or where it will begin."""
    if read := checkpoint.reach(settings, query).read:
        return read
    first = 0 if settings.starting_offsets == "earliest" else 1
    names = [settings.topic_prefix + topic for topic in QUERIES[query].reads]
    return {(name, part): span[first] for name in names for part, span in topics[name].spans.items()}


@contextmanager
def _prepared(settings: Settings, stop: list[int]) -> Iterator[tuple[SparkSession, list[DataStreamWriter]]]:
    """Spark, and the queries ready to be started on it."""
    # PySpark installs its own SIGINT handler, which would interrupt the start; Ctrl-C waits until ours is back.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        spark = session(settings)
    finally:
        _listen(stop)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield spark, queries.prepare(spark, settings)
    finally:
        _quietly(spark.stop)


@contextmanager
def _stood_by(settings: Settings, stop: list[int]) -> Iterator[tuple[SparkSession, list[DataStreamWriter]]]:
    """Spark and the queries, after a rehearsal: a standby that takes over is as fast as a warm pipeline."""
    checkpoint.agree(settings)  # now, and not only when it is to take over
    with _prepared(settings, stop) as (spark, writers):
        _rehearse(spark, settings, stop)
        emit("standing by")
        yield spark, writers


def _rehearse(spark: SparkSession, settings: Settings, stop: list[int]) -> None:
    _look_for_topics(spark, settings, settings.queries, {})
    with tempfile.TemporaryDirectory(prefix="rehearsal-", ignore_cleanup_errors=True) as scratch:
        running = queries.rehearse(
            spark, settings, broker.topics(spark, settings.bootstrap, _read(settings, settings.queries)), scratch
        )
        while not stop and any(query.isActive for query in running):
            time.sleep(LOOK_EVERY_S)
        for query in running:
            if query.exception() is not None:
                print(f"pipeline: query {query.name} could not be rehearsed: {_died_of(query)}", file=sys.stderr)
            _quietly(query.stop)


@contextmanager
def _claimed(settings: Settings, stop: list[int]) -> Iterator[bool]:
    """Hold the checkpoint; false if the job was asked to stop while it waited.

    A standby ends if its Java process ends while it waits.
    """
    deadline = math.inf if settings.standby else time.monotonic() + ENDS_WITHIN_S

    def enough() -> bool:
        if (java := _started_java()) is not None and java.poll() is not None:
            raise Py4JNetworkError("it ended while this stood by")
        return bool(stop) or time.monotonic() > deadline

    with claim.held(checkpoint.where(settings), enough) as held:
        if not (held or stop):
            raise CheckpointError(
                f"checkpoint {settings.checkpoint}: another pipeline works on it: end that one first, or wait with --standby"
            )
        yield held


def _started_java() -> subprocess.Popen[bytes] | None:
    """Spark's Java process; None with spark-submit, where it is Java that started this."""
    process: subprocess.Popen[bytes] | None = getattr(SparkContext._gateway, "proc", None)
    return process


def _java() -> int:
    """The process id of Spark's Java."""
    process = _started_java()
    return process.pid if process else os.getppid()


def _end_of_java() -> int | None:
    """The exit code of Spark's Java process, below 0 for a signal; None where it runs."""
    process = _started_java()
    if process is None:
        return None
    try:
        return process.wait(ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        return None


def _listen(stop: list[int]) -> None:
    """Note in `stop` what asks the job to end."""

    def note(number: int, frame: FrameType | None) -> None:
        stop.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)


def session(settings: Settings) -> SparkSession:
    """A Spark session with the configuration that the settings ask for."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder.appName("pipeline")
    if settings.master:
        builder = builder.master(settings.master)
    for name, value in _configuration(settings).items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def _configuration(settings: Settings) -> dict[str, str]:
    configuration = {
        **{name: value for name, (value, _) in PINNED.items()},
        "spark.sql.shuffle.partitions": str(settings.partitions),
        "spark.sql.adaptive.enabled": "false",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.memory": settings.driver_memory,
        "spark.sql.streaming.numRecentProgressUpdates": "50",
        # Noting where in Python each column was made takes a third of the calls to Java that start the queries.
        "spark.python.sql.dataFrameDebugging.enabled": "false",
        # From Spark's default of 128 groups a task on it sorts for collect_set and collect_list; a batch has more.
        "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": str(settings.hashed_groups),
        # Five queries generate more classes than Spark's default of 100 holds: they would be compiled every batch.
        "spark.sql.codegen.cache.maxEntries": str(settings.codegen_cache),
        # The last of a field's values counts, as it does for `from_json`; or a record would be none for having two.
        "spark.sql.variant.allowDuplicateKeys": "true",
    }
    if _master(settings).startswith(("local", "spark://127.0.0.1:")):
        configuration |= {"spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1"}
    if settings.checkpoint_manager:
        configuration["spark.sql.streaming.checkpointFileManagerClass"] = settings.checkpoint_manager
    if settings.java_options:
        configuration["spark.driver.extraJavaOptions"] = settings.java_options
        configuration["spark.executor.extraJavaOptions"] = settings.java_options
    if settings.state_store == "rocksdb":
        configuration["spark.sql.streaming.stateStore.providerClass"] = ROCKSDB
    return configuration | _connector(settings) | _local_files(settings) | dict(settings.conf)


def _master(settings: Settings) -> str:
    """Spark's master; with spark-submit, the master of the Java process that it has started."""
    if settings.master:
        return settings.master
    SparkContext._ensure_initialized()
    return str(SparkConf().get("spark.master", ""))


def _local_files(settings: Settings) -> dict[str, str]:
    """Hadoop would start a process, chmod, for each file of checkpoints and sinks: twenty a second at five queries."""
    jars = sorted(Path(settings.jars).glob(LOCAL_FILES_JAR)) if settings.jars else []
    if not (jars and settings.local_files and settings.master.startswith("local") and _starts_java()):
        return {}
    # Spark looks for the class before it has loaded any of its jars.
    given = os.environ.get("SPARK_DIST_CLASSPATH")
    os.environ["SPARK_DIST_CLASSPATH"] = os.pathsep.join([*([given] if given else []), str(jars[-1])])
    return {"spark.hadoop.fs.file.impl": settings.local_files}


def _starts_java() -> bool:
    """Whether the session starts Spark's Java: not with spark-submit, nor after an earlier session."""
    return SparkContext._gateway is None and GATEWAY not in os.environ


def _connector(settings: Settings) -> dict[str, str]:
    if settings.jars is None:
        return {"spark.jars.packages": f"org.apache.spark:spark-sql-kafka-0-10_2.13:{pyspark.__version__}"}
    jars = sorted(str(path) for path in Path(settings.jars).glob("*.jar"))
    if not jars:
        raise JobError(f"--jars {settings.jars}: no jars in this folder")
    return {"spark.jars": ",".join(jars)}


def _follow(
    spark: SparkSession,
    running: list[StreamingQuery],
    stop: list[int],
    gone: Callable[[StreamingQuery], str | None],
    listeners: Sequence[Listener] = (),
) -> None:
    progress = Progress(running, listeners)
    while not stop:
        progress.report()
        for query in running:
            if not query.isActive:
                progress.died(query)
                why = gone(query) or _died_of(query)
                for other in running:
                    # If Spark ended under them their complaints would stand below the reason.
                    _quietly(other.stop)
                raise JobError(f"query {query.name} died: {why}")
        time.sleep(LOOK_EVERY_S)
    # Spark logs the stack of each task of a batch that the stop interrupts.
    spark.sparkContext.setLogLevel("OFF")
    _stop_between_batches(running)
    progress.report()
    for query in running:
        if query.exception() is not None:
            raise JobError(f"query {query.name} died while it was to be stopped: {_died_of(query)}")


def _stop_between_batches(running: Sequence[StreamingQuery]) -> None:
    """Stop each query between two batches: a stop inside a batch leaves rows of an uncommitted batch.

    A query that lags begins its next batch at once, so it is stopped as soon as its current batch has ended.
    """
    busy, deadline = {query: _batch(query) for query in running}, time.monotonic() + BETWEEN_BATCHES_S
    while busy and time.monotonic() < deadline:
        for query, batch in list(busy.items()):
            if not (query.isActive and query.status["isTriggerActive"]) or _batch(query) != batch:
                query.stop()
                del busy[query]
        time.sleep(0.01)
    if busy:
        names = ", ".join(query.name for query in busy)
        print(f"pipeline: a batch of {names} is broken off after {BETWEEN_BATCHES_S:.0f} s", file=sys.stderr)
    for query in busy:
        query.stop()


def _batch(query: StreamingQuery) -> int:
    """The last batch that has ended; −1 for none."""
    progress = query.lastProgress
    return progress["batchId"] if progress else -1


def _died_of(query: StreamingQuery) -> str:
    error = query.exception()
    if error is None:
        return "it ended by itself"
    message, root = _cause(str(error)), _cause("\n".join(_traces(error)))
    return message if root in message else f"{message} ({root})"


def _traces(error: BaseException | None) -> Iterator[str]:
    """Message and stack trace of an error and of each of its causes, the innermost last."""
    while error is not None:
        yield f"{error}\n{getattr(error, '_stackTrace', '')}"
        error = getattr(error, "_cause", None)


def _cause(text: str) -> str:
    """The innermost cause that a Java stack trace names, on one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    causes = [line.partition("Caused by: ")[2] for line in lines if line.startswith("Caused by: ")]
    return (causes or lines or ["no reason given"])[-1 if causes else 0]


def _gone(spark: SparkSession, settings: Settings, query: StreamingQuery) -> str | None:
    """Records or topics that a dead query misses at the brokers; Spark reports neither topic nor number."""
    try:
        _look_for_records(spark, settings, (query.name,))
    except (JobError, CheckpointError) as error:
        return str(error)
    except BrokerError as error:  # it may have died of something else
        return f"{_died_of(query)}; {error}"
    return None


def _look_for_records(
    spark: SparkSession, settings: Settings, queries: Sequence[str]
) -> tuple[dict[str, Topic], list[Lost]]:
    """The topics that are read and what of them is lost; refuses where one is gone, or more than is accepted."""
    reaches = {name: checkpoint.reach(settings, name) for name in queries}
    _look_for_topics(spark, settings, queries, reaches)
    topics = broker.topics(spark, settings.bootstrap, _read(settings, queries))
    loss.same(reaches, checkpoint.topics(settings), topics)
    lost = loss.lost(reaches, topics)
    if lost and not settings.accept_loss:
        raise loss.refuse(lost)
    return topics, lost


def _read(settings: Settings, queries: Sequence[str]) -> set[str]:
    """The topics that these queries read."""
    return {settings.topic_prefix + topic for name in queries for topic in QUERIES[name].reads}


def _look_for_topics(
    spark: SparkSession, settings: Settings, queries: Sequence[str], reaches: Mapping[str, Reach]
) -> None:
    """Raise at once if a broker or topic is missing; Spark alone would wait for it."""
    names = _read(settings, queries) | {
        settings.topic_prefix + QUERIES[name].topic for name in queries if settings.sinks[name] == "kafka"
    }
    there = broker.names(spark, settings.bootstrap)
    if gone := sorted(loss.gone(reaches, there)):
        raise JobError(
            f"topic {', '.join(gone)} was deleted at {settings.bootstrap} after it was read from: what was not read"
            " is lost; make it again and start with a new checkpoint"
        )
    if missing := sorted(names - there):
        raise JobError(f"no topic {', '.join(missing)} at {settings.bootstrap}: create it first")


def _quietly(end: Callable[[], None]) -> None:
    try:
        end()
    except (Py4JError, PySparkException, ConnectionError, OSError):
        return


if __name__ == "__main__":
    sys.exit(main())
