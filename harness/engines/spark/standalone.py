"""A Spark standalone cluster of our own: a master and workers as plain Java processes on 127.0.0.1.

Executors are started by Spark, below a worker, and others when they are lost. A worker
ends with its executors, as a machine would. What the cluster computes is not known here.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

from harness.errors import StackError, Unreachable, Unready
from harness.host import jars
from harness.host.service import Service
from harness.kafka.cluster import await_true
from harness.kafka.common import free_ports
from harness.rundir.events import Cluster

HOST = "127.0.0.1"
MASTER = "org.apache.spark.deploy.master.Master"
WORKER = "org.apache.spark.deploy.worker.Worker"
MASTER_NAME = "master"
EXECUTOR = "CoarseGrainedExecutorBackend"
START_S = 60.0
GRACE_S = 20.0
ANSWER_S = 1.0
# How long a silent worker counts as alive, and how long a restarted master waits for one.
SILENCE_S = 20
# How long a master that is alive again must be seen to have lost nothing.
SETTLE_S = 2.0
# What a worker may promise to executors; its one core admits one executor.
MEMORY = "4g"

State = Mapping[str, Any]


class Executor:
    """The executor that has worked most, and so surely holds state, from its loss until there is another.

    It is up while as many executors work as did before: Spark starts the other one, perhaps elsewhere.
    """

    def __init__(self, working: Callable[[], Sequence[psutil.Process]]) -> None:
        """`working` gives the executors that work, the one that has worked most first; StackError where none does."""
        found = working()
        if not found:
            raise StackError("fault on executor: no executor works")
        self._working = working
        self._wanted = len(found)
        self._process = found[0]

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def stop(self) -> bool:
        """SIGTERM; SIGKILL, and false, where that does not help."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.terminate()
            _, alive = psutil.wait_procs([self._process], timeout=GRACE_S)
            self._process.kill()
            return not alive
        return True

    def kill(self) -> None:
        """SIGKILL."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.kill()
            psutil.wait_procs([self._process], timeout=GRACE_S)

    def pause(self) -> None:
        """SIGSTOP."""
        self._process.suspend()

    def resume(self) -> None:
        """SIGCONT; what Spark gave up meanwhile and ended is not missed."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.resume()

    def start(self) -> None:
        """Nothing: Spark starts another one itself."""

    def is_up(self) -> bool:
        """Whether as many executors work as did before."""
        return len(self._working()) >= self._wanted


