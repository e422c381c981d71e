"""A load from several workers, which Locust coordinates: a drop-in for the load engine's process.

It takes the words of `python -m harness.load` on standard input and prints the same status lines, summed over all
workers. It starts Locust's master, and the workers too unless they come from other machines; deals out the shares;
watches everyone; merges the journals. Locust's exit code counts for nothing: the load is good only if every worker
delivered its journal and the journals are the plan. Else the last line on standard error is the reason, and the exit
code 1. At the end of the input, and upon a signal, everything is ended.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any, NoReturn

from harness.errors import StackError
from harness.kafka.common import can_bind, free_ports
from harness.load import journals
from harness.load.engine import ACKNOWLEDGED_S
from harness.load.workers import FOLDER, PROBES, SILENT_S, Workers

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
# Locust's own ports, of its master and of its page.
PORT, WEB = 5557, 8089
LOOK_S = 0.05
STATUS_EVERY_S = 0.5
# A pause of this process is not a silence of the workers: at most so much counts between two looks.
LOOK_MAX_S = 0.5
HERE = "127.0.0.1"
Line = dict[str, Any]


def address(text: str) -> tuple[str, int]:
    """HOST or HOST:PORT as (host, port); the port is Locust's own, 5557, where none is named."""
    host, colon, port = text.rpartition(":")
    return (host, int(port)) if colon else (text, PORT)


def worker_command(host: str, port: int) -> list[str]:
    """The command of a worker that reports to a master."""
    where = ["--worker", "--master-host", host, "--master-port", str(port)]
    return [*_locust(), *where, "--loglevel", "WARNING"]


