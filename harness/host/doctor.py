"""What this machine has and lacks, as data: a `Check` for each thing that a run needs."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.errors import StackError
from harness.host import cleanup, environment, folders, jars, processes

GIB = 2**30
MEMORY_GIB = 4
DISK_GIB = 3
CORES = 2


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a run needs: what was found, what is needed, and what to do where it is not enough."""

    name: str
    found: str
    needed: str
    ok: bool
    hint: str = ""


def checks() -> list[Check]:
    """Every check, in the order in which a person would mend what is missing."""
    return [_made(check) for check in CHECKS]


def _made(check: Callable[[], Check]) -> Check:
    """A check; one that the machine does not allow is not passed, with the reason."""
    try:
        return check()
    except OSError as error:
        why = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return Check(
            check.__name__.replace("_", " "), why, "readable", False, "make it readable, or name another folder"
        )


def python() -> Check:
    """The Python that runs this."""
    ok = sys.version_info >= (3, 11)
    return Check("Python", sys.version.split()[0], "3.11", ok, "make env with a newer python3 on PATH")


def java() -> Check:
    """The Java that Spark and the brokers will run on."""
    needed = str(jars.JAVA_MIN)
    try:
        program = jars.java()
    except StackError as error:
        return Check("Java", "none", needed, False, str(error))
    return Check("Java", f"{jars.java_version(program)} ({program})", needed, True)


def cores() -> Check:
    """The processors that this process may use."""
    usable = processes.usable_cores()
    return Check("cores", f"{usable:g}", str(CORES), usable >= CORES, "expect lower rates and longer latencies")


def memory() -> Check:
    """The memory that is free to use now."""
    free = psutil.virtual_memory().available
    needed = f"{MEMORY_GIB} GiB"
    return Check("memory", _gib(free), needed, free >= MEMORY_GIB * GIB, "close something, or use one broker")


def disk_for_cache() -> Check:
    """Room for the jars."""
    return _disk("disk for the cache", jars.cache(), "free some, or name another folder in HARNESS_CACHE")


def disk_for_runs() -> Check:
    """Room for what brokers and Spark write while a run goes on."""
    return _disk("disk for runs", Path(tempfile.gettempdir()), "free some, or name another folder in TMPDIR")


def temporary_folder() -> Check:
    """Whether brokers and Spark can work in the temporary folder."""
    return _place("temporary folder", folders.temporary(), "usable by Java and Spark", folders.why_not_temporary())


def cache_folder() -> Check:
    """Whether Java and Spark can read the cache."""
    return _place("cache folder", jars.cache(), "usable by Java and Spark", folders.why_not_cache())


def open_files() -> Check:
    """Whether a process may open as many files as a broker or Spark needs."""
    why = folders.why_not_open()
    return Check("open files", why or "enough", str(folders.OPEN_FILES_MIN), not why, why or "")


def variables() -> Check:
    """The user's variables that would start something else; they do not reach what the harness starts."""
    names = environment.withheld()
    return Check("variables withheld", ", ".join(names) or "none", "any", True)


def spark_jars() -> Check:
    """The connector's jars, each summed."""
    return _jars("spark")


def broker_jars() -> Check:
    """The broker's jars, each summed."""
    return _jars("broker")


def ports() -> Check:
    """Whether one can listen on 127.0.0.1 and be reached there."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=1).close()
    except OSError as error:
        return Check("loopback", str(error), "127.0.0.1", False, "let processes listen on 127.0.0.1")
    return Check("loopback", "127.0.0.1", "127.0.0.1", True)


def orphans() -> Check:
    """Processes that a dead run left, where not even its watchdog was spared."""
    left = cleanup.orphans()
    return Check("left by dead runs", str(len(left)), "0", not left, "harness clean, or the next run, ends them")


def docker() -> Check:
    """Whether a Docker daemon can be asked; nothing needs one."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    path = address.removeprefix("unix://")
    found = address if not address.startswith("unix://") else "answers" if _answers(path) else "none"
    return Check("Docker", found, "optional", True)


CHECKS: tuple[Callable[[], Check], ...] = (
    python,
    java,
    cores,
    memory,
    disk_for_cache,
    disk_for_runs,
    temporary_folder,
    cache_folder,
    open_files,
    variables,
    spark_jars,
    broker_jars,
    ports,
    orphans,
    docker,
)


def _place(name: str, folder: Path, needed: str, why: str | None) -> Check:
    return Check(name, str(folder), needed, not why, why or "")


def _jars(name: str) -> Check:
    jar_set = jars.jar_set(name)
    wrong = jars.faults(jar_set, jar_set.folder)
    total = len(jar_set.sums)
    return Check(f"{name} jars", f"{total - len(wrong)} right", f"{total}", not wrong, "harness jars")


def _disk(name: str, folder: Path, hint: str) -> Check:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    return Check(name, f"{_gib(free)} in {there}", f"{DISK_GIB} GiB", free >= DISK_GIB * GIB, hint)


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        return client.connect_ex(path) == 0


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
