"""Memory that runs out: processes put into a control group that is too small for them and a hungry neighbour.

The kernel ends the largest process of the group, as it does in a container at its limit. Linux and root;
`why_not` gives the reason. Both versions of control groups are known.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from harness.errors import StackError
from harness.host import cleanup, processes
from harness.host.ownership import Owner

LIMIT_BYTES = 32 << 20
ROOT = Path("/sys/fs/cgroup")
HUNGRY = """
import sys
open("/proc/self/oom_score_adj", "w").write("-1000")
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
taken = []
while True:
    taken.append(bytearray(1 << 20))
"""
"""Takes memory for ever, and is the last that the kernel would end."""


@dataclass(frozen=True, slots=True)
class Group:
    """A control group with a limit of memory."""

    folder: Path

    def take_in(self, pids: Iterable[int]) -> None:
        """Put processes into it; what they have already stays where it was counted."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                (self.folder / "cgroup.procs").write_text(str(pid))

    def kills(self) -> int:
        """How often the kernel has ended a process of it for want of memory."""
        name = "memory.events" if (self.folder / "memory.events").exists() else "memory.oom_control"
        lines = (line.split() for line in (self.folder / name).read_text().splitlines())
        return next((int(value) for key, value in lines if key == "oom_kill"), 0)

    @contextlib.contextmanager
    def neighbour(self) -> Iterator[None]:
        """A process in it that takes memory until the context ends."""
        process = processes.spawn([sys.executable, "-c", HUNGRY, str(self.folder)])
        try:
            yield
        finally:
            processes.kill_tree(process)


@cache
def why_not() -> str | None:
    """Why memory cannot be made to run out here, which is tried; None where it can."""
    if sys.platform != "linux":
        return "control groups need Linux"
    if os.geteuid() != 0:
        return "a control group with a limit of memory is made by root alone"
    if (parent := _parent()) is None:
        return f"{ROOT} has no control group of memory"
    folder = parent / f"harness-memory-{Owner.me().mark}-try"
    try:
        _make(folder)
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    finally:
        _remove(folder)
    return None


@contextlib.contextmanager
def group() -> Iterator[Group]:
    """A control group that is too small for anyone; it goes with the context, and its processes have ended by then.

    Raises
    ------
    StackError
        Where none can be made; the message gives the reason.
    """
    parent = _parent()
    if (why := why_not()) or parent is None:
        raise StackError(f"memory cannot be made to run out: {why}")
    folder = _mine(parent)
    try:
        _make(folder)
    except OSError as error:
        raise StackError(f"memory cannot be made to run out: {folder}: {error.strerror}") from error
    try:
        yield Group(folder)
    finally:
        _remove(folder)


def sweep() -> None:
    """Remove the groups of dead owners, and our own; their processes have been ended."""
    parent = _parent()
    for folder in (*cleanup.abandoned(parent), _mine(parent)) if parent else ():
        _remove(folder)


def _mine(parent: Path) -> Path:
    return parent / f"harness-memory-{Owner.me().mark}-group"


def _make(folder: Path) -> None:
    folder.mkdir()
    newer = (folder / "memory.max").exists()
    limit, swap = (
        ("memory.max", "memory.swap.max") if newer else ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
    )
    (folder / limit).write_text(str(LIMIT_BYTES))
    if (folder / swap).exists():  # or its processes would swap, and none of them end
        (folder / swap).write_text("0" if newer else str(LIMIT_BYTES))


def _remove(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not there, or with a process in it that is still ending
        folder.rmdir()


def _parent() -> Path | None:
    """Where groups with a limit of memory can be made."""
    first = ROOT / "memory"
    if (first / "memory.limit_in_bytes").exists():
        return first
    try:
        return ROOT if "memory" in (ROOT / "cgroup.subtree_control").read_text().split() else None
    except OSError:
        return None
