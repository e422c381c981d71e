"""A run directory as one value: which event was sent, which batch of which query read it, and what must have come of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np

from harness.engines.spark import offset_log as spark
from harness.engines.spark.offset_log import Batch
from harness.engines.spark.watermarks import watermarks_after
from harness.job.clickstream import bounds, bulk
from harness.job.clickstream import events as workload
from harness.job.clickstream.bulk import Builder, Columns
from harness.job.clickstream.contract import QUERIES, WATERMARK_DELAY_S
from harness.job.clickstream.records import Click, Purchase, Rejected, parse
from harness.job.clickstream.reference import Expected, Reference, Rows, Rules
from harness.job.lateness import Watermarks
from harness.judge import metrics
from harness.judge.metrics import Array, Span
from harness.model import Record
from harness.rundir.events import Cluster, Commit, Deleted, FaultHealed, Process
from harness.rundir.history import Run

CHUNK = 50_000
Event = Click | Purchase | Rejected


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all conclusions are drawn from.

    `sent` has a row an event (columns of sent.parquet); `batch_of` for each query and row the index of
    the batch that read it, −1 where there is none, len(batches) where none has. A record that brokers acknowledged
    and lost is in `overwritten`, and counts in `sent` as not acknowledged.
    """

    run: Run
    sent: Mapping[str, Array]
    batches: Mapping[str, Sequence[Batch]]
    batch_of: Mapping[str, Array]
    measured: Span
    overwritten: Mapping[int, int]
    """Row of `sent` → the offset that it was acknowledged at, which is another record's now."""

    @property
    def rules(self) -> Rules:
        """What the pipeline was started to promise."""
        pipeline = self.run.scenario.pipeline
        return Rules(conversions=pipeline.form, deduplicate=pipeline.deduplicate)


def gather(run: Run) -> Evidence:
    """Read events and batches, and join them. Raises RunError where the directory is incomplete."""
    sent, overwritten = _without_overwritten(run.sent())
    prefix = run.manifest["topic_prefix"]
    queries = run.scenario.queries
    batches = {query: [] if run.scenario.black_box else _batches(run, query, prefix) for query in queries}
    batch_of = {query: _index(run, query, sent, batches[query]) for query in queries}
    load = run.scenario.load
    measured = metrics.span(sent, load.warm_up_s, load.duration_s)
    gathered = Evidence(run, sent, batches, batch_of, measured, overwritten)
    return gathered if run.scenario.black_box else replace(gathered, batch_of=_without_deleted(gathered))


def _without_overwritten(sent: Mapping[str, Array]) -> tuple[Mapping[str, Array], Mapping[int, int]]:
    rows = np.flatnonzero(metrics.overwritten(sent))
    if not len(rows):
        return sent, {}
    offsets = sent["offset"].copy()
    offsets[rows] = -1
    return {**sent, "offset": offsets}, dict(zip(rows.tolist(), sent["offset"][rows].tolist(), strict=True))


def _index(run: Run, query: str, sent: Mapping[str, Array], batches: Sequence[Batch]) -> Array:
    if run.scenario.black_box:
        return np.full(len(sent["n"]), -1, dtype=np.int64)
    return metrics.batch_of(query, sent, batches)


def _without_deleted(gathered: Evidence) -> dict[str, Array]:
    """`batch_of`, where records that were deleted before the batch that covers their offsets read them are read by none."""
    found = dict(gathered.batch_of)
    for query, index in found.items():
        for event in gathered.run.of(Deleted):
            index = np.where(deleted(gathered, query, event), len(gathered.batches[query]), index)
        found[query] = index
    return found


def deleted(gathered: Evidence, query: str, event: Deleted) -> Array:
    """Which rows of `sent` a deletion took from a query before it read them."""
    sent, index, batches = gathered.sent, gathered.batch_of[query], gathered.batches[query]
    from_s = np.array([*_read_s(gathered, query), np.inf])
    gone = (sent["topic"] == event.topic) & (sent["partition"] == event.partition)
    gone &= (sent["offset"] >= 0) & (sent["offset"] < event.before_offset)
    unread: Array = gone & (index >= 0) & (from_s[np.clip(index, 0, len(batches))] > event.at_s)
    return unread


def _read_s(gathered: Evidence, query: str) -> list[float]:
    """When each batch began to read: of one that was run again, its second reading, unless it was committed without."""
    batches, begun, unread = gathered.batches[query], started_s(gathered.run), skipped(gathered, query)
    return [
        max([batch.begun_s, *(at for at in begun if at < batch.committed_s and batch.number not in unread)])
        for batch in batches
    ]


