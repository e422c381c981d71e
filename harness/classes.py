"""A quick start of the pipeline, for runs that are not judged on speed.

Java compiles with its first compiler alone, and maps the pipeline's classes from an archive that the first such run
makes: a start takes about half the time and half the CPU, and what runs for long is slower.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from harness import jars, leftovers, processes, standalone
from harness.errors import StackError

QUICK = "-XX:TieredStopAtLevel=1"
PATIENCE_S = 300
KEPT_S = 30 * 86_400
"""How long an archive is kept after its last use: another Java, or another environment, needs another one."""


def quick_start() -> str:
    """Flags for Java; without the archive where it cannot be made, or another process is at it."""
    with contextlib.suppress(OSError, StackError):
        archive = jars.cache() / "classes" / f"{_what_it_fits()}.jsa"
        if not archive.exists():
            _make(archive)
        os.utime(archive)
        return f"{QUICK} {shlex.quote(f'-XX:SharedArchiveFile={archive}')}"
    return QUICK


def _what_it_fits() -> str:
    """Java passes over an archive that was made with another Java, or with jars that lie elsewhere."""
    java = jars.java().resolve()
    fits = f"{java} {java.stat().st_mtime_ns} {standalone.spark_home()} {importlib.metadata.version('pyspark')}"
    return hashlib.sha256(fits.encode()).hexdigest()[:8]


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
                _forget_old(archive.parent)
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


def _forget_old(folder: Path) -> None:
    for archive in folder.glob("*.jsa"):
        if time.time() - archive.stat().st_mtime > KEPT_S:
            archive.unlink(missing_ok=True)
