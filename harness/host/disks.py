"""Small disks of a run's own, that can be full or read-only without harm to the machine's.

A disk is a tmpfs mounted on a folder of the run. It is filled by shrinking it to what it holds, so that
nothing need be written. Mounting takes root on Linux; `why_not` gives the reason.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import StackError

SIZE_BYTES = 1 << 30
"""Of an empty disk; a limit, not memory that is taken."""
KIND = "streaming-harness"


@dataclass(frozen=True, slots=True)
class Disk:
    """One mounted folder."""

    folder: Path

    def fill(self) -> bool:
        """Leave no room; False where something was written just then, and it must be tried again."""
        used = os.statvfs(self.folder)
        taken = (used.f_blocks - used.f_bfree) * used.f_frsize
        return _mount("-o", f"remount,size={max(taken, used.f_frsize)}", str(self.folder)) is None and self.is_full()

    def is_full(self) -> bool:
        """Whether there is no room for another page."""
        return os.statvfs(self.folder).f_bfree == 0

    def read_only(self) -> bool:
        """Make it read-only; False while a file is open for writing, and it must be tried again."""
        return _mount("-o", "remount,ro", str(self.folder)) is None

    def is_read_only(self) -> bool:
        """Whether it is read-only."""
        return bool(os.statvfs(self.folder).f_flag & os.ST_RDONLY)

    def mend(self) -> None:
        """Room and leave to write, as before; StackError where that cannot be had."""
        if error := _mount("-o", f"remount,rw,size={SIZE_BYTES}", str(self.folder)):
            raise StackError(f"the disk at {self.folder} cannot be restored: {error}")


@cache
def why_not() -> str | None:
    """Why no disk can be mounted here, which is tried; None where one can."""
    if sys.platform != "linux":
        return "disks of a run's own need Linux"
    if os.geteuid() != 0:
        return "disks of a run's own are mounted by root alone"
    with tempfile.TemporaryDirectory(prefix="harness-") as folder:
        try:
            error = _mount_new(Path(folder))
        finally:
            unmount_below(Path(folder))
    return error and f"mount failed: {error}"


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Disk]:
    """An empty disk at `folder` for as long as the context lasts.

    Raises
    ------
    StackError
        Where none can be mounted; the message gives the reason.
    """
    if why := why_not():
        raise StackError(f"no disk at {folder}: {why}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if error := _mount_new(folder):
            raise StackError(f"no disk at {folder}: {error}")
        yield Disk(folder)
    finally:
        unmount_below(folder)


def unmount_below(folder: Path) -> None:
    """Unmount our disks on a folder and below it."""
    resolved = folder.resolve()
    for mount in sorted(_mounts(), reverse=True):
        if mount.is_relative_to(resolved):
            _unmount(mount)


def _mounts() -> list[Path]:
    """Where disks of ours are mounted."""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [Path(line.split()[1].replace("\\040", " ")) for line in lines if line.startswith(f"{KIND} ")]


def _mount(*args: str) -> str | None:
    """What mount complains of; None where it has done as asked."""
    done = subprocess.run(["mount", *args], capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or [f"mount ended with {done.returncode}"])[0] if done.returncode else None


def _mount_new(folder: Path) -> str | None:
    return _mount("-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=755", KIND, str(folder))


def _unmount(folder: Path) -> None:
    # Lazily: a process that is about to be killed may still hold a file of it.
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def until(step: Callable[[], bool], deadline_s: float, clock: Callable[[], float]) -> bool:
    """Try again at once until it is done or the time is over: the moment between two writes is short."""
    end = clock() + deadline_s
    while not step():
        if clock() > end:
            return False
    return True
