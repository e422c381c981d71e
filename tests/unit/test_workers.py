"""A load from several workers: shares, merged journals, and each reason not to trust it."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest

from harness.errors import ScenarioError, StackError
from harness.experiments import needs
from harness.job.clickstream.events import Workload
from harness.load import distributed, journals
from harness.load.engine import Engine, Plan
from harness.load.workers import FOLDER, PROBES, SILENT_S, Workers, sources
from harness.scenario import load

EVENTS = 5_003
"""No multiple of any number of workers here, and more than two slices."""


class Broker:
    """A producer and its clock: takes what it is given and acknowledges it, a partition for each topic."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ends: dict[str, int] = {}
        self.taken: list[tuple[str, bytes, bytes, int]] = []
        self._pending: list = []

    def clock(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds

    def produce(self, topic, value, key, *, timestamp, on_delivery) -> None:
        """Take a record."""
        self.taken.append((topic, key, value, timestamp))
        self._pending.append((on_delivery, self.ends.get(topic, 0)))
        self.ends[topic] = self.ends.get(topic, 0) + 1

    def poll(self, timeout: float) -> int:
        """Acknowledge everything pending."""
        self.now += timeout
        for callback, offset in self._pending:
            self._offset = offset
            callback(None, self)
        self._pending.clear()
        return 0

    def partition(self) -> int:
        """Of the message acknowledged."""
        return 0

    def offset(self) -> int:
        """Of the message acknowledged."""
        return self._offset


def sent(broker, share=(0, 1), flush=False, until=None):
    """An engine that has sent its share, or the events due in the first `until` seconds of it."""
    shape = Workload(duplicates=0.05, malformed=0.01, late=0.1)
    segments = ((1000.0, 2.0), (0.0, 1.0), (3000.0, 2.0))
    plan = Plan(workload=shape, seed=7, eps=1000.0, events=EVENTS, start_at=1000.0, segments=segments, share=share)
    engine = Engine(plan, broker, "", broker.clock, broker.sleep)
    slept = broker.sleep

    def sleep(seconds: float) -> None:
        slept(seconds)
        if until is not None and broker.now > 1000 + until:
            engine.stop()

    engine._sleep = sleep
    engine.run()
    if flush:
        engine.flush_events(engine.newest_ms + 60_000)
    assert engine.settle(1)
    return engine


@pytest.fixture
def parts(tmp_path):
    """`parts(count, until)` are the journals of that many engines, worker 0's with the flush events."""

    def make(count, until=None):
        paths = [tmp_path / f"{index}.parquet" for index in range(count)]
        for index, path in enumerate(paths):
            sent(Broker(), (index, count), flush=index == 0, until=until).journal.write(path)
        return paths

    return make


@pytest.mark.parametrize("count", [1, 2, 4])
def test_merged_journals_are_the_journal_of_one_engine(parts, tmp_path, count):
    """The same events with the same due times, each once."""
    rows = journals.merge(parts(count), EVENTS, tmp_path / "sent.parquet", whole=True)
    sent(Broker(), flush=True).journal.write(tmp_path / "single.parquet")

    merged, single = (pq.read_table(tmp_path / f"{name}.parquet").sort_by("n") for name in ("sent", "single"))
    own = pa.compute.invert(single["flush"])
    assert EVENTS + 2 == rows
    assert merged.schema == single.schema
    for name in ("n", "topic", "due_us", "event_time_ms", "malformed", "copy"):
        assert merged[name].filter(own).equals(single[name].filter(own)), name


@pytest.mark.parametrize("count", [2, 4])
def test_shares_together_are_the_records_of_one_engine(count):
    """Keys, bytes and timestamps."""
    whole = Broker()
    sent(whole)
    shared = [Broker() for _ in range(count)]
    for index, broker in enumerate(shared):
        sent(broker, (index, count))

    assert sorted(whole.taken) == sorted(record for broker in shared for record in broker.taken)


def test_rows_of_a_partition_are_in_the_order_of_their_offsets():
    """The other rows stay in the order of their numbers; one that was never acknowledged keeps its place."""
    table = pa.table(
        {
            "n": [3, 1, 5, 0, 2, 4],
            "topic": [0, 0, 0, 0, 0, 1],
            "partition": [0, 0, 0, 0, 0, 0],
            "offset": [0, 2, 3, 1, -1, 9],
        }
    )
    columns = [table[name].to_numpy() for name in ("n", "topic", "partition", "offset")]

    assert [3, 0, 2, 1, 4, 5] == table["n"].to_numpy()[journals.in_order(*columns)].tolist()


def test_a_load_that_was_cut_short_may_end_anywhere(parts, tmp_path):
    """Of each share its first events, without a gap."""
    rows = journals.merge(parts(2, until=1), EVENTS, tmp_path / "sent.parquet", whole=False)

    assert 900 < rows < 1100


def test_an_event_that_is_missing_is_named(parts, tmp_path):
    """A worker that stopped early, where all was to be sent."""
    both = parts(2)
    pq.write_table(pq.read_table(both[1])[:-10], both[1])

    with pytest.raises(StackError, match="worker 1 sent 2,491 of its 2,501 events"):
        journals.merge(both, EVENTS, tmp_path / "sent.parquet", whole=True)
    assert not (tmp_path / "sent.parquet").exists()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        pytest.param(lambda one, two: (one, one), "holds other events than its share", id="a share twice"),
        pytest.param(lambda one, two: (two, one), "holds other events than its share", id="another index"),
        pytest.param(
            lambda one, two: (one, pa.concat_tables([two[:100], two[101:]])), "holds other events", id="a gap"
        ),
        pytest.param(lambda one, two: (one, pa.concat_tables([two, two[:1]])), "holds other events", id="one twice"),
        pytest.param(
            lambda one, two: (one, pa.concat_tables([two, one.filter(one["flush"])])),
            "flush events",
            id="flushed twice",
        ),
    ],
)
def test_a_journal_that_is_no_share_is_refused(parts, tmp_path, harm, why, whole):
    """Whether or not the load was cut short."""
    both = parts(2)
    for table, path in zip(harm(*map(pq.read_table, both)), both, strict=True):
        pq.write_table(table, path)

    with pytest.raises(StackError, match=why):
        journals.merge(both, EVENTS, tmp_path / "sent.parquet", whole=whole)


