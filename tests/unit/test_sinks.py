"""Result rows as they are read from a topic: whatever lies there becomes a row, and a right one a right row."""

from __future__ import annotations

import json
import os
import shutil
import threading
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.engines.spark import sinks
from harness.errors import RunError
from harness.job.clickstream.contract import QUERIES
from harness.judge import anomalies
from harness.kafka import topics
from harness.kafka.topics import Message
from harness.rundir import history
from harness.scenario import Output

VIEWS, REVENUE = QUERIES["page_views"], QUERIES["revenue"]
START, END = "2026-01-01T00:00:00.000Z", "2026-01-01T00:01:00.000Z"
COLUMNS = {"window_start": START, "window_end": END, "product_id": "prod_1", "category": "books"}
KEY = f"{START}|{END}|prod_1|books"
KEYLESS = Output(keyed=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text("a1é", max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=4,
)


def read(monkeypatch, query, value: bytes | None, key: bytes | None = b"", place: Output = KEYLESS):
    """The only row of a topic that holds one record."""
    message = Message(f"mine-{query.topic}", 0, 7, key, value, (), 1_000)
    monkeypatch.setattr(topics, "read", lambda bootstrap, names: [message])
    [row] = sinks.from_kafka("none", "mine-", query, place)
    return row


@pytest.mark.parametrize(
    ("key", "keyed", "wrong_key"),
    [
        pytest.param(KEY.encode(), True, None, id="its identity"),
        pytest.param(b"prod_1", True, "prod_1", id="another"),
        pytest.param(None, True, "", id="none"),
        pytest.param(b"prod_1", False, None, id="another, and none is promised"),
    ],
)
def test_record_key_is_row_identity(monkeypatch, key, keyed, wrong_key):
    """All columns but the measures, joined by a bar; another pipeline may promise no key."""
    value = json.dumps({**COLUMNS, "view_count": 3, "unique_users": 2}).encode()
    row = read(monkeypatch, VIEWS, value, key, Output(keyed=keyed))

    assert ((3, 2), "page-views-0@7", 1.0, wrong_key) == (row.values, row.where, row.at_s, row.wrong_key)


@given(value=st.binary(max_size=20) | st.dictionaries(st.sampled_from([*COLUMNS, "view_count", "total_revenue"]), JSON))
def test_any_record_becomes_a_row(tmp_path_factory, value):
    """Also what is no JSON, has other types, or numbers too large for any decimal."""
    whole = {**COLUMNS, "view_count": 1, "unique_users": 1, "transaction_count": 1, "total_revenue": 1}
    raw = (
        value if isinstance(value, bytes) else json.dumps(whole | {"avg_transaction": 1} | value, default=str).encode()
    )
    directory = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patched:
        rows = [read(patched, query, raw) for query in (VIEWS, REVENUE)]
    history.write_rows(directory, "page_views", rows)
    stored = pq.read_table(directory / "outputs" / "page_views.parquet").to_pydict()

    assert 2 == sum(map(len, anomalies.decoded(list(zip(*stored.values(), strict=True))).values()))


@pytest.mark.parametrize("number", ["1e400", "-1e99999", "NaN", "Infinity"])
def test_huge_number_becomes_a_row(monkeypatch, number):
    """It is no reason to end a run without a verdict."""
    value = (
        json.dumps({**COLUMNS, "transaction_count": 1, "avg_transaction": 1})[:-1] + f', "total_revenue": {number}}}'
    )

    assert read(monkeypatch, REVENUE, value.encode()).values


def test_parquet_times_keep_microseconds(tmp_path):
    """It stands in no right row, and is not cut off before it has been seen."""
    columns = {
        "window_start": pa.array([0, 1], pa.timestamp("us", "UTC")),
        "window_end": pa.array([60_000_000, 60_000_000], pa.timestamp("us")),
        "category": ["books", "books"],
        "transaction_count": [1, 1],
        "total_revenue": [1, 1],
        "avg_transaction": [1, 1],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    first, second = sinks.from_parquet(tmp_path, REVENUE, {})
    assert ("1970-01-01T00:00:00.000Z", "1970-01-01T00:01:00.000Z", "books") == first.key
    assert "1970-01-01T00:00:00.000001Z" == second.key[0]
    assert (1, "1.00", "1.0000") == first.values


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.unlink(), id="missing"),
        pytest.param(lambda path: path.write_bytes(b"PAR1"), id="cut off"),
    ],
)
def test_unreadable_file_is_evidence(tmp_path, damage):
    """Its rows are lost to everyone who reads the directory; that ends no run without a verdict."""
    (tmp_path / "_spark_metadata").mkdir()
    (tmp_path / "_spark_metadata" / "0").write_text('v1\n{"path": "file:///elsewhere/a.parquet", "action": "add"}\n')
    pq.write_table(pa.table({"n": [1]}), tmp_path / "a.parquet")
    damage(tmp_path / "a.parquet")

    [row] = sinks.from_parquet(tmp_path, REVENUE, {})
    assert ("a.parquet",) == row.key
    assert row.values[0].startswith("a file that cannot be read: ")


