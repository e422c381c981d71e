"""Rows of declared queries: as they are in Parquet sinks, and held against those expected."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

from harness.engines.spark import rows
from harness.engines.spark.offset_log import Batch
from harness.job.declared import Query, Sink
from harness.job.relations import Answer, ExpectedRow
from harness.judge.own_rows import Seen, hold

QUERY = Query(name="paid", reads={"orders": "none"}, sink=Sink(parquet="paid"))


def test_a_parquet_row_keeps_digits_and_times(tmp_path):
    """Spark's times in ns are µs, in UTC; a decimal has all its digits; a null is there."""
    folder = tmp_path / "paid"
    folder.mkdir()
    at = datetime(2026, 1, 1, 10, 0, 0, 1000, tzinfo=UTC)
    columns = {
        "at": pa.array([at], pa.timestamp("ns", "UTC")),
        "amount": pa.array([Decimal("12345678901234.10")]),
        "payment": pa.array([None], pa.string()),
    }
    pq.write_table(pa.table(columns), folder / "part-0.parquet")
    [found] = rows.collect(QUERY, "none", tmp_path)
    assert {"at": "2026-01-01T10:00:00.001000Z", "amount": Decimal("12345678901234.10"), "payment": None} == json.loads(
        found.text, parse_float=Decimal
    )
    assert "part-0.parquet#0" == found.where


def test_a_file_that_is_cut_is_a_row(tmp_path):
    """It is evidence, not an error."""
    folder = tmp_path / "paid"
    folder.mkdir()
    (folder / "part-0.parquet").write_bytes(b"PAR1")
    [found] = rows.collect(QUERY, "none", tmp_path)
    assert "cannot be read" in found.text


def test_equal_rows_are_matched_in_their_order():
    """Of two that are equal and due in different batches, whichever is found first in the sink."""
    batches = [Batch(number, {}, 0, 10.0 * number + 9, 10.0 * number) for number in range(3)]
    answer = Answer({"k": pa.string()}, [ExpectedRow({"k": "a"}, 2), ExpectedRow({"k": "a"}, 0)])
    seen = [Seen({"k": "a"}, "", "late", 25.0), Seen({"k": "a"}, "", "early", 5.0)]
    for found in (seen, seen[::-1]):
        held = hold(QUERY, answer, found, batches, 0)
        assert (2, 2, ()) == (held.expected, held.right, held.anomalies)


def test_a_row_before_its_batch_is_premature():
    """It is there before the batch that emits it has begun."""
    batches = [Batch(number, {}, 0, 10.0 * number + 9, 10.0 * number) for number in range(3)]
    answer = Answer({"k": pa.string()}, [ExpectedRow({"k": "a"}, 2)])
    [anomaly] = hold(QUERY, answer, [Seen({"k": "a"}, "", "early", 5.0)], batches, 0).anomalies
    assert ("premature_row", 2) == (anomaly.kind, anomaly.batch)
