"""Child processes that cannot outlive their owner unnoticed.

A process is started with a mark in its environment, ``HARNESS_OWNER=<pid>-<born>-<among>``, which its own
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
OWNER = r"\d+-\d+-\d+"
SCRATCH = re.compile(rf"harness-[\w.-]+?-(?P<owner>{OWNER})-\w+")
GONE = (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that answers for others: its id, the moment of its birth, since ids are used again, and among whom.

    `born` counts hundredths of a second, on Linux since the machine's start: the wall clock may be set
    while a run goes on, and a live owner must never be taken for a dead one. `among` is the number of its
    namespace of processes, 0 where there is none: in another, a container's, the same id is somebody else.
    """

    pid: int
    born: int
    among: int

    @classmethod
    def me(cls) -> Owner:
        """This process."""
        pid = os.getpid()
        return cls(pid, _born(pid) or 0, _among())

    @classmethod
    def parse(cls, mark: str) -> Owner | None:
        """The owner that a mark names, or None where the mark is not one of ours."""
        return cls(*map(int, mark.split("-"))) if re.fullmatch(OWNER, mark) else None

    @property
    def mark(self) -> str:
        """The value of ``HARNESS_OWNER``, and a part of the names of what is its own."""
        return f"{self.pid}-{self.born}-{self.among}"

    def is_dead(self) -> bool:
        """Whether no process with this id and this birth is there, or a zombie; of one among others it cannot be said."""
        if self.among != _among():
            return False
        born = _born(self.pid)
        return born is None or abs(born - self.born) > 1


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
    _end(process, _family(process))


def stop(process: subprocess.Popen[bytes], grace_s: float = 10.0) -> bool:
    """Ask a spawned process to end, and make it so after `grace_s`; true where asking was enough.

    Only the process itself is asked; what is left of its tree when it has gone is killed.
    """
    family = _family(process)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.terminate()
    asked = _awaits_its_end(process, grace_s)
    _end(process, [*family, *_family(process)])
    return asked


def _awaits_its_end(process: subprocess.Popen[bytes], grace_s: float) -> bool:
    """Whether it ends in time. It is not waited for yet: until then its id, and its group's, are nobody else's."""
    deadline = time.monotonic() + grace_s
    while process.returncode is None and not _has_ended(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    if not hasattr(os, "waitid"):  # macOS, until Python 3.13
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:  # another thread has waited for it in between
        return True


def last_said(log: str) -> str:
    """The last line of a log that says something, and is no frame of a stack."""
    lines = (line.strip() for line in reversed(log.splitlines()))
    return next((line for line in lines if line and not line.startswith(("at ", "..."))), "it said nothing")


def sweep() -> Swept:
    """End the marked processes whose owner is dead, and remove the scratch folders of dead owners."""
    found = orphans()
    names = tuple(f"{process.pid} {_name(process)}" for process in found)
    _kill(found)
    folders = tuple(abandoned(Path(tempfile.gettempdir())))
    for folder in folders:
        disks.unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return Swept(names, folders)


def orphans() -> list[psutil.Process]:
    """The marked processes whose owner is dead."""
    return [process for process in psutil.process_iter() if (owner := _owner(process)) and owner.is_dead()]


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """End, at the end, whatever bears our own mark and is new: what a teardown that was broken off has left.

    A process has one run at a time.
    """
    before = set(_mine())
    try:
        yield
    finally:
        _kill([one for one in _mine() if one not in before])


def _mine() -> list[psutil.Process]:
    me = Owner.me()
    return [process for process in psutil.process_iter() if _owner(process) == me]


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder that bears its owner's id, so that a sweep can remove what a dead owner left."""
    folder = Path(tempfile.mkdtemp(prefix=f"harness-{prefix}-{Owner.me().mark}-"))
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


def _among() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _owner(process: psutil.Process) -> Owner | None:
    """Whose mark another process bears; what cannot be read is left alone."""
    try:
        return Owner.parse(process.environ().get(MARK, "")) if process.pid != os.getpid() else None
    except (*GONE, OSError):
        return None


def abandoned(parent: Path) -> Iterator[Path]:
    """The scratch folders in `parent` that are ours and whose owner is dead."""
    for folder in sorted(parent.glob("harness-*")):
        found = SCRATCH.fullmatch(folder.name)
        owner = Owner.parse(found["owner"]) if found else None
        if owner and owner.is_dead() and _belongs_to_me(folder):
            yield folder


def _belongs_to_me(folder: Path) -> bool:
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


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What came from a spawned process. Of one that was waited for: what is left in its session; its id may be another's."""
    if process.returncode is None:
        return _descendants(process.pid)
    return [one for one in _mine() if _session(one) == process.pid]


def _session(process: psutil.Process) -> int | None:
    try:
        return os.getsid(process.pid)
    except OSError:
        return None


def _end(process: subprocess.Popen[bytes], family: Iterable[psutil.Process]) -> None:
    """Kill a process's group and the given descendants, and wait for all of them."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    _kill(list(family))
    process.wait()


def _kill(family: Sequence[psutil.Process]) -> None:
    """End processes, and wait until they are dead."""
    for one in family:
        with contextlib.suppress(*GONE):
            one.kill()
    _until_dead(family)


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
