"""A quick start of the pipeline, for runs that are not judged on speed.

Java compiles with its first compiler alone, and maps the pipeline's classes from an archive that the first such run
makes: a start takes about half the time and half the CPU, and what runs for long is slower.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import subprocess
import sys
from pathlib import Path

import pyspark

from harness import jars, processes

QUICK = "-XX:TieredStopAtLevel=1"
PATIENCE_S = 300


def quick_start() -> str:
    """Flags for Java; without the archive where it cannot be made, or another process is at it."""
    archive = Path(sys.prefix) / f"classes-{_what_it_fits()}.jsa"
    with contextlib.suppress(OSError):  # BlockingIOError where another process is at it; a read-only environment
        if not archive.exists():
            _make(archive)
    return f"{QUICK} -XX:SharedArchiveFile={archive}" if archive.exists() else QUICK


def _what_it_fits() -> str:
    """Java passes over an archive that was made with another Java, or with jars that lie elsewhere."""
    java = jars.java().resolve()
    fits = f"{java} {java.stat().st_mtime_ns} {pyspark.__file__} {pyspark.__version__}"
    return hashlib.sha256(fits.encode()).hexdigest()[:8]


@functools.cache
def _make(archive: Path) -> None:
    """Once a process at most: where it fails, starts are slower and nothing else."""
    with archive.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        print("setup: Java's classes are laid out, once (half a minute)", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "pipeline.classes", "--jars", str(jars.spark_jars()), str(archive)]
        process = processes.spawn(command)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            print("setup: they could not be: Spark starts more slowly", file=sys.stderr, flush=True)
        finally:
            processes.kill_tree(process)
