"""From the run directory of a declared job to a verdict: expected rows by batch, the rows seen, and what Spark reports.

The oracle rests on Spark's offset log and on the job's declaration. A declaration is checked before it accuses anybody:
if Spark's own watermarks, or its own counts of dropped rows, are not those that follow from it, either the declaration or
the job is wrong, and the run is unknown.
"""

from __future__ import annotations

import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.engines.spark import offset_log
from harness.engines.spark.offset_log import Batch
from harness.engines.spark.watermarks import watermarks_after
from harness.errors import RunError, ScenarioError
from harness.job import declared, models, relations
from harness.job.declared import Query
from harness.job.draws import FLUSH, Array, Records
from harness.job.lateness import Watermarks
from harness.job.relations import Answer, Dropped
from harness.judge.own_rows import Seen, hold, typed
from harness.judge.verdict import broken_off
from harness.model import Anomaly, Result, Verdict
from harness.rundir import events, files
from harness.rundir.events import (
    Commit,
    Event,
    FaultHealed,
    FaultInjected,
    Interrupted,
    Process,
    Progress,
    Standstill,
)
from harness.rundir.history import OfType
from harness.scenario import own
from harness.scenario.own import OwnScenario

CONFIRMED = ("4.2",)
"""Versions of Spark on which tests/spark/test_relations_on_spark.py holds what the macros leave out equal to Spark's operators."""


@dataclass(frozen=True, slots=True)
class OwnRun:
    """The run directory of a declared job, read. `sent` has the columns of sent.parquet, a value a record.

    `versions` are those of Spark; none where Spark wrote no event log.
    """

    directory: Path
    scenario: OwnScenario
    manifest: Mapping[str, Any]
    events: tuple[Event, ...]
    sent: Mapping[str, Array]
    versions: Sequence[str] = ()

    def of(self, kind: type[OfType]) -> list[OfType]:
        """The events of one type, in order."""
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def restarts(self) -> int:
        """How often the job was started again."""
        return max(0, sum(isinstance(event, Process) and event.event == "start" for event in self.events) - 1)


@dataclass(slots=True)
class Comparison:
    """What came of a query: rows right, copied and wrong, records in time and late, and the doubts about its declaration."""

    query: str
    expected: int = 0
    right: int = 0
    copies: int = 0
    counted: int = 0
    late: int = 0
    reconciled: int = 0
    batches: int = 0
    anomalies: list[Anomaly] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def is_own(directory: Path) -> bool:
    """Whether a directory is the run of a declared job; False where its scenario cannot be read."""
    try:
        return own.is_own(tomllib.loads(files.text(directory / "scenario.toml")))
    except (RunError, tomllib.TOMLDecodeError):
        return False


def read(directory: Path) -> OwnRun:
    """Read a run directory. Raises RunError that names the file that is missing or damaged."""
    try:
        scenario = own.load(directory / "scenario.toml")
    except ScenarioError as error:
        raise RunError(str(error)) from error
    history, sent, manifest = (directory / name for name in ("history.jsonl", "sent.parquet", "manifest.json"))
    try:
        happened = tuple(events.read(history, files.lines(history)))
        columns = {name: column.to_numpy() for name, column in _columns(sent)}
        spark = directory / "spark.json"
        versions = json.loads(files.text(spark))["versions"] if spark.is_file() else []
        about = json.loads(files.text(manifest))
        return OwnRun(directory, scenario, about, happened, columns, tuple(versions))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise RunError(f"{directory}: incomplete or damaged: {error}; run it again") from error


def _columns(sent: Path) -> Iterator[tuple[str, Any]]:
    table = pq.read_table(sent)
    yield from zip(table.column_names, table.columns, strict=True)


