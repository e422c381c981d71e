"""Locust's part of a load from several workers: it carries messages and shows progress, and decides nothing.

Locust patches the process that imports it (gevent), so this file is loaded by `python -m locust -f` alone, in processes
that `harness.load.distributed` starts. The master writes what it hears as JSON lines to standard output, and sends on
what it reads from standard input. A worker's user starts the load engine as a child process, and watches it.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gevent
from gevent.fileobject import FileObject
from locust import User, constant, events, task
from locust.runners import MasterRunner, WorkerRunner
from locust.stats import StatsEntry, bucket_response_time

from harness.load.workers import FOLDER, sources

CHUNK = 1 << 20
ALIVE_EVERY_S = 0.5
# What Locust's page shows: events, each with its generator delay as response time.
METHOD, NAME = "SEND", "events"


class Master:
    """Between the coordinator, by lines of JSON, and the workers, by Locust's messages."""

    def __init__(self, environment: Any, runner: Any) -> None:
        self._runner = runner
        self._folder = Path(os.environ[FOLDER])
        self._digests: dict[str, Any] = {}
        runner.register_message("heard", self._heard)
        runner.register_message("journal", self._journal)
        environment.events.test_start.add_listener(lambda **_: report(event="test_start"))
        environment.events.test_stop.add_listener(lambda **_: report(event="test_stop"))
        # Before Locust gives the newcomer a user, and takes it from another worker for that.
        environment.events.worker_connect.add_listener(
            lambda client_id, **_: report(event="connected", client=client_id)
        )
        gevent.spawn(self._obey)

    def _obey(self) -> None:
        """Commands of the coordinator: `start` is for Locust, all others are for a worker, or for each."""
        for line in FileObject(sys.stdin.fileno(), "rb", close=False):
            command = json.loads(line)
            if command["do"] == "start":
                gevent.spawn(self._runner.start, command["users"], command["users"])
            else:
                self._runner.send_message("do", command | {"sent_s": time.time()}, command.get("client"))
        self._runner.send_message("do", {"do": "quit"})
        gevent.sleep(0.5)
        os._exit(0)

    def _heard(self, environment: Any, msg: Any) -> None:
        """A clock's answer is timed here, before anything else."""
        back_s = time.time()
        report(client=msg.node_id, back_s=back_s, **msg.data)

    def _journal(self, environment: Any, msg: Any) -> None:
        """A piece of a journal; the last one has the digest of them all."""
        client, path = msg.node_id, self._folder / f"{msg.data['index']}.parquet"
        digest = self._digests.setdefault(client, hashlib.sha256())
        digest.update(msg.data["piece"])
        with path.open("ab") as part:
            part.write(msg.data["piece"])
        if msg.data["digest"]:
            intact = msg.data["digest"] == digest.hexdigest()
            report(event="delivered", client=client, bytes=path.stat().st_size, intact=intact)


class Engine:
    """A worker's load engine: the child process, its journal, and what the master hears of both."""

    def __init__(self, environment: Any, runner: Any) -> None:
        self._environment, self._runner = environment, runner
        self._given: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        runner.register_message("do", self._obey)
        gevent.spawn(self._greet)

    def _greet(self) -> None:
        """Reports its identity until it has its share, and its presence after that."""
        while True:
            if self._given:
                self._tell(event="alive")
            else:
                self._tell(event="hello", host=socket.gethostname(), pid=os.getpid(), sources=sources())
            gevent.sleep(ALIVE_EVERY_S)

    def _obey(self, environment: Any, msg: Any) -> None:
        command = msg.data
        if command["do"] == "clock":
            self._tell(event="clock", sent_s=command["sent_s"], theirs_s=time.time())
        elif command["do"] == "take":
            self._given = command
        elif command["do"] == "line" and self._process is not None and self._process.stdin is not None:
            try:
                self._process.stdin.write(command["word"].encode() + b"\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                pass  # it has ended, which is reported with its code
        elif command["do"] == "quit":
            gevent.spawn(self._runner.quit)

    def run(self) -> None:
        """What the user does: one engine, from its start to the delivery of its journal."""
        if self._process is not None:
            self._tell(event="again")
            return
        folder = Path(tempfile.mkdtemp(prefix="worker-", dir=os.environ[FOLDER]))
        (folder / "plan.json").write_text(json.dumps(self._given["plan"]), encoding="utf-8")
        files = ["--plan", str(folder / "plan.json"), "--sent", str(folder / "sent.parquet")]
        command = [sys.executable, "-m", "harness.load", *self._given["args"], *files, "--delays"]
        try:
            with (folder / "engine.log").open("wb") as log:
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
            self._follow(self._process)
            self._end(self._process.wait(), folder)
        finally:
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                self._tell(event="stopped")

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            status = json.loads(line)
            count(self._environment.stats, status.pop("delays_ms", ()))
            self._tell(event="engine", status=status)

    def _end(self, code: int, folder: Path) -> None:
        lines = (folder / "engine.log").read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
        self._tell(event="exited", code=code, last=last)
        if code == 0:
            journal, digest = (folder / "sent.parquet").read_bytes(), hashlib.sha256()
            for first in range(0, len(journal), CHUNK):
                piece = journal[first : first + CHUNK]
                digest.update(piece)
                of_all = digest.hexdigest() if first + CHUNK >= len(journal) else ""
                self._send("journal", {"index": self._given["index"], "piece": piece, "digest": of_all})
                gevent.sleep(0)  # heartbeats go out between two pieces

    def _tell(self, **what: Any) -> None:
        index = {"index": self._given["index"]} if self._given else {}
        self._send("heard", index | what)

    def _send(self, kind: str, data: dict[str, Any]) -> None:
        self._runner.send_message(kind, data)


class Share(User):
    """Locust's user: one a worker, whose only task is the worker's share of the load."""

    wait_time = constant(3600)

    @task
    def send(self) -> None:
        """Run the load engine; a second time is reported, not done."""
        self.environment.harness_engine.run()


def report(**line: Any) -> None:
    """A line for the coordinator."""
    print(json.dumps(line), flush=True)


def count(stats: Any, delays_ms: Iterable[tuple[int, int]]) -> None:
    """Add (generator delay in ms, events) to Locust's figures: its requests a second are events a second."""
    for entry in (stats.total, stats.entries[NAME, METHOD]):
        add(entry, list(delays_ms), time.time())


def add(entry: StatsEntry, delays_ms: list[tuple[int, int]], now_s: float) -> None:
    """What `StatsEntry.log` does for one request, for many at once."""
    events_ = sum(number for _, number in delays_ms)
    if not events_:
        return
    entry.num_requests += events_
    entry.num_reqs_per_sec[int(now_s)] += events_
    entry.last_request_timestamp = now_s
    entry.total_response_time += sum(delay * number for delay, number in delays_ms)
    least, most = min(delay for delay, _ in delays_ms), max(delay for delay, _ in delays_ms)
    entry.min_response_time = least if entry.min_response_time is None else min(entry.min_response_time, least)
    entry.max_response_time = max(entry.max_response_time, most)
    for delay, number in delays_ms:
        entry.response_times[bucket_response_time(delay)] += number


@events.init.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Any, runner: Any, **_: Any) -> None:
    """Be the master's half, or a worker's."""
    if isinstance(runner, MasterRunner):
        Master(environment, runner)
    elif isinstance(runner, WorkerRunner):
        environment.harness_engine = Engine(environment, runner)