def _batches(run: Run, query: str, prefix: str) -> list[Batch]:
    commits = [event for event in run.of(Commit) if event.query == query]
    recorded = {event.batch: (event.begun_s, event.committed_s) for event in commits}
    return [
        replace(batch, ends={(topic.removeprefix(prefix), part): end for (topic, part), end in batch.ends.items()})
        for batch in spark.read(run.directory / "checkpoints" / query, recorded)
    ]


def records(evidence: Evidence, unacknowledged: bool = False) -> Iterator[tuple[int, Record]]:
    """(row of `sent`, record) of every acknowledged event, its bytes made again from the seed, in order of sending.

    With `unacknowledged` those too that were handed over and never acknowledged, at offset −1.
    """
    return written(evidence, np.flatnonzero((evidence.sent["offset"] >= 0) | unacknowledged))


def written(evidence: Evidence, rows: Array) -> Iterator[tuple[int, Record]]:
    """(row of `sent`, record) of these rows, the bytes made again from the seed."""
    sent, load, shape = evidence.sent, evidence.run.scenario.load, evidence.run.scenario.workload
    own = rows[~sent["flush"][rows]]
    for first in range(0, len(own), CHUNK):
        some = own[first : first + CHUNK]
        drawn = workload.draw(shape, load.seed, load.eps, sent["n"][some].astype(np.uint64))
        yield from _placed(sent, some, workload.written(shape, drawn).values)
    flushed = rows[sent["flush"][rows]]
    if len(flushed):
        events = workload.flush(shape, int(sent["event_time_ms"][flushed[0]]) - workload.FLUSH_AHEAD_MS)
        by_topic = {event.topic: event.value for event in events}
        yield from _placed(sent, flushed, [by_topic[sent["topic"][row]] for row in flushed])


def _placed(sent: Mapping[str, Array], rows: Array, values: Sequence[bytes]) -> Iterator[tuple[int, Record]]:
    columns = (sent[name][rows].tolist() for name in ("topic", "partition", "offset"))
    for row, topic, partition, offset, value in zip(rows.tolist(), *columns, values, strict=True):
        yield row, Record(topic, partition, offset, value)


def parsed(evidence: Evidence) -> Iterator[tuple[Record, Event, dict[str, int]]]:
    """(record, event, query → batch that read it) of every acknowledged event that any query read or was to read."""
    counts = {query: len(found) for query, found in evidence.batches.items()}
    indexes = {query: evidence.batch_of[query].tolist() for query in evidence.batches}
    for row, record in written(evidence, _read(evidence)):
        batches = {query: at for query, index in indexes.items() if 0 <= (at := index[row]) < counts[query]}
        yield record, parse(record), batches


def expected(
    evidence: Evidence,
    lateness: Literal["previous", "own", "never"] = "previous",
    watermarks: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Expected]:
    """What must have come out, by query, from the recorded watermarks or from those given."""
    if evidence.run.scenario.black_box:
        return _possible(evidence)
    if evidence.rules.deduplicate:
        return by_reference(evidence, lateness, watermarks)
    at = marks(evidence, lateness, watermarks)
    columns, letters = _columns(evidence, _read(evidence))
    answers = bulk.expected(columns, at, evidence.rules.conversions)
    for query, answer in letters.items():
        answers[query] = replace(answer, counted=len(answer.rows), optional=_letters_of_deleted(evidence, query))
    return answers


def _read(evidence: Evidence) -> Array:
    """Rows of `sent` of the acknowledged events that any query read or was to read."""
    read = np.zeros(len(evidence.sent["n"]), dtype=bool)
    for index in evidence.batch_of.values():
        read |= index >= 0
    return np.flatnonzero(read & (evidence.sent["offset"] >= 0))


def _letters_of_deleted(evidence: Evidence, query: str) -> Rows:
    """Rejected records that a first attempt at a batch may have seen before they were deleted: its rows stand."""
    rows: Rows = {}
    for event in evidence.run.of(Deleted):
        for _, record in written(evidence, np.flatnonzero(deleted(evidence, query, event))):
            if isinstance(found := parse(record), Rejected):
                rows[record.topic, record.partition, record.offset] = (record.value.hex(), found.reasons)
    return rows


def by_reference(
    evidence: Evidence,
    lateness: Literal["previous", "own", "never"] = "previous",
    watermarks: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Expected]:
    """The same by the reference, an event at a time."""
    reference = Reference(marks(evidence, lateness, watermarks), evidence.rules)
    for record, event, batches in parsed(evidence):
        reference.add(record, event, batches)
    return {query: answer for query, answer in reference.expected().items() if query in evidence.batches}


def marks(
    evidence: Evidence,
    lateness: Literal["previous", "own", "never"] = "previous",
    watermarks: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, Watermarks]:
    """The watermarks of every query of the job: those recorded or those given, none for a query that did not run."""
    at = watermarks or {query: [batch.watermark_ms for batch in found] for query, found in evidence.batches.items()}
    none: dict[str, Sequence[int]] = dict.fromkeys(QUERIES, ())
    return {query: Watermarks(tuple(found), lateness) for query, found in (none | dict(at)).items()}