def judge(run: OwnRun) -> Result:
    """The verdict on a run, with every anomaly."""
    job = run.scenario.declaration
    unacknowledged = int((run.sent["offset"] < 0).sum())
    if run.of(Interrupted):
        return broken_off(run)
    compared = [_compared(run, query) for query in job.queries]
    anomalies = tuple(anomaly for comparison in compared for anomaly in comparison.anomalies)
    doubts = [doubt for comparison in compared for doubt in comparison.doubts]
    broken = [*_of_faults(run), *(f"no progress: {event.why}" for event in run.events if isinstance(event, Standstill))]
    broken += [
        f"Spark {version}: which records are late is confirmed for {', '.join(CONFIRMED)} alone"
        for version in run.versions
        if not version.startswith(CONFIRMED)
    ]
    if unacknowledged:
        broken.append(f"{unacknowledged:,} records were not acknowledged")
    right = "; ".join(_summary(comparison) for comparison in compared)
    if doubts:
        found = f"; {len(anomalies):,} rows differ from the declaration" if anomalies else ""
        verdict, why = Verdict.UNKNOWN, f"the declaration is not that of the job: {'; '.join(doubts)}{found}"
    elif anomalies:
        kinds: dict[str, int] = defaultdict(int)
        for anomaly in anomalies:
            kinds[f"{anomaly.kind} of {anomaly.query}"] += 1
        verdict, why = Verdict.FAIL, ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
    elif broken:
        verdict, why = Verdict.UNKNOWN, "; ".join(broken)
    elif empty := [comparison.query for comparison in compared if not comparison.expected]:
        verdict, why = Verdict.UNKNOWN, f"no row of {', '.join(empty)} was to come out: nothing is shown"
    else:
        verdict, why = Verdict.PASS, right
    return Result(verdict, why, (), {"queries": right}, _counts(run, compared), anomalies)


def _summary(comparison: Comparison) -> str:
    copies = f", {comparison.copies:,} copies after a restart" if comparison.copies else ""
    drops = (
        f", drops reconcile in {comparison.reconciled} of {comparison.batches} batches" if comparison.batches else ""
    )
    return (
        f"{comparison.query}: exact, {comparison.right:,} of {comparison.expected:,} rows{copies}"
        f", of {comparison.counted:,} records in time and {comparison.late:,} late{drops}"
    )


def _counts(run: OwnRun, compared: Sequence[Comparison]) -> dict[str, int | None]:
    counts: dict[str, int | None] = {"sent": len(run.sent["offset"]), "restarts": run.restarts}
    for comparison in compared:
        for name in ("expected", "right", "copies", "counted", "late"):
            counts[f"{comparison.query}.{name}"] = getattr(comparison, name)
    return counts


def _of_faults(run: OwnRun) -> Iterator[str]:
    """Faults that were not injected, had no effect, or did not heal."""
    healed = {event.index: event for event in run.events if isinstance(event, FaultHealed)}
    injected = {event.index for event in run.events if isinstance(event, FaultInjected)}
    for index, fault in enumerate(sorted(run.scenario.fault, key=lambda fault: fault.at)):
        if index not in injected:
            yield f"fault {fault.name}: not injected"
        elif index not in healed or healed[index].healed_s is None:
            yield f"fault {fault.name}: not seen to heal"
        elif not healed[index].effect_observed:
            yield f"fault {fault.name}: no effect observed"


def _compared(run: OwnRun, query: Query) -> Comparison:
    """A query's rows and batches held against its declaration."""
    comparison = Comparison(query.name)
    batches = _batches(run, query)
    watermarks = Watermarks(tuple(batch.watermark_ms for batch in batches))
    folder = run.scenario.job.parent
    with _world(run, query, batches, watermarks) as (database, newest):
        sql = (
            (folder / query.sql).read_text(encoding="utf-8")
            if query.sql
            else f"FROM on_time({next(iter(query.reads))})"
        )
        if query.python:
            answer, doubts = _modelled(folder, query, database, watermarks)
            comparison.doubts += doubts
        else:
            answer = relations.expected(database, sql, watermarks)
        drops = relations.dropped(database, sql, list(query.reads), query.groups)
        comparison.counted, comparison.late = _lateness(database, sql, query)
        comparison.doubts += _drops(run, query, batches, drops, comparison)
        comparison.doubts += _watermarks(run, query, batches, newest)
        seen = _seen(run, query, answer)
        held = hold(query, answer, seen, batches, run.restarts)
        comparison.expected, comparison.right, comparison.copies = held.expected, held.right, held.copies
        comparison.anomalies += held.anomalies
        comparison.anomalies += _invariants(run, query, database, answer, seen)
    return comparison


