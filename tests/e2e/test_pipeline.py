"""The pipeline as a process: what it says, when it refuses, and how it stops."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import confluent_kafka
import psutil
import pyarrow.parquet as pq
import pytest

from harness.host import jars
from harness.job.clickstream import events as workload
from harness.job.clickstream.contract import CLICKSTREAM, QUERIES, RESULT_BYTES_MAX
from harness.job.clickstream.events import TOPICS, Workload
from harness.kafka import topics
from harness.load.engine import producer_settings
from pipeline import claim

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


def arguments(bootstrap: str, folder: Path, *more: str) -> list[str]:
    """The command line of the job."""
    where = ["--bootstrap", bootstrap, "--checkpoint", f"{folder}/checkpoint", "--output", f"{folder}/output"]
    return [sys.executable, "-m", "pipeline", *where, "--jars", str(jars.spark_jars()), *more]


def ended(args: list[str]) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(args, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture(scope="module", autouse=True)
def prepared(cluster) -> None:
    """All topics of the contract, and some events."""
    names = [*TOPICS, *(query.topic for query in QUERIES.values())]
    topics.create(cluster.bootstrap, {name: {} for name in names}, 1, 1)
    produce(cluster.bootstrap, 0)


def produce(bootstrap: str, first: int, prefix: str = "") -> None:
    """2,000 events from this number on, and what closes their windows."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap, **producer_settings(None)})
    shape = Workload(time_scale=600)
    events = workload.batch(shape, 7, 100, first, 2000)
    for topic, key, value in zip(events.topic.tolist(), events.keys, events.values, strict=True):
        producer.produce(prefix + TOPICS[topic], value, key)
    for event in workload.flush(shape, int(events.event_time_ms.max())):
        producer.produce(prefix + event.topic, event.value, event.key)
    assert 0 == producer.flush(30)


