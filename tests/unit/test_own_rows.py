"""Rows of declared queries as they are in Parquet sinks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

from harness.engines.spark import rows
from harness.job.declared import Query, Sink

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
