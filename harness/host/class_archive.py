"""Archives of Java's classes: what starts again and again maps them, instead of loading them each time.

The first start makes the archive and the cache keeps it: it is Java's own class-data sharing. A start of a broker takes two
thirds of the CPU, one of the pipeline two thirds of the time. A quick start of the pipeline compiles with Java's first compiler
alone, too: half the time and half the CPU, and what then runs for long is slower: it is for runs that are not judged on speed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.errors import StackError
from harness.host import cleanup, jars, processes

QUICK = "-XX:TieredStopAtLevel=1"
WARNS_APART = ("-Xlog:disable", "-Xlog:all=warning:stderr")
"""Java would write its warnings on standard output, where they disturb who reads it."""
PATIENCE_S = 300
KEPT_S = 30 * 86_400
"""How long an archive is kept after its last use: another Java, or another environment, needs another one."""


def of_pipeline(quick: bool) -> str:
    """Java's flags of a pipeline, which maps its classes; `quick` is for one that lives too short for the second compiler."""
    mapped = archived("Spark", jars.spark_home() / "jars", _lay_out)
    return shlex.join((QUICK, *mapped) if quick else mapped)


def archived(name: str, folder: Path, lay_out: Callable[[Path, Path], str]) -> tuple[str, ...]:
    """Flags by which Java maps the classes of a folder's jars; none where there is no archive and none can be made.

    `lay_out` writes it: it is given its path and a scratch folder, and returns why it could not, or nothing.
    """
    with contextlib.suppress(OSError, StackError):
        archive = jars.cache() / "classes" / f"{_what_it_fits(folder)}.jsa"
        if not archive.exists():
            _make(name, archive, lay_out)
        os.utime(archive)
        return (*WARNS_APART, f"-XX:SharedArchiveFile={archive}")
    return ()


def _what_it_fits(folder: Path) -> str:
    """Java passes over an archive that was made with another Java, or with other jars: it compares place, time and size."""
    digest = hashlib.sha256()
    for file in (jars.java().resolve(), *sorted(folder.iterdir())):
        status = file.stat()
        digest.update(f"{file} {int(status.st_mtime)} {status.st_size}\n".encode())
    return f"{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}-{digest.hexdigest()[:8]}"


@functools.cache
def _make(name: str, archive: Path, lay_out: Callable[[Path, Path], str]) -> None:
    """Once a process at most: where it fails, or another process is at it, starts are slower."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    fresh = archive.with_suffix(f".{os.getpid()}")
    with archive.with_suffix(".lock").open("w") as lock, cleanup.scratch("classes") as folder:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if archive.exists():
            return
        print(f"setup: Java's classes of {name} are laid out, once", file=sys.stderr, flush=True)
        try:
            if trouble := lay_out(fresh, folder):
                print(f"setup: they could not be ({trouble}): {name} starts more slowly", file=sys.stderr, flush=True)
            else:
                os.replace(fresh, archive)
                _forget_others(archive)
        finally:
            fresh.unlink(missing_ok=True)


def _lay_out(archive: Path, folder: Path) -> str:
    """Write the archive of the pipeline, with temporary files in a folder; why that failed, or nothing."""
    command = [sys.executable, "-m", "pipeline.classes", "--jars", str(jars.spark_jars()), str(archive)]
    log = folder / "log"
    process = processes.spawn(command, log=log, env={"TMPDIR": str(folder), "SPARK_LOCAL_DIRS": str(folder)})
    try:
        return processes.last_said(log.read_text(errors="replace")) if process.wait(PATIENCE_S) else ""
    except subprocess.TimeoutExpired:
        return f"not within {PATIENCE_S} s"
    finally:
        processes.kill_tree(process)


def _forget_others(archive: Path) -> None:
    """Archives of the same folder that fit no longer, and archives that no process uses."""
    place = archive.name.partition("-")[0]
    for other in archive.parent.glob("*.jsa"):
        replaced = other != archive and other.name.startswith(f"{place}-")
        if replaced or time.time() - other.stat().st_mtime > KEPT_S:
            other.unlink(missing_ok=True)
