"""Whether a checkpoint may be continued: made by the same settings, whole, and no older than its sink.

Spark itself refuses a file that it cannot read when it comes to it; what it would silently obey, or
silently skip, is refused here, before it starts.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pipeline.schema import QUERIES
from pipeline.settings import Settings

RESTORE = "restore it, or start with a new checkpoint"


class CheckpointError(Exception):
    """The checkpoint must not be continued; the message is one line for a person."""


def agree(settings: Settings) -> None:
    """Refuse a checkpoint that was made by other settings: Spark would silently keep to the old ones."""
    path = _signature(settings)
    try:
        then = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return
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


def sign(settings: Settings) -> None:
    """Write down what the checkpoint is made by; only now, since a job that could not start has made none."""
    path = _signature(settings)
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(settings.of_state(), indent=1), encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise CheckpointError(f"checkpoint {settings.checkpoint} cannot be written: {error.strerror}") from error


def _signature(settings: Settings) -> Path:
    return Path(_local(settings.checkpoint)) / "settings.json"


def whole(settings: Settings) -> None:
    """Refuse a checkpoint that is damaged, or older than what stands in a sink that counts its batches."""
    for name in settings.queries:
        folder = Path(_local(settings.checkpoint)) / name
        begun, committed = _numbers(folder / "offsets"), _numbers(folder / "commits")
        _logs_agree(folder, begun, committed)
        for number in begun[-2:]:
            _readable(folder / "offsets" / str(number), lines=2 + len(QUERIES[name].reads))
        for number in committed[-1:]:
            _readable(folder / "commits" / str(number), lines=2)
        if settings.sinks[name] == "parquet":
            _not_behind(folder, Path(_local(settings.output)) / name / "_spark_metadata", begun)


def _logs_agree(folder: Path, begun: list[int], committed: list[int]) -> None:
    """The last two batches have begun, all but the last have ended, and the query has its id.

    Older ones are forgotten in no particular order, and nobody asks for them.
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


def _not_behind(folder: Path, log: Path, begun: list[int]) -> None:
    """The Parquet sink skips a batch that its log names: with an older checkpoint it would skip new results."""
    written = _numbers(log)
    newest = begun[-1] if begun else -1
    if written and written[-1] > newest:
        raise CheckpointError(
            f"checkpoint {folder}: older than its results: it is at batch {newest}, {log.parent} holds batch"
            f" {written[-1]}, and what comes next would be skipped; restore the newer one, or move both away"
        )


def _numbers(folder: Path) -> list[int]:
    """The batches of a log, in order; a compacted one counts as its last."""
    if not folder.is_dir():
        return []
    names = (path.name.removesuffix(".compact") for path in folder.iterdir())
    return sorted({int(name) for name in names if name.isdigit()})


def _local(path: str) -> str:
    return path.removeprefix("file://")
