"""The rows of a declared query as they are in its sink: a JSON object each, whatever its columns are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from harness.engines.spark.sinks import _data_files, _named_files
from harness.job.declared import Query
from harness.kafka import topics


@dataclass(frozen=True, slots=True)
class Found:
    """A row: its JSON text, or what is there instead; where it is, and the epoch second of its appearance."""

    text: str
    where: str
    at_s: float


def collect(query: Query, bootstrap: str, output: Path) -> Iterator[Found]:
    """Every row in the sink of a query."""
    return _of_kafka(bootstrap, query.sink.kafka) if query.sink.kafka else _of_parquet(output / query.sink.parquet)


def size(query: Query, bootstrap: str, output: Path) -> int:
    """Records or files in the sink of a query."""
    if query.sink.kafka:
        return sum(topics.end_offsets(bootstrap, [query.sink.kafka])[query.sink.kafka].values())
    return len(_data_files(output / query.sink.parquet))


def _of_kafka(bootstrap: str, topic: str) -> Iterator[Found]:
    for message in topics.read(bootstrap, [topic]):
        text = (message.value or b"").decode("utf-8", "replace")
        yield Found(text, f"{topic}-{message.partition}@{message.offset}", message.timestamp_ms / 1e3)


def _of_parquet(directory: Path) -> Iterator[Found]:
    """The rows of the files that Spark's own log names; of all files where there is no such log."""
    if (directory / "_spark_metadata").is_dir():
        files = _named_files(directory)
    else:
        files = [(str(path.relative_to(directory)), path.stat().st_mtime) for path in _data_files(directory)]
    for name, at_s in files:
        try:
            rows = _in_micros(pq.ParquetFile(directory / name).read()).to_pylist()
        except (OSError, pa.ArrowException) as error:
            yield Found(f"a file that cannot be read: {error}"[:200], name, at_s)
            continue
        for number, row in enumerate(rows):
            yield Found(_encoded(row), f"{name}#{number}", at_s)


def _in_micros(table: pa.Table) -> pa.Table:
    """Timestamps in µs, which is Spark's own resolution: its files have them in ns, which Python does not know."""
    for at, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            micros = pa.timestamp("us", column.type.tz)
            table = table.set_column(at, pa.field(column.name, micros), table.column(at).cast(micros))
    return table


def _encoded(row: dict[str, Any]) -> str:
    """A row as JSON; times are in UTC, decimals numbers with all their digits."""
    return _json.encode({name: _utc(value) for name, value in row.items()}).decode()


def _utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    return value.hex() if isinstance(value, bytes) else value


_json = msgspec.json.Encoder(decimal_format="number")
