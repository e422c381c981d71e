"""One pipeline at a time works on a checkpoint: it holds a lock on the folder, and the kernel takes that back however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.checkpoint import CheckpointError

LOOK_EVERY_S = 0.02


@contextmanager
def held(folder: Path, enough: Callable[[], bool]) -> Iterator[bool]:
    """Hold a checkpoint's folder, made where it is missing, until the context ends; says whether it is held.

    Where another process holds it, it is tried again until `enough`. CheckpointError where the folder cannot be opened.
    """
    try:
        while (place := _taken(folder)) is None and not enough():
            time.sleep(LOOK_EVERY_S)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be opened: {error.strerror}") from error
    try:
        yield place is not None
    finally:
        if place is not None:
            os.close(place)


def _taken(folder: Path) -> int | None:
    """The folder, opened and locked; None where another process has it.

    Opened anew each time, and for reading: another one may have been put in its place, and a file that is open for
    writing keeps a disk from being made read-only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(place), folder.stat()):
            return place
    except BlockingIOError:
        pass
    except BaseException:
        os.close(place)
        raise
    os.close(place)
    return None
