"""The places that a run works in: TMPDIR, the cache, and a process's table of files; and what is wrong with them.

Java and Spark join folders by commas and colons, and read brackets and backslashes as patterns: no quoting helps. Spark
unpacks libraries into the temporary folder and runs them from there.
"""

from __future__ import annotations

import mmap
import re
import resource
import shutil
import tempfile
from pathlib import Path

from harness.host import jars

SPACE_MIN_BYTES = 2**28
"""Free space without which no run begins: what brokers and Spark write before the first record."""
OPEN_FILES_MIN = 1024
"""Of a process: a broker and Spark each hold some hundred."""
UNUSABLE = re.compile(r"[,:;\\\[\]{}*?%#\"'`$|<>\x00-\x1f]")


def temporary() -> Path:
    """The folder for temporary files, which TMPDIR names."""
    return Path(tempfile.gettempdir())


def why_not_temporary() -> str | None:
    """Why no run can work in the temporary folder, and what to do; None where it can."""
    folder = temporary()
    return next((why for check in (_named, _full, _noexec) if (why := check(folder, "TMPDIR"))), None)


def why_not_cache() -> str | None:
    """Why no run can read the cache, and what to do; None where it can."""
    return _named(jars.cache(), "HARNESS_CACHE")


def _named(folder: Path, variable: str) -> str | None:
    """Its name, and that of what it links to."""
    for path in (folder, folder.resolve()):
        if found := UNUSABLE.search(str(path)):
            return f"{path} has {found[0]!r} in its name, which Java and Spark take for more than a name: name another folder in {variable}"
    return None


def _full(folder: Path, variable: str) -> str | None:
    free = shutil.disk_usage(folder).free
    if free >= SPACE_MIN_BYTES:
        return None
    return f"{folder} has {free / 2**20:.0f} MiB free, and {SPACE_MIN_BYTES / 2**20:.0f} are needed: free some, or name another folder in {variable}"


def _noexec(folder: Path, variable: str) -> str | None:
    """Whether code can be mapped from a file there, which is what a file system mounted noexec forbids."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * mmap.PAGESIZE)
            file.flush()
            mmap.mmap(file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    except PermissionError:
        return f"{folder} is on a file system that runs no programs (noexec): name another folder in {variable}"
    except OSError as error:
        return f"{folder} cannot be written: {error.strerror}: name another folder in {variable}"
    return None


def why_not_open() -> str | None:
    """Why a process cannot open as many files as a broker or Spark needs, and what to do; None where it can."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)  # Java asks for all that it is allowed
    if most == resource.RLIM_INFINITY or most >= OPEN_FILES_MIN:
        return None
    return f"a process may open {most} files, and {OPEN_FILES_MIN} are needed: ulimit -n {OPEN_FILES_MIN}"