def test_a_journal_that_was_cut_is_refused(parts, tmp_path):
    """As of a disk that was full."""
    both = parts(2)
    both[1].write_bytes(both[1].read_bytes()[:-100])

    with pytest.raises(StackError, match="the journal of worker 1 cannot be read"):
        journals.merge(both, EVENTS, tmp_path / "sent.parquet", whole=True)


def hello(client, pid):
    """A worker's greeting."""
    return {"event": "hello", "client": client, "host": "there", "pid": pid, "sources": sources()}


def clock(client, off_s=0.0, way_s=0.001):
    """The answer to a probe, whose round trip takes twice `way_s`."""
    return {
        "event": "clock",
        "client": client,
        "sent_s": 100.0,
        "theirs_s": 100.0 + way_s + off_s,
        "back_s": 100.0 + 2 * way_s,
    }


def engine(client, event="status", **figures):
    """A line of a worker's load engine."""
    return {"event": "engine", "client": client, "status": {"event": event, **figures}}


@pytest.fixture
def running():
    """Two workers that send."""
    workers = Workers(2)
    for client, pid in (("a", 11), ("b", 12)):
        workers.hear(hello(client, pid))
        for _ in range(PROBES):
            workers.hear(clock(client))
    workers.begin()
    workers.hear({"event": "test_start"})
    for client in "ab":
        workers.hear(engine(client, "ready"))
    assert workers.are("ready")
    workers.run()
    return workers


