"""The events of a run's history, one frozen type each: defined, written to history.jsonl, and read from it, here alone.

A line of history.jsonl is one event as JSON; its field `kind` names the type, and `t` is the epoch second at which the
event was written. Times in `at_s`, `healed_s`, `begun_s` and `committed_s` are epoch seconds too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TextIO, TypeAlias

import msgspec

from harness.errors import RunError
from harness.scenario import Fault


class Written(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """An event of the history; `t` is 0 until the event is written."""

    t: float = 0.0


class Phase(Written, frozen=True, kw_only=True, tag="phase"):
    """A phase of the run begins."""

    phase: str


class Swept(Written, frozen=True, kw_only=True, tag="swept"):
    """What earlier runs had left behind and was removed before the start."""

    what: str


class Process(Written, frozen=True, kw_only=True, tag="process"):
    """A process of the pipeline starts, becomes ready, stops, or begins as a hot standby."""

    event: Literal["start", "ready", "stop", "stand by"]
    name: str = "pipeline"
    pid: int | None = None
    command: tuple[str, ...] = ()
    code: int | None = None


class LoadWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of the load: `skew_ms` is its clock − this machine's, known to within half of `round_trip_ms`."""

    index: int
    host: str
    pid: int
    skew_ms: float
    round_trip_ms: float


class LoadWorkers(Written, frozen=True, kw_only=True, tag="load_workers"):
    """All workers of a load are ready; event n is sent by worker n modulo their number."""

    workers: tuple[LoadWorker, ...]


class Progress(Written, frozen=True, kw_only=True, tag="progress"):
    """Spark's progress report of a batch, as the pipeline prints it."""

    query: str
    batch: int
    progress: dict[str, Any]

    @property
    def operators(self) -> list[dict[str, Any]]:
        """The state operators of the batch, as Spark reports them."""
        operators: list[dict[str, Any]] = self.progress.get("stateOperators", [])
        return operators


class Commit(Written, frozen=True, kw_only=True, tag="commit"):
    """A query has committed a batch: the times of its offsets file and of its commits file."""

    query: str
    batch: int
    committed_s: float
    begun_s: float


class Reset(Written, frozen=True, kw_only=True, tag="reset"):
    """The newest batch `now` of a checkpoint is older than the batch `seen` before."""

    query: str
    seen: int
    now: int


class Deleted(Written, frozen=True, kw_only=True, tag="deleted"):
    """All records of a partition before an offset were deleted from the topic."""

    topic: str
    partition: int
    before_offset: int
    at_s: float


class Sample(Written, frozen=True, kw_only=True, tag="sample"):
    """CPU seconds used so far and resident bytes, by who uses them; None is not known."""

    pipeline_cpu_s: float
    generator_cpu_s: float
    harness_cpu_s: float
    machine_cpu_s: float
    brokers_cpu_s: float | None = None
    pipeline_rss: int | None = None
    brokers_rss: int | None = None
    generator_rss: int | None = None
    harness_rss: int | None = None
    checkpoint_bytes: int | None = None
    sent: int | None = None
    acknowledged: int | None = None


class Unsampled(Written, frozen=True, kw_only=True, tag="unsampled"):
    """A sample could not be taken."""

    why: str


class Cluster(Written, frozen=True, kw_only=True, tag="cluster"):
    """The processes of a Spark standalone cluster, and the applications that its master knows."""

    executors: tuple[int, ...]
    master: int | None = None
    workers: tuple[int | None, ...] = ()
    applications: tuple[str, ...] | None = ()
    master_silent: str = ""


class FaultInjected(Written, frozen=True, kw_only=True, tag="fault_injected"):
    """A fault begins; `index` is its position among the scenario's faults, sorted by `at`, and unique."""

    index: int
    fault: Fault


class FaultHealed(Written, frozen=True, kw_only=True, tag="fault"):
    """A fault is over: `index` is that of its injection, `targets` are the names of what was hit.

    `acknowledged` and `unread` count the events when it was injected. `healed_s` is None where it was not seen to heal.
    """

    index: int
    fault: Fault
    targets: tuple[str, ...]
    acknowledged: int
    unread: int
    at_s: float
    effect_observed: bool
    proof: dict[str, Any]
    healed_s: float | None


class PipelineEnded(Written, frozen=True, kw_only=True, tag="pipeline_died"):
    """The pipeline ended by itself: exit code, last line and innermost cause in its log, and the brokers that were down.

    `log` is relative to the run directory. `cause` and `log` are empty in older histories.
    """

    code: int
    last: str
    brokers_down: tuple[int, ...]
    cause: str = ""
    log: str = ""


class Standstill(Written, frozen=True, kw_only=True, tag="stalled"):
    """The run waited for progress in vain, and went on to its end."""

    why: str


class Interrupted(Written, frozen=True, kw_only=True, tag="interrupted"):
    """The run was broken off in a phase."""

    phase: str
    why: str


Event: TypeAlias = (
    Phase
    | Swept
    | Process
    | LoadWorkers
    | Progress
    | Commit
    | Reset
    | Deleted
    | Sample
    | Unsampled
    | Cluster
    | FaultInjected
    | FaultHealed
    | PipelineEnded
    | Standstill
    | Interrupted
)
"""Every type of event."""


class Recorder:
    """Appends events to history.jsonl, each with its time; safe to call from several threads."""

    def __init__(self, stream: TextIO, heed: Callable[[Event], None] = lambda event: None) -> None:
        """`heed` is called with each event that is written."""
        self._stream = stream
        self._heed = heed
        self._lock = threading.Lock()

    def write(self, event: Event) -> None:
        """Write one event, with the epoch second at which it is written."""
        timed = msgspec.structs.replace(event, t=round(time.time(), 4))
        line = encode(timed)
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()
        self._heed(timed)


@contextmanager
def recording(directory: Path, heed: Callable[[Event], None] = lambda event: None) -> Iterator[Recorder]:
    """Open a run directory's history for appending; `heed` is called with each event."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "history.jsonl").open("a", encoding="utf-8") as stream:
        yield Recorder(stream, heed)


def encode(event: Event) -> str:
    """An event as its line of history.jsonl, without the line's end."""
    return msgspec.json.encode(event).decode()


def decode(line: str) -> Event:
    """The event of a line of history.jsonl; msgspec.DecodeError where the line is none."""
    return _decoder.decode(line)


_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def read(path: Path, lines: Iterable[str], decoded: Callable[[str], Event] = decode) -> Iterator[Event]:
    """The events of a history's lines, in order, each line read by `decoded`.

    Raises RunError that names the path and the line which is no event.
    """
    for number, line in enumerate(lines, 1):
        try:
            event = decoded(line)
        except msgspec.DecodeError as error:
            raise RunError(f"{path}:{number}: not an event: {error}") from error
        if not event.t:
            raise RunError(f"{path}:{number}: not an event: it has no time")
        yield event
