"""Ownership of processes: a mark in the environment, which child processes inherit.

``HARNESS_OWNER=<pid>-<born>-<among>`` names the process that answers for it. A later reader knows from the
mark alone whose it was, and whether that owner is still alive. Nothing here matches on names of programs.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil

LINUX = sys.platform == "linux"
MARK = "HARNESS_OWNER"
OWNER = r"\d+-\d+-\d+"
GONE = (psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that answers for others: its id, the moment of its birth, since ids are used again, and among whom.

    `born` counts hundredths of a second, on Linux since the machine's start: the wall clock may be set
    while a run goes on, and a live owner must never be taken for a dead one. `among` is the number of its
    namespace of processes, 0 where there is none: in another namespace, such as a container's, the same id is another process.
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
        """Whether no process with this id and this birth is there, or a zombie; False for an id of another namespace, which cannot be looked up."""
        if self.among != _among():
            return False
        born = _born(self.pid)
        return not _is_there(self.pid) if born is None else abs(born - self.born) > 1


def machine() -> str:
    """This machine among others that share a Kafka or a Docker daemon: its name, without a dash, and eight hex digits.

    Names are not enough: copies of a machine have the same, and so have many laptops.
    """
    name = socket.gethostname()
    try:
        own = Path("/etc/machine-id").read_text(encoding="utf-8")
    except OSError:
        own = str(uuid.getnode())
    digits = hashlib.sha256(f"{name} {own}".encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9.]', '_', name)}.{digits}"


def of(process: psutil.Process) -> Owner | None:
    """Whose mark another process bears; what cannot be read is left alone."""
    try:
        return Owner.parse(process.environ().get(MARK, "")) if process.pid != os.getpid() else None
    except (*GONE, OSError):
        return None


def mine() -> list[psutil.Process]:
    """The processes that bear our own mark."""
    me = Owner.me()
    return [process for process in psutil.process_iter() if of(process) == me]


def _is_there(pid: int) -> bool:
    """Whether a process has this id; another user's may be hidden, and is there all the same."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _born(pid: int) -> int | None:
    """When a process was born, in hundredths of a second; 0 for a zombie, None where it is gone or may not be read."""
    try:
        if LINUX:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return 0 if fields[0] in "ZX" else int(fields[19]) * 100 // os.sysconf("SC_CLK_TCK")
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except GONE:
        return None


def _among() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0
