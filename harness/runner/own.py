"""One run of a declared job: records are offered, the job is started, faults are injected, and everything is written down.

start → load with faults → flush → drain → collect. Nothing is judged here; `harness.judge.own` reads what is left:

    scenario.toml, job/    the scenario, and the suite's folder      history.jsonl    events, as of every run
    sent.parquet           a row a record (harness/load/own.py)      checkpoints/     offsets and commits of each query
    outputs/               <query>.parquet: row, where, at_s         logs/            of every process
    spark.json             the versions of Spark, by its event log
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from harness import kafka
from harness.engines import own
from harness.engines.own import OwnSystem
from harness.engines.process import Checkpoint, ticking
from harness.engines.spark import event_log, rows
from harness.errors import PipelineDied, StackError, Stalled
from harness.faults import Cancelled, Fault, Outcome, Patience, parts
from harness.faults.crash import Query as Watched
from harness.faults.crash import crash
from harness.faults.processes import inject
from harness.host import cleanup, jars
from harness.job.declared import duration_ms
from harness.job.draws import Records
from harness.job.relations import uses
from harness.kafka import Cluster, topics
from harness.load.own import Sender
from harness.rundir import history, manifest
from harness.rundir.events import Interrupted, Phase, PipelineEnded, Progress, Recorder, Standstill, Swept
from harness.runner.console import Status
from harness.runner.schedule import Counts, Schedule
from harness.runner.waiting import STALL_S, Work, eventually
from harness.scenario import BATCH_MAX_S
from harness.scenario.own import OwnScenario, dump

BATCH_S = 300.0
HEAL_S = 180.0
LEAD_S = 1.0
# How long a stretched load goes on once everything is read.
REST_S = 5.0
RESULTS = {"message.timestamp.type": "LogAppendTime"}


@dataclass(slots=True)
class Testbed:
    """All that a run needs, started and wired together."""

    scenario: OwnScenario
    directory: Path
    scratch: Path
    cluster: Cluster
    system: OwnSystem
    checkpoint: Checkpoint
    sender: Sender
    history: Recorder
    status: Status
    over: threading.Event = field(default_factory=threading.Event)
    blind: list[str] = field(default_factory=list)

    @property
    def patience(self) -> Patience:
        """How long a fault waits; it is broken off once the load is over."""
        return Patience(self.scenario.declaration.pipeline.ready_s, time.time, self._sleep)

    def _sleep(self, seconds: float) -> None:
        if self.over.wait(seconds):
            raise Cancelled


def run(scenario: OwnScenario, directory: Path, status: Status, args: list[str]) -> None:
    """Do the run. Raises HarnessError where none is possible; the directory then shows how far it came."""
    shutil.copytree(scenario.job.parent, directory / "job", ignore=shutil.ignore_patterns("__pycache__"))
    (directory / "scenario.toml").write_text(dump(scenario, f"job/{scenario.job.name}"), encoding="utf-8")
    with history.recording(directory) as recorder, status:
        manifest.write(directory, scenario, args, prefix="")
        try:
            with ExitStack() as stack:
                _begin(recorder, status, "start", f"Kafka ({scenario.kafka.where}) and the job")
                testbed = _assemble(stack, scenario, directory, recorder, status)
                try:
                    _conduct(testbed)
                finally:
                    testbed.sender.stop()
                    testbed.sender.write(directory / "sent.parquet")
        except BaseException as error:
            why = "by the user" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            recorder.write(Interrupted(phase="run", why=why))
            raise
        _begin(recorder, status, "end")


def _begin(recorder: Recorder, status: Status, phase: str, what: str = "") -> None:
    recorder.write(Phase(phase=phase))
    if phase != "end":
        status.phase(phase, what)


def _assemble(stack: ExitStack, scenario: OwnScenario, directory: Path, recorder: Recorder, status: Status) -> Testbed:
    """Start brokers and make topics; the job and the load are ready to be started. The stack ends all of it."""
    recorder.write(Swept(what=str(cleanup.sweep())))
    stack.enter_context(cleanup.none_left())
    logs = directory / "logs"
    logs.mkdir()
    job, scratch = scenario.declaration, stack.enter_context(cleanup.scratch("run"))
    cluster = stack.enter_context(kafka.open_cluster(scenario.kafka.where, scenario.kafka.nodes, scratch / "kafka"))
    if cluster.topic_prefix:
        raise StackError("kafka.where: a declared job names its own topics, which brokers of others may have already")
    _create_topics(scenario, cluster)
    connector = jars.spark_jars() if job.pipeline.connector else Path()
    own.spark_conf(
        scratch / "conf", scratch / "events", sorted(connector.glob("*.jar")) if job.pipeline.connector else ()
    )
    folder = scenario.job.parent
    places = {
        "bootstrap": cluster.bootstrap,
        "checkpoint": str(scratch / "checkpoint"),
        "output": str(scratch / "output"),
        "jars": str(connector),
        "folder": str(folder),
        **{name: str(folder / file) for query in job.queries for name, file in query.tables.items()},
    }
    (scratch / "tmp").mkdir()
    pattern = own.filled(job.pipeline.checkpoint, places)
    folders = {query.name: Path(pattern.replace("{query}", query.name)) for query in job.queries}
    environment = {"SPARK_CONF_DIR": str(scratch / "conf"), **job.pipeline.environment}
    command = own.command(job.pipeline.command, environment, folder, places)
    system = OwnSystem(command, logs / "pipeline.log", scratch / "tmp", recorder, folders)
    stack.callback(system.close)
    reads = {query.name: list(query.reads) for query in job.queries}
    checkpoint = Checkpoint(pattern, directory / "checkpoints", reads, recorder)
    load = scenario.load
    records = Records(job, scenario.workload, load.seed, load.eps)
    sender = Sender(job, records, cluster.bootstrap, load.eps, load.events, logs / "load.log")
    return Testbed(scenario, directory, scratch, cluster, system, checkpoint, sender, recorder, status)


def _create_topics(scenario: OwnScenario, cluster: Cluster) -> None:
    replication = min(3, len(cluster.brokers)) or 1
    for topic in scenario.declaration.topics:
        topics.create(cluster.bootstrap, {topic.name: {}}, topic.partitions, replication)
    names = {query.sink.kafka for query in scenario.declaration.queries if query.sink.kafka}
    topics.create(cluster.bootstrap, dict.fromkeys(names, RESULTS), 1, replication)


def _conduct(testbed: Testbed) -> None:
    scenario, recorder, status = testbed.scenario, testbed.history, testbed.status
    try:
        testbed.system.start()
        with _followed(testbed):
            ready_s = scenario.declaration.pipeline.ready_s
            _wait(testbed, testbed.system.has_started, lambda: 0, "every query to begin", ready_s)
            load = scenario.load
            _begin(recorder, status, "measure", f"{load.events:,} records at {load.eps:,g} a second")
            _offer(testbed)
            _begin(recorder, status, "flush", "a record a topic, far ahead, closes every window")
            testbed.sender.flush(duration_ms(scenario.declaration.flush_ahead))
            _wait(testbed, testbed.sender.finished, lambda: testbed.sender.acknowledged, "the flush records")
            _begin(recorder, status, "drain", "until every query has committed everything")
            _drain(testbed)
        testbed.system.check()
    except PipelineDied as error:
        log = os.path.relpath(error.log, testbed.directory)
        recorder.write(PipelineEnded(code=error.code, last=error.last, cause=error.cause, log=log, brokers_down=()))
        raise
    testbed.system.stop()
    testbed.checkpoint.sweep()
    _begin(recorder, status, "collect", "every result row")
    _collect(testbed)


@contextmanager
def _followed(testbed: Testbed) -> Iterator[None]:
    """Follow checkpoints in a thread, for as long as the context lasts."""
    stop = threading.Event()

    def follow() -> None:
        testbed.system.look()
        testbed.checkpoint.sweep()

    def failed(error: Exception) -> None:
        testbed.blind.append(f"the job cannot be followed any more, {type(error).__name__}: {error}")

    thread = ticking(0.1, follow, stop, failed)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(5.0)


def _offer(testbed: Testbed) -> None:
    """The load, with the faults in it; returns once all that was sent is acknowledged and all faults have healed.

    A stretched load goes on until what was sent when the last fault had healed is read, and `REST_S` of load more: so
    there are batches after it, however slow the machine.
    """
    sender, load = testbed.sender, testbed.scenario.load
    counts = Counts(lambda: sender.sent, lambda: sender.acknowledged, testbed.checkpoint.read)
    schedule = Schedule(testbed.scenario.fault, counts, partial(_injected, testbed), testbed.history)
    start_s = time.time() + LEAD_S
    sender.start(start_s)

    def over() -> bool:
        if not schedule.is_over():
            return False
        is_stretched = load.stretch_s and time.time() >= start_s + load.warm_up_s + load.duration_s
        if is_stretched and schedule.is_settled(round(REST_S * load.eps)):
            sender.enough()
        return sender.finished()

    try:
        _wait(testbed, over, lambda: _moved(testbed, schedule), "the load and its faults", HEAL_S)
    except Stalled as error:
        testbed.history.write(Standstill(why=str(error)))
        sender.enough()
    finally:
        testbed.over.set()
        schedule.join(10.0)


def _moved(testbed: Testbed, schedule: Schedule) -> int:
    """What grows as long as there is progress; a fault that is under way has a patience of its own."""
    return time.monotonic_ns() if schedule.is_under_way() else testbed.sender.sent + testbed.checkpoint.read()


def _injected(testbed: Testbed, fault: Fault) -> Outcome:
    """One fault, from its injection until it has healed."""
    if fault.kind == "crash":
        query = testbed.scenario.declaration.query(fault.query)
        size = partial(rows.size, query, testbed.cluster.bootstrap, testbed.scratch / "output")
        watched = Watched(testbed.checkpoint.source(fault.query), size)
        return crash(fault, testbed.system, watched, testbed.patience)
    if fault.on == parts.PIPELINE:
        return inject(fault, {fault.on: testbed.system}, testbed.patience)
    bootstrap = testbed.cluster.bootstrap
    topic = testbed.scenario.declaration.topics[0].name
    leaders = partial(topics.leader, bootstrap, topic), partial(topics.controller, bootstrap)
    return inject(fault, parts.chosen(fault.on, testbed.cluster.brokers, *leaders), testbed.patience)


def _drain(testbed: Testbed) -> None:
    """Wait until each query has read everything, and has committed a batch at the watermark of the flush records."""
    job, checkpoint = testbed.scenario.declaration, testbed.checkpoint
    ends = topics.end_offsets(testbed.cluster.bootstrap, [topic.name for topic in job.topics])
    goals, marks = {}, {}
    for query in job.queries:
        goals[query.name] = {(topic, number): end for topic in query.reads for number, end in ends[topic].items()}
        delays = [delay for topic in query.reads if (delay := query.delay_ms(topic)) is not None]
        keeps_state = bool(query.python) or bool(uses((testbed.scenario.job.parent / query.sql).read_text()))
        # A form of time in whole seconds ends up to a second before the flush record's own time.
        marks[query.name] = testbed.sender.flush_ms - max(delays) - 1000 if delays and keeps_state else 0

    def drained() -> bool:
        return all(
            checkpoint.reached(name, goal) and checkpoint.watermark_ms(name) >= marks[name]
            for name, goal in goals.items()
        )

    def progress() -> int:
        return sum(checkpoint.committed(name) + checkpoint.watermark_ms(name) for name in goals)

    work = Work(checkpoint.under_way, testbed.system.cpu_s, lambda: min(BATCH_S, BATCH_MAX_S))
    try:
        _wait(testbed, drained, progress, "every query to commit everything", work=work)
    except Stalled as error:
        testbed.history.write(Standstill(why=str(error)))


def _wait(
    testbed: Testbed,
    condition: Callable[[], bool],
    progress: Callable[[], int],
    what: str,
    patience_s: float = STALL_S,
    work: Work | None = None,
) -> None:
    """Wait for a condition as long as there is progress. Raises Stalled, which names the logs."""

    def look() -> None:
        testbed.system.check()
        if testbed.blind:
            raise StackError(testbed.blind[0])
        lag = max(0, testbed.sender.acknowledged - testbed.checkpoint.read())
        testbed.status.show(sent=f"{testbed.sender.sent:,}", lag=f"{lag:,}")

    try:
        eventually(condition, progress, what, patience_s, look=look, work=work)
    except Stalled as error:
        raise Stalled(f"{error}; see {testbed.directory / 'logs'}") from None


def _collect(testbed: Testbed) -> None:
    """Write the rows of every query, and what Spark reported of every batch."""
    target = testbed.directory / "outputs"
    target.mkdir()
    names = {}
    for query in testbed.scenario.declaration.queries:
        found = list(rows.collect(query, testbed.cluster.bootstrap, testbed.scratch / "output"))
        table = {
            "row": pa.array([row.text for row in found], pa.string()),
            "where": pa.array([row.where for row in found], pa.string()),
            "at_s": pa.array([row.at_s for row in found], pa.float64()),
        }
        pq.write_table(pa.table(table), target / f"{query.name}.parquet")
        names[event_log.query_id(testbed.checkpoint.source(query.name))] = query.name
    versions = event_log.versions(testbed.scratch / "events")
    (testbed.directory / "spark.json").write_text(json.dumps({"versions": versions}), encoding="utf-8")
    for report in event_log.progress(testbed.scratch / "events"):
        if report.id in names:
            testbed.history.write(Progress(query=names[report.id], batch=report.batch, progress=report.progress))
