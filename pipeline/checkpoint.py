"""Whether a checkpoint may be continued: made by the same settings, whole, and no older than its sink.

Spark refuses a file that it cannot read when it reaches it. Settings that Spark would silently ignore and batches
that it would silently skip are refused here, before the start.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.schema import QUERIES
from pipeline.settings import Settings

RESTORE = "restore it, or start with a new checkpoint"
Place = tuple[str, int]
"""A topic and a partition of it."""


class CheckpointError(Exception):
    """The checkpoint must not be continued; the message is one line for a person."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a query is, as exclusive ends by topic and partition; both are empty before its first batch.

    `read` is where the next record comes from; `begun` is as far or further: the batch that is to be run again ends there.
    """

    read: Mapping[Place, int] = field(default_factory=dict)
    begun: Mapping[Place, int] = field(default_factory=dict)


def agree(settings: Settings) -> None:
    """Refuse a checkpoint that was made by other settings: Spark would silently keep the old ones.

    A checkpoint in which no query has begun is accepted: it has no settings yet.
    """
    path = _signature(settings)
    if not _has_begun(path.parent):
        return
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, though a query has begun; {RESTORE}") from None
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); restore it, or start with a new checkpoint") from error
    if not isinstance(then, dict):
        raise CheckpointError(f"{path}: damaged (no JSON object); restore it, or start with a new checkpoint")
    differences = [
        f"{name}: the checkpoint has {then.get(name)}, asked for {value}"
        for name, value in settings.of_state().items()
        if then.get(name) != value
    ]
    if differences:
        raise CheckpointError(f"checkpoint {settings.checkpoint} was made by other settings: {'; '.join(differences)}")


def sign(settings: Settings, topics: Mapping[str, str]) -> None:
    """Record the settings and the topics (name → id) of the checkpoint.

    Called once the queries can start: a job that could not start has made no checkpoint.
    """
    _write(settings, _signature(settings), settings.of_state())
    _write(settings, _sources(settings), topics)


def topics(settings: Settings) -> dict[str, str]:
    """The id of each topic that the checkpoint was made from; empty where nothing has been read from any."""
    path = _sources(settings)
    if not _has_begun(path.parent):
        return {}
    try:
        return {str(name): str(known) for name, known in json.loads(path.read_text(encoding="utf-8")).items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, though a query has begun; {RESTORE}") from None
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); {RESTORE}") from error


def _write(settings: Settings, path: Path, content: Mapping[str, object]) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {settings.checkpoint} cannot be written: {error.strerror}") from error


def where(settings: Settings) -> Path:
    """The checkpoint's folder on this machine."""
    return Path(_local(settings.checkpoint))


def _signature(settings: Settings) -> Path:
    return where(settings) / "settings.json"


def _sources(settings: Settings) -> Path:
    return where(settings) / "topics.json"


def whole(settings: Settings) -> None:
    """Refuse a checkpoint that is damaged, or not as old as its Parquet results."""
    for name in settings.queries:
        folder = where(settings) / name
        begun, committed = _numbers(folder / "offsets"), _numbers(folder / "commits")
        _logs_agree(folder, begun, committed)
        for number in begun[-2:]:
            _readable(folder / "offsets" / str(number), lines=2 + len(QUERIES[name].reads))
        for number in committed[-1:]:
            _readable(folder / "commits" / str(number), lines=2)
        if settings.sinks[name] == "parquet":
            _same_age(folder, Path(_local(settings.output)) / name / "_spark_metadata", begun, committed)


def _logs_agree(folder: Path, begun: list[int], committed: list[int]) -> None:
    """The last two batches have begun, all but the last have ended, and the query has its id.

    Spark deletes older entries in no particular order, and never reads them.
    """
    if not begun and not committed:
        return
    if not (folder / "metadata").is_file():
        raise CheckpointError(f"checkpoint {folder}: its file metadata is missing; {RESTORE}")
    newest = max([*begun, *committed])
    for log, numbers, needed in (("offsets", begun, (newest - 1, newest)), ("commits", committed, (newest - 1,))):
        missing = [number for number in needed if number >= 0 and number not in numbers]
        if missing:
            raise CheckpointError(f"checkpoint {folder}: {log}/{missing[0]} is missing; {RESTORE}")


