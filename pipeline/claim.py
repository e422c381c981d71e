"""A lease on a checkpoint: one pipeline at a time holds a lock on its folder, and the kernel releases it at any end."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.checkpoint import CheckpointError

LOOK_EVERY_S = 0.02
JAVA = "java.pid"


@contextmanager
def held(folder: Path, enough: Callable[[], bool]) -> Iterator[bool]:
    """Hold a checkpoint's folder, made where it is missing, until the context ends; yields whether it is held.

    While another process holds it, the lock is tried again until `enough` returns true. A folder that was made and
    stayed empty is removed. Raises CheckpointError if the folder cannot be opened.
    """
    made = not folder.exists()
    try:
        while (place := _taken(folder)) is None and not enough():
            time.sleep(LOOK_EVERY_S)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be opened: {error.strerror}") from error
    try:
        yield place is not None
    finally:
        if place is not None:
            if made and _is(folder, place):
                with suppress(OSError):  # something is in it
                    folder.rmdir()
            os.close(place)


def _is(folder: Path, place: int) -> bool:
    try:
        return os.path.samestat(os.fstat(place), folder.stat())
    except FileNotFoundError:
        return False


def _taken(folder: Path) -> int | None:
    """The folder, opened and locked; None where another process has it.

    Opened anew each time, and for reading: another one may have been put in its place, and a file that is open for
    writing keeps a disk from being made read-only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is(folder, place):
            return place
    except BlockingIOError:
        pass
    except BaseException:
        os.close(place)
        raise
    os.close(place)
    return None


def note_java(folder: Path, pid: int) -> None:
    """Record the id of the Java process that works on the checkpoint."""
    try:
        (folder / JAVA).write_text(str(pid), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be written: {error.strerror}") from error


def outlive_java(folder: Path, patience_s: float) -> None:
    """Wait until the Java process that was recorded last has ended, `patience_s` at most.

    If only its Python was killed, Java goes on writing for about a second. Another process that has its id by now is
    waited for too.
    """
    try:
        pid = int((folder / JAVA).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + patience_s
    while _is_alive(pid) and time.monotonic() < deadline:
        time.sleep(LOOK_EVERY_S)


def _is_alive(pid: int) -> bool:
    """Whether a process runs. One whose last thread has ended does not, though init may take note only a second later."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        return state != "Z" or len(os.listdir(f"/proc/{pid}/task")) > 1
    except ProcessLookupError:
        return False
    except OSError:  # another user's process, or no /proc
        return True
