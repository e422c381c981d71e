"""The workers of a load: who takes part, how far each is, and why the load cannot be trusted.

Fed with the messages that Locust's master passes on, and with time; it starts and sends nothing itself. Locust goes on
without a worker that died and ends with exit code 0; here the first thing that is not as it should be is kept as `why`,
and the load is given up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The folder that a process of Locust writes to, in its environment.
FOLDER = "HARNESS_LOAD_FOLDER"
# What makes events and their due times, below `harness`: on two machines it must be the same.
SOURCES = ("job/*.py", "job/clickstream/*.py", "load/engine.py")

# How long nothing may be heard of a worker, or of its load engine while it sends. Each reports twice a second.
SILENT_S = 15.0
# The clocks of two machines may be so far apart; latencies of seconds are judged by them.
SKEW_MAX_S = 0.1
PROBES = 8
SENDING = ("running", "settled")


def sources() -> str:
    """A digest of `SOURCES`, as they are here."""
    harness = Path(__file__).parents[1]
    paths = [path for pattern in SOURCES for path in sorted(harness.glob(pattern))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


@dataclass(slots=True)
class Worker:
    """One worker: `skew_s` is its clock − the master's, known to within half of `round_trip_s`."""

    client: str
    index: int
    host: str
    pid: int
    state: str = "joined"  # then: ready, running, settled, exited, delivered
    probes: int = 0
    skew_s: float = 0.0
    round_trip_s: float = float("inf")
    silent_s: float = 0.0
    engine_silent_s: float = 0.0
    status: dict[str, Any] = field(default_factory=dict)
    bytes: int = 0

    @property
    def name(self) -> str:
        """The worker for a message."""
        return f"worker {self.index} ({self.host}, pid {self.pid})"

    def row(self) -> dict[str, Any]:
        """What is kept of it with the run: times in ms."""
        return {
            "index": self.index,
            "host": self.host,
            "pid": self.pid,
            "skew_ms": round(self.skew_s * 1e3, 3),
            "round_trip_ms": round(self.round_trip_s * 1e3, 3),
        }