def _readable(path: Path, lines: int) -> None:
    """A log entry is a version and lines of JSON."""
    try:
        version, *entries = path.read_text(encoding="utf-8").splitlines()
        for entry in entries:
            if entry != "-":
                json.loads(entry)
        if not version.startswith("v") or len(entries) + 1 < lines:
            raise ValueError("it ends too early")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint {path}: damaged ({error}); {RESTORE}") from error


def _same_age(folder: Path, log: Path, begun: list[int], committed: list[int]) -> None:
    """The Parquet sink names every batch, an empty one too, before it is committed, and skips one that it has named.

    With an older checkpoint it would skip new results; with older results those of the batches between are missing.
    """
    written = max(_numbers(log), default=-1)
    newest, ended = max(begun, default=-1), max(committed, default=-1)
    if written > newest:
        raise CheckpointError(
            f"checkpoint {folder}: older than its results: it is at batch {newest}, {log.parent} holds batch"
            f" {written}, and what comes next would be skipped; restore the newer one, or move both away"
        )
    if written < ended:
        holds = f"ends at batch {written}" if written >= 0 else "holds none"
        raise CheckpointError(
            f"checkpoint {folder}: newer than its results: batch {ended} is committed, {log.parent} {holds}, and what"
            " lies between is missing; restore the results (see --output), or move both away"
        )


def reach(settings: Settings, query: str) -> Reach:
    """How far a query is. The checkpoint must be whole."""
    folder = where(settings) / query
    begun, committed = _numbers(folder / "offsets"), _numbers(folder / "commits")
    if settings.sinks[query] == "parquet":
        # A batch that the sink has is committed as it is: Spark does not read its records again.
        committed += _numbers(Path(_local(settings.output)) / query / "_spark_metadata")
    if not begun:
        return Reach()
    read = [number for number in begun if number <= max(committed, default=-1)]
    if read:
        return Reach(_ends(folder / "offsets" / str(read[-1])), _ends(folder / "offsets" / str(begun[-1])))
    first: dict[Place, int] = {}
    for path in sorted((folder / "sources").glob("*/0")):
        first |= _ends(path, above=1)
    return Reach(first, _ends(folder / "offsets" / str(begun[-1])))


def committed_s(settings: Settings, query: str) -> float | None:
    """The epoch second of a query's last commit; None where it has none."""
    log = where(settings) / query / "commits"
    try:
        return max((path.stat().st_mtime for path in log.iterdir() if path.name.isdigit()), default=None)
    except OSError:  # no batch yet, or a commit that Spark deletes meanwhile
        return None


def _ends(path: Path, above: int = 2) -> dict[Place, int]:
    """The offsets of a log entry: a line a source, below its version and, of a batch, its metadata."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[above:]
        return {
            (topic, int(partition)): int(end)
            for line in lines
            if line != "-"
            for topic, ends in json.loads(line).items()
            for partition, end in ends.items()
        }
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"checkpoint {path}: damaged ({error}); {RESTORE}") from error


def _has_begun(folder: Path) -> bool:
    """Whether a query has written down where it begins, which comes first, or which batch it runs."""
    return any(any(folder.glob(pattern)) for pattern in ("*/sources/*/0", "*/offsets/[0-9]*"))


def _numbers(folder: Path) -> list[int]:
    """The batches of a log, in order; a compacted one counts as its last."""
    try:
        names = [path.name.removesuffix(".compact") for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} cannot be read: {error.strerror}") from error
    return sorted({int(name) for name in names if name.isdigit()})


def _local(path: str) -> str:
    return path.removeprefix("file://")