class Standalone:
    """One master and its workers of one core each."""

    def __init__(self, workers: int, folder: Path, logs: Path, java: str = "") -> None:
        """Nothing is started; `folder` is for what lives as long as the cluster, `logs` for what is kept, `java` flags of all."""
        self._port, self._page, *ports = free_ports(2 + 2 * workers)
        self._folder, self._logs, self._java = folder.absolute(), logs, java
        self._executors_wanted = 0
        self._whole_since_s: float | None = None
        self._applications_wanted: frozenset[str] = frozenset()
        place = ("--host", HOST, "--port", str(self._port), "--webui-port", str(self._page))
        self.master = self._daemon(MASTER_NAME, (MASTER, *place), self._master_works)
        self.workers = {
            f"worker {number}": self._worker(number, *ports[2 * number - 2 : 2 * number])
            for number in range(1, workers + 1)
        }

    @property
    def url(self) -> str:
        """What a session names as its master."""
        return f"spark://{HOST}:{self._port}"

    def cpu_s(self) -> float:
        """CPU seconds of all its processes until now."""
        return sum(daemon.cpu_s() for daemon in self._daemons())

    def check(self) -> None:
        """Raise StackError where one of its daemons has ended and nobody had ended it."""
        for daemon in self._daemons():
            daemon.check()

    def pids(self) -> list[int]:
        """The master and the workers that run; executors are below workers."""
        return [pid for daemon in self._daemons() if (pid := daemon.pid) is not None]

    def executors(self) -> list[psutil.Process]:
        """The executors that work, the one that has worked most first."""
        found = [process for worker in self.workers.values() for process in executors_below(worker.pid)]
        return sorted(found, key=_cpu_s, reverse=True)

    def seen(self) -> Cluster:
        """Process ids, and the applications that the master knows.

        If the master gives no answer, `applications` is None and `master_silent` has the reason; else that is empty.
        """
        state, silent = self._answer()
        return Cluster(
            master=self.master.pid,
            workers=tuple(worker.pid for worker in self.workers.values()),
            executors=tuple(process.pid for process in self.executors()),
            applications=None if silent else tuple(sorted(applications(state))),
            master_silent=silent,
        )

    def target(self, on: str) -> dict[str, Service | Executor]:
        """What a fault on `executor`, `worker` (with the executor that has worked most) or `master` hits, by name.

        From now on the cluster works only with as many executors as it has now, and with the same applications.
        StackError where no executor works.
        """
        # The pipeline's queries start before its executors do: each worker gets one, unless the pipeline asks for fewer.
        await_true(lambda: len(self.executors()) >= len(self.workers), START_S)
        executor = Executor(self.executors)
        self._executors_wanted = len(self.executors())
        # A master that is busy gives no answer; one without the pipeline's application would then count as healed.
        known: frozenset[str] = frozenset()
        silent = ""

        def are_known() -> bool:
            nonlocal known, silent
            state, silent = self._answer()
            known = frozenset(applications(state))
            return bool(known)

        if not await_true(are_known, START_S):
            why = silent or "the master of the cluster knows no application"
            raise StackError(f"fault on {on}: {why}, after {START_S:.0f} s: see {self._logs}")
        self._applications_wanted = known
        if on == "executor":
            return {f"executor {executor.pid}": executor}
        if on == MASTER_NAME:
            return {MASTER_NAME: self.master}
        owner = self._owner(executor.pid)
        return {owner: self.workers[owner]}

    def start(self) -> None:
        """Start all of it; StackError where a part of it does not work."""
        self.master.start()
        for worker in self.workers.values():
            worker.start(wait_s=0)
        for worker in self.workers.values():
            worker.await_up()

    def end(self) -> None:
        """Kill what is left of it, and keep the logs of the executors."""
        for daemon in reversed(self._daemons()):
            daemon.kill()
        for path in sorted((self._folder / "work").glob("*/*/*/stderr")):
            worker, application, number = path.parts[-4:-1]
            shutil.copy(path, self._logs / f"{worker}-{application}-executor-{number}.log")

    def _daemons(self) -> list[Service]:
        return [self.master, *self.workers.values()]

    def _owner(self, executor: int) -> str:
        """The name of the worker that started an executor; the first where it has ended meanwhile."""
        below = {
            name: [process.pid for process in executors_below(worker.pid)] for name, worker in self.workers.items()
        }
        return next((name for name, pids in below.items() if executor in pids), next(iter(self.workers)))

    def _worker(self, number: int, port: int, page: int) -> Service:
        place = ("--host", HOST, "--port", str(port), "--webui-port", str(page))
        gives = ("--cores", "1", "--memory", MEMORY, "--work-dir", self._folder / "work" / f"worker-{number}")
        return self._daemon(f"worker {number}", (WORKER, *place, *gives, self.url), lambda: self._worker_works(port))

    def _daemon(self, name: str, args: Sequence[str | Path], works: Callable[[], bool]) -> Service:
        log = self._logs / f"spark-{name.replace(' ', '-')}.log"
        program = jars.spark_home() / "bin" / "spark-class"
        env = environment(self._folder, self._java)
        command = (program, *args)
        return Service(f"Spark's {name}", command, log, works=works, grace_s=GRACE_S, start_s=START_S, env=env)

    def _master_works(self) -> bool:
        """It is alive, for a while already, with every worker that runs, and the applications and executors that it had.

        A worker that registers by itself while its master recovers is taken for a new one: the executor that works
        there is killed a moment later, and replaced.
        """
        state, silent = self._answer()
        running = sum(worker.pid is not None for worker in self.workers.values())
        known = applications(state) >= self._applications_wanted
        whole = not silent and state.get("status") == "ALIVE" and len(alive_workers(state)) >= running and known
        if not whole or len(self.executors()) < self._executors_wanted:
            self._whole_since_s = None
            return False
        if self._whole_since_s is None:
            self._whole_since_s = monotonic()
        return not self._executors_wanted or monotonic() - self._whole_since_s >= SETTLE_S

    def _worker_works(self, port: int) -> bool:
        """The master counts on it, and has as many executors as before."""
        state, _ = self._answer()
        return port in alive_workers(state) and len(self.executors()) >= self._executors_wanted

    def _answer(self) -> tuple[State, str]:
        """(the state of the master, ""), or ({}, why it gives none)."""
        try:
            return state(self._page), ""
        except (Unreachable, Unready) as error:
            return {}, str(error)


