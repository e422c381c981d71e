"""Spark's checkpoint: which micro-batch read which records, at which watermark, committed when.

`offsets/N` holds, per source, the exclusive end of batch N; it began where N-1 ended. `commits/N`
exists once N is done, and its modification time is the moment at which its effect became durable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import RunError
from harness.rundir import files


@dataclass(frozen=True, slots=True)
class Batch:
    """One committed micro-batch: exclusive end offsets by (topic, partition), the watermark it ran at, when it was
    committed, and when its offsets were written."""

    number: int
    ends: dict[tuple[str, int], int]
    watermark_ms: int
    committed_s: float
    begun_s: float = 0.0


def read(checkpoint: Path, recorded: Mapping[int, tuple[float, float]]) -> list[Batch]:
    """The committed batches of one query, in order.

    `recorded` has, for each, the epoch seconds at which it was begun and committed.
    Raises RunError where a batch is missing in the sequence or among the recorded, or one that is recorded has no files,
    or a file is damaged.
    """
    numbers = sorted(_number(path) for path in (checkpoint / "commits").glob("[0-9]*"))
    if missing := [number for number, found in enumerate(numbers) if number != found]:
        raise RunError(f"{checkpoint / 'commits'}: batch {missing[0]} was not recorded; the run cannot be judged")
    if untold := [number for number in numbers if number not in recorded]:
        raise RunError(
            f"{checkpoint / 'commits' / str(untold[0])}: history.jsonl has no time for it: it is cut;"
            " the run cannot be judged"
        )
    if gone := recorded.keys() - set(numbers):
        raise RunError(
            f"{checkpoint / 'commits' / str(min(gone))}: missing: history.jsonl has the time of its commit;"
            " the run cannot be judged"
        )
    found = [_batch(checkpoint / "offsets" / str(number), number, *recorded[number]) for number in numbers]
    sources = {count: path for count, _, path in found}
    if len(sources) > 1:
        raise RunError(f"{sources[min(sources)]}: it has {min(sources)} sources, others {max(sources)}: it is cut")
    return [batch for _, batch, _ in found]


def _number(path: Path) -> int:
    if not path.name.isdecimal() or not path.is_file():
        raise RunError(f"{path}: not an entry of Spark's log of commits")
    return int(path.name)


def _batch(path: Path, number: int, begun_s: float, committed_s: float) -> tuple[int, Batch, Path]:
    """(sources, batch, path) of an entry of the offset log."""
    try:
        lines = files.text(path).splitlines()
        if len(lines) < 3:
            raise ValueError(f"it has {len(lines)} lines, and a batch of one source has three")
        watermark_ms = int(json.loads(lines[1])["batchWatermarkMs"])
        ends = {
            (topic, int(partition)): int(end)
            for line in lines[2:]
            if line != "-"
            for topic, partitions in json.loads(line).items()
            for partition, end in partitions.items()
        }
    except (OSError, ValueError, IndexError, TypeError, AttributeError, KeyError) as error:
        raise RunError(f"{path}: not an offset log of Spark: {error}") from error
    return len(lines) - 2, Batch(number, ends, watermark_ms, committed_s, begun_s), path