def columns(evidence: Evidence, rows: Array) -> Columns:
    """The valid events of these rows of `sent`, made again from the seed; `row` of the columns is the row of `sent`."""
    return _columns(replace(evidence, batches={}), rows)[0]


def _columns(evidence: Evidence, rows: Array) -> tuple[Columns, dict[str, Expected]]:
    """The valid events of these rows of `sent`, and the dead letters that the others make, by query that rejects."""
    sent, load, shape = evidence.sent, evidence.run.scenario.load, evidence.run.scenario.workload
    is_plain = (sent["malformed"][rows] == 0) & ~sent["flush"][rows]
    plain, others = rows[is_plain], rows[~is_plain]
    build = Builder(workload.users(shape), *workload.products(shape), partial(workload.session, shape))
    for first in range(0, len(plain), CHUNK):
        some = plain[first : first + CHUNK]
        drawn = workload.draw(shape, load.seed, load.eps, sent["n"][some].astype(np.uint64))
        usual, cents = ~drawn.is_form, drawn.cents(shape)
        others = np.append(others, some[~usual])
        drawn_columns = (drawn.topic == 0, drawn.event_time_ms, drawn.user, drawn.owner, drawn.period, drawn.product)
        build.add(some[usual], *(column[usual] for column in (*drawn_columns, cents)))
    letters = {query: Expected() for query in evidence.batches if QUERIES[query].rejects}
    for row, record in written(evidence, others):
        event = parse(record)
        if not isinstance(event, Rejected):
            build.add_one(row, event)
            continue
        for query, answer in letters.items():
            if 0 <= (batch := evidence.batch_of[query][row]) < len(evidence.batches[query]):
                key = (record.topic, record.partition, record.offset)
                answer.rows[key], answer.batch[key] = (record.value.hex(), event.reasons), int(batch)
    batches = {query: index for query, index in evidence.batch_of.items() if not QUERIES[query].rejects}
    return build.columns(sent["partition"], batches), letters


def _possible(evidence: Evidence) -> dict[str, Expected]:
    """The black-box oracle's answer."""
    surely = _surely_counts(evidence).tolist()
    events = ((record, parse(record), surely[row]) for row, record in records(evidence, unacknowledged=True))
    answers = bounds.possible(events)
    return {query: answer for query, answer in answers.items() if query in evidence.batches}


def _surely_counts(evidence: Evidence) -> Array:
    """Which events are no more than the delay behind any that can have been read before them.

    That is each that was acknowledged before the event must have been read.
    """
    sent = evidence.sent
    valid = (sent["malformed"] == 0) & (sent["acked_us"] > 0)
    order = np.argsort(sent["acked_us"][valid])
    acked_us = sent["acked_us"][valid][order]
    newest = np.maximum.accumulate(sent["event_time_ms"][valid][order])
    reach = np.searchsorted(acked_us, _read_by_us(evidence), side="right") - 1
    before = np.where(reach >= 0, newest[reach], 0)
    least = before - WATERMARK_DELAY_S * 1000
    if evidence.run.scenario.pipeline.form == "join":  # it may drop what is exactly the delay behind
        least = least + 1
    counts: Array = (sent["offset"] >= 0) & (sent["event_time_ms"] >= least)
    return counts


def _read_by_us(evidence: Evidence) -> Array:
    """When each record has been read at the latest: `read_skew_s` after it was acknowledged, or after the harness let it.

    What was not yet read when the harness kept the pipeline from reading is read once that is over, in any order.
    """
    acked_us, skew_us = evidence.sent["acked_us"], round(evidence.run.scenario.pipeline.read_skew_s * 1e6)
    read_by_us: Array = acked_us + skew_us
    for away in _away(evidence.run):
        end_us = round(min(away.end_s * 1e6, float(acked_us.max())))
        waits = (read_by_us >= away.start_s * 1e6) & (acked_us <= end_us)
        read_by_us = np.where(waits, np.maximum(read_by_us, end_us + skew_us), read_by_us)
    return read_by_us


def _away(run: Run) -> Iterator[Span]:
    """When the harness may have kept the pipeline from reading, in turn: before its first start, and from each fault until
    it has healed, but for those that it reads through."""
    ready_s = [event.t for event in run.of(Process) if event.event == "ready"]
    yield from (Span(0.0, first_s) for first_s in ready_s[:1])
    for event in run.of(FaultHealed):
        if event.fault.of_kind.reads_through:
            continue
        yield Span(event.at_s, float("inf") if event.healed_s is None else event.healed_s)


