"""A fault is proved by what is seen before and after, and never by having been ordered."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Barrier

import pytest

from harness import faults
from harness.errors import StackError
from harness.faults import cluster, parts, processes, retention
from harness.faults.crash import Query, crash
from harness.scenario import Fault


class Process:
    """A process that works, and may be immune, or dead for good."""

    def __init__(self, immune: bool = False, dead: bool = False) -> None:
        self.up = not dead
        self.immune = immune
        self.did: list[str] = []

    def __getattr__(self, verb: str):
        def do() -> bool:
            self.did.append(verb)
            self.up = verb in ("start", "resume") or self.immune
            return True

        return do

    def is_up(self) -> bool:
        """Whether it works."""
        return self.up


def struck(process: Process, kind: str = "kill") -> faults.Outcome:
    """The fault on one process, in a time that only passes by sleeping."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return processes.inject(Fault(kind=kind, at=1, for_s=2), {"p": process}, faults.Patience(5, lambda: now[0], sleep))


@pytest.mark.parametrize(
    ("kind", "did"), [("kill", ["kill", "start"]), ("stop", ["stop", "start"]), ("pause", ["pause", "resume"])]
)
def test_a_fault_strikes_and_heals(kind, did):
    """Each kind has its remedy, and the length is the fault's own."""
    process = Process()
    result = struck(process, kind)

    assert (did, True, 2.0) == (process.did, result.proved, result.healed_s)


def test_slow_answer_spoils_no_fault():
    """A busy broker, or master, may take longer than one look waits; one that never answers was down already."""
    slow, down = Process(), Process()
    slow.is_up = iter([False, True, *[False] * 9, *[True] * 9]).__next__
    down.is_up = lambda: False

    assert struck(slow).proved
    assert not struck(down).proved


def test_killed_is_not_stopped():
    """It is down, but not in the way that the fault is called by."""

    class Hangs(Process):
        def stop(self) -> bool:
            """Killed after all."""
            self.up = False
            return False

    assert not struck(Hangs(), "stop").proved


@pytest.mark.parametrize(("comes", "starts"), [(True, 1), (False, 0)])
def test_absent_crash_point_leaves_pipeline_alone(tmp_path, comes, starts):
    """A second one would share its checkpoint."""
    process, now = Process(), [0.0]
    (tmp_path / "offsets").mkdir()

    def sleep(seconds: float) -> None:
        now[0] += max(seconds, 0.01)
        if comes and now[0] > 1:
            (tmp_path / "offsets" / "0").touch()

    query = Query(tmp_path, lambda: 0)
    fault = Fault(kind="crash", point="after offsets", at=1)
    done = crash(fault, process, query, faults.Patience(5, lambda: now[0], sleep))

    assert (comes, starts) == (done.proved, process.did.count("start"))
    assert process.up


def test_brokers_start_together():
    """Of brokers that are all down each waits for the others, since they elect a controller."""
    all_started = Barrier(3, timeout=10)

    class Voter(Process):
        def start(self) -> None:
            """Wait for the rest of the quorum."""
            all_started.wait()
            self.up = True

    now = [0.0]
    brokers = {f"broker {number}": Voter() for number in (1, 2, 3)}
    patience = faults.Patience(5, lambda: now[0], lambda _: None)
    result = processes.inject(Fault(kind="kill", on="all brokers", at=1), brokers, patience)

    assert 0.0 == result.healed_s


class Replicas:
    """A leader and two followers, of which one takes over when both go on and the leader does not."""

    def __init__(self, elect: bool = True, immune: bool = False) -> None:
        self.leader, self.followers = Process(), (Process(immune), Process())
        self.elect = elect

    def taken_over(self) -> bool:
        """Whether another leads."""
        return self.elect and not self.leader.up and all(one.up for one in self.followers)

    def fail_over(self) -> faults.Outcome:
        """In a time that only passes by sleeping."""
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        fault = Fault(kind="fail_over", on="leader", at=1, for_s=2)
        patience = faults.Patience(5, lambda: now[0], sleep)
        return cluster.fail_over(fault, self.leader, self.followers, self.taken_over, patience)


def test_lone_leader_returns_as_follower():
    """Its followers are frozen meanwhile, and one of them leads before it is started."""
    replicas = Replicas()
    result = replicas.fail_over()

    assert (["kill", "start"], True, 2.0) == (replicas.leader.did, result.proved, result.healed_s)
    assert all(["pause", "resume"] == one.did for one in replicas.followers)


@pytest.mark.parametrize("replicas", [Replicas(elect=False), Replicas(immune=True)], ids=["no election", "not frozen"])
def test_no_takeover_is_no_failover(replicas):
    """It came back as the leader that it was, or a follower had copied what it had."""
    assert not replicas.fail_over().proved


def test_fault_without_effect_is_unproved():
    """The process went on working."""
    assert not struck(Process(immune=True)).proved


def test_fault_on_broken_target_is_unproved():
    """It was down already."""
    assert not struck(Process(dead=True)).proved


