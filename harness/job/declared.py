"""A job of one's own, declared in `job.toml`: topics with their records, queries with their rows, and how it is started.

The folder of the file is a suite: `job.toml`, SQL and Python files, tables, and scenarios that name it. A declaration is
whole or refused: each error names the file, the field and what is allowed there.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from harness.errors import ScenarioError
from harness.job import models, relations
from harness.job.lateness import Watermarks

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
PLACEHOLDERS = ("bootstrap", "checkpoint", "output", "jars", "python", "folder")
"""What a part of the command line may have in braces, beside the name of a table."""
UNITS_MS = {
    "millisecond": 1,
    "ms": 1,
    "second": 1000,
    "s": 1000,
    "minute": 60_000,
    "hour": 3_600_000,
    "day": 86_400_000,
}
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+?)s?", re.IGNORECASE)
GENERATORS = ("sequence", "uuid", "of", "choice", "decimal", "integer", "text", "bool", "time", "from")
NO_WATERMARK = "none"
NOTHING = np.array([], dtype=np.int64)


class _Declared(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file."""


class Field(_Declared, frozen=True, kw_only=True, rename={"from_": "from", "bool_": "bool", "nulls": "null"}):
    """A field of a topic's records; exactly one of `GENERATORS` is given.

    sequence: text with the record's number, as in ``ord_{:06d}``
    uuid: a random UUID
    of: a number below it, as text by `name`, with exponent `zipf` more often the smaller it is
    choice: one of several values, with `weights`
    decimal: from the first to the second, with `places` digits after the point
    integer: from the first to the second, both included
    text: random letters, so many
    bool: true with this probability
    time: the event time, as ``iso``, or in epoch ``ms``, ``us`` or ``s``
    from: the field of an earlier record of another topic, as ``topic.field``, at most `within` of event time old; the
    share `missing` refers to records that never come
    """

    sequence: str | None = None
    uuid: Literal[True] | None = None
    of: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] | None = None
    name: str = "{}"
    zipf: Annotated[float, msgspec.Meta(ge=0, le=5)] = 0.0
    choice: Annotated[list[str | int | float | bool], msgspec.Meta(min_length=1)] | None = None
    weights: list[Annotated[float, msgspec.Meta(ge=0)]] | None = None
    decimal: tuple[float, float] | None = None
    places: Annotated[int, msgspec.Meta(ge=0, le=9)] = 2
    integer: tuple[int, int] | None = None
    text: Annotated[int, msgspec.Meta(ge=0, le=100_000)] | None = None
    bool_: Share | None = None
    time: Literal["iso", "ms", "us", "s"] | None = None
    from_: str | None = None
    within: str = ""
    missing: Share = 0.0
    nulls: Share = 0.0

    @property
    def generator(self) -> str:
        """The one of `GENERATORS` that is given."""
        return next(name for name in GENERATORS if self.given(name) is not None)

    def given(self, generator: str) -> object:
        """The value of a generator, None where it is not given."""
        return getattr(self, {"from": "from_", "bool": "bool_"}.get(generator, generator))