class Workers:
    """All workers of a load, `expected` in number."""

    def __init__(self, expected: int, silent_s: float = SILENT_S) -> None:
        self.expected = expected
        self._silent_s = silent_s
        self.why = ""
        self._of: dict[str, Worker] = {}
        self._test_starts = 0
        self._asked_to_start = False

    @property
    def all(self) -> list[Worker]:
        """Those that have joined, by index."""
        return list(self._of.values())

    def are(self, *states: str) -> bool:
        """Whether everyone has joined and is in one of these states."""
        return len(self._of) == self.expected and all(worker.state in states for worker in self.all)

    def are_measured(self) -> bool:
        """Whether everyone has joined and every clock is measured."""
        return len(self._of) == self.expected and all(worker.probes >= PROBES for worker in self.all)

    def table(self) -> list[dict[str, Any]]:
        """A row a worker."""
        return [worker.row() for worker in self.all]

    def total(self) -> dict[str, Any]:
        """The status of the load: counts and CPU seconds summed, the worst delay, the newest event time."""
        statuses = [worker.status for worker in self.all]
        sums = {name: sum(status.get(name, 0) for status in statuses) for name in ("sent", "acked", "failed", "cpu_s")}
        most = {
            name: max((status.get(name, 0) for status in statuses), default=0) for name in ("delay_ms_p99", "flush_ms")
        }
        return sums | most

    def newest_ms(self) -> int:
        """The newest event time that any of them has sent."""
        return max(int(worker.status.get("newest_ms", 0)) for worker in self.all)

    def begin(self) -> None:
        """Locust is asked to start its test; it may do so once."""
        self._asked_to_start = True

    def run(self) -> None:
        """Every engine has its start time: from now on each reports its status."""
        for worker in self.all:
            worker.state, worker.engine_silent_s = "running", 0.0

    def pass_time(self, seconds: float) -> None:
        """Time passes without a message: of a worker, or of the engine that it watches."""
        for worker in self.all:
            if worker.state == "delivered":
                continue
            worker.silent_s += seconds
            worker.engine_silent_s += seconds if worker.state in SENDING else 0.0
            if worker.silent_s > self._silent_s:
                self.give_up(f"{worker.name} hangs or is cut off: it has not been heard of for {self._silent_s:g} s")
            elif worker.engine_silent_s > self._silent_s > 3 * worker.silent_s:  # else it is the worker that is silent
                self.give_up(f"the load engine of {worker.name} hangs: no status for {self._silent_s:g} s")

    def died(self, pid: int, code: int) -> None:
        """A worker's process on this machine has ended before the load was over."""
        name = next((worker.name for worker in self.all if worker.pid == pid), f"a worker (pid {pid})")
        self.give_up(f"{name} died with {f'signal {-code}' if code < 0 else f'code {code}'} before the load was over")

    def give_up(self, why: str) -> None:
        """Keep the first reason: what follows is mostly its consequence."""
        self.why = self.why or why

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of the master: its `event`, and the `client` that it is about."""
        event, client = message["event"], message.get("client", "")
        if event == "hello":
            self._join(message)
        elif event == "connected":
            if client not in self._of and len(self._of) == self.expected:
                self._refuse(client.rpartition("_")[0])  # Locust's id is the host's name and a random number
        elif event == "test_start":
            self._test_starts += 1
            if self._test_starts > 1 or not self._asked_to_start:
                self.give_up(f"Locust started its test {'again' if self._asked_to_start else 'unasked'}")
        elif event == "test_stop":
            if not self.are("exited", "delivered"):
                self.give_up("Locust stopped its test before the load was over")
        elif client in self._of:
            self._hear_of(self._of[client], event, message)

    def _join(self, message: Mapping[str, Any]) -> None:
        client = message["client"]
        if client in self._of:  # repeated until it has its share
            self._of[client].silent_s = 0.0
        elif len(self._of) < self.expected:
            worker = self._of[client] = Worker(client, len(self._of), message["host"], message["pid"])
            if message["sources"] != sources():
                self.give_up(f"{worker.name} has another version of the harness, which makes other events")
        else:
            self._refuse(message["host"])

    def _refuse(self, host: str) -> None:
        self.give_up(
            f"a worker on {host} joined as worker {self.expected} of a load that has {self.expected}:"
            " one that was restarted comes back under another index"
        )

    def _hear_of(self, worker: Worker, event: str, message: Mapping[str, Any]) -> None:
        worker.silent_s = 0.0
        if (index := message.get("index", worker.index)) != worker.index:
            self.give_up(f"{worker.name} came back as worker {index}")
        elif event == "clock":
            self._measure(worker, message)
        elif event == "again":
            self.give_up(f"Locust started its test again: {worker.name} was to start a second load engine")
        elif event == "stopped":
            self.give_up(f"Locust stopped {worker.name} before its load was over")
        elif event == "engine":
            self._follow(worker, message["status"])
        elif event == "exited":
            worker.state = "exited"
            if message["code"]:
                self.give_up(f"the load engine of {worker.name} ended with code {message['code']}: {message['last']}")
        elif event == "delivered":
            worker.state, worker.bytes = "delivered", message["bytes"]
            if not message["intact"]:
                self.give_up(f"the journal of {worker.name} was damaged on its way")

    def _follow(self, worker: Worker, status: Mapping[str, Any]) -> None:
        worker.engine_silent_s = 0.0
        if status["event"] in ("ready", "settled"):
            worker.state = status["event"]
        worker.status |= status

    def _measure(self, worker: Worker, message: Mapping[str, Any]) -> None:
        """Take the round trip of the least duration: its middle is nearest to when the worker read its clock."""
        worker.probes += 1
        round_trip_s = message["back_s"] - message["sent_s"]
        if round_trip_s < worker.round_trip_s:
            worker.round_trip_s = round_trip_s
            worker.skew_s = message["theirs_s"] - (message["sent_s"] + message["back_s"]) / 2
        if worker.probes >= PROBES and abs(worker.skew_s) - worker.round_trip_s / 2 > SKEW_MAX_S:
            self.give_up(
                f"the clock of {worker.name} is {worker.skew_s:+.3f} s off (± {worker.round_trip_s / 2:.3f} s):"
                f" set it to within {SKEW_MAX_S:g} s of this machine's"
            )
