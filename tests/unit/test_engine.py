"""The schedule, with a clock and a producer made for the purpose."""

from __future__ import annotations

import io
import json
import socket
import sys
import time
from queue import Queue
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from confluent_kafka import KafkaException

from harness.errors import StackError
from harness.job.clickstream.events import Workload
from harness.load import __main__ as process
from harness.load.engine import ACKNOWLEDGED_S, Engine, Plan, end_s, producer_settings, settle_s
from harness.load.process import Load
from harness.runner.waiting import eventually


class Bench:
    """A clock that moves only by sleeping, and a producer that can be full for a while."""

    def __init__(self, full_from: float = 0, full_to: float = 0) -> None:
        self.now = 1000.0
        self.full = (full_from, full_to)
        self.taken: list[tuple[float, int]] = []
        self.on_sleep = lambda: None
        self.acknowledges = True
        self._pending: list = []

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.on_sleep()

    def produce(self, topic, value, key, *, timestamp, on_delivery) -> None:
        """Take a record, unless the buffer is full."""
        if self.full[0] <= self.now < self.full[1]:
            raise BufferError
        self.taken.append((self.now, timestamp))
        self._pending.append(on_delivery)

    def poll(self, timeout: float) -> int:
        """Acknowledge everything pending."""
        self.now += timeout
        if not self.acknowledges:
            return 0
        for callback in self._pending:
            callback(None, self)
        self._pending.clear()
        return 0

    def partition(self) -> int:
        """Of the message acknowledged."""
        return 1

    def offset(self) -> int:
        """Of the message acknowledged."""
        return 5


def engine(bench: Bench, events: int = 100, eps: float | None = 100) -> Engine:
    """An engine whose schedule starts at second 1000."""
    plan = Plan(workload=Workload(), seed=7, eps=eps, events=events, start_at=1000.0)
    return Engine(plan, bench, "p-", bench.clock, bench.sleep)


def test_no_event_is_sent_early():
    """Event n at start + n / eps."""
    bench = Bench()
    engine(bench).run()

    assert [round(1_000_000 + 10 * n) for n in range(100)] == pytest.approx([stamp for _, stamp in bench.taken], abs=1)
    assert all(at >= 1000 + n / 100 - 1e-6 for n, (at, _) in enumerate(bench.taken))


def test_sent_is_reported_before_waiting():
    """At a low rate too: a fault that waits until all is read which was sent would else strike too early."""
    bench = Bench()
    run = engine(bench, events=5, eps=1)
    told: set[tuple[int, int]] = set()
    bench.on_sleep = lambda: told.add((len(bench.taken), run.journal.sent))
    run.run()

    assert {(n, n) for n in range(1, 5)} <= told
    assert all(taken == sent for taken, sent in told)


def test_stall_delays_every_held_event():
    """Open loop: the events that were due during the stall count from their due time."""
    bench = Bench(full_from=1000.2, full_to=1000.7)
    run = engine(bench)
    run.run()

    columns = run.journal.columns
    delay_ms = (columns["sent_us"] - columns["due_us"])[:100] / 1000
    nap_ms = 5
    assert delay_ms[:20].max() <= nap_ms
    assert 490 < delay_ms[20] < 520
    assert 190 < delay_ms[50] < 220
    assert delay_ms[80:].max() <= nap_ms


@pytest.mark.parametrize(
    ("eps", "linger_ms"), [(20, 100), (1_000, 100), (5_000, 50), (20_000, 12), (100_000, 5), (None, 5)]
)
def test_request_waits_for_events(eps, linger_ms):
    """250 of them, within 5 and 100 ms."""
    assert linger_ms == producer_settings(eps)["linger.ms"]


@pytest.mark.parametrize(("acks", "said"), [("all", ("all", True)), ("leader", ("1", False))])
def test_idempotence_needs_all_replicas(acks, said):
    """Idempotence is a promise of acks=all alone."""
    settings = producer_settings(1000, acks)

    assert said == (settings["acks"], settings["enable.idempotence"])


def test_unpaced_sends_all_at_once():
    """Without a rate everything is due at the start."""
    bench = Bench()
    engine(bench, eps=None).run()

    assert {1000.0} == {at for at, _ in bench.taken}