class Topic(_Declared, frozen=True, kw_only=True):
    """An input topic: its share of the load, its partitions, the field that is its key, and the field with the event time."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+$")]
    fields: Annotated[dict[Name, Field], msgspec.Meta(min_length=1)]
    share: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    key: str = ""
    partitions: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    time: str = ""
    format: Literal["json"] = "json"


class Sink(_Declared, frozen=True, kw_only=True):
    """Where the rows of a query are found: a topic with a JSON object a row, or a directory below {output}."""

    kafka: str = ""
    parquet: str = ""
    format: Literal["json"] = "json"


class Column(_Declared, frozen=True, kw_only=True):
    """How a column is compared: within a relative difference, or not at all."""

    within: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    ignore: bool = False


class Query(_Declared, frozen=True, kw_only=True):
    """A streaming query of the job: what it reads with which watermark delay, its rows, and where they are found.

    `row` names the columns that identify a row; without any, rows are compared whole. `groups` names the columns, joined
    by commas, by which its aggregation groups.
    """

    name: Name
    reads: Annotated[dict[str, str], msgspec.Meta(min_length=1)]
    sink: Sink
    row: tuple[str, ...] = ()
    sql: str = ""
    python: str = ""
    tables: dict[Name, str] = {}
    columns: dict[str, Column] = {}
    groups: str = ""
    guarantee: Literal["", "at-least-once", "exactly-once"] = ""

    @property
    def promise(self) -> str:
        """The guarantee: if none is declared, that of the sink."""
        return self.guarantee or ("exactly-once" if self.sink.parquet else "at-least-once")

    def delay_ms(self, topic: str) -> int | None:
        """The watermark delay with which it reads a topic; None where it sets no watermark."""
        return None if self.reads[topic] == NO_WATERMARK else duration_ms(self.reads[topic])


class Invariant(_Declared, frozen=True, kw_only=True):
    """SQL that must return nothing, over the relations of a query and `seen`, the rows that it has written."""

    name: str
    query: str
    sql: str


class Pipeline(_Declared, frozen=True, kw_only=True):
    """How the job is started: its command line and environment, with placeholders, and where its checkpoints are.

    The command runs in the suite's folder. With `connector`, Spark finds the harness's copy of its Kafka connector,
    which is that of the pyspark beside it.
    """

    command: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    environment: dict[str, str] = {}
    checkpoint: str = "{checkpoint}/{query}"
    connector: bool = False
    ready_s: Annotated[float, msgspec.Meta(ge=1, le=3600)] = 120.0


class Job(
    _Declared, frozen=True, kw_only=True, rename={"topics": "topic", "queries": "query", "invariants": "invariant"}
):
    """A job, declared in full; `flush_ahead` is how far ahead of all event times a last record of each topic is."""

    pipeline: Pipeline
    topics: Annotated[tuple[Topic, ...], msgspec.Meta(min_length=1)]
    queries: Annotated[tuple[Query, ...], msgspec.Meta(min_length=1)]
    invariants: tuple[Invariant, ...] = ()
    about: str = ""
    flush_ahead: str = "1 day"

    def topic(self, name: str) -> Topic:
        """The topic of a name."""
        return next(topic for topic in self.topics if topic.name == name)

    def query(self, name: str) -> Query:
        """The query of a name."""
        return next(query for query in self.queries if query.name == name)

    def delay_ms(self, topic: str) -> int:
        """The longest watermark delay that a query has for a topic; 0 where none has any."""
        return max((query.delay_ms(topic) or 0 for query in self.queries if topic in query.reads), default=0)


def duration_ms(text: str) -> int:
    """``10 minutes`` in ms. ValueError where it is no duration."""
    found = DURATION.fullmatch(text.strip())
    if not found or found[2].lower() not in UNITS_MS:
        raise ValueError(f"{text!r} is no duration such as '10 minutes'; units: {', '.join(UNITS_MS)}")
    return round(float(found[1]) * UNITS_MS[found[2].lower()])


def load(path: Path) -> Job:
    """Read a declaration. Raises ScenarioError that names the file, the field, and what is allowed."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ScenarioError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: not TOML: {error}") from error
    try:
        job = msgspec.convert(table, Job)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        field = where.rstrip("`").removeprefix("$").removeprefix(".")
        raise ScenarioError(f"{path}: {f'{field}: ' if field else ''}{what}") from error
    for problem in problems(job, path.parent):
        raise ScenarioError(f"{path}: {problem}")
    return job