def _batches(run: OwnRun, query: Query) -> list[Batch]:
    commits = {event.batch: (event.begun_s, event.committed_s) for event in run.events if isinstance(event, Commit) and event.query == query.name}  # fmt: skip
    return offset_log.read(run.directory / "checkpoints" / query.name, commits)


@contextmanager
def _world(
    run: OwnRun, query: Query, batches: Sequence[Batch], watermarks: Watermarks
) -> Iterator[tuple[duckdb.DuckDBPyConnection, list[dict[str, int]]]]:
    """A database with the relations and tables of a query, and of each batch the newest event time by topic."""
    job, load = run.scenario.declaration, run.scenario.load
    records = Records(job, run.scenario.workload, load.seed, load.eps)
    newest: list[dict[str, int]] = [{} for _ in batches]
    with relations.database() as database:
        for index, topic in enumerate(job.topics):
            if topic.name not in query.reads:
                continue
            rows = np.flatnonzero((run.sent["topic"] == index) & (run.sent["offset"] >= 0))
            columns = {name: column[rows] for name, column in run.sent.items()}
            batch = _batch_of(batches, topic.name, columns["partition"], columns["offset"])
            fields = _fields(records, topic.name, columns)
            delay_ms = query.delay_ms(topic.name)
            if delay_ms is not None:
                for number, at_ms in zip(batch.tolist(), columns["at_ms"].tolist(), strict=True):
                    if 0 <= number < len(batches):
                        newest[number][topic.name] = max(at_ms, newest[number].get(topic.name, at_ms))
            place = columns["partition"], columns["offset"]
            relation = relations.relation(fields, columns["at_ms"], batch, *place, watermarks, delay_ms or 0)
            database.register(topic.name, relation)
        for name, file in query.tables.items():
            declared.table(database, name, run.scenario.job.parent / file)
        yield database, newest


def _fields(records: Records, topic: str, columns: Mapping[str, Array]) -> dict[str, pa.Array]:
    """The fields of records that were sent, drawn again by their numbers; a topic has one flush record at most."""
    number = columns["number"]
    flushed = np.flatnonzero(number >= FLUSH)
    drawn = records.draw(topic, number[number < FLUSH])
    if not len(flushed):
        return dict(drawn.fields)
    last = records.flush(topic, int(columns["at_ms"][flushed[0]]))
    order = np.argsort(np.concatenate([np.flatnonzero(number < FLUSH), flushed]))
    return {
        name: pa.concat_arrays([_whole(drawn.fields[name]), _whole(last.fields[name])]).take(pa.array(order))
        for name in drawn.fields
    }