def test_unreadable_row_is_evidence(tmp_path):
    """As on Kafka: it ends no run, and keeps no other row from being compared."""
    columns = {
        "window_start": [START, START],
        "window_end": [END, END],
        "category": ["books", "games"],
        "transaction_count": [1, 1],
        "total_revenue": pa.array([Decimal(10) ** 30, Decimal(1)], pa.decimal128(38, 2)),
        "avg_transaction": [1, 1],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    unread, read = sinks.from_parquet(tmp_path, REVENUE, {})
    assert ("a.parquet#0",) == unread.key
    assert "1000000000000000000000000000000" in unread.values[0]
    assert (START, END, "games") == read.key


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param('v1\n{"path": "file:///x/a.par', id="in a line"),
        pytest.param('v1\n{"action": "add"}', id="without a path"),
    ],
)
def test_truncated_sink_log_is_named(tmp_path, text):
    """Which files are results is not known, while it grows or when it is read to the end."""
    log = tmp_path / "_spark_metadata"
    log.mkdir()
    (log / "0").write_text(text)

    for read in (sinks.Growing(tmp_path).rows, lambda: sinks.from_parquet(tmp_path, REVENUE, {})):
        with pytest.raises(RunError, match=f"^{log / '0'}: not a log of Spark's Parquet sink: "):
            read()


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T00:00:00Z", "2026-01-01 00:00:00", "2026-01-01T01:00:00.000000+01:00", "2026-01-01T00:00:00.000Z"],
)
def test_iso_8601_forms_are_equal(monkeypatch, text):
    """The contract says which moment, not how it is written."""
    value = json.dumps({**COLUMNS, "window_start": text, "view_count": 1, "unique_users": 1})

    assert START == read(monkeypatch, VIEWS, value.encode()).key[0]


