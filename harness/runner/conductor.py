"""The conductor: carries out the scenario, records what happens, and judges nothing.

start → warm up → measure → flush → drain → collect. What it leaves is a run directory.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec
import psutil

from harness import scenario as scenarios
from harness.engines.process import ticking
from harness.engines.spark import sinks
from harness.errors import HarnessError, PipelineDied, StackError, Stalled
from harness.host import processes
from harness.job.clickstream.contract import INPUT, WATERMARK_DELAY_S
from harness.kafka import Broker, topics
from harness.kafka.cluster import await_true
from harness.load.engine import end_s
from harness.rundir import history, manifest
from harness.rundir.events import (
    Interrupted,
    LoadWorker,
    LoadWorkers,
    Phase,
    PipelineEnded,
    Recorder,
    Standstill,
    Unsampled,
)
from harness.runner.console import Status
from harness.runner.injector import injected
from harness.runner.metrics import LOOK_S, Metrics, Reading
from harness.runner.schedule import Counts, Schedule
from harness.runner.testbed import Rig, assemble
from harness.runner.waiting import STALL_S, Work, batch_patience_s, eventually
from harness.scenario import BATCH_MAX_S, Limits, Scenario

HEAL_S = 180.0
# How long the load goes on after the last fault of a stretched run has healed; all of it is read before the load ends.
REST_S = 5.0
# How long the load goes on beyond the limit of a recovery, so that a recovery that missed it is seen too.
BEYOND_S = 1.0
DUMP_S = 1.0
# From the word to start until event 0 is due: the load engine connects to the brokers and makes its first events.
LEAD_S = 1.5
# How long somebody may take to start the workers on other machines.
JOIN_S = 900.0
BREAK_OFF_S = 10.0
# How long to wait for threads when somebody ends the run: what they wait for is ended with it.
AT_ONCE_S = 1.0
# How long a broker that is not down may take to answer while everything beside it is ending.
ANSWER_S = 5.0
# What the status line shows of a figure that nobody has reported.
UNKNOWN = "unknown"


def run(scenario: Scenario, directory: Path, status: Status, args: list[str], metrics: Metrics | None = None) -> None:
    """Do the run. Raises HarnessError where none is possible; the directory then shows how far it came."""
    (directory / "scenario.toml").write_text(scenarios.dump(scenario), encoding="utf-8")
    heed = (metrics.heed,) if metrics else ()
    with history.recording(directory, *heed) as happenings, status:
        phases = Phases(happenings, status)
        manifest.write(directory, scenario, args, prefix="")
        try:
            with ExitStack() as stack:
                phases.begin("start", f"Kafka ({scenario.kafka.where}) and the pipeline ({scenario.pipeline.profile})")
                rig = assemble(stack, scenario, directory, happenings)
                rig.metrics = metrics
                manifest.write(directory, scenario, args, rig.cluster.topic_prefix)
                try:
                    _conduct(rig, phases)
                except KeyboardInterrupt:
                    raise
                except BaseException as error:
                    if isinstance(error, PipelineDied):
                        died = PipelineEnded(
                            code=error.code,
                            last=error.last,
                            cause=error.cause,
                            log=os.path.relpath(error.log, directory),
                            brokers_down=tuple(_down(rig)),
                        )
                        happenings.write(died)
                    _tell_stacks(rig)
                    raise
        except BaseException as error:
            why = "by the user" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
            happenings.write(Interrupted(phase=phases.current, why=why))
            raise
        phases.begin("end")


def _down(rig: Rig) -> list[int]:
    """The brokers that are down, or that nobody can look at; one that is slow to answer, beside what died, is neither."""

    def is_up(broker: Broker) -> bool:
        try:
            return broker.is_up()
        except HarnessError:
            return False

    silent = dict(rig.cluster.brokers)

    def have_answered() -> bool:
        for number in [number for number, broker in silent.items() if is_up(broker)]:
            del silent[number]
        return not silent

    await_true(have_answered, ANSWER_S)
    return list(silent)


def _tell_stacks(rig: Rig) -> None:
    """What every Java process is at goes to its log, before it is ended; a second is enough for that."""
    rig.system.tell_stacks()
    with suppress(HarnessError):  # of brokers that nobody can look at
        for pid in rig.cluster.pids():
            processes.tell_stacks(pid)
    time.sleep(DUMP_S)  # a thread dump has no mark for its end


class Phases:
    """Where the run is, in the history and on the screen."""

    def __init__(self, happenings: Recorder, status: Status) -> None:
        self.history = happenings
        self.status = status
        self.current = "start"

    def begin(self, name: str, what: str = "") -> None:
        """A phase begins."""
        self.current = name
        self.history.write(Phase(phase=name))
        if name != "end":
            self.status.phase(name.replace("_", " "), what)


def _conduct(rig: Rig, phases: Phases) -> None:
    _prepare_load(rig, phases)
    if not rig.scenario.pipeline.start_after_s:
        _start_pipeline(rig, phases)
    with _followed(rig):
        _offer(rig, phases)
        if rig.scenario.black_box:
            phases.begin("settle", "until the sinks stop growing")
            _quiet(rig, phases)
        phases.begin("flush", "two events far ahead close every window")
        rig.load.flush()
        _eventually(rig, phases, rig.load.finished, lambda: rig.load.acknowledged, "the load engine to end", end_s())
        phases.begin("drain", "until every query has committed everything")
        (_quiet if rig.scenario.black_box else _drain)(rig, phases)
    rig.look()
    rig.check()
    rig.system.dismiss()
    rig.system.stop()
    rig.checkpoint.sweep()
    phases.begin("collect", "every result row")
    where = (rig.cluster.bootstrap, rig.cluster.topic_prefix, rig.scratch / "output")
    for query, rows in sinks.collect(rig.scenario, *where):
        history.write_rows(rig.directory, query, rows)


def _start_pipeline(rig: Rig, phases: Phases) -> None:
    rig.system.start()
    patience_s = rig.scenario.pipeline.ready_s
    what = """the pipeline to print {"event": "started"} once it works"""
    _eventually(rig, phases, rig.system.has_started, lambda: 0, what, patience_s)


@contextmanager
def _followed(rig: Rig) -> Iterator[None]:
    stop = threading.Event()

    def failed(error: Exception) -> None:
        rig.blind.append(f"what it does cannot be followed any more, {type(error).__name__}: {error}")

    def sample() -> None:
        try:
            rig.cpu.sample()
        except HarnessError as error:  # a daemon that is slow to answer; the next one is in a second
            rig.history.write(Unsampled(why=str(error)))

    threads = [ticking(0.2, rig.checkpoint.sweep, stop, failed), ticking(1.0, sample, stop, failed)]
    if rig.metrics:
        threads.append(ticking(LOOK_S, partial(_show, rig, rig.metrics), stop, failed))
    for thread in threads:
        thread.start()
    patience_s = AT_ONCE_S
    try:
        yield
        patience_s = 5.0
    finally:
        stop.set()
        for thread in threads:
            thread.join(patience_s)


def _show(rig: Rig, metrics: Metrics) -> None:
    """Give the metrics what is known of the run now."""
    read = None if rig.scenario.black_box else rig.checkpoint.read()
    state_bytes = _state_bytes(rig)
    delay_s = rig.load.delay_ms_p99 / 1e3
    metrics.look(Reading(rig.load.sent, rig.load.acknowledged, read, delay_s, state_bytes), time.time())


def _prepare_load(rig: Rig, phases: Phases) -> None:
    """Start the load engine, or Locust and its workers: they wait for the start time while the pipeline starts."""
    load = rig.scenario.load
    plan = {
        "workload": msgspec.to_builtins(rig.scenario.workload),
        "seed": load.seed,
        "eps": load.eps,
        "acks": load.acks,
        "events": load.events,
        "segments": load.segments,
    }
    (rig.scratch / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    rig.load.prepare()
    if load.master:
        phases.status.note(
            f"{load.workers} workers are awaited: on each machine `harness load-worker {load.master}`, as often as it"
            " has cores to spare"
        )


def _await_load(rig: Rig, phases: Phases) -> None:
    """Until the load can begin; the workers of a load from several machines, and their clocks, are written down."""
    patience_s = JOIN_S if rig.scenario.load.master else rig.scenario.pipeline.ready_s
    _eventually(rig, phases, rig.load.is_ready, lambda: 0, "the load engine to be ready", patience_s)
    if rig.load.page:
        phases.status.note(f"Locust's page: {rig.load.page}")
    if rig.load.workers:
        phases.history.write(LoadWorkers(workers=msgspec.convert(rig.load.workers, tuple[LoadWorker, ...])))
    for worker in rig.load.workers:
        phases.status.note(
            f"worker {worker['index']} on {worker['host']}: clock {worker['skew_ms']:+.1f} ms"
            f" (± {worker['round_trip_ms'] / 2:.1f} ms)"
        )


def _offer(rig: Rig, phases: Phases) -> None:
    load = rig.scenario.load
    _await_load(rig, phases)
    start = round(time.time() + LEAD_S, 6)
    if rig.metrics:
        rig.metrics.begin(start)
    rig.load.start(start)
    if backlog_s := rig.scenario.pipeline.start_after_s:
        phases.begin("backlog", f"{backlog_s:g} s at {load.eps:,g} events/s before the pipeline starts")
        _until(rig, phases, start + backlog_s)
        _start_pipeline(rig, phases)
    counts = _counts(rig)
    schedule = Schedule(rig.scenario.fault, counts, partial(injected, rig), phases.history)
    patience_s = AT_ONCE_S
    try:
        _replay(rig, phases, schedule, counts, start)
        patience_s = BREAK_OFF_S
    finally:
        rig.over.set()
        schedule.join(patience_s)


def _replay(rig: Rig, phases: Phases, schedule: Schedule, counts: Counts, start: float) -> None:
    """The load, phase by phase, with the faults in it."""
    load = rig.scenario.load
    phases.begin("warm_up", f"{load.warm_up_s:g} s at {load.eps:,g} events/s")
    _until(rig, phases, start + load.warm_up_s, schedule)
    if rig.scenario.pipeline.standby:  # only now are there records for it to rehearse on
        rig.system.stand_by()
    phases.begin("measure", f"{load.duration_s:g} s at {load.eps:,g} events/s")
    _until(rig, phases, start + load.warm_up_s + load.duration_s, schedule)
    if load.cool_down_s:
        phases.begin("cool_down", f"{load.cool_down_s:g} s, so that the last events measured are committed under load")
        _until(rig, phases, start + load.warm_up_s + load.duration_s + load.cool_down_s, schedule)
    if load.stretch_s:
        phases.begin("stretch", f"until every fault has healed, {load.stretch_s:g} s at most")
        _stretch(rig, phases, schedule, counts, start + sum(seconds for _, seconds in load.segments))
    _heal(rig, phases, schedule, counts, schedule.is_over)


def _stretch(rig: Rig, phases: Phases, schedule: Schedule, counts: Counts, end_s: float) -> None:
    """Go on with the load until all faults have healed and what was sent meanwhile is read, or it has come to its end.

    Where the recovery is limited the load is on for longer than that: only under load it can be seen.
    """
    rest = round(REST_S * rig.scenario.load.eps)
    within_s = rig.scenario.limits.recovery_s
    shown_s = within_s + BEYOND_S if within_s < Limits().recovery_s else 0.0

    def over() -> bool:
        now_s = time.time()
        return now_s > end_s or (schedule.is_settled(rest) and now_s > schedule.injected_s + shown_s)

    _heal(rig, phases, schedule, counts, over)
    rig.load.enough()


def _heal(rig: Rig, phases: Phases, schedule: Schedule, counts: Counts, over: Callable[[], bool]) -> None:
    """Wait until the faults are over; none is injected after that."""

    def progress() -> int:
        # A fault that is under way has a patience of its own.
        return time.monotonic_ns() if schedule.is_under_way() else counts.read()

    try:
        _eventually(rig, phases, over, progress, "the faults to heal", HEAL_S, _work(rig))
    except Stalled as error:
        # No error here: the verdict names what is wrong, and a fault that was never injected too.
        phases.history.write(Standstill(why=str(error)))
    schedule.close()


def _counts(rig: Rig) -> Counts:
    """Of a black box it is not known what it has read: what is acknowledged stands for it."""

    def acknowledged() -> int:
        return rig.load.acknowledged

    return Counts(lambda: rig.load.sent, acknowledged, acknowledged if rig.scenario.black_box else rig.checkpoint.read)


def _until(rig: Rig, phases: Phases, end_s: float, schedule: Schedule | None = None) -> None:
    while (left := end_s - time.time()) > 0:
        _look(rig, phases, left)
        if schedule:
            schedule.look()
        time.sleep(min(0.25, max(0.0, end_s - time.time())))


def _look(rig: Rig, phases: Phases, left_s: float | None = None) -> None:
    rig.check()
    if rig.blind:
        raise StackError(rig.blind[0])
    rig.load.finished()
    phases.status.show(**_figures(rig), **({} if left_s is None else {"left": f"{left_s:.0f} s"}))


def _figures(rig: Rig) -> dict[str, str]:
    """What the status line shows, by name; `unknown` is what the pipeline has not reported, or a black box never will."""
    batch_ms, state_bytes = rig.system.batch_ms, _state_bytes(rig)
    lag = None if rig.scenario.black_box else max(0, rig.load.acknowledged - rig.checkpoint.read())
    return {
        "sent": f"{rig.load.sent:,}",
        "lag": UNKNOWN if lag is None else f"{lag:,}",
        "batch": UNKNOWN if batch_ms is None else f"{batch_ms / 1e3:.1f} s",
        "state": UNKNOWN if state_bytes is None else f"{state_bytes / 1e6:.0f} MB",
        "CPU": f"{psutil.cpu_percent():.0f} %",
    }


def _state_bytes(rig: Rig) -> float | None:
    """Bytes of state of all queries that have reported some; None before the first, or where a report lacks the figure."""
    state = list(rig.system.state_bytes.values())
    known = [size for size in state if size is not None]
    return sum(known) if known and len(known) == len(state) else None


def _drain(rig: Rig, phases: Phases) -> None:
    names = [rig.cluster.topic_prefix + topic for topic in INPUT]
    ends = topics.end_offsets(rig.cluster.bootstrap, names)
    goal = {(topic, partition): end for topic, partitions in ends.items() for partition, end in partitions.items()}
    flushed_ms = rig.load.flush_ms - WATERMARK_DELAY_S * 1000

    def drained() -> bool:
        return all(_has_drained(rig, query, goal, flushed_ms) for query in rig.scenario.queries)

    def progress() -> int:
        queries = rig.scenario.queries
        return sum(rig.checkpoint.committed(query) + rig.checkpoint.watermark_ms(query) for query in queries)

    try:
        _eventually(rig, phases, drained, progress, "every query to commit everything", work=_work(rig))
    except Stalled as error:
        # No error here: the verdict names what is wrong; where nothing is, the run is unknown.
        phases.history.write(Standstill(why=str(error)))


def _quiet(rig: Rig, phases: Phases) -> None:
    """Wait until the sinks have not grown for `pipeline.settle_s`.

    Without a checkpoint this is all that can be known; the black-box oracle rests on it.
    """
    where = (rig.cluster.bootstrap, rig.cluster.topic_prefix, rig.scratch / "output")
    seen, since = -1, time.monotonic()
    settle_s = rig.scenario.pipeline.settle_s
    deadline = since + settle_s + rig.scenario.pipeline.ready_s
    while time.monotonic() - since < settle_s:
        _look(rig, phases)
        if (now := sinks.size(rig.scenario, *where)) != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() > deadline:
            phases.history.write(Standstill(why="the pipeline goes on writing results"))
            return
        time.sleep(0.2)


def _has_drained(rig: Rig, query: str, goal: dict[tuple[str, int], int], flushed_ms: float) -> bool:
    mine = {rig.cluster.topic_prefix + topic for topic in rig.scenario.queries[query].reads}
    wanted = {at: end for at, end in goal.items() if at[0] in mine}
    stateful = rig.scenario.queries[query].stateful
    passed = rig.checkpoint.watermark_ms(query) >= flushed_ms - 1 if stateful else True
    return passed and rig.checkpoint.reached(query, wanted)


def _eventually(
    rig: Rig,
    phases: Phases,
    condition: Callable[[], bool],
    progress: Callable[[], int],
    what: str,
    patience_s: float = STALL_S,
    work: Work | None = None,
) -> None:
    """Wait for a condition as long as progress is made; raise Stalled, which names the standstill and the logs."""
    try:
        eventually(condition, progress, what, patience_s, look=partial(_look, rig, phases), work=work)
    except Stalled as error:
        raise Stalled(f"{error}; see {rig.directory / 'logs'}") from None


def _work(rig: Rig) -> Work:
    """What shows that the pipeline works between two commits; with no checkpoint, no batch is under way."""

    def cpu_s() -> float:
        return rig.system.cpu_s() + (rig.spark.cpu_s() if rig.spark else 0.0)

    def patience_s() -> float:
        backlog = rig.load.acknowledged - rig.checkpoint.read()
        required_eps = max(rig.scenario.limits.throughput_eps, Limits().throughput_eps)
        return batch_patience_s(rig.scenario.pipeline.batch_s, backlog, required_eps, BATCH_MAX_S)

    return Work(rig.checkpoint.under_way, cpu_s, patience_s)
