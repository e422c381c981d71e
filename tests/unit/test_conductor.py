"""The conductor against fakes: which phases a run has, and what is recorded when it ends early."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import Checkpoint, Clock
from msgspec import structs
from rich.console import Console

from harness import scenario
from harness.engines.spark import sinks
from harness.errors import PipelineDied, StackError, Stalled
from harness.model import Row
from harness.rundir import history
from harness.rundir.events import Interrupted, LoadWorkers, Phase, PipelineEnded, Standstill
from harness.runner import conductor, waiting
from harness.runner.console import Status
from harness.runner.testbed import Rig

EPS = 100


class Load:
    """A load engine that is always on time; all is acknowledged at once."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.started_s, self.ended = clock, 0.0, False
        self.asked: list[str] = []
        self.flush_ms = 10_000_000
        self.workers, self.page, self.ready = [], "", True

    @property
    def sent(self) -> int:
        return round(max(0.0, self.clock() - self.started_s) * EPS) if self.started_s else 0

    acknowledged = sent

    def prepare(self) -> None:
        pass

    def is_ready(self) -> bool:
        return self.ready

    def start(self, at_s: float) -> None:
        self.asked.append("start")
        self.started_s = at_s

    def enough(self) -> None:
        self.asked.append("enough")

    def flush(self) -> None:
        self.asked.append("flush")
        self.ended = True

    def finished(self) -> bool:
        return self.ended


class System:
    """A pipeline that is ready `ready_s` after its start, and calls `fails` at each check from `fails_s` on."""

    def __init__(self, clock: Clock, ready_s: float = 0.0) -> None:
        self.clock, self.ready_s, self.started_s = clock, ready_s, 0.0
        self.batch_ms, self.state_bytes = 0.0, {}
        self.asked: list[str] = []
        self.fails, self.fails_s = (lambda: None), float("inf")

    def start(self) -> None:
        self.asked.append("start")
        self.started_s = self.clock()

    def has_started(self) -> bool:
        return bool(self.started_s) and self.clock() - self.started_s >= self.ready_s

    def check(self) -> None:
        if self.clock() >= self.fails_s:
            self.fails()

    def cpu_s(self) -> float:
        return 0.0

    def stop(self) -> None:
        self.asked.append("stop")

    def dismiss(self) -> None:
        self.asked.append("dismiss")

    def tell_stacks(self) -> None:
        self.asked.append("thread dump")


class Followed(Checkpoint):
    """A checkpoint in which every query is as far as the load, until `stuck_s`."""

    def __init__(self, clock: Clock, load: Load) -> None:
        super().__init__(clock)
        self.load, self.stuck_s, self.swept = load, float("inf"), 0

    def read(self) -> int:
        return 0 if self.clock() >= self.stuck_s else self.load.acknowledged

    def sweep(self) -> None:
        self.swept += 1

    def committed(self, query: str) -> int:
        return self.read()

    def watermark_ms(self, query: str) -> int:
        return 0 if self.clock() >= self.stuck_s else self.load.flush_ms

    def reached(self, query: str, goal: object) -> bool:
        return self.clock() < self.stuck_s


@pytest.fixture
def clock(monkeypatch) -> Clock:
    """The only clock of the conductor."""
    clock = Clock()
    fake = SimpleNamespace(time=clock, monotonic=clock, monotonic_ns=lambda: int(clock() * 1e9), sleep=clock.sleep)
    monkeypatch.setattr(conductor, "time", fake)
    monkeypatch.setattr(conductor, "eventually", partial(waiting.eventually, clock=clock, now=clock, sleep=clock.sleep))
    return clock


@pytest.fixture
def rig(clock, tmp_path, monkeypatch):
    """What `assemble` gives to the conductor: every part is a fake."""
    load = Load(clock)

    def assembled(stack, chosen, directory, happenings) -> Rig:
        checkpoint.history = happenings
        cluster = SimpleNamespace(bootstrap="localhost:1", topic_prefix="t-", brokers={}, pids=list)
        made = Rig(
            chosen, directory, tmp_path, cluster, system, checkpoint, load,
            SimpleNamespace(sample=lambda: None), {}, {}, {}, happenings, None,
        )  # fmt: skip
        made.blind.extend(blind)
        return made

    system, checkpoint, blind = System(clock), Followed(clock, load), []
    monkeypatch.setattr(conductor, "assemble", assembled)
    monkeypatch.setattr(conductor.topics, "end_offsets", lambda bootstrap, names: {name: {0: 1} for name in names})
    monkeypatch.setattr(sinks, "collect", lambda chosen, *where: [(name, list[Row]()) for name in chosen.queries])
    monkeypatch.setattr(sinks, "size", lambda chosen, *where: 7)
    return SimpleNamespace(system=system, checkpoint=checkpoint, load=load, blind=blind)


def run(directory: Path, *overrides: str) -> None:
    """Conduct the scenario `late`, of 20 s."""
    directory.mkdir()
    chosen = scenario.load("late", [f"load.eps={EPS}", "load.warm_up_s=5", "load.duration_s=10", *overrides])
    conductor.run(chosen, directory, Status(Console(quiet=True)), ["run", "late"])


def phases(directory: Path) -> list[str]:
    """The phases in the history."""
    return [event.phase for event in history.read(directory).of(Phase)]