def _locust() -> list[str]:
    return [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--only-summary"]


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process of Locust: without the user's own settings of Locust, which would change the test."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")}
    return own | {FOLDER: str(folder)}


def take_part(master: str) -> int:
    """Be a worker of a load that another machine coordinates; returns 0, or the code of a process that was ended.

    The reason of a load that failed is with the run, on the machine of the master.
    """
    with tempfile.TemporaryDirectory(prefix="harness-load-worker-") as folder:
        worker = subprocess.Popen(worker_command(*address(master)), env=environment(Path(folder)))
        try:
            return worker.wait()
        finally:
            worker.kill()
            worker.wait()


class Coordinator:
    """One load, from the first worker's greeting to the merged journal."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._plan: dict[str, Any] = json.loads(Path(args.plan).read_text(encoding="utf-8"))
        self._workers = Workers(args.workers, args.silent_s)
        self._lines: Queue[tuple[str, Any]] = Queue()
        self._folder, self._logs = Path(args.folder), Path(args.logs)
        self._local: list[subprocess.Popen[bytes]] = []
        self._master: subprocess.Popen[bytes] | None = None
        self._cut_short = False
        self._flush = False
        self._told_s = self._looked_s = time.monotonic()

    def conduct(self) -> None:
        """Steps in order. Raises StackError with the reason where the load cannot be trusted."""
        host, port = address(self._args.master) if self._args.master else (HERE, free_ports(1)[0])
        with self._locust(host, port):
            self._join(host, port)
            self._deal()
            self._send()
            self._gather()
            parts = [self._folder / f"{worker.index}.parquet" for worker in self._workers.all]
        journals.merge(parts, self._plan["events"], Path(self._args.sent), whole=not self._cut_short)
        _say(event="done", **self._workers.total())

    @contextmanager
    def _locust(self, host: str, port: int) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._master = self._start_master(host, port)
            yield
        finally:
            if self._master and self._master.stdin:
                with suppress(OSError):
                    self._master.stdin.close()  # upon which it asks workers of other machines to quit
            if self._args.master and self._master:
                with suppress(subprocess.TimeoutExpired):
                    self._master.wait(5)
            for process in filter(None, (*self._local, self._master)):
                process.kill()
                process.wait()

    def _start_master(self, host: str, port: int) -> subprocess.Popen[bytes]:
        where = ["--master", "--master-bind-host", host, "--master-bind-port", str(port)]
        page = ["--headless"]
        if self._args.web:
            web = WEB if can_bind(WEB) else free_ports(1)[0]
            page = ["--web-host", HERE, "--web-port", str(web)]
            _say(event="page", page=f"http://{HERE}:{web}")
        # Locust alone would wait for its workers, then start a test: it is started here instead.
        waits = ["--expect-workers", "1000000"] if not self._args.web else []
        command = [*_locust(), *where, *page, *waits, "--loglevel", "WARNING"]
        with (self._logs / "locust-master.log").open("ab") as log:
            master = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=self._environment()
            )
        threading.Thread(target=self._read, args=("master", master.stdout), daemon=True).start()
        return master

    def _start_worker(self, index: int, host: str, port: int) -> subprocess.Popen[bytes]:
        with (self._logs / f"locust-worker-{index}.log").open("ab") as log:
            command = worker_command(host, port)
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment())

    def _environment(self) -> dict[str, str]:
        return environment(self._folder)

    def _read(self, source: str, stream: Any) -> None:
        """Lines of a stream, then None; Locust may print lines of its own."""
        for line in stream:
            if source == "input":
                self._lines.put((source, line.strip()))
            elif line.startswith(b"{"):
                self._lines.put((source, json.loads(line)))
        self._lines.put((source, None))

    def _join(self, host: str, port: int) -> None:
        """Until all workers are here and their clocks are measured."""
        threading.Thread(target=self._read, args=("input", sys.stdin), daemon=True).start()
        if not self._args.master:
            self._local = [self._start_worker(index, host, port) for index in range(self._args.workers)]
        asked: dict[str, int] = {}
        while not self._workers.are_measured():
            self._look()
            for worker in self._workers.all:
                if asked.get(worker.client, 0) == worker.probes < PROBES:  # one at a time: a queue would count as way
                    asked[worker.client] = worker.probes + 1
                    self._command("clock", worker.client)

    def _deal(self) -> None:
        """Each worker its share; then Locust starts one user on each, which starts the load engine."""
        where = ["--bootstrap", self._args.bootstrap, "--prefix", self._args.prefix]
        args = [*where, "--acknowledged-s", str(self._args.acknowledged_s)]
        for worker in self._workers.all:
            plan = self._plan | {"start_at": None, "share": (worker.index, self._args.workers)}
            self._command("take", worker.client, index=worker.index, plan=plan, args=args)
        self._workers.begin()
        self._command("start", users=self._args.workers)
        self._until("ready")
        _say(event="ready", workers=self._workers.table())

    def _send(self) -> None:
        """The load itself: until every record of every share is acknowledged, and the flush events are asked for."""
        while not (self._flush and self._workers.are("settled", "exited")):
            self._look()

    def _begin(self, word: str) -> None:
        self._command("line", word=word)
        self._workers.run()

    def _gather(self) -> None:
        """Worker 0 sends the flush events, after all that the others have sent; each delivers its journal."""
        newest_ms = self._workers.newest_ms()
        for worker in self._workers.all:
            self._command("line", worker.client, word=f"flush {newest_ms}" if worker.index == 0 else "end")
        self._until("delivered")

    def _until(self, *states: str) -> None:
        while not self._workers.are(*states):
            self._look()

    def _command(self, do: str, client: str | None = None, **what: Any) -> None:
        assert self._master is not None
        assert self._master.stdin is not None
        with suppress(BrokenPipeError):  # its end is seen by the next look
            line = {"do": do, "client": client, **what}
            self._master.stdin.write(json.dumps(line).encode() + b"\n")
            self._master.stdin.flush()

    def _look(self) -> None:
        """Take what has come, and raise StackError once there is a reason."""
        with suppress(Empty):
            source, line = self._lines.get(timeout=LOOK_S)
            while True:
                self._take(source, line)
                source, line = self._lines.get_nowait()
        now_s = time.monotonic()
        self._workers.pass_time(min(LOOK_MAX_S, now_s - self._looked_s))
        self._looked_s = now_s
        for process in self._local:
            if (code := process.poll()) is not None:
                self._workers.died(process.pid, code)
        if self._workers.why:
            raise StackError(self._workers.why)
        if now_s - self._told_s >= STATUS_EVERY_S:
            self._told_s = now_s
            _say(event="status", **self._workers.total())

    def _take(self, source: str, line: Any) -> None:
        if source == "master":
            if line is None:
                self._workers.give_up(f"Locust's master ended, see {self._logs / 'locust-master.log'}")
            else:
                self._workers.hear(line)
        elif line is None:
            raise SystemExit(1)  # the harness is gone
        elif line.startswith("start "):
            self._begin(line)
        elif line == "enough":
            self._cut_short = True
            self._command("line", word="enough")
        else:
            self._flush = True


def _say(**line: Any) -> None:
    print(json.dumps(line), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m harness.load.distributed", description=__doc__)
    parser.add_argument("--bootstrap", required=True, help="HOST:PORT of a broker")
    parser.add_argument("--prefix", default="", help="what topic names begin with")
    parser.add_argument("--plan", required=True, help="JSON file: workload, seed, eps, acks, events, start_at")
    parser.add_argument("--sent", required=True, help="where sent.parquet is written")
    parser.add_argument("--workers", type=int, required=True, help="how many take part")
    parser.add_argument("--master", default="", help="HOST or HOST:PORT to listen at for workers of other machines")
    parser.add_argument("--web", action="store_true", help="serve Locust's page")
    parser.add_argument("--folder", required=True, help="where journals are put together")
    parser.add_argument("--logs", required=True, help="where Locust logs")
    parser.add_argument("--acknowledged-s", type=float, default=ACKNOWLEDGED_S, help="as for the load engine")
    parser.add_argument("--silent-s", type=float, default=SILENT_S, help="how long nothing may be heard of a worker")
    return parser.parse_args()


def main() -> int:
    """Conduct a load; exit code 0, or 1 with the reason as the last line on standard error."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        Coordinator(_arguments()).conduct()
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