def test_a_load_to_its_end_has_no_reason_against_it(running):
    """Sums of both, and the worst delay."""
    running.hear(engine("a", sent=10, acked=8, delay_ms_p99=2.0))
    running.hear(engine("b", sent=11, acked=11, delay_ms_p99=3.0))
    assert (21, 19, 3.0) == tuple(running.total()[name] for name in ("sent", "acked", "delay_ms_p99"))
    for client, newest_ms in (("a", 70), ("b", 90)):
        running.hear(engine(client, "settled", newest_ms=newest_ms))
    assert running.are("settled")
    assert 90 == running.newest_ms()
    for client in "ab":
        running.hear({"event": "exited", "client": client, "index": "ab".index(client), "code": 0, "last": ""})
        running.hear({"event": "delivered", "client": client, "bytes": 9, "intact": True})
    running.hear({"event": "connected", "client": "a"})  # again, after a pause
    running.hear({"event": "test_stop"})
    running.pass_time(SILENT_S + 1)

    assert running.are("delivered")
    assert "" == running.why


def test_another_version_of_the_harness_is_refused():
    """It would make other events from the same seed."""
    workers = Workers(2)
    workers.hear(hello("a", 11))
    assert "" == workers.why
    workers.hear(hello("b", 12) | {"sources": "0"})

    assert "worker 1 (there, pid 12) has another version of the harness" in workers.why


def silence(workers):
    """Nothing from b, while a goes on."""
    for _ in range(round(SILENT_S) + 2):
        workers.pass_time(1)
        workers.hear(engine("a"))


def silence_after_a_sign_of_life(workers):
    """The last that is heard of b is not of its engine."""
    workers.pass_time(1)
    workers.hear({"event": "alive", "client": "b", "index": 1})
    silence(workers)


def silence_of_an_engine(workers):
    """Worker b is there, and its engine is not."""
    for _ in range(round(SILENT_S) + 2):
        workers.pass_time(1)
        workers.hear(engine("a"))
        workers.hear({"event": "alive", "client": "b", "index": 1})


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        pytest.param(
            lambda workers: workers.died(12, -9), r"worker 1 \(there, pid 12\) died with signal 9", id="a worker dies"
        ),
        pytest.param(silence, r"worker 1 \(there, pid 12\) hangs or is cut off", id="a worker hangs"),
        pytest.param(
            silence_after_a_sign_of_life,
            r"worker 1 \(there, pid 12\) hangs or is cut off",
            id="a worker hangs, engine first",
        ),
        pytest.param(silence_of_an_engine, r"load engine of worker 1 .* hangs", id="an engine hangs"),
        pytest.param(
            lambda workers: workers.hear(
                {
                    "event": "exited",
                    "client": "b",
                    "index": 1,
                    "code": 1,
                    "last": "9 of 10 records were not acknowledged",
                }
            ),
            r"load engine of worker 1 .* ended with code 1: 9 of 10 records were not acknowledged",
            id="an engine fails",
        ),
        pytest.param(
            lambda workers: workers.hear(hello("c", 13)), "there joined as worker 2 .* another index", id="a third"
        ),
        pytest.param(
            lambda workers: workers.hear({"event": "connected", "client": "there_1f2e"}),
            "there joined as worker 2 .* another index",
            id="a third connects",
        ),
        pytest.param(
            lambda workers: workers.hear(engine("b") | {"index": 0}), "worker 1 .* came back as worker 0", id="index"
        ),
        pytest.param(lambda workers: workers.hear({"event": "test_start"}), "started its test again", id="test again"),
        pytest.param(
            lambda workers: workers.hear({"event": "again", "client": "a", "index": 0}),
            "started its test again: worker 0 .* second load engine",
            id="user again",
        ),
        pytest.param(
            lambda workers: workers.hear({"event": "stopped", "client": "a", "index": 0}),
            "Locust stopped worker 0",
            id="user stopped",
        ),
        pytest.param(
            lambda workers: workers.hear({"event": "test_stop"}), "Locust stopped its test", id="test stopped"
        ),
        pytest.param(
            lambda workers: workers.hear({"event": "delivered", "client": "a", "bytes": 9, "intact": False}),
            "journal of worker 0 .* damaged",
            id="journal damaged",
        ),
    ],
)
def test_what_goes_wrong_is_the_reason(running, harm, why):
    """The first thing that does; what follows is its consequence."""
    harm(running)
    running.hear({"event": "test_stop"})
    running.died(11, 1)

    assert re.search(why, running.why), running.why