def expected_watermarks(evidence: Evidence, query: str) -> list[int]:
    """The watermark that each batch of a query must have run at, from what its predecessors read.

    The last is that of the batch that would follow the last.
    """
    sent, index = evidence.sent, evidence.batch_of[query]
    count = len(evidence.batches[query])
    newest: list[dict[str, int]] = [{} for _ in range(count)]
    for topic in QUERIES[query].reads:
        rows = (sent["topic"] == topic) & (index >= 0) & (index < count) & (sent["malformed"] == 0)
        latest = np.full(count, -1, dtype=np.int64)
        np.maximum.at(latest, index[rows], sent["event_time_ms"][rows])
        for number in np.flatnonzero(latest >= 0).tolist():
            newest[number][topic] = int(latest[number])
    recorded = [batch.watermark_ms for batch in evidence.batches[query]]

    def law(skips: set[int]) -> list[int]:
        read = [{} if number in skips else of_batch for number, of_batch in enumerate(newest)]
        return watermarks_after(read, QUERIES[query].reads, starts(evidence, query), WATERMARK_DELAY_S * 1000)

    skips: set[int] = set()
    for number in sorted(skipped(evidence, query)):
        # Whether a batch was skipped or run again is known from what follows.
        skips = max(({*skips, number}, skips), key=lambda chosen: _agree(law(chosen)[:-1], recorded))
    return law(skips)


def _agree(ours: Sequence[int], theirs: Sequence[int]) -> int:
    """How many are equal before the first that is not."""
    return next((at for at, (our, their) in enumerate(zip(ours, theirs, strict=True)) if our != their), len(ours))


def skipped(evidence: Evidence, query: str) -> set[int]:
    """The replayed batches that Spark's Parquet sink may have had already, committed without being run again.

    Their state and their rows are those of the first attempt, but their events move no watermark, and they report
    nothing dropped. Only a batch that was begun before a start and committed after it can be one.
    """
    if evidence.run.scenario.queries[query].sink != "parquet":
        return set()
    batches, begun = evidence.batches[query], started_s(evidence.run)
    return {
        batch.number
        for batch, after in pairwise(batches)
        if after.watermark_ms == batch.watermark_ms and any(batch.begun_s < at < batch.committed_s for at in begun)
    }


def starts(evidence: Evidence, query: str) -> set[int]:
    """The batches that were the first to be committed by a process of the pipeline."""
    begun = started_s(evidence.run)
    committed = np.array([batch.committed_s for batch in evidence.batches[query]])
    return {int(np.searchsorted(committed, at)) for at in begun}


def epoch_ms(iso: str) -> int:
    """ISO 8601 of a row as epoch ms; 0 for what is none."""
    try:
        return round(datetime.fromisoformat(iso).timestamp() * 1000)
    except (TypeError, ValueError):
        return 0


def started_s(run: Run) -> list[float]:
    """The epoch seconds at which the pipeline was started."""
    return [event.t for event in run.of(Process) if (event.name, event.event) == ("pipeline", "start")]


def restarts(run: Run) -> int:
    """How often the pipeline was started again."""
    return max(0, len(started_s(run)) - 1)


def losses(run: Run) -> list[Span]:
    """When executors were lost: between two looks of which the second did not find one that the first had found."""
    return [Span(before.t, after.t) for before, after in _looks(run) if set(before.executors) - set(after.executors)]


def executors_replaced(run: Run) -> int:
    """Executors that were not there at one look, and were at the next."""
    return sum(len(set(after.executors) - set(before.executors)) for before, after in _looks(run))


def _looks(run: Run) -> Iterator[tuple[Cluster, Cluster]]:
    """Each look at a Spark cluster and the next: before and after each fault of it, and before the pipeline is stopped."""
    return pairwise(run.of(Cluster))


def runs_again(evidence: Evidence, query: str) -> dict[int, float]:
    """How often each batch was run again, of those that can have been: a start of the pipeline lies between its offsets
    and its commit; or an executor was lost, and any of its tasks may have been tried again."""
    begun = started_s(evidence.run)
    starts_within = {
        batch.number: float(sum(batch.begun_s < at < batch.committed_s for at in begun))
        for batch in evidence.batches[query]
    }
    return starts_within | dict.fromkeys(repeated(evidence, query), float("inf"))


def repeated(evidence: Evidence, query: str) -> set[int]:
    """The batches that were under way when an executor was lost: tasks of theirs may have been run again.

    The rows and the state are those of one run, but Spark counts what each run of a task drops.
    """
    lost = losses(evidence.run)
    found = evidence.batches[query]
    return {
        batch.number
        for batch in found
        if any(batch.begun_s < at.end_s and at.start_s < batch.committed_s for at in lost)
    }
