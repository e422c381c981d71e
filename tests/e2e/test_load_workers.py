"""A load that Locust coordinates: every event once, and each way in which Locust would lose some of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from contextlib import suppress
from http.client import HTTPException

import confluent_kafka
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from harness.errors import StackError
from harness.host import processes
from harness.job.clickstream import events as workload
from harness.job.clickstream.events import TOPICS, Workload
from harness.kafka import topics
from harness.kafka.cluster import await_true
from harness.load.process import Load

pytestmark = pytest.mark.e2e

EPS = 2_000.0
NOWHERE = "127.0.0.1:1"
"""No broker: what is sent stays with the client, which is enough to see who goes on."""


@pytest.fixture
def load(tmp_path):
    """`load(bootstrap, seconds, *flags)` is a load from two workers that has begun."""
    started = []

    def begin(bootstrap: str, seconds: float, *flags: str) -> Load:
        plan = {"workload": {}, "seed": 7, "eps": EPS, "acks": "all", "events": round(EPS * seconds), "segments": []}
        (tmp_path / "plan.json").write_text(json.dumps(plan))
        files = ["--plan", str(tmp_path / "plan.json"), "--sent", str(tmp_path / "sent.parquet")]
        folders = ["--folder", str(tmp_path / "journals"), "--logs", str(tmp_path)]
        command = [sys.executable, "-m", "harness.load.distributed", "--bootstrap", bootstrap, "--workers", "2"]
        running = Load([*command, *files, *folders, *flags], tmp_path / "load.log")
        started.append(running)
        running.prepare()
        assert await_true(lambda: running.finished() or running.is_ready(), 120)
        running.start(time.time() + 1.5)
        return running

    yield begin
    for running in started:
        running.stop()


def workers(load: Load) -> list[psutil.Process]:
    """The processes of Locust's workers."""
    assert load.pid is not None
    children = psutil.Process(load.pid).children(recursive=True)
    return [child for child in children if "--worker" in command_line(child)]


def consumed(bootstrap: str, count: int) -> list[tuple[str, bytes, bytes, int]]:
    """Every record of the input topics: topic, key, value, timestamp in ms."""
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "all", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(list(TOPICS))
    records: list[tuple[str, bytes, bytes, int]] = []
    while len(records) < count:
        batch = consumer.consume(10_000, timeout=30)
        assert batch, f"{len(records)} of {count} records"
        records += [(one.topic(), one.key(), one.value(), one.timestamp()[1]) for one in batch]
    consumer.close()
    return records


def test_two_workers_send_what_one_engine_sends(load, cluster, tmp_path):
    """The records at the broker are the scenario's, each once, with its due time; the journal has the place of each."""
    topics.create(cluster.bootstrap, {topic: {} for topic in TOPICS}, 2, 1)
    running = load(cluster.bootstrap, 3)
    events = round(EPS * 3)
    running.flush()
    assert await_true(running.finished, 120)

    sent = pq.read_table(tmp_path / "sent.parquet")
    own = {name: sent[name].to_numpy() for name in ("n", "partition", "offset", "due_us")}
    assert list(range(events + 2)) == sorted(own["n"].tolist())
    assert events + 2 == running.sent == running.acknowledged
    made = workload.batch(Workload(), 7, EPS, 0, events)
    due_ms = {n: due_us // 1000 for n, due_us in zip(own["n"].tolist(), own["due_us"].tolist(), strict=True)}
    expected = Counter(
        (TOPICS[topic], key, value, due_ms[n])
        for n, (topic, key, value) in enumerate(zip(made.topic.tolist(), made.keys, made.values, strict=True))
    )
    found = Counter(record for record in consumed(cluster.bootstrap, events + 2) if record[1] != b"flush")
    assert expected == found
    start_us = own["due_us"][own["n"] == 0][0]
    schedule = start_us + own["n"][own["n"] < events] * 1e6 / EPS
    assert np.abs(own["due_us"][own["n"] < events] - schedule).max() <= 1
    for topic in TOPICS:
        for partition in (0, 1):
            here = (sent["topic"].to_numpy() == topic) & (own["partition"] == partition)
            assert list(range(here.sum())) == own["offset"][here].tolist()


def test_nothing_goes_on_when_the_harness_is_gone(load, tmp_path):
    """Killed, with the coordinator: Locust and the load engines end by themselves, at the end of their input."""
    running = load(NOWHERE, 600)
    assert await_true(lambda: running.finished() or running.sent > 0, 60)
    coordinator = psutil.Process(running.pid)
    family = coordinator.children(recursive=True)
    assert 5 == len([one for one in family if one.name().startswith("python")])  # master, two workers, two engines
    coordinator.kill()

    assert await_true(lambda: all(processes._is_dead(one) for one in family), 30)


def kill(load: Load) -> None:
    """A worker dies at once."""
    workers(load)[0].send_signal(signal.SIGKILL)


def stop(load: Load) -> None:
    """A worker hangs; its load engine goes on."""
    workers(load)[0].send_signal(signal.SIGSTOP)


def join(load: Load) -> subprocess.Popen[bytes]:
    """A worker comes, as one that died and was started again would: Locust takes a user from another for it."""
    options = workers(load)[0].cmdline()
    master = f"127.0.0.1:{options[options.index('--master-port') + 1]}"
    return processes.spawn([sys.executable, "-m", "harness", "load-worker", master])


def press(load: Load, button: str, form: bytes) -> None:
    """Somebody presses a button of Locust's page, which may be gone before it has answered."""
    with suppress(OSError, HTTPException):
        urllib.request.urlopen(f"{load.page}/{button}", form, timeout=30).close()


def press_start(load: Load) -> None:
    """Users are added to those that run."""
    press(load, "swarm", b"user_count=4&spawn_rate=4")


def press_stop(load: Load) -> None:
    """The users are stopped."""
    press(load, "stop", b"")


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        pytest.param(kill, r"worker \d \(.+, pid \d+\) died with signal 9 before the load was over", id="killed"),
        pytest.param(stop, r"worker \d \(.+, pid \d+\) hangs or is cut off", id="hangs"),
        pytest.param(join, "joined as worker 2 of a load that has 2: .* another index", id="another index"),
        pytest.param(press_start, "Locust started its test again: worker . ", id="started again"),
        pytest.param(press_stop, "Locust stopped (its test|worker .*) before", id="stopped"),
    ],
)
def test_what_locust_goes_on_after_ends_the_load(load, harm, why):
    """With the reason; Locust itself would end with exit code 0."""
    running = load(NOWHERE, 600, "--silent-s", "6", *(["--web"] if "press" in harm.__name__ else []))
    assert await_true(lambda: running.finished() or running.sent > 0, 60)
    newcomer = harm(running)

    try:
        with pytest.raises(StackError, match=why):
            await_true(running.finished, 60)
    finally:
        if newcomer:
            processes.stop(newcomer)