def problems(job: Job, folder: Path) -> Iterator[str]:
    """What contradicts itself, or names what is not there; a sentence each, which begins with the field."""
    for kind, names in (
        ("topic", [topic.name for topic in job.topics]),
        ("query", [query.name for query in job.queries]),
    ):
        yield from (f"{kind}.name = {name!r}: declared twice" for name in sorted(set(names)) if names.count(name) > 1)
    yield from _no_duration("flush_ahead", job.flush_ahead)
    known: dict[str, Topic] = {}
    for topic in job.topics:
        yield from _of_topic(topic, known)
        known[topic.name] = topic
    for query in job.queries:
        yield from _of_query(query, known, folder)
    queries = {query.name for query in job.queries}
    for rule in job.invariants:
        if rule.query not in queries:
            yield f"invariant {rule.name!r}: query = {rule.query!r}: no such query; there are: {', '.join(sorted(queries))}"
    tables = {name for query in job.queries for name in query.tables}
    yield from _placeholders(job.pipeline, tables)


def _placeholders(pipeline: Pipeline, tables: set[str]) -> Iterator[str]:
    allowed = {*PLACEHOLDERS, *tables}
    for field, parts in (("command", pipeline.command), ("environment", tuple(pipeline.environment.values()))):
        for part in parts:
            for name in re.findall(r"\{(\w+)\}", part):
                if name not in allowed:
                    yield f"pipeline.{field}: {{{name}}} is no placeholder; allowed: {', '.join(sorted(allowed))}"
    if "{query}" not in pipeline.checkpoint:
        yield "pipeline.checkpoint: {query} is missing: each query has a checkpoint of its own"


def _of_topic(topic: Topic, earlier: Mapping[str, Topic]) -> Iterator[str]:
    where = f"topic {topic.name!r}"
    for field, name in (("key", topic.key), ("time", topic.time)):
        if name and name not in topic.fields:
            yield f"{where}: {field} = {name!r}: no such field; there are: {', '.join(topic.fields)}"
    if topic.time in topic.fields and topic.fields[topic.time].time is None:
        yield f'{where}: time = {topic.time!r}: the field needs a form of time, such as time = "iso"'
    for name, declared in topic.fields.items():
        yield from (f"{where}: fields.{name}{problem}" for problem in _of_field(declared, earlier))


def _of_field(field: Field, earlier: Mapping[str, Topic]) -> Iterator[str]:
    given = [name for name in GENERATORS if field.given(name) is not None]
    if len(given) != 1:
        yield f": exactly one of {', '.join(GENERATORS)} is needed, found {' and '.join(given) or 'none'}"
        return
    for name, text in (("sequence", field.sequence), ("name", field.name)):
        try:
            (text or "{}").format(1)
        except (ValueError, IndexError, KeyError) as error:
            yield f".{name} = {text!r}: not a format of a number: {error}"
    if field.choice and field.weights and len(field.choice) != len(field.weights):
        yield f".weights: {len(field.weights)} weights of {len(field.choice)} choices"
    if field.choice and len({type(value) for value in field.choice}) > 1:
        yield ".choice: all values must be of one type"
    for name, span in (("decimal", field.decimal), ("integer", field.integer)):
        if span and span[0] > span[1]:
            yield f".{name} = {list(span)}: the first must not be larger than the second"
    if field.time is not None and field.nulls:
        yield ".null: an event time cannot be null"
    if field.from_ is not None:
        topic, _, other = field.from_.rpartition(".")
        if topic not in earlier or other not in earlier[topic].fields:
            fields = [f"{name}.{field}" for name, topic in earlier.items() for field in topic.fields]
            yield f".from = {field.from_!r}: no field of an earlier topic; there are: {', '.join(fields) or 'none'}"
        elif earlier[topic].fields[other].from_ is not None:
            yield f".from = {field.from_!r}: it refers to another topic itself; name that one"
        yield from _no_duration(".within", field.within)


def _no_duration(field: str, text: str) -> Iterator[str]:
    try:
        duration_ms(text)
    except ValueError as error:
        yield f"{field}: {error}"