def _whole(column: pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _batch_of(batches: Sequence[Batch], topic: str, partition: Array, offset: Array) -> Array:
    """The index of the batch that read each record; len(batches) where none has."""
    found = np.full(len(offset), len(batches), dtype=np.int64)
    for number in np.unique(partition).tolist():
        rows = np.flatnonzero(partition == number)
        ends = np.array([batch.ends.get((topic, number), 0) for batch in batches], dtype=np.int64)
        found[rows] = np.searchsorted(np.maximum.accumulate(ends), offset[rows], side="right")
    return found


def _modelled(
    folder: Path, query: Query, database: duckdb.DuckDBPyConnection, watermarks: Watermarks
) -> tuple[Answer, list[str]]:
    """The rows of a model, and a doubt where they depend on the order of records within a batch, which Spark leaves open."""
    model = models.load(folder, query.python)
    [topic] = query.reads
    try:
        answer, reverse = (models.expected(database, topic, model, watermarks, order) for order in (False, True))
    except Exception as error:  # of the model, which is somebody's code
        raise RunError(f"{folder / query.python}: {type(error).__name__}: {error}; the run cannot be judged") from error
    different = Counter(map(str, answer.rows)) - Counter(map(str, reverse.rows))
    if not different:
        return answer, []
    return answer, [f"query {query.name}: {different.total():,} rows of {query.python} depend on the order in a batch: sort its rows"]  # fmt: skip


def _lateness(database: duckdb.DuckDBPyConnection, sql: str, query: Query) -> tuple[int, int]:
    """How many records of its topics count, and how many are late, by the macros that read them."""
    read = sum(_count(database, topic) for topic in query.reads)
    late = sum(_count(database, use.late) for use in relations.uses(sql) if use.relation in query.reads)
    return read - late, late


def _count(database: duckdb.DuckDBPyConnection, relation: str) -> int:
    [(count,)] = database.execute(f"SELECT count(*) FROM {relation}").fetchall()
    return int(count)


def _drops(
    run: OwnRun, query: Query, batches: Sequence[Batch], drops: Mapping[int, Dropped] | None, comparison: Comparison
) -> list[str]:
    """Batches in which Spark reports another number of dropped rows than follows from the declaration."""
    reported = {event.batch: _dropped(event) for event in run.events if isinstance(event, Progress) and event.query == query.name}  # fmt: skip
    if drops is None or not reported:
        return []
    wrong = []
    for batch in batches:
        if batch.number not in reported:  # killed between its commit and its report
            continue
        comparison.batches += 1
        wanted, found = drops.get(batch.number, Dropped(0, 0)), reported[batch.number]
        if wanted.holds(found):
            comparison.reconciled += 1
        else:
            span = f"{wanted.low:,}" if wanted.low == wanted.high else f"{wanted.low:,} to {wanted.high:,}"
            wrong.append(f"batch {batch.number} drops {found:,} rows, and the SQL leaves out {span}")
    if not wrong:
        return []
    return [
        f"query {query.name}: in {len(wrong)} of {comparison.batches} batches Spark's drops are not those of {query.sql or query.python}"
        f" ({wrong[0]}): see its macros, reads and groups"
    ]


def _dropped(event: Progress) -> int:
    return sum(int(operator.get("numRowsDroppedByWatermark", 0)) for operator in event.operators)


def _watermarks(run: OwnRun, query: Query, batches: Sequence[Batch], newest: Sequence[Mapping[str, int]]) -> list[str]:
    """The first batch at another watermark than the declared delays and the event times that were read make it."""
    delays = {topic: delay for topic in query.reads if (delay := query.delay_ms(topic)) is not None}
    if not delays:
        return []
    begun = [event.t for event in run.events if isinstance(event, Process) and event.event == "start"]
    starts = {next((batch.number for batch in batches if batch.committed_s >= at_s), len(batches)) for at_s in begun}
    behind = [{topic: at_ms - delays[topic] for topic, at_ms in of_batch.items()} for of_batch in newest]
    wanted = watermarks_after(behind, list(delays), starts, 0)
    for batch, at_ms in zip(batches, wanted, strict=False):
        if batch.watermark_ms != at_ms:
            return [
                f"query {query.name}: batch {batch.number} ran at the watermark {_iso(batch.watermark_ms)}, and the delays"
                f" {', '.join(f'{topic} = {query.reads[topic]!r}' for topic in delays)} make it {_iso(at_ms)}"
            ]
    return []


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seen(run: OwnRun, query: Query, answer: Answer) -> list[Seen]:
    path = run.directory / "outputs" / f"{query.name}.parquet"
    if not path.is_file():
        raise RunError(f"{path}: missing: the run ended before its results were collected; run it again")
    rows = pq.read_table(path).to_pylist()
    return [Seen(typed(row["row"], answer.types), row["row"], row["where"], row["at_s"]) for row in rows]


def _invariants(
    run: OwnRun, query: Query, database: duckdb.DuckDBPyConnection, answer: Answer, seen: Sequence[Seen]
) -> Iterator[Anomaly]:
    """The rows that an invariant of the query returns."""
    rules = [rule for rule in run.scenario.declaration.invariants if rule.query == query.name]
    if not rules:
        return
    rows = [row.columns for row in seen if row.columns is not None]
    arrays = {name: _array([row[name] for row in rows], kind) for name, kind in answer.types.items()}
    database.register("seen", pa.table(arrays))
    for rule in rules:
        try:
            found = database.sql(rule.sql).fetchall()
        except duckdb.Error as error:
            raise RunError(f"invariant {rule.name!r}: {error}") from error
        for row in found:
            yield Anomaly(
                "invented_row", query.name, (rule.name,), "nothing", str(row)[:300], f"invariant: {rule.name}"
            )


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """A column of rows that were seen; a value of another type is null in it."""
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError):
        return pa.array([value if _fits(value, kind) else None for value in values], kind)


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, TypeError, ValueError):
        return False
    return True
