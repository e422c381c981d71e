"""The pipeline's process, and what can be seen of it from outside: its progress lines and its checkpoint.

It refuses to know what the pipeline computes. Ours is the default; any command line with the
placeholders {bootstrap} {prefix} {checkpoint} {output} {jars} {master} is treated the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from harness.errors import PipelineDied, StackError
from harness.host import cause, processes
from harness.host.service import Service
from harness.rundir.events import Commit, Process, Progress, Recorder, Reset
from harness.scenario import PLACEHOLDERS, Scenario


def command(scenario: Scenario, values: dict[str, str]) -> list[str]:
    """The command line that starts the pipeline, with its placeholders filled in."""
    ours: tuple[str, ...] = (sys.executable, "-m", "pipeline", "--profile", scenario.pipeline.profile)
    where = ("--bootstrap", "{bootstrap}", "--checkpoint", "{checkpoint}", "--output", "{output}", "--jars", "{jars}")
    asked = scenario.pipeline
    forms = ("--conversions", asked.conversions) if asked.conversions else ()
    queries = ("--queries", ",".join(asked.queries)) if asked.queries else ()
    once = ("--deduplicate",) if asked.deduplicate else ()
    ours = (*ours, *where, "--master", "{master}", *queries, *forms, *once)
    parts = asked.command or (*ours, *(("--topic-prefix", "{prefix}") if values["prefix"] else ()))
    return [filled(part, values) for part in (*parts, *scenario.pipeline.flags)]


def filled(part: str, values: dict[str, str]) -> str:
    """A part of a command line with its placeholders filled in."""
    for name in PLACEHOLDERS:
        part = part.replace("{" + name + "}", values[name])
    return part


def _environment(temporary: Path, java: str) -> dict[str, str]:
    """By which Python, Spark and its Java put their temporary files in a folder, Java gets its flags, and what a pipeline in
    Python prints is heard at once."""
    folder = shlex.quote(f"-Djava.io.tmpdir={temporary}")
    flags = f"{os.environ.get('SPARK_SUBMIT_OPTS', '')} {java} {folder}".strip()
    folders = {"TMPDIR": str(temporary), "SPARK_LOCAL_DIRS": str(temporary)}
    return {**folders, "SPARK_SUBMIT_OPTS": flags, "PYTHONUNBUFFERED": "1"}


class _Operator(msgspec.Struct):
    memoryUsedBytes: float | msgspec.UnsetType = msgspec.UNSET
    numRowsTotal: float = 0
    numRowsDroppedByWatermark: float = 0


class _Progress(msgspec.Struct):
    """Spark's StreamingQueryProgress, as far as anything here reads it."""

    batchId: int
    durationMs: dict[str, float] = {}
    stateOperators: list[_Operator] = []


class _Printed(msgspec.Struct):
    """A line of JSON that a pipeline prints; any other line goes to its log. The rest is read of a progress alone."""

    event: str
    query: Any = None
    progress: Any = None


class _Process:
    """A process of the pipeline, and what it has reported."""

    def __init__(self, service: Service, started: threading.Event) -> None:
        """`service` has been started; the event `started` is set once its queries have."""
        self.service = service
        self.pid = service.last_pid
        self.waits = threading.Event()
        self.started = started
        self.reader: threading.Thread | None = None

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.service.pid is not None

    def kill(self) -> None:
        """Kill it with everything it started, and read its output to the end."""
        self.service.kill()
        self.read_out()

    def read_out(self) -> None:
        """Wait until its output has been read to the end."""
        if self.reader is not None:
            self.reader.join(5)