def test_parquet_dead_letters_match_kafka(tmp_path):
    """Bytes as hexadecimal digits, topics without the prefix of the run."""
    columns = {
        "topic": ["mine-clickstream"],
        "partition": [0],
        "offset": [7],
        "value": [b"abc"],
        "reason": ["not json"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")

    [row] = sinks.from_parquet(tmp_path, QUERIES["dead_letter"], {}, "mine-")
    assert (("clickstream", 0, 7), ("616263", "not json")) == (row.key, row.values)


def test_null_and_empty_differ(monkeypatch):
    """A compacted topic deletes the one, and keeps the other."""
    letters = QUERIES["dead_letter"]

    assert ("", None) == tuple(read(monkeypatch, letters, value).values[0] for value in (b"", None))


def test_partition_column_may_be_path(tmp_path):
    """As in a directory that is partitioned by it."""
    folder = tmp_path / "revenue" / "category=home%20and%20garden"
    folder.mkdir(parents=True)
    columns = {"window_start": [START], "window_end": [END], "transaction_count": [1], "total_revenue": [1]}
    pq.write_table(pa.table(columns | {"avg_transaction": [1]}), folder / "a.parquet")
    log = tmp_path / "revenue" / "_spark_metadata"
    log.mkdir()
    uri = "file:///elsewhere/revenue/category=home%2520and%2520garden/a.parquet"
    (log / "0").write_text(f"v1\n{json.dumps({'path': uri, 'action': 'add'})}\n")

    [row] = sinks.from_parquet(tmp_path / "revenue", REVENUE, {})
    assert (START, END, "home and garden") == row.key


def test_temporary_files_may_vanish(tmp_path):
    """A batch of another writer is done, and its folder with it: that is no end of the run."""
    (tmp_path / "part-0.parquet").touch()
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            aside = tmp_path / "_temporary" / "0" / "task"
            aside.mkdir(parents=True)
            (aside / "part-1.parquet").touch()
            shutil.rmtree(tmp_path / "_temporary")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = [sinks._data_files(tmp_path) for _ in range(500)]
    finally:
        over.set()
        writer.join()

    assert all([tmp_path / "part-0.parquet"] == one for one in found)


def test_temporary_files_are_no_results(tmp_path):
    """A job that is killed leaves its staging for good, and readers pass over it."""
    for folder in (
        "batch=7",
        ".spark-staging-3f1c/batch=7",
        "_temporary/0/_temporary/attempt_1",
        "_day=1",
        ".tmp-batch=7",
    ):
        (tmp_path / folder).mkdir(parents=True)
        pq.write_table(pa.table({"n": [1]}), tmp_path / folder / "a.parquet")

    assert ["_day=1/a.parquet", "batch=7/a.parquet"] == [
        str(path.relative_to(tmp_path)) for path in sinks._data_files(tmp_path)
    ]


def test_compacted_entries_keep_times(tmp_path):
    """Spark deletes the logs that named the older files ten minutes later; the last of them is its own."""
    log = tmp_path / "_spark_metadata"
    log.mkdir()

    def add(name: str, written_s: int) -> str:
        return json.dumps({"path": f"file:///x/{name}.parquet", "action": "add", "modificationTime": written_s * 1000})

    for name, at_s, lines in (
        ("8", 180, [add("i", 179)]),
        ("9.compact", 200, [add("a", 2), add("i", 179), add("j", 199)]),
    ):
        (log / name).write_text("\n".join(["v1", *lines]) + "\n")
        os.utime(log / name, (at_s, at_s))

    assert {"a.parquet": 2.0, "i.parquet": 180.0, "j.parquet": 200.0} == dict(sinks._named_files(tmp_path))


def test_growing_sink_counts_logged_rows(tmp_path):
    """A batch without rows adds a log and a file, and no row; what a compact log takes up is not counted again."""
    log = tmp_path / "_spark_metadata"
    log.mkdir()
    growing = sinks.Growing(tmp_path)
    seen = [growing.rows()]
    named = []
    for number, rows in enumerate(([1, 2], [], [3])):
        pq.write_table(pa.table({"n": pa.array(rows, pa.int64())}), tmp_path / f"{number}.parquet")
        named.append(json.dumps({"path": f"file:///x/{number}.parquet", "action": "add"}))
        name, lines = ("2.compact", named) if number == 2 else (str(number), named[-1:])
        (log / name).write_text("\n".join(["v1", *lines]) + "\n")
        seen.append(growing.rows())

    assert [0, 2, 2, 3] == seen


def test_unlogged_directory_counts_files(tmp_path):
    """As that of a pipeline that appends to it."""
    growing = sinks.Growing(tmp_path)
    assert 0 == growing.rows()
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "a.parquet")

    assert 2 == growing.rows() == growing.rows()
