"""What a dead owner, or a teardown that was broken off, has left: processes, scratch folders, disks mounted below them.

`sweep` ends exactly the processes whose owner is gone, and removes the folders that bear its mark.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.host import disks, ownership, processes
from harness.host.ownership import OWNER, Owner

SCRATCH = re.compile(rf"harness-[\w.-]+?-(?P<owner>{OWNER})-\w+")

BURIES_S = 30.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep ended: processes, each as ``pid name``, and folders."""

    processes: tuple[str, ...]
    folders: tuple[Path, ...]


def sweep() -> Swept:
    """End the marked processes whose owner is dead, and remove the scratch folders of dead owners."""
    found = orphans()
    names = tuple(f"{process.pid} {processes.name(process)}" for process in found)
    processes.kill(found)
    folders = tuple(abandoned(Path(tempfile.gettempdir())))
    for folder in folders:
        _remove(folder)
    return Swept(names, folders)


def bury(owner: Owner, temporary: Path) -> None:
    """End all processes of a dead owner and what came from them, until none is left, and remove its folders in `temporary`."""
    deadline = time.monotonic() + BURIES_S
    while found := [process for process in orphans() if ownership.of(process) == owner]:
        processes.kill(list({*found, *(child for process in found for child in processes.descendants(process.pid))}))
        if time.monotonic() > deadline:  # a process that the kernel does not let go
            break
    for folder in abandoned(temporary):
        if owner.mark in folder.name:
            _remove(folder)


def orphans() -> list[psutil.Process]:
    """The marked processes whose owner is dead."""
    return [process for process in psutil.process_iter() if (owner := ownership.of(process)) and owner.is_dead()]


@contextlib.contextmanager
def none_left() -> Iterator[None]:
    """End, at the end, whatever bears our own mark and is new: what a teardown that was broken off has left.

    A process has one run at a time.
    """
    before = set(ownership.mine())
    try:
        yield
    finally:
        processes.kill([process for process in ownership.mine() if process not in before])


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A temporary folder that bears its owner's id, so that a sweep can remove what a dead owner left."""
    folder = Path(tempfile.mkdtemp(prefix=f"harness-{prefix}-{Owner.me().mark}-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove(folder: Path) -> None:
    disks.unmount_below(folder)
    shutil.rmtree(folder, ignore_errors=True)


def abandoned(parent: Path) -> Iterator[Path]:
    """The scratch folders in `parent` that are ours and whose owner is dead."""
    for folder in sorted(parent.glob("harness-*")):
        found = SCRATCH.fullmatch(folder.name)
        owner = Owner.parse(found["owner"]) if found else None
        if owner and owner.is_dead() and _belongs_to_me(folder):
            yield folder


def _belongs_to_me(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.getuid()
    except OSError:
        return False