def test_missing_broker_is_named():
    """With those that are."""
    with pytest.raises(StackError, match="there is no broker 3; there are 1"):
        parts.chosen("broker 3", {1: Process()}, lambda: 1, lambda: 1)


@pytest.mark.parametrize(("immune", "proved"), [(False, True), (True, False)])
def test_brokers_restart_one_by_one(immune, proved):
    """Never two at once; proved only where each was seen to be down."""
    order: list[tuple[str, str]] = []

    class Named(Process):
        def __init__(self, name: str, immune: bool = False) -> None:
            super().__init__(immune)
            self.name = name

        def stop(self) -> None:
            order.append((self.name, "stop"))
            self.up = self.immune

        def start(self) -> None:
            order.append((self.name, "start"))
            self.up = True

    now = [0.0]
    brokers = {"1": Named("1"), "2": Named("2", immune)}
    result = cluster.roll(
        Fault(kind="roll", at=1),
        brokers,
        faults.Patience(5, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds + 0.01)),
    )

    assert [("1", "stop"), ("1", "start"), ("2", "stop"), ("2", "start")] == order
    assert proved is result.proved


@pytest.mark.parametrize(("added", "proved"), [(2, True), (1, False), (0, False)])
def test_missing_partitions_are_unproved(added, proved):
    """Counted in the metadata, before and after."""
    there, now = [2], [1.0]

    def add() -> int:
        there[0] += added
        return 2

    result = cluster.widen(
        Fault(kind="partitions", at=1),
        lambda: there[0],
        add,
        lambda: there[0],
        faults.Patience(5, lambda: now[0], lambda seconds: now.__setitem__(0, now[0] + seconds)),
    )

    assert proved is result.proved
    assert (1.0 if proved else None) == result.healed_s


def test_two_brokers_are_the_first_two():
    """Of three they leave no quorum."""
    brokers = {number: Process() for number in (1, 2, 3)}

    assert ["broker 1", "broker 2"] == list(parts.chosen("two brokers", brokers, lambda: 3, lambda: 1))


class Pipeline(Process):
    """A pipeline that refuses to go on without records that it has not read, unless it is careless."""

    def __init__(self, careless: bool = False) -> None:
        super().__init__()
        self.careless = careless
        self.code: int | None = None

    def start(self, extra: Sequence[str] = (), may_end: bool = False) -> None:
        """It ends at once where it refuses."""
        self.did.append(" ".join(["start", *extra, *(["which may end"] if may_end else [])]))
        self.up = self.careless or bool(extra)
        self.code = None if self.up else 1

    def expect_end(self, expected: bool = True) -> None:
        """Noted."""
        self.did.append("expect end" if expected else "expect none")

    def ended(self) -> int | None:
        """Its exit code."""
        return self.code

    def last_line(self) -> str:
        """Why it ended."""
        return "300 records lost"


class Log:
    """A partition that grows whenever it is looked at, and may keep what is deleted."""

    def __init__(self, keeps: bool = False, grows: int = 100) -> None:
        self.keeps, self.grows = keeps, grows
        self.first, self.next = 0, 1000

    def begin(self) -> int:
        """The first offset."""
        return self.first

    def end(self) -> int:
        """The next offset."""
        self.next += self.grows
        return self.next

    def delete(self, before: int) -> None:
        """Remove what lies before."""
        self.first = self.first if self.keeps else before


def expired(pipeline: Pipeline, log: Log) -> faults.Outcome:
    """Retention, in a time that only passes by sleeping."""
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    fault = Fault(kind="retention", at=1, flags=("--accept",))
    return retention.expire(
        fault, pipeline, log, lambda offset: pipeline.careless, faults.Patience(5, lambda: now[0], sleep)
    )


def test_refused_loss_restarts_with_flags():
    """At least 300 records that came after the stop are gone, and what it said is kept."""
    pipeline, log = Pipeline(), Log()
    result = expired(pipeline, log)

    assert ["stop", "start which may end", "start --accept"] == pipeline.did
    assert result.proved
    assert result.healed_s is not None
    assert {"code": 1, "said": "300 records lost"} == result.proof["refused"]
    assert result.proof["begin"] >= result.proof["stopped_at"] + 300


def test_silent_loss_is_no_refusal():
    """It is let alone, and judged by what it did not read."""
    pipeline = Pipeline(careless=True)
    result = expired(pipeline, Log())

    assert ["stop", "start which may end", "expect none"] == pipeline.did
    assert result.proof["refused"] is None
    assert result.proved


@pytest.mark.parametrize(
    "log", [pytest.param(Log(keeps=True), id="nothing was deleted"), pytest.param(Log(grows=0), id="nothing came")]
)
def test_retention_without_loss_is_unproved(log):
    """The broker's first offset says what is gone."""
    assert not expired(Pipeline(), log).proved


def test_killed_and_stopped_differ_in_unread():
    """It hangs when it is asked to stop, and is killed: not proved."""

    class Hangs(Pipeline):
        def stop(self) -> bool:
            """Killed after all."""
            self.did.append("stop")
            return False

    assert not expired(Hangs(), Log()).proved
