"""A standalone cluster's parts, without Java: what counts as working, and what a fault on it means."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

import psutil
import pytest

from harness.engines.spark import standalone
from harness.engines.spark.standalone import Executor, Standalone
from harness.errors import StackError, Unreachable, Unready
from harness.host.service import Service

LISTENS = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); print('here', flush=True); time.sleep(60)"
TOLD = {
    "status": "ALIVE",
    "workers": [{"port": 1, "state": "ALIVE"}, {"port": 2, "state": "DEAD"}],
    "activeapps": [{"id": "app-1"}],
}


@pytest.fixture
def daemon(tmp_path):
    """Starts a program as a part of the cluster, and ends it."""
    started: list[Service] = []

    def start(program: str, *args: str) -> Service:
        started.append(Service("worker 1", (sys.executable, "-c", program, *args), tmp_path / "log"))
        return started[-1]

    yield start
    for service in started:
        if service.pid is not None:
            service.resume()
            # While their parent can still take note of it: else another process has to, later.
            psutil.wait_procs(
                [child for child in psutil.Process(service.pid).children() if child.kill() is None], timeout=5
            )
        service.kill()


class Process:
    """What a fault needs of an executor's process."""

    def __init__(self, pid: int, there: list[Process]) -> None:
        self.pid = pid
        self.there = there

    def suspend(self) -> None:
        """It does not work any more."""
        self.there.remove(self)

    def resume(self) -> None:
        """It works again."""
        self.there.append(self)


def test_executor_must_listen_unfrozen(daemon):
    """Only what a worker started and what is an executor by its command line."""
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    worker, other = daemon(starts, LISTENS, standalone.EXECUTOR), daemon(starts, LISTENS)
    worker.start()
    other.start()
    assert standalone.await_true(lambda: len(standalone.executors_below(worker.pid)) == 1, 5)
    worker.pause()

    assert standalone.await_true(lambda: not standalone.executors_below(worker.pid), 5)
    assert [] == standalone.executors_below(other.pid) == standalone.executors_below(None)


def test_executor_child_is_no_executor(daemon):
    """Until it is another program, it has the executor's command line and sockets (Java starts every command so)."""
    forks = LISTENS.replace("print(", "import os; os.fork(); print(")
    starts = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"
    worker = daemon(starts, forks, standalone.EXECUTOR)
    worker.start()
    assert standalone.await_true(lambda: len(psutil.Process(worker.pid).children(recursive=True)) == 2, 5)
    [executor] = psutil.Process(worker.pid).children()
    [started] = executor.children()
    assert standalone.await_true(lambda: standalone._executes(started), 5)

    assert [executor] == standalone.executors_below(worker.pid)


def test_lost_executor_must_be_replaced():
    """Whichever takes its place, and wherever."""
    there: list[Process] = []
    there += [Process(1, there), Process(2, there)]
    executor = Executor(lambda: list(there))
    seen = [executor.is_up()]
    executor.pause()
    seen.append(executor.is_up())
    there.append(Process(3, there))

    assert [True, False, True] == [*seen, executor.is_up()]
    assert 1 == executor.pid


def test_no_executor_is_no_target():
    """Said in one line."""
    with pytest.raises(StackError, match="no executor works"):
        Executor(lambda: [])


def test_gone_process_is_no_executor():
    """It may end while one looks."""
    gone = psutil.Popen([sys.executable, "-c", ""])
    gone.wait()

    assert [] == standalone.executors_below(gone.pid)


@contextlib.contextmanager
def page(status: int, body: bytes) -> Iterator[int]:
    """The port of a page that answers so, once."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing to log."""

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.handle_request, daemon=True)
        thread.start()
        yield server.server_port
        thread.join()


def test_a_masters_page_gives_its_state():
    """Which workers are alive, and which applications the master knows."""
    with page(200, json.dumps(TOLD).encode()) as port:
        found = standalone.state(port)

    assert ({1}, {"app-1"}) == (standalone.alive_workers(found), standalone.applications(found))


def test_a_silent_master_is_unreachable():
    """Nothing listens at its port."""
    with page(200, b"{}") as port:
        standalone.state(port)

    with pytest.raises(Unreachable, match=f"127.0.0.1:{port} does not answer"):
        standalone.state(port)


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        pytest.param(200, b"<html>", "answers 200, and no JSON: b'<html>'", id="a page"),
        pytest.param(200, b"[]", "answers 200, and no state", id="no object"),
        pytest.param(503, b"{}", "answers 503, and no state", id="an error"),
    ],
)
def test_stateless_master_is_unready(status, body, why):
    """It answers: that is not the silence of a master that is down."""
    with page(status, body) as port, pytest.raises(Unready, match=re.escape(why)):
        standalone.state(port)


