"""Results as they stand in the sinks, read back to the last row.

Kafka topics are read from beginning to end; a Parquet directory only as far as Spark's own
`_spark_metadata` log names its files, for that is what the sink promises exactly once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import RunError
from harness.job.clickstream.contract import DECIMAL_PLACES, TIMES, Query
from harness.kafka import topics
from harness.model import Row
from harness.scenario import Output, Scenario

# Our name of a column → the name that it has in the sink, where that differs.
Names = Mapping[str, str]


def from_kafka(bootstrap: str, prefix: str, query: Query, place: Output) -> list[Row]:
    """Every record of the query's result topic."""
    messages = topics.read(bootstrap, [prefix + query.topic])
    if query.rejects:
        return [_rejected(message, prefix) for message in messages]
    return [_result(query, message, prefix, place) for message in messages]


def from_parquet(directory: Path, query: Query, names: Names, prefix: str = "") -> list[Row]:
    """Every row of the files that the sink's log names, with the time at which the log named them.

    A directory without such a log counts with all its files, by their own times. Columns by which a directory is
    partitioned stand in the paths.
    """
    files = _named_files(directory)
    if not (directory / "_spark_metadata").is_dir():
        files = [(str(path.relative_to(directory)), path.stat().st_mtime) for path in _data_files(directory)]
    rows = [row for path, named_s in files for row in _file_rows(directory, path, named_s, query, names)]
    if query.rejects:  # its topic is a value here
        rows = [replace(row, key=(str(row.key[0]).removeprefix(prefix), *row.key[1:])) for row in rows]
    return rows


def collect(scenario: Scenario, bootstrap: str, prefix: str, output: Path) -> Iterator[tuple[str, list[Row]]]:
    """(query, rows) of every query that the pipeline has, from the sink in which its result is found."""
    for name, query in scenario.queries.items():
        place = scenario.output(name)
        if query.sink == "kafka":
            yield name, from_kafka(bootstrap, prefix, query, place)
        else:
            yield name, from_parquet(output / (place.parquet or name), query, place.theirs, prefix)


def size(scenario: Scenario, bootstrap: str, prefix: str, output: Path) -> int:
    """Records and files in all sinks: the number stops growing when the pipeline has written all."""
    names = [prefix + query.topic for query in scenario.queries.values() if query.sink == "kafka"]
    ends = topics.end_offsets(bootstrap, names) if names else {}
    files = len(_data_files(output))
    return files + sum(end for partitions in ends.values() for end in partitions.values())


def _data_files(folder: Path) -> list[Path]:
    """The Parquet files below a folder but for what writers put aside, by Spark's own rule for names."""
    # Not rglob, which breaks off where a folder goes away under it: what writers put aside does, at any time.
    there = sorted(Path(where) / name for where, _, names in os.walk(folder) for name in names)
    found = ((path, path.relative_to(folder).parts) for path in there if path.suffix == ".parquet")
    aside = re.compile(r"\.|_[^=]*$")
    return [path for path, parts in found if not any(aside.match(part) for part in parts)]


def _result(query: Query, message: topics.Message, prefix: str, place: Output) -> Row:
    where = f"{message.topic.removeprefix(prefix)}-{message.partition}@{message.offset}"
    try:
        columns = json.loads(message.value or b"", parse_float=_digits)
        row = _row(query, columns, where, message.timestamp_ms / 1e3, place.theirs)
    except (ValueError, KeyError, TypeError, ArithmeticError):
        # A row that cannot be read is evidence, not an error of the harness: it matches no expected row.
        return Row((where,), (repr(message.value)[:200],), where, message.timestamp_ms / 1e3)
    own = "|".join(str(columns[place.theirs.get(name, name)]) for name in query.identity)
    found = "" if message.key is None else message.key.decode("utf-8", "replace")
    return replace(row, wrong_key=found) if place.keyed and found != own else row


class _digits(Decimal):
    """A JSON number with a fraction, kept as it was written until the type of its column is known."""