def test_a_run_has_its_phases_in_order(rig, tmp_path):
    """The pipeline is there before the load, is dismissed before it is stopped, and every query is collected."""
    run(tmp_path / "run")

    assert ["start", "warm_up", "measure", "flush", "drain", "collect", "end"] == phases(tmp_path / "run")
    assert ["start", "dismiss", "stop"] == rig.system.asked
    assert ["start", "flush"] == rig.load.asked
    assert 5 == len(list((tmp_path / "run" / "outputs").glob("*.parquet")))


def test_each_phase_lasts_as_long_as_asked(rig, tmp_path, clock):
    """Warm-up 5 s, measured part 10 s: on the clock of the run."""
    began = clock()
    run(tmp_path / "run")

    assert 15 <= clock() - began < 18


def test_a_backlog_comes_before_the_pipeline(rig, tmp_path):
    """`start_after_s` offers events before anything reads them."""
    run(tmp_path / "run", "pipeline.start_after_s=3")

    assert ["start", "backlog", "warm_up"] == phases(tmp_path / "run")[:3]
    assert rig.system.started_s >= rig.load.started_s + 3


def test_a_cool_down_follows_the_measured_part(rig, tmp_path):
    """So that the last events measured are committed under load."""
    run(tmp_path / "run", "load.cool_down_s=4")

    assert ["measure", "cool_down", "flush"] == phases(tmp_path / "run")[2:5]


def test_a_death_is_recorded_with_its_cause(rig, tmp_path, clock):
    """The run is interrupted, and thread dumps are asked for while there is a process."""

    def dies() -> None:
        log = tmp_path / "run" / "logs" / "p.log"
        raise PipelineDied(1, "last words", log, cause="UnknownTopicOrPartitionException")

    rig.system.fails, rig.system.fails_s = dies, clock() + 8
    with pytest.raises(PipelineDied):
        run(tmp_path / "run")
    read = history.read(tmp_path / "run")

    [ended] = read.of(PipelineEnded)
    assert ("UnknownTopicOrPartitionException", "logs/p.log") == (ended.cause, ended.log)
    assert ["measure"] == [event.phase for event in read.of(Interrupted)]
    assert "thread dump" in rig.system.asked


def test_ctrl_c_is_recorded_as_the_users(rig, tmp_path, clock):
    """No thread dump, which would take a second."""

    def ctrl_c() -> None:
        raise KeyboardInterrupt

    rig.system.fails, rig.system.fails_s = ctrl_c, clock() + 2
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")

    assert [("warm_up", "by the user")] == [
        (event.phase, event.why) for event in history.read(tmp_path / "run").of(Interrupted)
    ]
    assert "thread dump" not in rig.system.asked


def test_a_start_without_end_is_stalled(rig, tmp_path):
    """The message names what was waited for, for how long, and the logs."""
    rig.system.ready_s = 1e9
    with pytest.raises(Stalled, match=r"the pipeline to print .*started.*no progress past 0 for \d+ s; see .*logs"):
        run(tmp_path / "run", "pipeline.ready_s=20")


def test_a_stalled_drain_is_recorded_and_collected(rig, tmp_path, clock):
    """No error: the verdict names what is missing."""
    rig.checkpoint.stuck_s = clock() + 16
    run(tmp_path / "run")

    [standstill] = history.read(tmp_path / "run").of(Standstill)
    assert "waiting for every query to commit everything: no progress past" in standstill.why
    assert "collect" in phases(tmp_path / "run")


def test_a_lost_follower_ends_the_run(rig, tmp_path):
    """A run whose checkpoint is not followed cannot be judged."""
    rig.blind.append("what it does cannot be followed any more, OSError: gone")
    with pytest.raises(StackError, match="cannot be followed any more"):
        run(tmp_path / "run")


def test_a_black_box_waits_for_quiet_sinks(rig, tmp_path, clock):
    """Once before the flush and once after it, `settle_s` each."""
    began = clock()
    black = ["pipeline.command=['true', '{bootstrap}', '{prefix}', '{output}']", "pipeline.checkpoint=''"]
    run(tmp_path / "run", *black, "pipeline.settle_s=20")

    assert ["settle", "flush", "drain"] == phases(tmp_path / "run")[3:6]
    assert clock() - began >= 15 + 2 * 20


def test_sinks_that_never_rest_are_a_standstill(rig, tmp_path, clock, monkeypatch):
    """A job that goes on writing is not waited for without end."""
    monkeypatch.setattr(sinks, "size", lambda chosen, *where: int(clock() * 1000))
    black = ["pipeline.command=['true', '{bootstrap}', '{prefix}', '{output}']", "pipeline.checkpoint=''"]
    run(tmp_path / "run", *black, "pipeline.ready_s=20")

    whys = {event.why for event in history.read(tmp_path / "run").of(Standstill)}
    assert {"the pipeline goes on writing results"} == whys


def test_a_load_that_is_never_ready_is_stalled(rig, tmp_path):
    """As where the workers of other machines do not come."""
    rig.load.ready = False
    with pytest.raises(Stalled, match="the load engine to be ready: no progress"):
        run(tmp_path / "run")

    assert [] == rig.load.asked


def test_the_workers_of_a_load_are_recorded(rig, tmp_path):
    """Where each is, and how far its clock is off."""
    worker = {"index": 0, "host": "there", "pid": 11, "skew_ms": 2.5, "round_trip_ms": 0.4}
    rig.load.workers = [worker]
    run(tmp_path / "run")

    [joined] = history.read(tmp_path / "run").of(LoadWorkers)
    assert [worker] == [structs.asdict(one) for one in joined.workers]
