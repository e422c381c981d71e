"""How far the queries are behind the brokers, and what a consumer group is told of it."""

from __future__ import annotations

import pytest

from pipeline import broker, lag
from pipeline.broker import BrokerError

PLACES = {("clicks", 0): 10, ("clicks", 1): 20}


class Seen:
    """A gauge that remembers."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str, int], int] = {}
        self.failures = 0

    def lag(self, query: str, topic: str, partition: int, records: int) -> None:
        """Remember it."""
        self.records[query, topic, partition] = records

    def lag_failed(self) -> None:
        """Count it."""
        self.failures += 1


@pytest.fixture
def seen() -> Seen:
    """A gauge."""
    return Seen()


def batch(offsets: object) -> dict[str, object]:
    """Progress of a batch that ended at these offsets."""
    return {"sources": [{"endOffset": offsets}]}


def test_lag_is_what_brokers_have_and_no_batch_committed(seen):
    """A new partition lags with all of its records; topics of other queries are left out."""
    behind = lag.Lag({"views": PLACES}, seen, None)
    behind.compare({("clicks", 0): 15, ("clicks", 1): 19, ("clicks", 2): 3, ("buys", 0): 9})

    assert {("views", "clicks", 0): 5, ("views", "clicks", 1): 0, ("views", "clicks", 2): 3} == seen.records


@pytest.mark.parametrize(
    "offsets",
    [
        pytest.param({"clicks": {"0": 12}}, id="as an object"),
        pytest.param('{"clicks": {"0": 12}}', id="as text"),
    ],
)
def test_a_batch_moves_what_is_committed(seen, offsets):
    """A partition that the batch does not name stays where it was."""
    behind = lag.Lag({"views": PLACES}, seen, None)
    behind.batch("views", batch(offsets))
    behind.compare({("clicks", 0): 15, ("clicks", 1): 25})

    assert {("views", "clicks", 0): 3, ("views", "clicks", 1): 5} == seen.records


def test_a_query_without_a_source_offset_keeps_its_own(seen):
    """Spark reports none before the first batch."""
    behind = lag.Lag({"views": PLACES}, seen, None)
    behind.batch("views", batch(None))
    behind.compare(PLACES)

    assert {0} == set(seen.records.values())


def test_a_group_has_what_every_query_has_committed():
    """Of a partition that several queries read, the least."""
    committed = {"views": PLACES, "sessions": {("clicks", 0): 7, ("clicks", 1): 30}, "revenue": {("buys", 0): 1}}

    assert {("clicks", 0): 7, ("clicks", 1): 20, ("buys", 0): 1} == lag.of_group(committed)


@pytest.mark.parametrize(("group", "written"), [("watch", [10, 12]), (None, [])])
def test_a_group_is_written_where_it_has_changed(monkeypatch, seen, group, written):
    """And only where a group is named."""
    writes: list[int] = []
    monkeypatch.setattr(broker, "ends", lambda spark, admin, topics: {})
    monkeypatch.setattr(broker, "write_group", lambda spark, admin, group, offsets: writes.append(offsets["clicks", 0]))
    behind = lag.Lag({"views": PLACES}, seen, group)
    for offset in (10, 10, 12, 12):
        behind.batch("views", batch({"clicks": {"0": offset}}))
        behind.look(None, None, {"clicks"})

    assert written == writes


def test_a_group_alone_asks_for_no_ends(monkeypatch):
    """Nobody wants to know them."""
    monkeypatch.setattr(broker, "ends", lambda spark, admin, topics: pytest.fail("ends were asked for"))
    monkeypatch.setattr(broker, "write_group", lambda spark, admin, group, offsets: None)

    lag.Lag({"views": PLACES}, lag.Unmeasured(), "watch").look(None, None, {"clicks"})


def test_failures_are_counted_and_reported_once(capsys, seen):
    """Brokers that are down for an hour fill no log."""
    behind = lag.Lag({"views": PLACES}, seen, None)
    for _ in range(3):
        behind.failed(BrokerError("no broker answers"))

    assert 3 == seen.failures
    assert 1 == capsys.readouterr().err.count("no broker answers")