def _row(query: Query, columns: dict[str, Any], where: str, at_s: float, names: Names) -> Row:
    def take(ours: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(_plain(name, columns[names.get(name, name)]) for name in ours)

    return Row(take(query.identity), take(query.measures), where, at_s)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        return _iso(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | dict):
        return json.dumps(value, default=str)
    if isinstance(value, str):
        return _moment(value) if name in TIMES else value.encode(errors="replace").decode()
    if name in DECIMAL_PLACES and isinstance(value, int | Decimal):
        return f"{Decimal(value):.{DECIMAL_PLACES[name]}f}" if _fits(value, DECIMAL_PLACES[name]) else str(value)
    return float(value) if isinstance(value, Decimal) else value


def _iso(time: datetime) -> str:
    moment = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    precision = "microseconds" if moment.microsecond % 1000 else "milliseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=precision) + "Z"


def _moment(text: str) -> str:
    """A time in any form of ISO 8601, in ours; what is none stays as it is."""
    try:
        return _iso(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return text.encode(errors="replace").decode()


def _fits(value: int | Decimal, places: int) -> bool:
    return Decimal(value) == round(Decimal(value), places)


def _rejected(message: topics.Message, prefix: str) -> Row:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    where = f"{message.topic.removeprefix(prefix)}-{message.partition}@{message.offset}"
    key = (
        headers.get("topic", "").removeprefix(prefix),
        _number(headers.get("partition", "")),
        _number(headers.get("offset", "")),
    )
    value = None if message.value is None else message.value.hex()  # none at all is not the empty record's bytes
    return Row(key, (value, headers.get("reason", "")), where, message.timestamp_ms / 1e3)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _named_files(directory: Path) -> list[tuple[str, float]]:
    """(path below the directory, epoch second at which the log first named it), from `_spark_metadata/N` and `N.compact`.

    Spark deletes logs that a compact one has taken up, ten minutes later; a file named by that alone is dated by the
    time at which it was written.
    """
    log = directory / "_spark_metadata"
    named: dict[str, float] = {}
    before_s = float("inf")
    for path in sorted(log.glob("[0-9]*"), key=lambda path: int(path.name.partition(".")[0])):
        log_s = path.stat().st_mtime
        for entry in _entries(path):
            name, written_s = _below(directory, entry.path), entry.modificationTime / 1e3
            taken_up = path.suffix == ".compact" and written_s <= before_s
            if entry.action == "add":
                named.setdefault(name, written_s if taken_up else log_s)
            else:
                named.pop(name, None)
        before_s = log_s
    return list(named.items())


class _Entry(msgspec.Struct):
    """What is made use of in a line of `_spark_metadata`; times in epoch ms."""

    path: str
    action: str
    modificationTime: int = 0


def _entries(log: Path) -> list[_Entry]:
    """The lines of a log of Spark's Parquet sink, after that of its version. Raises RunError where it is cut or damaged."""
    try:
        _, *lines = log.read_text(encoding="utf-8").splitlines()
        return [msgspec.json.decode(line, type=_Entry) for line in lines]
    except (ValueError, msgspec.DecodeError) as error:
        raise RunError(f"{log}: not a log of Spark's Parquet sink: {error}; the run cannot be judged") from error


class Growing:
    """How many rows a Parquet sink's log names while it grows, or its directory holds where it has none.

    Each log and each file is read once.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._logs: set[str] = set()
        self._files: dict[str, int] = {}

    def rows(self) -> int:
        """Up to now, those of files that have been deleted since included."""
        log = self._directory / "_spark_metadata"
        if log.is_dir():
            for path in log.glob("[0-9]*"):
                if path.name not in self._logs:
                    self._take_log(path)
        else:
            for path in self._directory.glob("*.parquet"):
                self._take(path.name)
        return sum(self._files.values())

    def _take_log(self, log: Path) -> None:
        for entry in _entries(log):
            if entry.action == "add":
                self._take(_below(self._directory, entry.path))
        self._logs.add(log.name)

    def _take(self, name: str) -> None:
        if name not in self._files:
            self._files[name] = pq.read_metadata(self._directory / name).num_rows


def _below(directory: Path, uri: str) -> str:
    """The path of a file below the directory that names it, wherever that lay when it was written."""
    path = Path(unquote(urlparse(uri).path))
    home = next((parent for parent in path.parents if parent.name == directory.name), path.parent)
    return str(path.relative_to(home))


def _file_rows(directory: Path, name: str, named_s: float, query: Query, names: Names) -> Iterator[Row]:
    path = directory / name
    in_path = dict(unquote(part).split("=", 1) for part in Path(name).parts[:-1] if "=" in part)
    try:
        rows = pq.ParquetFile(path).read().to_pylist()
    except (OSError, pa.ArrowException, ValueError, ArithmeticError) as error:
        yield Row((path.name,), (f"a file that cannot be read: {error}"[:200],), path.name, named_s)
        return
    for number, columns in enumerate(rows):
        where = f"{path.name}#{number}"
        try:
            yield _row(query, in_path | columns, where, named_s, names)
        except KeyError as missing:
            yield Row((where,), (f"no column {missing}",), where, named_s)
        except (ValueError, TypeError, ArithmeticError):
            yield Row((where,), (repr(columns)[:200],), where, named_s)