def test_a_pause_of_the_coordinator_is_no_silence(running):
    """At most half a second counts between two looks."""
    assert distributed.LOOK_MAX_S < SILENT_S / 10
    running.pass_time(distributed.LOOK_MAX_S)

    assert "" == running.why


def test_the_shortest_round_trip_measures_the_clock():
    """A queue on the way makes others long, and their middle wrong."""
    workers = Workers(1)
    workers.hear(hello("a", 11))
    for way_s in (0.5, 0.001, 0.2):
        workers.hear(clock("a", off_s=0.02, way_s=way_s) | {"theirs_s": 100.021 if way_s == 0.001 else 100.0})

    assert [(20.0, 2.0)] == [(row["skew_ms"], row["round_trip_ms"]) for row in workers.table()]


@pytest.mark.parametrize(("off_s", "why"), [(0.09, ""), (-0.09, ""), (0.2, "is +0.200 s off"), (-0.2, "is -0.200 s")])
def test_a_clock_that_is_off_is_refused(off_s, why):
    """Latencies of the run would be wrong by as much."""
    workers = Workers(1)
    workers.hear(hello("a", 11))
    for _ in range(PROBES):
        workers.hear(clock("a", off_s))

    assert workers.are_measured()
    assert why in workers.why
    assert bool(why) == bool(workers.why)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        pytest.param(["load.workers=2"], "only with load.engine = 'locust'", id="workers of one engine"),
        pytest.param(["load.web=true"], "only with load.engine = 'locust'", id="page of one engine"),
        pytest.param(["load.engine=locust", "load.master=a b"], "HOST or HOST:PORT", id="no address"),
        pytest.param(["load.engine=locust", "load.master=here:99999"], "HOST or HOST:PORT", id="no port"),
        pytest.param(
            ["load.engine=locust", "load.master=10.0.0.7"], "cannot reach embedded brokers", id="brokers out of reach"
        ),
        pytest.param(["load.engine=locust", "load.workers=0"], "must lie between 1 and 64", id="no worker"),
    ],
)
def test_what_cannot_be_is_refused(overrides, problem):
    """Before anything starts."""
    with pytest.raises(ScenarioError, match=problem):
        load("load", overrides)


@pytest.mark.parametrize(
    "overrides",
    [["load.workers=4"], ["load.master=127.0.0.1:7000"], ["load.master=10.0.0.7", "kafka.where=broker:9092"]],
)
def test_what_can_be_is_taken(overrides):
    """Workers here, or elsewhere where they reach the brokers."""
    assert "locust" == load("load", ["load.engine=locust", *overrides]).load.engine


@pytest.mark.parametrize(("text", "found"), [("here", ("here", 5557)), ("10.0.0.7:7000", ("10.0.0.7", 7000))])
def test_an_address_has_locusts_port_by_default(text, found):
    """HOST or HOST:PORT."""
    assert found == distributed.address(text)


def test_settings_of_the_users_own_locust_are_left_out(monkeypatch, tmp_path):
    """Such as a number of users, or a time after which the test ends."""
    monkeypatch.setenv("LOCUST_RUN_TIME", "5s")

    assert "LOCUST_RUN_TIME" not in distributed.environment(tmp_path)
    assert str(tmp_path) == distributed.environment(tmp_path)[FOLDER]


def test_locust_that_is_missing_is_named(monkeypatch):
    """With the command that installs it."""
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: None)

    with pytest.raises(StackError, match=r"pip install 'streaming-harness\[load\]'"):
        needs.require(load("load", ["load.engine=locust", "kafka.where=broker:9092"]))
