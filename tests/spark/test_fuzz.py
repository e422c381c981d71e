"""Mutations of valid records: oracle and pipeline give the same verdict and a right reason on each."""

from __future__ import annotations

import json
import time
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from harness.job.clickstream import events as workload
from harness.job.clickstream.events import Workload
from harness.job.clickstream.records import Rejected, parse
from harness.model import Record
from pipeline import transforms
from pipeline.schema import CLICKSTREAM, TRANSACTIONS

pytestmark = pytest.mark.spark

BASES = {
    topic: json.loads(workload.batch(Workload(clickstream_share=share), 7, 100, 0, 1).values[0])
    for topic, share in ((CLICKSTREAM, 1.0), (TRANSACTIONS, 0.0))
}
NUMBERS = ["0", "1", "5", "-1", "1e2", "1E+2", "0e0", "1e-2", "100", "29.999", "33.333333333333", "1e400", "01", "1.", "-0",
    "2147483648", "9999999999.99", "1234567890123e-3", "1.10000000000000000000000000000001e0", "1e-400", "0.10e1"]  # fmt: skip
TEXTS = ['"x"', '""', '"\\ud83d"', '"\\ud83d\\ude00"', '"\\ude00"', '"\\\\ud83d"', '"\\ud83d\\\\ude00"', '"\\""', '"\\"amount\\":1"',
    '"é"', '"\\u0000"', '"view"', '"{["', '"\\x"', '"😀"']  # fmt: skip
TIMES = [f'"{day}{clock}{offset}"'
    for day in ("2026-01-01", "0000-01-01", "0001-01-01", "1970-01-01", "1969-12-31", "2261-12-31", "2262-01-01", "9999-12-31", "2026-02-29")
    for clock in ("T00:00:00", " 00:00:00.001", "T24:00:00", "T23:59:59.999999", "T23:59:60")
    for offset in ("Z", "", "+00:00", "-18:00", "+18:00", "+05:30", "-00:01")]  # fmt: skip
OTHERS = ["null", "true", "[]", "{}", '{"amount":1e2}', '{"quantity":5,"a":[1,{"amount":3e-9}]}', "[" * 99 + "]" * 99, "[" * 100 + "]" * 100,
    '{"a":' * 99 + "1" + "}" * 99, '{"a":' * 100 + "1" + "}" * 100, "NaN", "[1,]", "[[],[],{}]"]  # fmt: skip
BYTES = [
    b"\xff",
    b"\xed\xa0\x80",
    b"\x00",
    b"\xc0\x80",
    b"\\",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b" ",
    b"\x0b",
    b"\xef\xbb\xbf",
    b",",
    b":",
    b"\xf0\x9f\x98\x80",
]


def mutated(rng: Random, base: dict) -> bytes:
    """A record with up to three odd or doubled fields, written in one of several ways, now and then damaged."""
    pairs = [(json.dumps(name), json.dumps(value)) for name, value in base.items()]
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(pairs))
        name, value = pairs[at]
        pool = [NUMBERS, TEXTS, TIMES, OTHERS][rng.randrange(4)]
        if name == '"timestamp"' and rng.random() < 0.7:
            pool = TIMES
        if name in ('"amount"', '"quantity"') and rng.random() < 0.7:
            pool = NUMBERS
        odd = pool[rng.randrange(len(pool))]
        action = rng.randrange(5)
        if action == 0:
            pairs.insert(rng.randrange(len(pairs) + 1), (name, odd))
        elif action == 1:
            pairs.insert(rng.randrange(len(pairs) + 1), ('"extra"', odd))
        elif action == 2:
            pairs[at] = (f'"\\u{ord(name[1]):04x}{name[2:]}', value)
        else:
            pairs[at] = (name, odd)
    space = ["", " ", "\n\t"][rng.randrange(3)]
    text = "{" + f",{space}".join(f"{name}{space}:{value}" for name, value in pairs) + "}"
    raw = text.encode()
    if rng.random() < 0.1:
        at = rng.randrange(len(raw) + 1)
        raw = raw[:at] + BYTES[rng.randrange(len(BYTES))] + raw[at + rng.randrange(2) :]
    return raw


def verdicts(spark, path, topic: str, values: list[bytes]) -> tuple[dict, dict]:
    """Offset → reason of what the pipeline rejects, offset → event time of what it counts."""
    count = len(values)
    columns = {
        "key": pa.array([b"k"] * count),
        "value": pa.array(values, pa.binary()),
        "topic": [topic] * count,
        "partition": pa.array([0] * count, pa.int32()),
        "offset": pa.array(range(count), pa.int64()),
    }
    pq.write_table(pa.table(columns), path)
    frame = spark.read.parquet(str(path))
    rejected = transforms._rejected(frame, topic).select("offset", "reason").collect()
    counted = transforms.valid(frame, topic).select("offset", F.unix_millis("timestamp")).collect()
    return dict(map(tuple, rejected)), dict(map(tuple, counted))


@pytest.mark.parametrize("topic", BASES)
def test_oracle_and_pipeline_agree_on_mutations(spark, tmp_path, topic):
    """Verdict, reason and event time, on as many records as half a minute allows, 20,000 at least."""
    rng, until, size, seen = Random(f"23 {topic}"), time.monotonic() + 28, 20_000, 0
    wrong: list[tuple] = []
    while time.monotonic() < until:
        values = [mutated(rng, BASES[topic]) for _ in range(size)]
        rejected, counted = verdicts(spark, tmp_path / f"{seen}.parquet", topic, values)
        for offset, value in enumerate(values):
            event = parse(Record(topic, 0, offset, value))
            if isinstance(event, Rejected):
                right = rejected.get(offset) in event.reasons and offset not in counted
            else:
                right = counted.get(offset) == event.at_ms and offset not in rejected
            if not right:
                wrong.append((len(value), value, event, rejected.get(offset), counted.get(offset)))
        seen += size
    print(f"{topic}: {seen} records, {len(wrong)} mismatches")
    assert seen
    assert [] == sorted(wrong, key=lambda mismatch: mismatch[:2])[:5]