@contextlib.contextmanager
def running(args: list[str]) -> Iterator[tuple[subprocess.Popen[str], Callable[[], str]]]:
    """A job that leads a session of its own, and what it has said on standard error once it has ended.

    That goes to a file: two queries that die at once fill a pipe, and the job would wait for who reads it last.
    """
    pipe = {"stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with tempfile.TemporaryFile("w+") as errors, subprocess.Popen(args, cwd=ROOT, stderr=errors, **pipe) as process:

        def told() -> str:
            errors.seek(0)
            return errors.read()

        try:
            yield process, told
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def stopped_after(args: list[str], batches: dict[str, int], by: int = signal.SIGTERM) -> tuple[int, list[str], str]:
    """Run until each query has come to that batch, then a signal: exit code, standard output's lines, standard error."""
    said, left = [], dict(batches)
    with running(args) as (process, told):
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            for query, batch in progress([line]):
                if batch >= left.get(query, batch + 1):
                    del left[query]
            if not left:
                process.send_signal(by)
                break
        said += process.stdout
        return process.wait(60), said, told()


def progress(said: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Query and batch of each progress line."""
    for line in said:
        if line.startswith('{"event": "progress"'):
            event = json.loads(line)
            yield event["query"], event["progress"]["batchId"]


def test_job_reports_progress_and_stops_cleanly(cluster, tmp_path):
    """SIGTERM: exit code 0, `stopped`, no stack trace on standard error; page views in Parquet as asked."""
    args = arguments(cluster.bootstrap, tmp_path, "--queries", "page_views,sessions", "--sink", "page_views=parquet")
    code, lines, errors = stopped_after(args, {"page_views": 1})
    said = [json.loads(line) for line in lines]

    assert 0 == code, errors
    assert ["started", "stopped"] == [said[0]["event"], said[-1]["event"]]
    assert "Exception" not in errors
    assert "\tat " not in errors
    assert {"batchId", "durationMs", "sources", "stateOperators"} <= set(said[1]["progress"])
    assert pq.read_table(str(tmp_path / "output" / "page_views")).num_rows > 0


def test_job_reports_its_killed_java(cluster, tmp_path):
    """By the kernel for want of memory, or by somebody: nothing that a query has done."""
    args = arguments(cluster.bootstrap, tmp_path, "--queries", "page_views")
    with running(args) as (process, told):
        assert process.stdout is not None
        assert "started" == json.loads(process.stdout.readline())["event"]
        java = [one for one in psutil.Process(process.pid).children(recursive=True) if one.name() == "java"]
        for one in java:
            one.kill()
        process.wait(60)
        last = told().strip().splitlines()[-1]

    assert 1 == len(java)
    assert 128 + signal.SIGKILL == process.returncode
    assert "Spark's Java process has ended" in last
    assert "by signal 9: from another process, or from the kernel" in last


def test_largest_records_go_to_dead_letter(cluster, tmp_path):
    """With headers larger than what producers send by default, and far larger where the producer had compressed it: they
    would end the query again and again."""
    topics.create(cluster.bootstrap, {f"large-{name}": {} for name in TOPICS}, 1, 1)
    topics.create(cluster.bootstrap, {"large-dead-letter": {"max.message.bytes": str(RESULT_BYTES_MAX)}}, 1, 1)
    largest = {"none": b"x" * 1_048_500, "gzip": b"y" * 15_000_000}
    for compression, record in largest.items():
        own = {"bootstrap.servers": cluster.bootstrap, "message.max.bytes": 20_000_000, "compression.type": compression}
        producer = confluent_kafka.Producer(own)
        producer.produce(f"large-{CLICKSTREAM}", record)
        assert 0 == producer.flush(30)

    args = arguments(cluster.bootstrap, tmp_path, "--topic-prefix", "large-", "--queries", "dead_letter")
    code, said, errors = stopped_after(args, {"dead_letter": 0}, signal.SIGINT)
    assert 0 == code, errors
    assert "stopped" == json.loads(said[-1])["event"]
    assert "Traceback" not in errors
    letters = [letter.value for letter in topics.read(cluster.bootstrap, ["large-dead-letter"])]
    assert list(largest.values()) == letters


def test_a_sink_is_chosen_per_query(cluster, tmp_path):
    """Revenue to its topic instead of Parquet, sessions to the console instead of theirs."""
    sinks = ["--sink", "revenue=kafka", "--sink", "sessions=console"]
    args = arguments(cluster.bootstrap, tmp_path, "--queries", "revenue,sessions", *sinks)
    code, said, errors = stopped_after(args, {"revenue": 1, "sessions": 1})

    assert 0 == code, errors
    rows = [json.loads(message.value) for message in topics.read(cluster.bootstrap, [QUERIES["revenue"].topic])]
    assert rows
    assert {*QUERIES["revenue"].identity, *QUERIES["revenue"].measures} == set(rows[0])
    assert any(line.startswith("Batch: ") for line in said)
    assert not (tmp_path / "output" / "revenue").exists()


def test_checkpoint_with_other_settings_is_refused(cluster, tmp_path):
    """With the difference, on one line, and before Spark is started."""
    begun = tmp_path / "checkpoint" / "sessions" / "offsets" / "0"
    begun.parent.mkdir(parents=True)
    begun.touch()
    (tmp_path / "checkpoint" / "settings.json").write_text(json.dumps({"partitions": 7}))
    run = ended(arguments(cluster.bootstrap, tmp_path))

    assert 1 == run.returncode
    [line] = run.stderr.strip().splitlines()
    assert "partitions: the checkpoint has 7, asked for 1" in line


def test_checkpoint_in_use_is_refused(cluster, tmp_path):
    """On one line, and before Spark is started; nothing is written there."""
    with claim.held(tmp_path / "checkpoint", lambda: True):
        run = ended(arguments(cluster.bootstrap, tmp_path))

    assert 1 == run.returncode
    [line] = run.stderr.strip().splitlines()
    assert "checkpoint: another pipeline works on it: end that one first, or wait with --standby" in line
    assert not (tmp_path / "checkpoint").exists()


def test_stopped_standby_touches_nothing(cluster, tmp_path):
    """SIGTERM while it waits: exit code 0, as if it had worked."""
    args = arguments(cluster.bootstrap, tmp_path, "--standby")
    with (
        claim.held(tmp_path / "checkpoint", lambda: True),
        subprocess.Popen(args, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdout is not None
        assert {"event": "standing by"} == json.loads(process.stdout.readline())
        process.terminate()
        assert [{"event": "stopped"}] == [json.loads(line) for line in process.stdout]
        assert 0 == process.wait(60)

    assert not (tmp_path / "checkpoint").exists()


@pytest.fixture(scope="module")
def used(cluster, tmp_path_factory) -> Path:
    """What a job of page views and revenue left when it was stopped: its checkpoint, its results, and an older checkpoint."""
    folder = tmp_path_factory.mktemp("used")
    args = arguments(cluster.bootstrap, folder, "--queries", "page_views,revenue")
    assert 0 == stopped_after(args, {"page_views": 0, "revenue": 0})[0]
    shutil.copytree(folder / "checkpoint", folder / "older")
    produce(cluster.bootstrap, 100_000)
    newest = max(int(path.name) for path in (folder / "checkpoint" / "revenue" / "offsets").glob("[0-9]*"))
    assert 0 == stopped_after(args, {"revenue": newest + 2})[0]
    return folder


def _older(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoint")
    (folder / "older").rename(folder / "checkpoint")


def _truncated(folder: Path) -> None:
    newest = max((folder / "checkpoint" / "revenue" / "offsets").glob("[0-9]*"), key=lambda path: int(path.name))
    newest.write_bytes(newest.read_bytes()[:30])


def _without_state(folder: Path) -> None:
    for path in (folder / "checkpoint").rglob("*.delta"):
        path.unlink()


def _without_metadata(folder: Path) -> None:
    (folder / "checkpoint" / "page_views" / "metadata").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(_older, "older than its results", id="copied from an older moment"),
        pytest.param(_truncated, "damaged", id="offsets truncated"),
        pytest.param(_without_metadata, "metadata is missing", id="metadata missing"),
        pytest.param(_without_state, "delta", id="state missing"),
    ],
)
def test_damaged_checkpoint_is_refused_without_rows(cluster, used, tmp_path, damage, said):
    """Exit code 1, the damage named on the last line, and the results as they were."""
    shutil.copytree(used, tmp_path / "run")
    damage(tmp_path / "run")
    files = sorted(path.name for path in (tmp_path / "run" / "output").rglob("*.parquet"))
    topic = QUERIES["page_views"].topic
    rows = topics.end_offsets(cluster.bootstrap, [topic])
    produce(cluster.bootstrap, 200_000)  # state is read with the next batch
    run = ended(arguments(cluster.bootstrap, tmp_path / "run", "--queries", "page_views,revenue"))

    assert 1 == run.returncode, run.stderr
    assert said in run.stderr.strip().splitlines()[-1]
    assert files == sorted(path.name for path in (tmp_path / "run" / "output").rglob("*.parquet"))
    assert rows == topics.end_offsets(cluster.bootstrap, [topic])


def test_missing_topic_is_named(cluster, tmp_path):
    """Spark alone would wait for it."""
    run = ended(arguments(cluster.bootstrap, tmp_path, "--topic-prefix", "other-", "--queries", "revenue"))

    assert 1 == run.returncode
    assert "pipeline: no topic other-transactions" in run.stderr.strip().splitlines()[-1]


def test_failed_start_leaves_no_settings(cluster, tmp_path):
    """After a wrong prefix the right one is welcome at the same checkpoint."""
    wrong = ended(arguments(cluster.bootstrap, tmp_path, "--topic-prefix", "other-", "--queries", "revenue"))

    assert 1 == wrong.returncode
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize(
    ("bootstrap", "said"),
    [
        pytest.param("127.0.0.1:1", "no broker answers at 127.0.0.1:1", id="nobody listens"),
        pytest.param("none.invalid:9092", "--bootstrap none.invalid:9092: No resolvable", id="a name of nobody"),
    ],
)
def test_missing_broker_is_named(tmp_path, bootstrap, said):
    """Within seconds, on one line."""
    run = ended(arguments(bootstrap, tmp_path))

    assert 1 == run.returncode
    assert said in run.stderr.strip().splitlines()[-1]


@dataclass(frozen=True)
class Read:
    """Page views and dead letters that have read all of topics of their own, and stopped."""

    bootstrap: str
    folder: Path
    prefix: str

    @property
    def clicks(self) -> str:
        """The clickstream's topic."""
        return self.prefix + CLICKSTREAM

    def arguments(self, *more: str) -> list[str]:
        """The job's command line."""
        which = ("--queries", "page_views,dead_letter", "--topic-prefix", self.prefix)
        return arguments(self.bootstrap, self.folder, *which, *more)

    def more(self) -> None:
        """Records that no query has read."""
        produce(self.bootstrap, 100_000, self.prefix)

    def end(self) -> int:
        """Where the clickstream ends."""
        return topics.end_offsets(self.bootstrap, [self.clicks])[self.clicks][0]

    def expire(self) -> int:
        """Delete all of the clickstream, as retention does; returns where it begins now."""
        topics.delete_records(self.bootstrap, self.clicks, 0, self.end())
        return topics.begin_offsets(self.bootstrap, [self.clicks])[self.clicks][0]

    def newest(self, query: str) -> int:
        """The query's last batch."""
        return max(int(path.name) for path in (self.folder / "checkpoint" / query / "commits").glob("[0-9]*"))


@pytest.fixture
def read(cluster, tmp_path) -> Read:
    """Topics of the test's own, read to their end."""
    prefix = f"{tmp_path.name}-"
    names = [*TOPICS, QUERIES["page_views"].topic, QUERIES["dead_letter"].topic]
    topics.create(cluster.bootstrap, {prefix + name: {} for name in names}, 1, 1)
    produce(cluster.bootstrap, 0, prefix)
    job = Read(cluster.bootstrap, tmp_path, prefix)
    assert 0 == stopped_after(job.arguments(), {"page_views": 0, "dead_letter": 0})[0]
    return job


def test_deleted_records_need_accept_loss(read):
    """What was read is no loss; with the flag it goes on, and still says how many are lost."""
    first = read.end()
    assert first == read.expire()
    read.more()
    begin = read.expire()
    number = f"{read.clicks}-0: {begin - first:,} records lost"
    refused = ended(read.arguments())

    assert begin > first
    assert 1 == refused.returncode
    [line] = [line for line in refused.stderr.splitlines() if line.startswith("pipeline: ")]
    assert line == refused.stderr.strip().splitlines()[-1]
    assert number in line
    assert f"read up to offset {first:,}, the partition begins at {begin:,}" in line
    assert "--accept-loss" in line

    read.more()
    code, _, errors = stopped_after(read.arguments("--accept-loss"), {"page_views": read.newest("page_views") + 1})
    assert 0 == code, errors
    assert number in errors


@pytest.mark.parametrize("longer", [False, True], ids=["shorter", "longer than before"])
def test_a_topic_made_again_is_refused(read, longer):
    """Told by its end, or by its id where it is as long as the old one was; accepting a loss does not help."""
    topics.delete(read.bootstrap, [read.clicks])
    topics.create(read.bootstrap, {read.clicks: {}}, 1, 1)
    for _ in range(2 * longer):
        read.more()
    run = ended(read.arguments("--accept-loss"))

    assert 1 == run.returncode
    assert f"pipeline: topic {read.clicks} was deleted and made again" in run.stderr.strip().splitlines()[-1]


def test_deleted_topic_is_not_called_missing(read):
    """It was read from: making it again does not help."""
    topics.delete(read.bootstrap, [read.clicks])
    run = ended(read.arguments())

    assert 1 == run.returncode
    assert f"pipeline: topic {read.clicks} was deleted" in run.stderr.strip().splitlines()[-1]


def _deleted(read: Read) -> str:
    topics.delete(read.bootstrap, [read.clicks])
    return f"topic {read.clicks} was deleted at {read.bootstrap}"


def _made_again(read: Read) -> str:
    topics.delete(read.bootstrap, [read.clicks])
    topics.create(read.bootstrap, {read.clicks: {}}, 1, 1)
    return f"topic {read.clicks} was deleted and made again"


def _expired(read: Read) -> str:
    first = read.end()
    read.more()
    return f"{read.clicks}-0: {read.expire() - first:,} records lost"


@pytest.mark.parametrize("strike", [_deleted, _made_again, _expired])
def test_loss_while_running_is_one_line(read, strike):
    """The job is frozen meanwhile, so that it cannot have read what is taken from it."""
    with running(read.arguments()) as (job, told):
        assert job.stdout is not None
        assert "started" in job.stdout.readline()
        os.killpg(job.pid, signal.SIGSTOP)
        said = strike(read)
        os.killpg(job.pid, signal.SIGCONT)
        job.stdout.read()

        assert 1 == job.wait(60)
        *before, line = told().strip().splitlines()
        assert line.startswith("pipeline: query ")
        assert said in line, (before, line)


def test_the_job_runs_as_a_file_too():
    """As spark-submit runs it."""
    run = ended([sys.executable, str(ROOT / "pipeline" / "job.py"), "--help"])

    assert 0 == run.returncode, run.stderr
    assert "--checkpoint" in run.stdout


def test_the_generator_counts_acknowledgements(cluster):
    """What it sent was acknowledged, and it says so."""
    run = ended(
        [sys.executable, "-m", "pipeline.generator", "--bootstrap", cluster.bootstrap, "--eps", "50", "--duration", "2"]
    )

    assert 0 == run.returncode, run.stderr
    assert "sent 100, acknowledged 100, failed 0" in run.stdout


def test_generator_names_an_unreachable_broker():
    """Exit code 1 and a line that names the address."""
    run = ended([sys.executable, "-m", "pipeline.generator", "--bootstrap", "127.0.0.1:1", "--duration", "1"])

    assert 1 == run.returncode
    assert "127.0.0.1:1" in run.stderr.strip().splitlines()[-1]


def test_generator_names_a_missing_topic(cluster):
    """At once, instead of a failure for every record."""
    args = ["--bootstrap", cluster.bootstrap, "--topic-prefix", "other-", "--duration", "1"]
    run = ended([sys.executable, "-m", "pipeline.generator", *args])

    assert 1 == run.returncode
    [line] = run.stderr.strip().splitlines()
    assert f"no topic other-clickstream at {cluster.bootstrap}" in line