class System:
    """The pipeline as a process: started, followed, stopped or killed; and maybe a second one that stands by."""

    def __init__(
        self, args: list[str], log: Path, temporary: Path, history: Recorder, java: str = "", inherit: bool = False
    ) -> None:
        """`temporary` is a folder for its temporary files, which it cannot remove when it is killed; `java` are flags.

        With `inherit` it gets the user's environment, as a program of the user's own.
        """
        self._args = args
        self._log = log
        self._environment = _environment(temporary, java)
        self._inherit = inherit
        self._history = history
        self._all: list[_Process] = []
        self._now: _Process | None = None
        self._standby: _Process | None = None
        self._down = False
        self._closed = False
        self._worked = False
        self._unwritten = ""
        # How long the last batch took; None until the pipeline reports it.
        self.batch_ms: float | None = None
        # Query → bytes of its state by its last report; None where the report has an operator without that figure.
        self.state_bytes: dict[str, float | None] = {}

    def is_up(self) -> bool:
        """Whether its queries have started, and its process has not ended, nor is it frozen with all that it started."""
        return self._now is not None and self._now.service.is_up()

    def has_started(self) -> bool:
        """Whether its queries have."""
        return self._now is not None and self._now.started.is_set()

    def stands_by(self) -> bool:
        """Whether a second one waits for the first to end."""
        return self._standby is not None and self._standby.waits.is_set()

    def pause(self) -> None:
        """Freeze it with everything it started."""
        if self._now is not None and self._now.is_alive():
            self._now.service.pause()

    def resume(self) -> None:
        """Let it go on."""
        if self._now is not None and self._now.is_alive():
            self._now.service.resume()

    def cpu_s(self) -> float:
        """CPU seconds of all its processes until now, also of those that have ended."""
        return sum(process.service.cpu_s() for process in self._all)

    @property
    def pid(self) -> int | None:
        """The process id, or None before the start."""
        return self._now.pid if self._now else None

    def pids(self) -> list[int]:
        """Of each of its processes that has not ended."""
        return [process.pid for process in self._all if process.is_alive()]

    def expect_end(self, expected: bool = True) -> None:
        """It may end by itself, until it is started again, and `check` accepts that; or it may not any more."""
        self._down = expected

    def ended(self) -> int | None:
        """The exit code of a process that has ended, once its output has been read to the end; or None."""
        if self._now is None or self._now.is_alive():
            return None
        self._now.read_out()
        return self._now.service.code()

    def has_ended(self) -> bool:
        """Whether its process has."""
        return self.ended() is not None

    def become(self, args: list[str]) -> list[str]:
        """Another command line starts it from now on; the one that did so far."""
        before, self._args = self._args, args
        return before

    def start(self, flags: Sequence[str] = (), may_end: bool = False) -> None:
        """Start the process and follow its progress lines; again after a stop or a kill, with a log of its own.

        `flags` follow its own for this start alone, and `may_end` is whether it may end by itself. One that stands by is
        not started: it has seen the end itself.
        """
        if self._closed:
            raise StackError("the run is over: the pipeline is not started again")
        if self._now is not None and self._now.is_alive():
            raise StackError(f"the pipeline runs already, as process {self._now.pid}: two would share a checkpoint")
        if self._standby is not None:
            self._now, self._standby = self._standby, None
        else:
            self._now = self._spawn([*self._args, *flags], "start")
        self._down = may_end

    def stand_by(self) -> None:
        """Start a second one, which waits for the first to end and then takes over."""
        self._standby = self._spawn([*self._args, "--standby"], "stand by")

    def dismiss(self) -> None:
        """End the one that stands by, or it would take over from one that is to end."""
        if self._standby is not None:
            self._standby.kill()
            self._standby = None

    def _spawn(self, args: list[str], event: Literal["start", "stand by"]) -> _Process:
        log = self._log.with_name(f"pipeline-{len(self._all) + 1}.log") if self._all else self._log
        started = threading.Event()
        service = Service(
            "the pipeline",
            args,
            log,
            works=started.is_set,
            env=self._environment,
            inherit=self._inherit,
            stdout=subprocess.PIPE,
        )
        try:
            service.start(wait_s=0)
        except OSError as error:
            raise StackError(
                f"the pipeline cannot be started: {args[0]}: {error.strerror}; see pipeline.command"
            ) from error
        process = _Process(service, started)
        self._all.append(process)
        self._history.write(Process(event=event, pid=process.pid, command=tuple(args)))
        process.reader = threading.Thread(target=self._follow, args=(process,), daemon=True, name="progress")
        process.reader.start()
        return process

    def check(self) -> None:
        """Raise PipelineDied if the process has ended by itself, with the cause that its log names, and nobody expected it.

        StackError where it has never worked, or its output cannot be recorded.
        """
        if self._unwritten:
            raise StackError(self._unwritten)
        if self._now is not None and not self._down and (code := self._now.service.code()) is not None:
            log = self._now.service.log
            died = PipelineDied(code, self.last_line(), log, cause.of_log(log))
            raise died if self._worked else StackError(str(died))
        standby = self._standby  # a fault may make it the one that works meanwhile
        if standby is not None and not self._down and not standby.is_alive():
            log = standby.service.log
            raise StackError(f"the pipeline that stood by ended by itself: {cause.of_log(log)}; see {log}")

    def last_line(self) -> str:
        """The last line of the process's log that is not empty, and no frame of a stack."""
        return self._now.service.last_line() if self._now else processes.last_said("")

    def stop(self, grace_s: float = 60.0) -> bool:
        """Ask it to stop between batches; kill it after `grace_s`. True where asking was enough."""
        orderly = True
        if self._now is not None:
            self._down = True
            orderly = self._now.service.stop(grace_s)
            self._history.write(Process(event="stop", code=self._now.service.code()))
            self._now.read_out()
        return orderly

    def kill(self) -> None:
        """Kill it with everything it started."""
        if self._now is not None:
            self._down = True
            self._now.kill()

    def close(self) -> None:
        """Kill it for good, and what stands by: a fault that is still under way cannot start it again."""
        self._closed = True
        self.dismiss()
        self.kill()

    def tell_stacks(self) -> None:
        """Have its Java processes write to the log what each of their threads is at."""
        for root in self.pids():
            for pid in processes.tree_pids(root):
                processes.tell_stacks(pid)

    def _follow(self, process: _Process) -> None:
        stream = process.service.stdout
        for line in stream:  # to the end, whatever comes: a pipe that nobody empties would block it
            try:
                self._take(process, line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                with contextlib.suppress(OSError), process.service.log.open("ab") as log:
                    log.write(line)
            except OSError as error:
                self._unwritten = f"what the pipeline prints cannot be recorded: {error.strerror}"
        stream.close()

    def _take(self, process: _Process, line: bytes) -> None:
        printed = msgspec.json.decode(line, type=_Printed)
        match printed.event:
            case "standing by":
                process.waits.set()
            case "taking over":  # from here on it may read and write: this is its start
                self._history.write(Process(event="start", pid=process.pid))
            case "started":
                self._worked = True
                self._history.write(Process(event="ready"))
                process.started.set()
            case "progress":
                query, progress = msgspec.convert(printed.query, str), msgspec.convert(printed.progress, _Progress)
                self._history.write(Progress(query=query, batch=progress.batchId, progress=printed.progress))
                self.batch_ms = progress.durationMs.get("triggerExecution")
                if used := [part.memoryUsedBytes for part in progress.stateOperators]:
                    known = [size for size in used if size is not msgspec.UNSET]
                    self.state_bytes[query] = sum(known) if len(known) == len(used) else None


class Checkpoint:
    """Follows the checkpoint of every query: copies each batch's offsets and commit as they appear.

    Spark deletes old ones, and the time of a commit is the moment that latency counts to.
    """

    def __init__(self, pattern: str, target: Path, queries: Mapping[str, Sequence[str]], history: Recorder) -> None:
        """`pattern` is the folder of a query, with {query} for its name; empty where there is no checkpoint.

        `queries` are the topics that each reads.
        """
        self._sources = {query: Path(pattern.replace("{query}", query)) for query in queries} if pattern else {}
        self._target = target
        self._reads = queries
        self._history = history
        self._seen: dict[str, int] = dict.fromkeys(queries, -1)
        self._ends: dict[str, dict[tuple[str, int], int]] = {query: {} for query in queries}
        self._watermark_ms: dict[str, int] = dict.fromkeys(queries, 0)
        self._reset: set[str] = set()
        self._lock = threading.Lock()

    def source(self, query: str) -> Path:
        """Where the pipeline keeps the checkpoint of a query."""
        return self._sources[query]

    def sweep(self) -> None:
        """Take what is new."""
        with self._lock:
            for query, source in self._sources.items():
                commits = source / "commits"
                if commits.is_dir():
                    numbers = sorted(int(path.name) for path in commits.iterdir() if path.name.isdigit())
                    if numbers and numbers[-1] < self._seen[query]:
                        self._note_reset(query, numbers[-1])
                    for number in numbers:
                        if number > self._seen[query]:
                            self._take(query, number)

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Somebody works on the checkpoint: nothing is taken from it, and nothing concluded, until the context ends."""
        with self._lock:
            yield

    def _note_reset(self, query: str, now: int) -> None:
        """The newest batch is older than one that was seen: somebody began the checkpoint anew."""
        if query not in self._reset:
            self._reset.add(query)
            self._history.write(Reset(query=query, seen=self._seen[query], now=now))

    def _take(self, query: str, number: int) -> None:
        for log in ("offsets", "commits"):
            target = self._target / query / log
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._sources[query] / log / str(number), target / str(number))
        committed, begun = (
            (self._sources[query] / log / str(number)).stat().st_mtime for log in ("commits", "offsets")
        )
        lines = (self._target / query / "offsets" / str(number)).read_text(encoding="utf-8").splitlines()
        self._watermark_ms[query] = json.loads(lines[1])["batchWatermarkMs"]
        ends = dict(self._ends[query])  # another one: who reads it meanwhile has the old one
        for line in lines[2:]:
            if line != "-":
                for topic, partitions in json.loads(line).items():
                    ends |= {(topic, int(partition)): end for partition, end in partitions.items()}
        self._ends[query] = ends
        self._seen[query] = number
        self._history.write(Commit(query=query, batch=number, committed_s=committed, begun_s=begun))

    def committed(self, query: str) -> int:
        """Input offsets that the query has committed, over all partitions: records, and markers of transactions."""
        return sum(self._ends[query].values())

    def read(self) -> int:
        """Input offsets that every query that reads them has committed; none of a topic that one has not begun with."""
        ends = dict(self._ends)
        places = {place for query, of_query in ends.items() for place in of_query if place[0] in self._reads[query]}
        return sum(
            min(of_query.get(place, 0) for query, of_query in ends.items() if place[0] in self._reads[query])
            for place in places
        )

    def reached(self, query: str, ends: dict[tuple[str, int], int]) -> bool:
        """Whether the query has committed up to these exclusive end offsets."""
        return all(self._ends[query].get(at, 0) >= end for at, end in ends.items())

    def under_way(self) -> dict[str, tuple[int, float]]:
        """Query → (number of its batch whose offsets are written and that is not committed, epoch second of the entry).

        Queries without such a batch are left out.
        """
        found = {}
        for query, source in self._sources.items():
            number = _newest(source / "offsets")
            if number > _newest(source / "commits"):
                with contextlib.suppress(OSError):  # deleted in between
                    found[query] = (number, (source / "offsets" / str(number)).stat().st_mtime)
        return found

    def watermark_ms(self, query: str) -> int:
        """The watermark of the query's last committed batch."""
        return self._watermark_ms[query]

    def size_bytes(self) -> int | None:
        """Bytes of the checkpoint on disk; None where the pipeline has no checkpoint that can be seen."""
        if not self._sources:
            return None
        total = 0
        for source in self._sources.values():
            for folder, _, names in os.walk(source):
                for name in names:
                    with contextlib.suppress(OSError):  # deleted by Spark in between
                        total += os.stat(os.path.join(folder, name)).st_size
        return total


def _newest(log: Path) -> int:
    """The highest number of a log of batches; −1 where it has none."""
    try:
        return max((int(name) for name in os.listdir(log) if name.isdigit()), default=-1)
    except OSError:
        return -1


def ticking(
    every_s: float, tick: Callable[[], None], stop: threading.Event, failed: Callable[[Exception], None]
) -> threading.Thread:
    """A thread that calls `tick` at a steady pace until `stop` is set; one that raises ends it, and `failed` is called with the error."""

    def loop() -> None:
        due = time.monotonic()
        while not stop.is_set():
            try:
                tick()
            except Exception as error:
                failed(error)
                return
            due = max(due + every_s, time.monotonic())
            stop.wait(due - time.monotonic())

    return threading.Thread(target=loop, daemon=True, name="tick")
