"""Results as they stand in the sinks, read back to the last row.

Kafka topics are read from beginning to end; a Parquet directory only as far as Spark's own
`_spark_metadata` log names its files, for that is what the sink promises exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from harness.kafka import topics
from harness.model import Row
from pipeline.schema import QUERIES, Query

DECIMAL_PLACES = {"total_revenue": 2, "avg_transaction": 4}


def from_kafka(bootstrap: str, prefix: str, query: Query) -> list[Row]:
    """Every record of the query's result topic."""
    make = _rejected if query.name == "dead_letter" else _result
    return [make(query, message, prefix) for message in topics.read(bootstrap, [prefix + query.topic])]


def from_parquet(directory: Path, query: Query) -> list[Row]:
    """Every row of the files that the sink's log names, with the time at which the log named them."""
    return [row for path, named_s in _named_files(directory) for row in _file_rows(directory / path, named_s, query)]


def collect(bootstrap: str, prefix: str, output: Path) -> Iterator[tuple[str, list[Row]]]:
    """(query, rows) of every query, from the sink that the contract gives it."""
    for query in QUERIES.values():
        rows = (
            from_kafka(bootstrap, prefix, query) if query.sink == "kafka" else from_parquet(output / query.name, query)
        )
        yield query.name, rows


def _result(query: Query, message: topics.Message, prefix: str) -> Row:
    where = f"{message.topic.removeprefix(prefix)}-{message.partition}@{message.offset}"
    try:
        columns = json.loads(message.value or b"", parse_float=_digits)
        return _row(query, columns, where, message.timestamp_ms / 1e3)
    except (ValueError, KeyError, TypeError):
        # A row that cannot be read is evidence, not an error of the harness: it matches no expected row.
        return Row((where,), (repr(message.value)[:200],), where, message.timestamp_ms / 1e3)


class _digits(Decimal):
    """A JSON number with a fraction, kept as it was written until its column says what it is."""


def _row(query: Query, columns: dict[str, Any], where: str, at_s: float) -> Row:
    def take(names: tuple[str, ...]) -> tuple[Any, ...]:
        return tuple(_plain(name, columns[name]) for name in names)

    return Row(take(query.identity), take(query.measures), where, at_s)


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
    if name in DECIMAL_PLACES and isinstance(value, int | Decimal):
        return f"{Decimal(value):.{DECIMAL_PLACES[name]}f}" if _fits(value, DECIMAL_PLACES[name]) else str(value)
    return float(value) if isinstance(value, Decimal) else value


def _fits(value: int | Decimal, places: int) -> bool:
    return Decimal(value) == round(Decimal(value), places)


def _rejected(query: Query, message: topics.Message, prefix: str) -> Row:
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    where = f"{message.topic.removeprefix(prefix)}-{message.partition}@{message.offset}"
    key = (
        headers.get("topic", "").removeprefix(prefix),
        _number(headers.get("partition", "")),
        _number(headers.get("offset", "")),
    )
    return Row(key, ((message.value or b"").hex(), headers.get("reason", "")), where, message.timestamp_ms / 1e3)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


def _named_files(directory: Path) -> list[tuple[str, float]]:
    """(file name, epoch second at which the log first named it), from `_spark_metadata/N` and `N.compact`."""
    log = directory / "_spark_metadata"
    named: dict[str, float] = {}
    for path in sorted(log.glob("[0-9]*"), key=lambda one: int(one.name.partition(".")[0])):
        for line in path.read_text(encoding="utf-8").splitlines()[1:]:
            entry = json.loads(line)
            name = entry["path"].rpartition("/")[2]
            if entry["action"] == "add":
                named.setdefault(name, path.stat().st_mtime)
            else:
                named.pop(name, None)
    return list(named.items())


def _file_rows(path: Path, named_s: float, query: Query) -> Iterator[Row]:
    for number, columns in enumerate(pq.ParquetFile(path).read().to_pylist()):
        where = f"{path.name}#{number}"
        try:
            yield _row(query, columns, where, named_s)
        except KeyError as missing:
            yield Row((where,), (f"no column {missing}",), where, named_s)
