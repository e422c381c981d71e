"""What must come out, batch by batch: the contract once more, in plain Python, an event at a time.

Written to be read against contract.md and the semantics of Spark that tests/spark/test_semantics.py holds; slower and smaller than
the pipeline, and sharing nothing with it. What it needs beside the records is Spark's own log: which
batch read each record, and at which watermark each batch ran. Records come in the order of their
partitions, so that of two copies the first is read first.

    late     by the watermark of the batch before:  window end ≤ W[b-1]    (page_views, revenue, conversions)
                                                   time + 30 min ≤ W[b-1] (sessions)
                                                   time ≤ W[b-1]          (join, deduplication)
    emitted  in the first batch whose own watermark has reached the end of the window or session
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from harness.job.clickstream.records import Click, Purchase, Rejected, iso, parse
from harness.job.lateness import Watermarks
from harness.model import Moment, Record

MINUTE_MS = 60_000
DELAY_MS = 5 * MINUTE_MS
HORIZON_MS = 10 * MINUTE_MS
GAP_MS = 30 * MINUTE_MS
FIVE_MS = 5 * MINUTE_MS

Key = tuple[Any, ...]
Rows = dict[Key, tuple[Any, ...]]
Batches = Mapping[str, int]
"""For each query that reads the record, the number of the batch that read it; a query that never read it is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Which of the pipeline's promised forms is judged: they differ in what is late, not in what is right."""

    conversions: str = "linear"
    deduplicate: bool = False


@dataclass(slots=True)
class Expected:
    """One query's answer.

    `rows`: identity → measures of every row that must have come out; `batch`: identity → the batch that
    emits it. `optional`: rows that may have come out as well (black box alone). `dropped`: batch → rows that
    its operators must report as dropped by the watermark. `counted`, `late_events` and `repeated` (dropped by deduplication) are numbers of records, `merged` of events that
    joined an open session. `moments`, of the black box alone: of each session id with an event that may count, the times
    of all its events, each with whether it must be in a row. `open` is the number of groups or sessions still held in
    state at the end, of `open_events` events.
    """

    rows: Rows = field(default_factory=dict)
    optional: Rows = field(default_factory=dict)
    moments: dict[str, list[Moment]] = field(default_factory=dict)
    batch: dict[Key, int] = field(default_factory=dict)
    dropped: dict[int, int] = field(default_factory=dict)
    counted: int = 0
    late_events: int = 0
    open: int = 0
    open_events: int = 0
    merged: int = 0
    repeated: int = 0

    def drop(self, batch: int, rows: int = 1) -> None:
        """Note rows that an operator of the batch drops."""
        self.dropped[batch] = self.dropped.get(batch, 0) + rows

    def emit(self, key: Key, values: tuple[Any, ...], batch: int) -> None:
        """Note a row and the batch that emits it."""
        self.rows[key] = values
        self.batch[key] = batch


class Reference:
    """Takes records with the batch that read each; `expected` then gives every row that must have come out."""

    def __init__(self, watermarks: Mapping[str, Watermarks], rules: Rules | None = None) -> None:
        rules = rules or Rules()
        self._queries = {
            "page_views": PageViews(watermarks["page_views"], rules),
            "revenue": Revenue(watermarks["revenue"], rules),
            "conversions": CONVERSIONS[rules.conversions](watermarks["conversions"], rules),
            "sessions": Sessions(watermarks["sessions"], rules),
        }
        self._letters = Expected()

    def add(self, record: Record, event: Click | Purchase | Rejected, batches: Batches) -> None:
        """Count one record wherever the contract counts it, by the queries that have read it."""
        match event:
            case Rejected(reasons):
                if "dead_letter" in batches:
                    key = (record.topic, record.partition, record.offset)
                    self._letters.rows[key] = (record.value.hex(), reasons)
                    self._letters.batch[key] = batches["dead_letter"]
            case Click():
                for name in ("page_views", "conversions", "sessions"):
                    if name in batches:
                        self._queries[name].click(event, batches[name], record.partition)
            case Purchase():
                for name in ("revenue", "conversions"):
                    if name in batches:
                        self._queries[name].purchase(event, batches[name])

    def expected(self) -> dict[str, Expected]:
        """Every row that the watermark has released, by query."""
        answers = {name: query.expected() for name, query in self._queries.items()}
        return answers | {"dead_letter": replace(self._letters, counted=len(self._letters.rows))}


