"""Spark's event log: what Spark reports of each batch of each query, without a line of the job's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

PROGRESS = b"QueryProgressEvent"


@dataclass(frozen=True, slots=True)
class Reported:
    """A progress report: the id of the query, which its checkpoint has too, the batch, and all that Spark reports."""

    id: str
    batch: int
    progress: dict[str, Any]


class _Event(msgspec.Struct):
    progress: Any


def progress(folder: Path) -> Iterator[Reported]:
    """Every progress report of the applications that logged to a folder, in order; the last line may be cut by a kill."""
    for log in sorted(path for path in folder.rglob("*") if path.is_file()):
        with log.open("rb") as lines:
            for line in lines:
                if PROGRESS in line[:200]:
                    try:
                        found = msgspec.json.decode(line, type=_Event).progress
                    except msgspec.DecodeError:
                        continue
                    report = msgspec.json.decode(found) if isinstance(found, str) else found
                    yield Reported(str(report["id"]), int(report["batchId"]), report)


def versions(folder: Path) -> list[str]:
    """The versions of Spark that the applications that logged to a folder name, each once."""
    found = set()
    for log in (path for path in folder.rglob("*") if path.is_file()):
        with log.open("rb") as lines:
            try:
                found.add(msgspec.json.decode(next(lines, b""), type=_Start).version)
            except msgspec.DecodeError:
                continue
    return sorted(found)


class _Start(msgspec.Struct, rename={"version": "Spark Version"}):
    """The first event of a log."""

    version: str


def query_id(checkpoint: Path) -> str:
    """The id that Spark gave a query, from the checkpoint that it began; empty where there is none."""
    try:
        return str(msgspec.json.decode((checkpoint / "metadata").read_bytes())["id"])
    except (OSError, msgspec.DecodeError, KeyError):
        return ""