def _of_query(query: Query, topics: Mapping[str, Topic], folder: Path) -> Iterator[str]:
    where = f"query {query.name!r}"
    before = 0
    for problem in _of_reads(query, topics):
        before += 1
        yield f"{where}: {problem}"
    if bool(query.sql) == bool(query.python):
        yield f"{where}: exactly one of sql and python is needed"
    if bool(query.sink.kafka) == bool(query.sink.parquet):
        yield f"{where}: sink: exactly one of kafka and parquet is needed"
    files = {"sql": query.sql, "python": query.python.partition(":")[0]} | {
        f"tables.{name}": file for name, file in query.tables.items()
    }
    for field, file in files.items():
        if file and not (folder / file).is_file():
            before += 1
            yield f"{where}: {field} = {file!r}: no such file in {folder}"
    if query.python and not before:
        yield from (f"{where}: {problem}" for problem in _of_model(query, topics, folder))
    if query.sql and not before:
        yield from (f"{where}: {problem}" for problem in _of_sql(query, topics, folder))


def _of_model(query: Query, topics: Mapping[str, Topic], folder: Path) -> Iterator[str]:
    if len(query.reads) != 1:
        yield f"reads: a model reads one topic, not {len(query.reads)}"
        return
    [topic] = query.reads
    try:
        model = models.load(folder, query.python)
    except ScenarioError as error:
        yield str(error)
        return
    if model.key not in topics[topic].fields:
        yield f"python = {query.python!r}: key {model.key!r} is no field of {topic!r}; there are: {', '.join(topics[topic].fields)}"


def _of_reads(query: Query, topics: Mapping[str, Topic]) -> Iterator[str]:
    for topic, delay in query.reads.items():
        if topic not in topics:
            yield f"reads.{topic}: no such topic; there are: {', '.join(topics)}"
        elif delay != NO_WATERMARK:
            yield from _no_duration(f"reads.{topic}", delay)
            if not topics[topic].time:
                yield f"reads.{topic} = {delay!r}: topic {topic!r} has no time; use {NO_WATERMARK!r}"


def _of_sql(query: Query, topics: Mapping[str, Topic], folder: Path) -> Iterator[str]:
    """What is wrong with the SQL over relations without a record."""
    sql = (folder / query.sql).read_text(encoding="utf-8")
    with relations.database() as database:
        for name in query.reads:
            none = relations.relation(_no_values(topics, name), *(NOTHING,) * 4, watermarks=Watermarks(()), delay_ms=0)
            database.register(name, none)
        for name, file in query.tables.items():
            table(database, name, folder / file)
        try:
            columns = database.sql(sql.strip().rstrip(";")).columns
        except duckdb.Error as error:
            yield f"sql = {query.sql!r}: {error}"
            return
    shown = [name for name in columns if not name.startswith("_")]
    for field, names in (("row", query.row), ("columns", tuple(query.columns))):
        for name in names:
            if name not in shown:
                yield f"{field}: {query.sql} has no column {name!r}; it has: {', '.join(shown)}"


def table(database: duckdb.DuckDBPyConnection, name: str, file: Path) -> None:
    """Make a table of a CSV file with a header."""
    database.execute(f"CREATE OR REPLACE TABLE {name} AS FROM read_csv(?, header = true)", [str(file)])


def _no_values(topics: Mapping[str, Topic], topic: str) -> dict[str, pa.Array]:
    return {name: pa.array([], column_type(topics, topic, name)) for name in topics[topic].fields}


def column_type(topics: Mapping[str, Topic], topic: str, name: str) -> pa.DataType:
    """The type of a field's column in the topic's relation; times are timestamps in UTC without a zone."""
    field = topics[topic].fields[name]
    if field.from_ is not None:
        other, _, theirs = field.from_.rpartition(".")
        return column_type(topics, other, theirs)
    if field.choice is not None:
        return pa.scalar(field.choice[0]).type
    if field.decimal is not None:
        return pa.decimal128(18, field.places)
    return {"integer": pa.int64(), "bool": pa.bool_(), "time": pa.timestamp("us")}.get(field.generator, pa.string())