class Windows:
    """Groups of a window that ends at a known moment: what is late for it, and when it closes.

    Order does not matter: a record counts unless its window's end is behind the watermark of the batch
    before its own, and whatever counts has been read by the batch that emits the window.
    """

    def __init__(self, watermarks: Watermarks, rules: Rules) -> None:
        self.watermarks = watermarks
        self.rules = rules
        self.answer = Expected()
        self._dropped: set[tuple[int, Key]] = set()
        self._held: dict[str, int] = {}

    def counts(self, end_ms: int, batch: int, group: Key | None) -> bool:
        """Whether an event of this group is in time; a late one is noted, once a group and batch.

        Spark aggregates within a batch before it looks at the watermark, so it reports dropped groups,
        not dropped events; group None is for operators that see each event.
        """
        if end_ms > self.watermarks.before(batch):
            self.answer.counted += 1
            return True
        self.answer.late_events += 1
        if group is None:
            self.answer.drop(batch)
        elif (batch, group) not in self._dropped:
            self._dropped.add((batch, group))
            self.answer.drop(batch)
        return False

    def counts_once(self, end_ms: int, batch: int, group: Key, event: Click | Purchase) -> bool:
        """As `counts`, but with deduplication the event is late by its own time, before any grouping."""
        if self.rules.deduplicate:
            return self.counts(event.at_ms, batch, None) and self._is_first(event, batch)
        return self.counts(end_ms, batch, group)

    def _is_first(self, event: Click | Purchase, batch: int) -> bool:
        """`dropDuplicatesWithinWatermark`: an identity is held until the watermark reaches time + delay."""
        held = self._held.get(event.identity)
        if held is not None and held > self.watermarks.before(batch):
            self.answer.repeated += 1
            self.answer.counted -= 1
            return False
        self._held[event.identity] = event.at_ms + DELAY_MS
        return True

    def close(self, end_ms: int, key: Key, values: tuple[Any, ...], events: int, groups: int = 1) -> None:
        """Emit the row in the first batch whose watermark has reached the end; else it is still open."""
        batch = self.watermarks.first_at(end_ms)
        if batch is None:
            self.answer.open += groups
            self.answer.open_events += events
        else:
            self.answer.emit(key, values, batch)

    def click(self, click: Click, batch: int, partition: int) -> None:
        """Count a click."""
        raise NotImplementedError

    def purchase(self, purchase: Purchase, batch: int) -> None:
        """Count a purchase."""
        raise NotImplementedError

    def expected(self) -> Expected:
        """The answer."""
        raise NotImplementedError


class PageViews(Windows):
    """Events and distinct users of a minute, product and category."""

    def __init__(self, watermarks: Watermarks, rules: Rules) -> None:
        super().__init__(watermarks, rules)
        self._groups: dict[tuple[int, str, str], tuple[list[int], set[str]]] = defaultdict(lambda: ([0], set()))

    def click(self, click: Click, batch: int, partition: int) -> None:
        minute = click.at_ms // MINUTE_MS
        group = (minute, click.product, click.category)
        if self.counts_once((minute + 1) * MINUTE_MS, batch, group, click):
            views, users = self._groups[group]
            views[0] += 1
            users.add(click.user)

    def expected(self) -> Expected:
        for (minute, product, category), (views, users) in self._groups.items():
            key = (*_window(minute, MINUTE_MS), product, category)
            self.close((minute + 1) * MINUTE_MS, key, (views[0], len(users)), views[0])
        return self.answer


