"""Child processes: started with our mark, ended with all that came from them, and what each tree of them uses."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from harness.host import environment, ownership
from harness.host.ownership import GONE, MARK, Owner

_guarding = threading.Lock()
_guards: dict[int, subprocess.Popen[bytes]] = {}
"""The watchdog of this process, by its id: a fork of this process has none yet."""
_held: list[int] = []
"""The ends of pipes that close with this process."""


def spawn(
    args: Sequence[str | Path],
    *,
    log: Path | None = None,
    env: Mapping[str, str] | None = None,
    inherit: bool = False,
    cwd: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in its own session, with our mark.

    Its environment is `environment.own()`, or with `inherit` that of this process, and `env`. Output is appended to `log`, or dropped; with
    ``stdout=subprocess.PIPE`` standard output comes to the caller and only errors go to `log`. Standard
    input is empty, or ``stdin=subprocess.PIPE``.
    """
    guard()
    base = os.environ if inherit else environment.own()
    command = [str(arg) for arg in args]
    with open(log or os.devnull, "ab") as sink:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=sink if stdout is None else stdout,
            stderr=sink,
            env={**base, **(env or {}), MARK: Owner.me().mark},
            cwd=cwd,
            start_new_session=True,
        )


def guard() -> None:
    """Start the watchdog of this process, once: a process that ends what this process leaves, however this process ends.

    It waits for the end of a pipe whose other end this process alone holds. ``PR_SET_PDEATHSIG`` does not replace it: that
    signal comes when the thread that forked ends, reaches no grandchild, and exists on Linux alone.
    """
    with _guarding:
        if os.getpid() in _guards:
            return
        end, held = os.pipe()
        command = [sys.executable, "-m", "harness.host.watchdog", Owner.me().mark, tempfile.gettempdir()]
        try:
            _guards[os.getpid()] = subprocess.Popen(
                command,
                stdin=end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment.own(),
                cwd="/",  # it keeps no disk from being unmounted
                start_new_session=True,
            )
        finally:
            os.close(end)
        _held.append(held)
        atexit.register(_dismiss, os.getpid())


def _dismiss(pid: int) -> None:
    """End the watchdog of a process that ends in an orderly way."""
    if pid == os.getpid():
        _guards[pid].kill()
        _guards[pid].wait()


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End a spawned process and all that came from it with SIGKILL, and wait until they are gone."""
    _end(process, _family(process))


def stop(process: subprocess.Popen[bytes], grace_s: float = 10.0, at_end: Callable[[], None] = lambda: None) -> bool:
    """Ask a spawned process to end, and make it so after `grace_s`; true where asking was enough.

    Only the process itself is asked; what is left of its tree when it has gone is killed. `at_end` is called when it has
    ended, and before it is waited for.
    """
    family = _family(process)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGCONT)
        process.terminate()
    asked = _awaits_its_end(process, grace_s)
    at_end()
    _end(process, [*family, *_family(process)])
    return asked


def _awaits_its_end(process: subprocess.Popen[bytes], grace_s: float) -> bool:
    """Whether it ends in time. It is not reaped yet, so that its id, and its group's, are not given to another process."""
    deadline = time.monotonic() + grace_s
    while process.returncode is None and not has_ended(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a spawned process has ended; it is not waited for, so that its id stays its own."""
    if not hasattr(os, "waitid"):  # macOS, until Python 3.13
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    except ChildProcessError:  # another thread has waited for it in between
        return True


def last_said(log: str) -> str:
    """The last line of a log that is not empty and is no frame of a stack."""
    lines = (line.strip() for line in reversed(log.splitlines()))
    return next((line for line in lines if line and not line.startswith(("at ", "..."))), "it logged nothing")


def name(process: psutil.Process) -> str:
    """The name of its program, or ``?`` of one that is gone."""
    try:
        return process.name()
    except GONE:
        return "?"


def tell_stacks(pid: int) -> None:
    """Have a Java process write what each of its threads is at to its standard output; others are left alone."""
    with contextlib.suppress(*GONE):
        process = psutil.Process(pid)
        if process.name() == "java":
            process.send_signal(signal.SIGQUIT)


def signal_tree(pid: int, number: int) -> None:
    """Send a signal to the process group that a process leads, and to its descendants that have left it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)
    for child in descendants(pid):
        with contextlib.suppress(*GONE):
            child.send_signal(number)


def is_frozen(pid: int) -> bool:
    """Whether a process and all its descendants are stopped."""
    still = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED and all(
            child.status() in still for child in descendants(pid)
        )
    except GONE:
        return False


def tree_pids(pid: int) -> list[int]:
    """A process and its descendants."""
    return [process.pid for process in _tree(pid)]


def usable_cores() -> float:
    """The cores that this process may use: those that it may run on, and no more than its control groups allow."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([float(allowed), *_quotas(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))])


def _quotas(groups: Path, root: Path) -> Iterator[float]:
    """The cores that each control group of this process allows it, of both versions; none where none limits it."""
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        lowest = root / controllers / path.lstrip("/")
        # In a container the path is that of the machine, and what limits it lies at the root.
        for folder in (lowest, *lowest.parents[: len(lowest.relative_to(root).parts)]):
            with contextlib.suppress(OSError, ValueError):
                if not controllers:
                    quota, period = (folder / "cpu.max").read_text().split()
                else:
                    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                if float(quota) > 0:
                    yield float(quota) / float(period)


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


def _tree(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
    except GONE:
        return []
    return [process, *descendants(pid)]


def descendants(pid: int) -> list[psutil.Process]:
    """The processes that came from a process, at any depth; none of one that is gone."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except GONE:
        return []


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """What came from a spawned process. Of one that was waited for: what is left in its session; its id may be another's."""
    if process.returncode is None:
        return descendants(process.pid)
    return [member for member in ownership.mine() if _session(member) == process.pid]


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
    kill(list(family))
    process.wait()


def kill(family: Sequence[psutil.Process]) -> None:
    """End processes, and wait until they are dead."""
    for member in family:
        with contextlib.suppress(*GONE):
            member.kill()
    _until_dead(family)


def _until_dead(family: Iterable[psutil.Process], patience_s: float = 10.0) -> None:
    """Wait until each is dead, whether or not its new parent has taken note: that can last a second and more."""
    left, deadline = list(family), time.monotonic() + patience_s
    while (left := [process for process in left if not _is_dead(process)]) and time.monotonic() < deadline:
        time.sleep(0.005)


def _is_dead(process: psutil.Process) -> bool:
    """Gone, or a zombie whose last thread has ended: neither holds a file or a port."""
    try:
        return not process.is_running() or (process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1)
    except psutil.NoSuchProcess:
        return True
