"""A query as a Python model, for what SQL cannot express: state by key, in the order of batches, with timers.

A model is what a stateful processor promises, written once more. It is replayed key by key over the records that are on
time; `now` is the watermark of the batch, in UTC without a zone. In a batch, records come first, then the timers that
the batch's watermark has reached.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pyarrow as pa

from harness.errors import ScenarioError
from harness.job.lateness import Watermarks
from harness.job.relations import Answer, ExpectedRow

EPOCH = datetime(1970, 1, 1)
Yielded = Iterable[Mapping[str, Any]]


class Timers:
    """The timers of a key: moments of event time at which it is called again, each once."""

    def __init__(self) -> None:
        self._at: set[datetime] = set()

    def set(self, at: datetime) -> None:
        """Add a timer."""
        self._at.add(at)

    def only(self, at: datetime) -> None:
        """Set a timer in place of all others."""
        self._at = {at}

    def clear(self) -> None:
        """Remove all timers."""
        self._at.clear()

    def first(self) -> datetime | None:
        """The earliest timer."""
        return min(self._at, default=None)

    def remove(self, at: datetime) -> None:
        """Remove a timer that has expired."""
        self._at.discard(at)


class Model:
    """Derive from this: `key` names the field by which the query groups. The methods of a key share one object."""

    key = ""

    def start(self) -> None:
        """The key's first record comes: make its state."""

    def events(self, rows: Sequence[Any], now: datetime, timers: Timers) -> Yielded:
        """Rows of the query that the records of a batch yield; fields are attributes. Raise nothing, sleep never."""
        return ()

    def timer(self, at: datetime, now: datetime, timers: Timers) -> Yielded:
        """Rows that an expired timer yields."""
        return ()


def load(folder: Path, reference: str) -> type[Model]:
    """The model that ``file.py:Class`` names. Raises ScenarioError with what Python finds wrong."""
    file, _, name = reference.partition(":")
    spec = importlib.util.spec_from_file_location(f"harness_model_{Path(file).stem}", folder / file)
    if spec is None or spec.loader is None:
        raise ScenarioError(f"python = {reference!r}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        model = getattr(module, name)
    except Exception as error:
        raise ScenarioError(f"python = {reference!r}: {type(error).__name__}: {error}") from error
    if not (isinstance(model, type) and issubclass(model, Model) and model.key):
        raise ScenarioError(f"python = {reference!r}: must be a class that derives from Model and has a key")
    return model


def expected(
    connection: duckdb.DuckDBPyConnection, topic: str, model: type[Model], watermarks: Watermarks, reverse: bool = False
) -> Answer:
    """Every row of a query; with `reverse`, the records of a batch come in the opposite order, which must not matter."""
    order = "DESC" if reverse else "ASC"
    found = connection.sql(
        f"FROM on_time({topic}) ORDER BY {model.key}, _batch, _partition {order}, _offset {order}"
    ).to_arrow_table()
    rows = [SimpleNamespace(**row) for row in found.to_pylist()]
    yielded: list[ExpectedRow] = []
    for _, of_key in groupby(rows, key=attrgetter(model.key)):
        yielded += _replayed(model(), list(of_key), watermarks)
    types = pa.Table.from_pylist([dict(row.columns) for row in yielded]).schema if yielded else pa.schema([])
    return Answer({name: types.field(name).type for name in types.names}, yielded)


def _replayed(model: Model, rows: Sequence[Any], watermarks: Watermarks) -> Iterator[ExpectedRow]:
    """The rows of a key, each with the batch in which it appears."""
    timers = Timers()
    model.start()
    last = 0
    for batch, of_batch in groupby(rows, key=attrgetter("_batch")):
        yield from _expired(model, timers, watermarks, last, batch)
        now = _moment(watermarks.at[batch])
        yield from (ExpectedRow(dict(row), batch) for row in model.events(list(of_batch), now, timers))
        last = batch
    yield from _expired(model, timers, watermarks, last, len(watermarks.at))


def _expired(model: Model, timers: Timers, watermarks: Watermarks, last: int, until: int) -> Iterator[ExpectedRow]:
    """What timers yield in the batches from `last` to before `until`, in order of batch and time."""
    batch = last
    while (at := timers.first()) is not None:
        reached = watermarks.first_at(_epoch_ms(at))
        if reached is None or max(reached, batch) >= until:
            return
        batch = max(reached, batch)
        timers.remove(at)
        now = _moment(watermarks.at[batch])
        yield from (ExpectedRow(dict(row), batch) for row in model.timer(at, now, timers))


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC).replace(tzinfo=None)


def _epoch_ms(at: datetime) -> int:
    """Epoch ms, rounded up: a watermark in whole ms reaches it then."""
    return -((EPOCH - at) // timedelta(milliseconds=1))
