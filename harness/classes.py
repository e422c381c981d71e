"""Java's flags for a pipeline of ours: its classes are mapped from an archive that the first run makes.

A start takes three quarters of the time. A quick start compiles with Java's first compiler alone, too: half the time
and half the CPU, and what runs for long is slower, so it is for runs that are not judged on speed.
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
from pathlib import Path

from harness import jars, leftovers, processes, standalone
from harness.errors import StackError

QUICK = "-XX:TieredStopAtLevel=1"
SILENT = "-Xlog:disable -Xlog:all=warning:stderr"
"""Java's own warnings go where they disturb no reader of what the pipeline says: it would write them among its lines."""
PATIENCE_S = 300
KEPT_S = 30 * 86_400
"""How long an archive is kept after its last use: another Java, or another environment, needs another one."""


def flags(quick: bool) -> str:
    """Flags for Java; without the archive where it cannot be made, or another process is at it."""
    said = [QUICK] if quick else []
    with contextlib.suppress(OSError, StackError):
        archive = jars.cache() / "classes" / f"{_what_it_fits()}.jsa"
        if not archive.exists():
            _make(archive)
        os.utime(archive)
        said += [SILENT, shlex.quote(f"-XX:SharedArchiveFile={archive}")]
    return " ".join(said)


def _what_it_fits() -> str:
    """Java passes over an archive that was made with another Java, or with other jars: it compares place, time and size."""
    home = standalone.spark_home()
    digest = hashlib.sha256()
    for file in (jars.java().resolve(), *sorted((home / "jars").iterdir())):
        status = file.stat()
        digest.update(f"{file} {int(status.st_mtime)} {status.st_size}\n".encode())
    return f"{hashlib.sha256(str(home).encode()).hexdigest()[:8]}-{digest.hexdigest()[:8]}"


@functools.cache
def _make(archive: Path) -> None:
    """Once a process at most: where it fails, that is said, and starts are slower."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    fresh = archive.with_suffix(f".{os.getpid()}")
    with archive.with_suffix(".lock").open("w") as lock, leftovers.scratch("classes") as folder:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if archive.exists():
            return
        print("setup: Java's classes are laid out, once (half a minute)", file=sys.stderr, flush=True)
        try:
            if trouble := _lay_out(fresh, folder):
                print(f"setup: they could not be ({trouble}): Spark starts more slowly", file=sys.stderr, flush=True)
            else:
                os.replace(fresh, archive)
                _forget_others(archive)
        finally:
            fresh.unlink(missing_ok=True)


def _lay_out(archive: Path, folder: Path) -> str:
    """Write an archive, with temporary files in a folder; why that failed, or nothing."""
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
    """Those of the same place, which fit no longer, and those that nobody uses."""
    place = archive.name.partition("-")[0]
    for other in archive.parent.glob("*.jsa"):
        replaced = other != archive and other.name.startswith(f"{place}-")
        if replaced or time.time() - other.stat().st_mtime > KEPT_S:
            other.unlink(missing_ok=True)