@contextlib.contextmanager
def open_cluster(workers: int, folder: Path, logs: Path, java: str = "") -> Iterator[Standalone]:
    """Start a master and `workers` workers, with flags for Java, and kill all of it at the end."""
    for name in ("recovery", "tmp"):
        (folder / name).mkdir(parents=True)
    cluster = Standalone(workers, folder, logs, java)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()


def environment(folder: Path, java: str = "") -> dict[str, str]:
    """What master and workers are started with: all on loopback, all files in `folder`, a master that remembers.

    Flags for `java` reach the executors too, which inherit it all.
    """
    # Nobody submits to it, and its door for that stands at a port that is the same for every master.
    closed = "-Dspark.master.rest.enabled=false"
    temporary = f'-Djava.io.tmpdir="{folder / "tmp"}"'
    remembers = f'-Dspark.deploy.recoveryMode=FILESYSTEM -Dspark.deploy.recoveryDirectory="{folder / "recovery"}"'
    return {
        "JAVA_HOME": str(jars.java().resolve().parent.parent),
        "JDK_JAVA_OPTIONS": f"{java} {temporary}".strip(),
        "SPARK_HOME": str(jars.spark_home()),
        "SPARK_LOCAL_IP": HOST,
        "SPARK_LOCAL_DIRS": str(folder / "local"),
        "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": f"-Dspark.worker.timeout={SILENCE_S}",
        "SPARK_MASTER_OPTS": f"{closed} {remembers}",
    }


def state(page: int) -> State:
    """The state of a master, as its page gives it in JSON (/json/ of Spark's standalone master).

    Raises Unreachable where nothing answers in time, Unready where the answer is not a state.
    """
    connection = http.client.HTTPConnection(HOST, page, timeout=ANSWER_S)
    where = f"the master's page at {HOST}:{page}"
    try:
        connection.request("GET", "/json/")
        answer = connection.getresponse()
        body = answer.read()
        found = json.loads(body)
    except OSError as error:
        raise Unreachable(f"{where} does not answer: {error}") from error
    except http.client.HTTPException as error:
        raise Unready(f"{where} answers no HTTP: {type(error).__name__}") from error
    except ValueError as error:
        raise Unready(f"{where} answers {answer.status}, and no JSON: {body[:80]!r}") from error
    finally:
        connection.close()
    if answer.status != http.client.OK or not isinstance(found, dict):
        raise Unready(f"{where} answers {answer.status}, and no state: {body[:80]!r}")
    return found


def alive_workers(state: State) -> set[int]:
    """The ports of the workers that a master counts on."""
    return {worker["port"] for worker in state.get("workers", ()) if worker["state"] == "ALIVE"}


def applications(state: State) -> set[str]:
    """The ids of the applications that a master knows and that have not ended."""
    return {application["id"] for application in state.get("activeapps", ())}


def executors_below(pid: int | None) -> list[psutil.Process]:
    """The executors that a worker started and that work: registered at their driver, and not frozen."""
    if pid is None:
        return []
    try:
        # Children only: what an executor starts (a shell command for each file of a state) is, until it is another
        # program, a second process with the executor's command line and its sockets.
        return [process for process in psutil.Process(pid).children() if _executes(process)]
    except psutil.NoSuchProcess:
        return []


def _executes(process: psutil.Process) -> bool:
    try:
        if not any(EXECUTOR in part for part in process.cmdline()) or _is_frozen(process.pid):
            return False
        # It listens for blocks of others only once its driver has taken it on.
        return any(connection.status == psutil.CONN_LISTEN for connection in process.net_connections("tcp"))
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def _is_frozen(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _cpu_s(process: psutil.Process) -> float:
    try:
        return sum(process.cpu_times()[:2])
    except psutil.NoSuchProcess:
        return 0.0