class Revenue(Windows):
    """Transactions, their sum and their mean of five minutes and a category."""

    def __init__(self, watermarks: Watermarks, rules: Rules) -> None:
        super().__init__(watermarks, rules)
        self._groups: dict[tuple[int, str], list[Decimal]] = defaultdict(list)

    def purchase(self, purchase: Purchase, batch: int) -> None:
        five = purchase.at_ms // FIVE_MS
        if self.counts_once((five + 1) * FIVE_MS, batch, (five, purchase.category), purchase):
            self._groups[five, purchase.category].append(purchase.amount)

    def expected(self) -> Expected:
        for (five, category), amounts in self._groups.items():
            total = sum(amounts, Decimal(0)).quantize(Decimal("0.01"))
            key = (*_window(five, FIVE_MS), category)
            values = (len(amounts), total, average(total, len(amounts)))
            self.close((five + 1) * FIVE_MS, key, values, len(amounts))
        return self.answer


def average(total: Decimal, count: int) -> Decimal:
    """A mean with two places more than its sum."""
    return (total / count).quantize(Decimal("0.0001"), ROUND_HALF_UP)


class LinearConversions(Windows):
    """Clicks and those that converted, of five minutes of the click and a product; linear form.

    A click is late with its window; a purchase is put into each window whose clicks it can convert, and
    is late for each of them apart. With deduplication a window counts an event id once.
    """

    def __init__(self, watermarks: Watermarks, rules: Rules) -> None:
        super().__init__(watermarks, rules)
        self._clicks: dict[tuple[int, str, str], list[tuple[int, str]]] = defaultdict(list)
        self._purchases: dict[tuple[int, str, str], list[int]] = defaultdict(list)

    def click(self, click: Click, batch: int, partition: int) -> None:
        if self._in_time(click.at_ms // FIVE_MS, click, batch):
            self._clicks[click.at_ms // FIVE_MS, click.product, click.user].append((click.at_ms, click.identity))

    def purchase(self, purchase: Purchase, batch: int) -> None:
        own = purchase.at_ms // FIVE_MS
        for five in range(own - HORIZON_MS // FIVE_MS, own + 1):
            if self._in_time(five, purchase, batch):
                self._purchases[five, purchase.product, purchase.user].append(purchase.at_ms)

    def _in_time(self, five: int, event: Click | Purchase, batch: int) -> bool:
        group = (five, event.product, event.user)
        return self.counts((five + 1) * FIVE_MS + HORIZON_MS, batch, group)

    def expected(self) -> Expected:
        totals: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0, 0])
        for group in self._clicks.keys() | self._purchases.keys():
            clicks, purchases = _times(self._clicks.get(group, []), self.rules), sorted(self._purchases.get(group, []))
            total = totals[group[0], group[1]]
            total[0] += len(clicks)
            total[1] += sum(_converted(click, purchases) for click in clicks)
            total[2] += 1
        for (five, product), (clicks_, bought, groups) in totals.items():
            end = (five + 1) * FIVE_MS + HORIZON_MS
            if clicks_:
                key = (*_window(five, FIVE_MS), product)
                self.close(end, key, (clicks_, bought, bought / clicks_), clicks_, groups)
            elif self.watermarks.first_at(end) is None:
                self.answer.open += groups
        return self.answer


class JoinedConversions(Windows):
    """The same rows from the left-outer join: there an event is late by its own time."""

    def __init__(self, watermarks: Watermarks, rules: Rules) -> None:
        super().__init__(watermarks, rules)
        self._clicks: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
        self._purchases: dict[tuple[str, str], list[int]] = defaultdict(list)

    def click(self, click: Click, batch: int, partition: int) -> None:
        if self._in_time(click, batch):
            self._clicks[click.user, click.product].append((click.at_ms, click.identity))

    def purchase(self, purchase: Purchase, batch: int) -> None:
        if self._in_time(purchase, batch):
            self._purchases[purchase.user, purchase.product].append(purchase.at_ms)

    def _in_time(self, event: Click | Purchase, batch: int) -> bool:
        return self.counts(event.at_ms, batch, None)

    def expected(self) -> Expected:
        totals: dict[tuple[int, str], list[int]] = defaultdict(lambda: [0, 0])
        for who, clicks in self._clicks.items():
            purchases = sorted(self._purchases.get(who, ()))
            for click in _times(clicks, self.rules):
                total = totals[click // FIVE_MS, who[1]]
                total[0] += 1
                total[1] += _converted(click, purchases)
        for (five, product), (clicks_, bought) in totals.items():
            # The join lets the watermark on to the aggregation only as far as it can no longer emit a click.
            end = (five + 1) * FIVE_MS + HORIZON_MS + 1
            self.close(end, (*_window(five, FIVE_MS), product), (clicks_, bought, bought / clicks_), clicks_)
        return self.answer


CONVERSIONS = {"linear": LinearConversions, "join": JoinedConversions}


class Sessions(Windows):
    """Periods of one session id. Here order matters: what was emitted can no longer be merged with."""

    def __init__(self, watermarks: Watermarks, rules: Rules) -> None:
        super().__init__(watermarks, rules)
        self._events: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def click(self, click: Click, batch: int, partition: int) -> None:
        group = (partition, click.session, click.at_ms)
        if self.counts_once(click.at_ms + GAP_MS, batch, group, click):
            self._events[click.session].append((batch, click.at_ms))

    def expected(self) -> Expected:
        for session, events in self._events.items():
            self.replay(session, sorted(events))
        return self.answer

    def replay(self, session: str, events: Sequence[tuple[int, int]]) -> None:
        """Take the (batch, time) of a session's events in order of arrival, and emit or hold what becomes of them."""
        held: list[tuple[int, int, int]] = []
        last = -1
        for batch, at_ms in events:
            if batch != last:
                held = self._release(session, held, last, batch)
                last = batch
            joined = [period for period in held if period[0] - GAP_MS <= at_ms <= period[1] + GAP_MS]
            rest = [period for period in held if period not in joined]
            self.answer.merged += bool(joined)
            held = [*rest, _merged([*joined, (at_ms, at_ms, 1)])]
        self._release(session, held, last, None)

    def _release(
        self, session: str, held: list[tuple[int, int, int]], last: int, until: int | None
    ) -> list[tuple[int, int, int]]:
        """Emit what closes in batches `last` … `until` - 1 (None is the end); the rest is still held."""
        kept = []
        for start, end, count in held:
            closes = self.watermarks.first_at(end + GAP_MS)
            if closes is None or (until is not None and max(closes, last) >= until):
                kept.append((start, end, count))
                continue
            values = (iso(end), count, (end - start) / 1000, "completed")
            self.answer.emit((session, iso(start)), values, max(closes, last))
        if until is None:
            self.answer.open += len(kept)
            self.answer.open_events += sum(count for _, _, count in kept)
        return kept


def _merged(periods: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    return (
        min(period[0] for period in periods),
        max(period[1] for period in periods),
        sum(period[2] for period in periods),
    )


def _converted(click_ms: int, purchases: list[int]) -> bool:
    """The user's first purchase no earlier than the click came at most 10 minutes after it."""
    at = bisect_left(purchases, click_ms)
    return at < len(purchases) and purchases[at] <= click_ms + HORIZON_MS


def _window(number: int, length_ms: int) -> tuple[str, str]:
    return iso(number * length_ms), iso((number + 1) * length_ms)


def _times(clicks: Sequence[tuple[int, str]], rules: Rules) -> list[int]:
    """The clicks' times; with deduplication each event id once."""
    if rules.deduplicate:
        return list({identity: at_ms for at_ms, identity in clicks}.values())
    return [at_ms for at_ms, _ in clicks]


def of_one_batch(records: Iterable[Record], rules: Rules | None = None) -> dict[str, Expected]:
    """What must come of records that are all read in the first batch, so that none is late."""
    events = [(record, parse(record)) for record in records]
    newest = {"clickstream": -1, "transactions": -1}
    for record, event in events:
        if not isinstance(event, Rejected):
            newest[record.topic] = max(newest[record.topic], event.at_ms)
    clicks, both = newest["clickstream"] - DELAY_MS, min(newest.values()) - DELAY_MS
    ends = {"page_views": clicks, "sessions": clicks, "revenue": newest["transactions"] - DELAY_MS, "conversions": both}
    reference = Reference({query: Watermarks((0, max(0, end))) for query, end in ends.items()}, rules)
    for record, event in events:
        reference.add(record, event, dict.fromkeys((*ends, "dead_letter"), 0))
    return reference.expected()
