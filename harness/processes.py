"""Child processes that cannot outlive their owner unnoticed.

A process is started with a mark in its environment, ``HARNESS_OWNER=<pid>:<born>``, which its own
children inherit. Whoever looks later can tell from the mark alone whose it was, and whether that
owner is still alive: `sweep` ends exactly the processes whose owner is gone, and removes the scratch
folders that it left, with the disks mounted below them. Nothing here matches on names of programs.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness import disks

LINUX = sys.platform == "linux"
MARK = "HARNESS_OWNER"
SCRATCH = re.compile(r"harness-[\w.-]+?-(?P<pid>\d+)-(?P<born>\d+)-\w+")
GONE = (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that answers for others: its id, and the moment of its birth, since ids are used again.

    `born` counts hundredths of a second, on Linux since the machine's start: the wall clock may be set
    while a run goes on, and a live owner must never be taken for a dead one.
    """

    pid: int
    born: int

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(pid, _born(pid) or 0)

    @classmethod
    def parse(cls, mark: str) -> Owner | None:
        """The owner that a mark names, or None where the mark is not one of ours."""
        found = re.fullmatch(r"(\d+):(\d+)", mark)
        return cls(int(found[1]), int(found[2])) if found else None

    @property
    def mark(self) -> str:
        """The value of ``HARNESS_OWNER``."""
        return f"{self.pid}:{self.born}"

    def is_alive(self) -> bool:
        """Whether a process with this id and this birth is there, and more than a zombie."""
        born = _born(self.pid)
        return born is not None and abs(born - self.born) <= 1


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep ended: processes, each as ``pid name``, and folders."""

    processes: tuple[str, ...]
    folders: tuple[Path, ...]


def spawn(
    args: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in its own session, with our mark.

    `env` is added to this process's environment. Output is appended to `log`, or dropped; with
    ``stdout=subprocess.PIPE`` standard output comes to the caller and only errors go to `log`. Standard
    input is empty, or ``stdin=subprocess.PIPE``.
    """
    environment = {**os.environ, **(env or {}), MARK: Owner.me().mark}
    command = [str(arg) for arg in args]
    with open(log or os.devnull, "ab") as sink:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=sink if stdout is None else stdout,
            stderr=sink,
            env=environment,
            cwd=cwd,
            start_new_session=True,
        )


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End a spawned process and all that came from it with SIGKILL, and wait until they are gone."""
    _end(process, _descendants(process.pid))


def stop(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> bool:
    """Ask a spawned process to end, and make it so after `grace_s`; true where asking was enough.

    Only the process itself is asked; what is left of its tree when it has gone is killed.
    """
    family = _descendants(process.pid)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.terminate()
    try:
        process.wait(grace_s)
        asked = True
    except subprocess.TimeoutExpired:
        asked = False
    _end(process, [*family, *_descendants(process.pid)])
    return asked


def last_said(log: str) -> str:
    """The last line of a log that says something, and is no frame of a stack."""
    lines = (line.strip() for line in reversed(log.splitlines()))
    return next((line for line in lines if line and not line.startswith(("at ", "..."))), "it said nothing")


def sweep() -> Swept:
    """End the marked processes whose owner is dead, and remove the scratch folders of dead owners."""
    found = orphans()
    names = tuple(f"{process.pid} {_name(process)}" for process in found)
    for process in found:
        with contextlib.suppress(*GONE):
            process.kill()
    _until_dead(found)
    folders = tuple(abandoned(Path(tempfile.gettempdir())))
    for folder in folders:
        disks.unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return Swept(names, folders)


def orphans() -> list[psutil.Process]:
    """The marked processes whose owner is dead."""
    return [process for process in psutil.process_iter() if _is_orphan(process)]


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder that bears its owner's id, so that a sweep can remove what a dead owner left."""
    me = Owner.me()
    folder = Path(tempfile.mkdtemp(prefix=f"harness-{prefix}-{me.pid}-{me.born}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell_stacks(pid: int) -> None:
    """Have a Java process write what each of its threads is at to its standard output; others are left alone."""
    with contextlib.suppress(*GONE):
        process = psutil.Process(pid)
        if process.name() == "java":
            process.send_signal(signal.SIGQUIT)


def tree_pids(pid: int) -> list[int]:
    """A process and its descendants."""
    return [process.pid for process in _tree(pid)]


def tree_cpu_s(pid: int) -> float:
    """CPU seconds of a process and its descendants, those included that have ended and were waited for."""
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(*GONE):
            total += sum(process.cpu_times()[:4])
    return total


def tree_rss_bytes(pid: int) -> int:
    """Resident bytes of a process and its descendants; pages that they share count once for each."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(*GONE):
            total += process.memory_info().rss
    return total


def _born(pid: int) -> int | None:
    """When a process was born, in hundredths of a second, or None where it is gone or a zombie."""
    try:
        if LINUX:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] in "ZX" else int(fields[19]) * 100 // os.sysconf("SC_CLK_TCK")
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except GONE:
        return None


def _is_orphan(process: psutil.Process) -> bool:
    """Whether a process bears the mark of an owner that is dead; what cannot be read is left alone."""
    try:
        owner = Owner.parse(process.environ().get(MARK, ""))
    except (*GONE, OSError):
        return False
    return owner is not None and process.pid != os.getpid() and not owner.is_alive()


def abandoned(parent: Path) -> Iterator[Path]:
    """The scratch folders in `parent` that are ours and whose owner is dead."""
    for folder in sorted(parent.glob("harness-*")):
        found = SCRATCH.fullmatch(folder.name)
        if found and _is_mine(folder) and not Owner(int(found["pid"]), int(found["born"])).is_alive():
            yield folder


def _is_mine(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.getuid()
    except OSError:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except GONE:
        return "?"


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
    except GONE:
        return []
    return [process, *_descendants(pid)]


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except GONE:
        return []


def _end(process: subprocess.Popen[bytes], family: Iterable[psutil.Process]) -> None:
    """Kill a process's group and the given descendants, and wait for all of them."""
    rest = list(family)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for descendant in rest:
        with contextlib.suppress(*GONE):
            descendant.kill()
    process.wait()
    _until_dead(rest)


def _until_dead(family: Iterable[psutil.Process], patience_s: float = 10.0) -> None:
    """Wait until each is dead, whether or not its new parent has taken note: that can last a second and more."""
    left, deadline = list(family), time.monotonic() + patience_s
    while (left := [one for one in left if not _is_dead(one)]) and time.monotonic() < deadline:
        time.sleep(0.005)


def _is_dead(process: psutil.Process) -> bool:
    """Gone, or a zombie whose last thread has ended: neither holds a file or a port."""
    try:
        return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True
