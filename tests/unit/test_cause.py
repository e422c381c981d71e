"""The innermost cause in anybody's log."""

from __future__ import annotations

import json
import time

import pytest

from harness.host import cause

PLAN = """\
=== Streaming Query ===
Identifier: [id = 6cf5a2b1-7d36-4c37-9d0a-0c3b6a7f1e11, runId = 0a6f8c3e-57a4-4e6c-b9a2-0d1e2f3a4b5c]
Current Committed Offsets: {}
Current Available Offsets: {}

Current State: INITIALIZING
Thread State: RUNNABLE

Logical Plan:
WriteToMicroBatchDataSource org.apache.spark.sql.kafka010.KafkaSourceProvider$KafkaTable@1c, append
+- Project [cast(value#8 as string) AS value#21]
   +- ~StreamingDataSourceV2ScanRelation[key#7, value#8, topic#9] KafkaV2[Subscribe[clickstream]]
"""
TOPIC = (
    "org.apache.kafka.common.errors.UnknownTopicOrPartitionException: This server does not host this topic-partition."
)
UNKNOWN_TOPIC = f"""\
26/12/01 02:00:01 WARN NetworkClient: [AdminClient clientId=adminclient-1] Error while fetching metadata
26/12/01 02:00:02 ERROR MicroBatchExecution: Query page_views [id = 6cf5a2b1, runId = 0a6f8c3e] terminated with error
java.util.concurrent.ExecutionException: {TOPIC}
\tat java.base/java.util.concurrent.CompletableFuture.reportGet(CompletableFuture.java:396)
\tat org.apache.spark.sql.kafka010.ConsumerStrategy.retrieveAllPartitions(ConsumerStrategy.scala:66)
Caused by: {TOPIC}
Traceback (most recent call last):
  File "/jobs/clicks.py", line 41, in <module>
    query.awaitTermination()
  File "/venv/pyspark/errors/exceptions/captured.py", line 288, in deco
    raise converted from None
pyspark.errors.exceptions.captured.StreamingQueryException: [STREAM_FAILED] Query [id = 6cf5a2b1, runId = 0a6f8c3e] terminated with exception: {TOPIC} SQLSTATE: XXKST
{PLAN}"""
SCALA = """\
26/12/01 02:00:02 ERROR Executor: Exception in task 0.0 in stage 3.0 (TID 4)
java.lang.ArithmeticException: / by zero
\tat com.example.Job$.$anonfun$main$1(Job.scala:17)
26/12/01 02:00:02 WARN TaskSetManager: Lost task 0.0 in stage 3.0 (TID 4): java.lang.ArithmeticException: / by zero
26/12/01 02:00:02 ERROR TaskSetManager: Task 0 in stage 3.0 failed 1 times; aborting job
Exception in thread "main" org.apache.spark.sql.streaming.StreamingQueryException: [STREAM_FAILED] Query [id = a] terminated with exception: Job aborted due to stage failure: Task 0 in stage 3.0 failed 1 times
=== Streaming Query ===
Logical Plan:
+- ~StreamingDataSourceV2ScanRelation[key#7]
\tat org.apache.spark.sql.execution.streaming.StreamExecution.runStream(StreamExecution.scala:332)
Caused by: org.apache.spark.SparkException: Job aborted due to stage failure: Task 0 in stage 3.0 failed 1 times
Driver stacktrace:
\tat org.apache.spark.scheduler.DAGScheduler.abortStage(DAGScheduler.scala:2941)
\t... 1 more
Caused by: java.lang.ArithmeticException: / by zero
\tat com.example.Job$.$anonfun$main$1(Job.scala:17)
\t... 3 more
26/12/01 02:00:03 INFO ShutdownHookManager: Shutdown hook called
"""
FOREACH_BATCH = f"""\
26/12/01 02:00:02 ERROR MicroBatchExecution: Query [id = a, runId = b] terminated with error
py4j.Py4JException: An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):
  File "/venv/py4j/clientserver.py", line 644, in _call_proxy
    return_value = getattr(self.pool[obj_id], method)(*params)
  File "/jobs/sums.py", line 12, in write
    raise ValueError("negative amount: -3")
ValueError: negative amount: -3

\tat py4j.Protocol.getReturnValue(Protocol.java:476)
\tat jdk.proxy3/jdk.proxy3.$Proxy36.call(Unknown Source)
Traceback (most recent call last):
  File "/jobs/sums.py", line 30, in <module>
    query.awaitTermination()
pyspark.errors.exceptions.captured.StreamingQueryException: [STREAM_FAILED] Query [id = a] terminated with exception: An exception was raised by the Python Proxy. Return Message: Traceback (most recent call last):
  File "/jobs/sums.py", line 12, in write
    raise ValueError("negative amount: -3")
ValueError: negative amount: -3
 SQLSTATE: XXKST
{PLAN}"""
PY4J = """\
Traceback (most recent call last):
  File "/jobs/sums.py", line 30, in <module>
    query.awaitTermination()
py4j.protocol.Py4JJavaError: An error occurred while calling o45.awaitTermination.
: org.apache.spark.sql.streaming.StreamingQueryException: Writing job aborted
\tat org.apache.spark.sql.execution.streaming.StreamExecution.runStream(StreamExecution.scala:332)
Caused by: java.io.FileNotFoundException: /results/part-0 (Permission denied)
\tat java.base/java.io.FileOutputStream.open0(Native Method)
\t... 9 more
"""
STACK_OVERFLOW = """\
26/12/01 02:00:02 ERROR Utils: uncaught error in thread stream execution thread, stopping SparkContext
java.lang.StackOverflowError
\tat org.apache.spark.sql.catalyst.trees.TreeNode.mapChildren(TreeNode.scala:1215)
\tat org.apache.spark.sql.catalyst.trees.TreeNode.mapChildren(TreeNode.scala:1216)
26/12/01 02:00:03 ERROR Utils: throw uncaught fatal error in thread spark-listener-group-shared
java.lang.InterruptedException
\tat java.base/java.util.concurrent.locks.AbstractQueuedSynchronizer.acquireInterruptibly(AbstractQueuedSynchronizer.java:1)
26/12/01 02:00:03 INFO SparkContext: Successfully stopped SparkContext
"""
OUT_OF_MEMORY = """\
Terminating due to java.lang.OutOfMemoryError: Java heap space
ERROR:root:Exception while sending command.
Traceback (most recent call last):
  File "/venv/py4j/clientserver.py", line 516, in send_command
    raise Py4JNetworkError("Answer from Java side is empty")
py4j.protocol.Py4JNetworkError: Answer from Java side is empty

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/jobs/sums.py", line 30, in <module>
    query.awaitTermination()
py4j.protocol.Py4JError: An error occurred while calling o45.awaitTermination
"""
HS_ERR = """\
#
# A fatal error has been detected by the Java Runtime Environment:
#
#  SIGSEGV (0xb) at pc=0x00007f3c2d0f1a2b, pid=4711, tid=4712
#
# JRE version: OpenJDK Runtime Environment (17.0.12+7) (build 17.0.12+7)
# Problematic frame:
# C  [librocksdbjni.so+0x1a2b]  rocksdb::DB::Get+0x2b
#
ConnectionRefusedError: [Errno 111] Connection refused
"""
CHAINED = """\
Traceback (most recent call last):
  File "/jobs/catalogue.py", line 3, in price
    return PRICES[product]
KeyError: 'prod_009'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/jobs/catalogue.py", line 9, in <module>
    main()
RuntimeError: the job cannot go on
"""
OWN_CLASS = """\
Traceback (most recent call last):
  File "/jobs/catalogue.py", line 9, in <module>
    raise BadRecord("clickstream-0@17")
jobs.catalogue.BadRecord: clickstream-0@17
"""
SUBMIT = """\
26/12/01 02:00:00 WARN NativeCodeLoader: Unable to load native-hadoop library for your platform
Exception in thread "main" org.apache.spark.SparkException: Failed to get main class in JAR with error null.  Please specify one with --class.
\tat org.apache.spark.deploy.SparkSubmitArguments.error(SparkSubmitArguments.scala:675)
26/12/01 02:00:01 INFO ShutdownHookManager: Deleting directory /tmp/spark-1
"""
ONLY_ERROR = """\
26/12/01 02:00:00 INFO StandaloneAppClient$ClientEndpoint: Connecting to master spark://127.0.0.1:7077...
26/12/01 02:01:00 ERROR StandaloneSchedulerBackend: Application has been killed. Reason: All masters are unresponsive! Giving up.
26/12/01 02:01:00 INFO SparkContext: SparkContext is stopping with exitCode 0.
"""
SURVIVED = """\
26/12/01 02:00:00 WARN TaskSetManager: Lost task 0.0 in stage 1.0
java.io.IOException: Connection reset by peer
\tat java.base/sun.nio.ch.SocketDispatcher.read0(Native Method)
26/12/01 02:30:00 INFO MicroBatchExecution: Streaming query made progress
too few partitions to go on
"""
OURS = f"""\
26/12/01 02:00:02 ERROR MicroBatchExecution: Query revenue terminated with error
java.lang.IllegalStateException: batch 4 does not exist
\tat org.apache.spark.sql.execution.streaming.HDFSMetadataLog.verify(HDFSMetadataLog.scala:1)
{PLAN}pipeline: checkpoint /c/checkpoint/revenue: older than its results
26/12/01 02:00:03 INFO ShutdownHookManager: Shutdown hook called
"""
JSON_LOG = "\n".join(
    json.dumps(entry)
    for entry in (
        {
            "ts": "2026-12-01T02:00:02.000Z",
            "level": "ERROR",
            "msg": "Query terminated with error",
            "logger": "MicroBatchExecution",
            "exception": {"class": "java.io.IOException", "msg": "No space left on device", "stacktrace": []},
        },
        {"ts": "2026-12-01T02:00:03.000Z", "level": "INFO", "msg": "Shutdown hook called", "logger": "Hooks"},
    )
)
NOISE = """\
26/12/01 02:00:00 INFO SparkContext: Running Spark version 4.2.0
\tat java.base/java.lang.Thread.run(Thread.java:840)
26/12/01 02:00:05 INFO ShutdownHookManager: Shutdown hook called

"""
LOGS = [
    pytest.param(UNKNOWN_TOPIC, TOPIC, id="a topic that is unknown, and a plan after it"),
    pytest.param(SCALA, "java.lang.ArithmeticException: / by zero", id="Scala, three deep"),
    pytest.param(FOREACH_BATCH, "ValueError: negative amount: -3", id="Python in foreachBatch"),
    pytest.param(PY4J, "java.io.FileNotFoundException: /results/part-0 (Permission denied)", id="Java through py4j"),
    pytest.param(STACK_OVERFLOW, "java.lang.StackOverflowError", id="stack overflow, and interrupts after it"),
    pytest.param(OUT_OF_MEMORY, "Terminating due to java.lang.OutOfMemoryError: Java heap space", id="out of memory"),
    pytest.param(HS_ERR, "SIGSEGV (0xb) at pc=0x00007f3c2d0f1a2b, pid=4711, tid=4712", id="crash of the JVM"),
    pytest.param(CHAINED, "KeyError: 'prod_009'", id="Python, raised from another"),
    pytest.param(OWN_CLASS, "jobs.catalogue.BadRecord: clickstream-0@17", id="a class of the job's own"),
    pytest.param(
        SUBMIT,
        "org.apache.spark.SparkException: Failed to get main class in JAR with error null. Please specify one with --class.",
        id="spark-submit",
    ),
    pytest.param(
        ONLY_ERROR,
        "StandaloneSchedulerBackend: Application has been killed. Reason: All masters are unresponsive! Giving up.",
        id="an ERROR line alone",
    ),
    pytest.param(SURVIVED, "too few partitions to go on", id="a warning that was survived"),
    pytest.param(
        SURVIVED + OWN_CLASS.replace("jobs.catalogue.", ""), "BadRecord: clickstream-0@17", id="after a warning"
    ),
    pytest.param(
        OURS, "pipeline: checkpoint /c/checkpoint/revenue: older than its results", id="a program's last words"
    ),
    pytest.param(JSON_LOG, "java.io.IOException: No space left on device", id="Spark's JSON log"),
    pytest.param(PLAN, "it logged nothing", id="a plan alone"),
    pytest.param(NOISE, "26/12/01 02:00:05 INFO ShutdownHookManager: Shutdown hook called", id="noise: its last line"),
    pytest.param("", "it logged nothing", id="empty"),
]