def test_a_stop_ends_the_sending():
    """What was sent until then stays in the journal."""
    bench = Bench()
    run = engine(bench)
    bench.on_sleep = run.stop
    run.run()

    assert 1 == run.journal.sent


def test_stop_ends_waiting_for_room():
    """The event that had none was not sent, and those before it stand in the journal."""
    bench = Bench(full_from=1000.2, full_to=2000)
    run = engine(bench)
    bench.on_sleep = lambda: run.stop() if bench.now > 1000.5 else None
    polled = bench.poll

    def poll(timeout: float) -> int:
        bench.on_sleep()
        return polled(timeout)

    bench.poll = poll
    run.run()

    assert 20 == run.journal.sent == len(bench.taken)
    assert 20 == int((run.journal.columns["sent_us"] > 0).sum())


def test_stuck_client_keeps_the_journal():
    """Such as one that was fenced; the flush is not tried for ever either."""
    bench = Bench()
    run = engine(bench)
    taken = bench.produce

    def produce(*record, **details) -> None:
        if len(bench.taken) == 50:
            raise KafkaException("fatal")
        taken(*record, **details)

    bench.produce = produce
    run.run()
    run.flush_events()

    assert 50 == run.journal.sent == int((run.journal.columns["sent_us"] > 0).sum())
    assert "fatal" in run.broken


def test_journal_holds_broker_answers(tmp_path):
    """A row an event, flush events marked, offsets as acknowledged."""
    bench = Bench()
    run = engine(bench, events=10)
    run.run()
    run.flush_events()
    assert run.settle(1)
    run.journal.write(tmp_path / "sent.parquet")

    table = pq.read_table(tmp_path / "sent.parquet").to_pydict()
    assert list(range(12)) == table["n"]
    assert [False] * 10 + [True] * 2 == table["flush"]
    assert {5} == set(table["offset"])
    assert {"clickstream", "transactions"} == set(table["topic"])


@pytest.mark.parametrize(
    ("said", "stops", "word"),
    [
        pytest.param("enough\nflush\n", 1, "flush", id="to its end"),
        pytest.param("flush\n", 0, "flush", id="all of the plan"),
        pytest.param("", 1, "", id="nobody is there any more"),
    ],
)
def test_what_it_is_told(monkeypatch, said, stops, word):
    """Where its input ends nobody wants the rest of the plan: whoever started it has been killed."""
    stopped, told = [], Queue()
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    process._listen(SimpleNamespace(stop=lambda: stopped.append(1)), told)

    assert (stops, word) == (len(stopped), told.get_nowait())


def test_who_waits_longer_names_the_records():
    """The client gives a record up first, then the load engine ends with its message, then the run."""
    client_s = producer_settings(1000)["delivery.timeout.ms"] / 1000

    assert client_s == ACKNOWLEDGED_S < settle_s() < end_s()


def test_unanswered_records_end_the_settling():
    """A client that never answers, on a clock of its own: each record counts as unacknowledged."""
    bench = Bench()
    bench.acknowledges = False
    run = engine(bench, events=7)
    run.run()
    start_s = bench.now

    assert (False, 7) == (run.settle(settle_s()), run.unacknowledged)
    assert settle_s() == pytest.approx(bench.now - start_s, abs=0.1)


@pytest.fixture
def silent_port():
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_brokers_that_never_answer_are_named(tmp_path, silent_port):
    """The load engine's process ends by itself with the count of its records, before the run's own patience ends.

    A second stands for the time that a record may be unanswered.
    """
    plan = {"workload": {}, "seed": 7, "eps": 1000.0, "acks": "all", "events": 20, "start_at": time.time()}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    where = ["--bootstrap", f"127.0.0.1:{silent_port}", "--acknowledged-s", "1"]
    files = ["--plan", str(tmp_path / "plan.json"), "--sent", str(tmp_path / "sent.parquet")]
    load = Load([sys.executable, "-m", "harness.load", *where, *files], tmp_path / "load.log")
    load.prepare()
    try:
        with pytest.raises(StackError, match=rf"20 of 20 records were not acknowledged by 127.0.0.1:{silent_port}"):
            eventually(load.finished, lambda: load.acknowledged, "the load engine to end", end_s(1))
        load.flush()  # to a process that has ended: no error of its own
    finally:
        load.stop()
    assert (tmp_path / "sent.parquet").is_file()