def test_locusts_page_counts_events(load):
    """Not batches of them, and not its own requests: its rate is that of the load."""
    running = load(NOWHERE, 600, "--web")
    assert await_true(lambda: running.finished() or running.sent > 4 * EPS, 60)
    with urllib.request.urlopen(f"{running.page}/stats/requests", timeout=30) as answer:
        shown = json.load(answer)["stats"][0]

    assert "events" == shown["name"]
    assert EPS < shown["num_requests"] <= running.sent + EPS * 5


KILL = """
judged = ["state_size", "success"]
proves = ["restarts"]
[load]
engine = "locust"
workers = 2
eps = 600
warm_up_s = 2
duration_s = 8
stretch_s = 500
[workload]
time_scale = 120
malformed = 0.002
[pipeline]
quick_start = true
[[fault]]
kind = "kill"
on = "pipeline"
at = 1_500
for_s = 1
"""


def command_line(process: psutil.Process) -> list[str]:
    """Of a process that may have ended meanwhile, and then has none."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("killed", [False, True], ids=["pipeline killed", "worker killed"])
def test_a_run_with_two_workers(tmp_path, killed):
    """The pipeline is killed, and every row is right; where a worker is killed the run is unknown, with the reason."""
    (tmp_path / "kill.toml").write_text(KILL)
    command = [sys.executable, "-m", "harness", "run", "kill.toml", "--json"]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stderr is not None
    try:
        if killed:
            assert any(line.startswith("warm up") for line in run.stderr)
            children = psutil.Process(run.pid).children(recursive=True)
            [*_, worker] = [child for child in children if "--worker" in command_line(child)]
            worker.kill()
        said, complaints = run.communicate(timeout=420)
    finally:
        run.kill()
    result = json.loads(said)

    assert (3 if killed else 0) == run.returncode, complaints
    assert ("unknown" if killed else "pass") == result["verdict"], result["why"]
    if killed:
        assert "died with signal 9 before the load was over" in result["why"]
        return
    [directory] = (tmp_path / "reports" / "kill").glob("2*")
    numbers = pq.read_table(directory / "sent.parquet")["n"].to_pylist()
    assert len(set(numbers)) == len(numbers) == result["counts"]["acknowledged"] == result["counts"]["read"]
    history = [json.loads(line) for line in (directory / "history.jsonl").read_text().splitlines()]
    [joined] = [event["workers"] for event in history if event["kind"] == "load_workers"]
    assert [0, 1] == [worker["index"] for worker in joined]
    assert all(abs(worker["skew_ms"]) <= worker["round_trip_ms"] for worker in joined)