@pytest.mark.parametrize(("log", "expected"), LOGS)
def test_the_innermost_cause_is_found(log, expected):
    """Whatever follows it in the log, and whatever wraps it."""
    assert expected == cause.of_text(log)


@pytest.mark.parametrize("garbage", [bytes(range(128, 256)) * 40, b"\x00\x01\x02\n" * 100, b"\xff\xfe" * 9])
def test_binary_garbage_is_no_cause(tmp_path, garbage):
    """And does not hide one."""
    log = tmp_path / "pipeline.log"
    log.write_bytes(garbage)
    assert "it logged nothing" == cause.of_log(log)

    log.write_bytes(CHAINED.encode() + garbage)
    assert "KeyError: 'prod_009'" == cause.of_log(log)


def test_missing_log_is_empty(tmp_path):
    """A process may end before its log is written."""
    assert "it logged nothing" == cause.of_log(tmp_path / "none.log")
    assert [] == cause.last_lines(tmp_path / "none.log", 3)


def test_only_the_last_mib_is_read(tmp_path):
    """From the beginning of a line on."""
    log = tmp_path / "pipeline.log"
    log.write_text(CHAINED + "a line of a log\n" * 100_000)

    assert cause.TAIL_BYTES - 16 <= len(cause.tail(log)) <= cause.TAIL_BYTES
    assert cause.tail(log).startswith("a line")
    assert "a line of a log" == cause.of_log(log)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("a" * cause.TAIL_BYTES, id="letters"),
        pytest.param("a.B" * 300_000, id="dots"),
        pytest.param("a.BError: " * 100_000, id="exceptions"),
        pytest.param("Error: " + "  " * 500_000, id="spaces"),
        pytest.param("a.a.a.a.a.\n" * 90_000, id="many short lines"),
        pytest.param("  " * 1000 + "x\n" + ("  " * 1000 + "x\n") * 400, id="deep indents"),
    ],
)
def test_odd_logs_parse_quickly(tmp_path, line):
    """No pattern takes more than linear time, and a cause has at most 600 characters."""
    log = tmp_path / "pipeline.log"
    log.write_text(line)
    before = time.process_time()

    assert len(cause.of_log(log)) <= cause.CAUSE_MAX
    assert time.process_time() - before < 10


def test_last_lines_are_non_empty(tmp_path):
    """Blank and binary ones are left out."""
    log = tmp_path / "pipeline.log"
    log.write_bytes(b"one\n\ntwo\n\x00\x01\xff\xff\nthree\n")

    assert ["two", "three"] == cause.last_lines(log, 2)