@pytest.mark.parametrize("error", [Unreachable("no answer"), Unready("no JSON")])
def test_silent_master_keeps_its_reason(cluster, monkeypatch, error):
    """In what is seen, and in the message of a fault that needs it; it does not work meanwhile."""
    one, _, _ = cluster

    def silent(page: int) -> NoReturn:
        raise error

    monkeypatch.setattr(standalone, "state", silent)
    monkeypatch.setattr(standalone, "START_S", 0)

    assert (None, str(error)) == (one.seen().applications, one.seen().master_silent)
    assert (False, False) == (one._master_works(), one._worker_works(1))
    with pytest.raises(StackError, match=f"fault on master: {error}"):
        one.target("master")


def test_cluster_listens_on_loopback_only(tmp_path, monkeypatch):
    """Loopback only, and its files in one folder; of Java's flags only those that it is given."""
    monkeypatch.setenv("JDK_JAVA_OPTIONS", "-Xss2m")
    values = standalone.environment(tmp_path, "-XX:+UseSerialGC")

    assert "127.0.0.1" == values["SPARK_LOCAL_IP"]
    assert str(tmp_path) in values["SPARK_LOCAL_DIRS"]
    assert "FILESYSTEM" in values["SPARK_MASTER_OPTS"]
    assert f'-XX:+UseSerialGC -Djava.io.tmpdir="{tmp_path / "tmp"}"' == values["JDK_JAVA_OPTIONS"]


class Machine:
    """A worker as the cluster sees it."""

    def __init__(self, number: int) -> None:
        self.pid = number


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Two workers that are not there: what their master tells, and their executors by worker, can be changed."""
    told, below = {**TOLD}, {1: [Process(11, [])], 2: [Process(22, [])]}
    monkeypatch.setattr(standalone, "state", lambda page: told)
    monkeypatch.setattr(standalone, "executors_below", lambda pid: below[pid])
    monkeypatch.setattr(standalone, "_cpu_s", lambda process: process.pid)
    one = Standalone(2, tmp_path, tmp_path)
    one.workers = {f"worker {number}": Machine(number) for number in (1, 2)}
    return one, told, below


@pytest.mark.parametrize(("on", "name"), [("executor", "executor 22"), ("worker", "worker 2"), ("master", "master")])
def test_fault_hits_the_busiest_executor(cluster, on, name):
    """By name, so that its proof says what was hit."""
    assert [name] == list(cluster[0].target(on))


def test_worker_heals_with_all_executors(cluster):
    """Registered is not enough."""
    one, _, below = cluster
    one.target("worker")
    seen = [one._worker_works(1), one._worker_works(2)]
    below[2] = []
    seen.append(one._worker_works(1))
    below[2] = [Process(23, [])]

    assert [True, False, False, True] == [*seen, one._worker_works(1)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"status": "RECOVERING"}, id="it recovers still"),
        pytest.param({"workers": [{"port": 1, "state": "ALIVE"}]}, id="a worker is missing"),
        pytest.param({"activeapps": []}, id="it has forgotten the application"),
    ],
)
def test_master_heals_with_full_state(cluster, change, monkeypatch):
    """Alive is not enough."""
    monkeypatch.setattr(standalone, "SETTLE_S", 0)
    one, told, _ = cluster
    told["workers"] = [{"port": 1, "state": "ALIVE"}, {"port": 2, "state": "ALIVE"}]
    one.target("master")
    before = one._master_works()
    told |= change

    assert (True, False) == (before, one._master_works())


def test_master_waits_for_replaced_executor(cluster, monkeypatch):
    """It kills the one of a worker that it takes for a new one, a moment after all looks well."""
    one, told, below = cluster
    told["workers"] = [{"port": 1, "state": "ALIVE"}, {"port": 2, "state": "ALIVE"}]
    now = [0.0]
    monkeypatch.setattr(standalone, "monotonic", lambda: now[0])
    one.target("master")
    seen = []
    for second, executors in ((0.0, [11]), (0.5, []), (3.0, [33]), (3.5, [33]), (5.0, [33])):
        now[0], below[1] = second, [Process(pid, []) for pid in executors]
        seen.append(one._master_works())

    assert [False, False, False, False, True] == seen
